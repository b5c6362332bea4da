"""Between filter and ranker: the score and rank that each source gives every candidate."""

from pathlib import Path

import numpy as np
import pandas as pd
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.features import EASE
from multistage.features.candidates import list_features
from multistage.serving.catalog import read_catalog
from multistage.serving.ease_scores import ease_scores
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator

NEWEST = 5  # purchases that count as recent
SOURCES = ("tower", "bought", "recent", "touched", "popular")


class AddRetrievalScores(ServingOperator):
    """Adds the scores and ranks that the sources give the candidates, as lab 4's ranker reads them.

    The five sources: the two towers; EASE on all that the user bought, on their newest
    purchases, and on all that they touched; popularity.
    """

    artifacts = ("item_embeddings", "ease", "popularity", "item_features")
    drops = ("user_vector", "ease_scores")

    def __init__(self, candidates: int, exports: Path | None = None) -> None:
        """Describe ``candidates`` products per user."""
        self.candidates = candidates
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read the products' vectors, the EASE weights and the purchases of each product."""
        self._catalog = read_catalog(exports / "item_features")
        embeddings = pd.read_parquet(exports / "item_embeddings" / "item_embeddings.parquet")
        embeddings = embeddings.set_index("product_id")["embedding"].loc[self._catalog.ids]
        self._vectors = np.stack(embeddings.to_list()).astype("float32")
        self._bought = EASE.load(exports / "ease" / "bought.npz").weights
        self._touched = EASE.load(exports / "ease" / "touched.npz").weights
        popularity = pd.read_parquet(exports / "popularity" / "popularity.parquet")
        purchases = popularity.set_index("product_id")["purchases"].loc[self._catalog.ids]
        self._popular = np.log1p(purchases.to_numpy("float32"))

    def adds(self) -> Schema:
        """Return ``<source>_score`` and ``<source>_rank``, (users, candidates)."""
        return Schema(
            [
                ColumnSchema(f"{source}_{what}", dtype="float32", dims=(None, self.candidates))
                for source in SOURCES
                for what in ("score", "rank")
            ]
        )

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the columns; see :func:`multistage.features.candidates.list_features`."""
        ids = table["candidate_ids"].values
        there = ids != NO_PRODUCT
        positions = np.maximum(self._catalog.positions(ids), 0)
        bought, seen = (self._catalog.positions(table[name].values) for name in ("bought", "seen"))
        starts, ends = table["bought"].offsets[:-1], table["bought"].offsets[1:]
        newest = np.maximum(starts, ends - NEWEST)
        first, last = table["seen"].offsets[:-1], table["seen"].offsets[1:]
        users = np.arange(len(ids))[:, None]
        vectors = self._vectors[positions]
        scores = {
            "tower": np.einsum("ud,ucd->uc", table["user_vector"].values, vectors),
            "bought": table["ease_scores"].values[users, positions],
            "recent": ease_scores(self._bought, bought, newest, ends)[users, positions],
            "touched": ease_scores(self._touched, seen, first, last)[users, positions],
            "popular": self._popular[positions],
        }
        return list_features(scores, there)
