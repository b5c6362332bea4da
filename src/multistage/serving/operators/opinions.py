"""Between filter and ranker: what each source of candidates thinks of every candidate."""

from pathlib import Path

import numpy as np
import pandas as pd
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.features import Neighbours
from multistage.features.candidates import list_features
from multistage.serving.catalog import read_catalog
from multistage.serving.neighbours import neighbour_scores
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator

NEWEST = 5  # purchases that count as recent
SOURCES = ("tower", "bought", "recent", "touched", "popular")


class RateCandidates(ServingOperator):
    """Adds the scores and ranks that the sources give the candidates, as lab 4's ranker reads them.

    The five sources: the two towers; the neighbours of all that the user bought, of the newest
    purchases, and of all that they touched; popularity.
    """

    artifacts = ("item_embeddings", "neighbours", "popularity", "item_features")
    drops = ("user_vector", "neighbour_scores")

    def __init__(self, candidates: int, exports: Path | None = None) -> None:
        """Rate ``candidates`` products a user."""
        self.candidates = candidates
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read the products' vectors, the neighbours and the purchases of each product."""
        self._catalog = read_catalog(exports / "item_features")
        embeddings = pd.read_parquet(exports / "item_embeddings" / "item_embeddings.parquet")
        embeddings = embeddings.set_index("product_id")["embedding"].loc[self._catalog.ids]
        self._vectors = np.stack(embeddings.to_list()).astype("float32")
        self._bought = Neighbours.load(exports / "neighbours" / "bought.npz").weights
        self._touched = Neighbours.load(exports / "neighbours" / "touched.npz").weights
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
            "bought": table["neighbour_scores"].values[users, positions],
            "recent": neighbour_scores(self._bought, bought, newest, ends)[users, positions],
            "touched": neighbour_scores(self._touched, seen, first, last)[users, positions],
            "popular": self._popular[positions],
        }
        return list_features(scores, there)
