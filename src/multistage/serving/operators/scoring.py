"""Stage three: the ranker scores every candidate of every user, in one call."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.serving.catalog import Context, popular_products, read_catalog
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator
from multistage.serving.request import FallbackStatus
from multistage.serving.saved_model import SavedModel


class ScoreCandidates(ServingOperator):
    """Joins user, product and context, and calls the ranker once for the whole request.

    The names of the ranker's inputs select their columns: of the products, of the context, or of
    the table, the latter with one value per user or per candidate. The products' features come from
    the columnar snapshot that was exported with the index. A user without features keeps the
    popular products in their order: the score is then each product's share of all purchases.
    """

    artifacts = ("ranker", "item_features", "popularity", "context")

    def __init__(self, candidates: int, exports: Path | None = None) -> None:
        """Score ``candidates`` products per user."""
        self.candidates = candidates
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Load the ranker, the products' columns and the code of the request's time."""
        self._ranker = SavedModel(exports / "ranker")
        self._catalog = read_catalog(exports / "item_features")
        self._context = Context.read(exports / "context")
        popularity = popular_products(exports / "popularity")
        self._share = np.zeros(self._catalog.ids.size + 1, "float32")
        self._share[self._catalog.positions(popularity.ids)] = popularity.share

    def adds(self) -> Schema:
        """Return ``candidate_scores``; NaN where there is no product."""
        return Schema(
            [ColumnSchema("candidate_scores", dtype="float32", dims=(None, self.candidates))]
        )

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the scores, shape (users, candidates)."""
        ids = table["candidate_ids"].values
        positions = self._catalog.positions(ids)
        context = self._context.encode(table["time"].values)
        columns = {}
        for name in self._ranker.inputs:
            if name in self._catalog.features:
                columns[name] = self._catalog.features[name][positions]
                continue
            column = context[name] if name in context else table[name].values
            # One value per user, or already one per candidate, such as tower_score
            columns[name] = column if column.ndim == 2 else column[:, None]
        scores = self._ranker(columns, positions.shape)[..., 0]
        popular = table["fallback_status"].values != FallbackStatus.PERSONAL.value
        scores[popular] = self._share[positions[popular]]
        scores[ids == NO_PRODUCT] = np.nan
        return {"candidate_scores": scores}
