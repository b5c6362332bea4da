"""Stage one: one query vector per user, and the products nearest to it."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.features import EASE
from multistage.features.candidates import fuse, top_k
from multistage.serving.catalog import popular_products, read_catalog
from multistage.serving.ease_scores import ease_scores
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator
from multistage.serving.request import FallbackStatus
from multistage.serving.saved_model import SavedModel


class EncodeUsers(ServingOperator):
    """Runs the query tower on the users' features."""

    artifacts = ("query_tower",)

    def load(self, exports: Path) -> None:
        """Load the query tower."""
        self._tower = SavedModel(exports / "query_tower")
        self.dim = self._tower.output_width

    def adds(self) -> Schema:
        """Return ``user_vector``, one row of ``dim`` numbers per user."""
        return Schema([ColumnSchema("user_vector", dtype="float32", dims=(None, self.dim))])

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the users' vectors."""
        return {
            "user_vector": self._tower({name: table[name].values for name in self._tower.inputs})
        }


class RetrieveCandidates(ServingOperator):
    """Takes candidates from two sources for each user: the FAISS index, and EASE on purchases.

    Their lists are fused by reciprocal rank. Users without features get popular products. The depth
    of the search is fixed: a user's candidates do not depend on the other users in the request. The
    EASE scores of all products are passed on, because the ranker reads them too.
    """

    artifacts = ("index", "popularity", "ease", "item_features")

    def __init__(self, depth: int, exports: Path | None = None) -> None:
        """Search ``depth`` products per user: more than are needed, since some are filtered."""
        self.depth = depth
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read the index, the EASE weights and the popular products."""
        import faiss

        # Above this many queries FAISS calls BLAS, which adds up in another order: equal users
        # would get scores that differ in the last bit, by the size of the request.
        faiss.cvar.distance_compute_blas_threshold = 1 << 30
        # One search is far shorter than waking a second thread.
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(exports / "index" / "index.faiss"))
        self._weights = EASE.load(exports / "ease" / "bought.npz").weights
        self._catalog = read_catalog(exports / "item_features")
        popular = popular_products(exports / "popularity").ids[: self.depth]
        self._popular = np.full(self.depth, NO_PRODUCT, "int64")
        self._popular[: popular.size] = popular

    def adds(self) -> Schema:
        """Return the candidates, best first (-1 where there are too few), and the scores of all."""
        return Schema(
            [
                ColumnSchema("candidate_ids", dtype="int64", dims=(None, self.depth)),
                ColumnSchema("ease_scores", dtype="float32", dims=(None, None)),
            ]
        )

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the candidates, (users, depth), and the EASE scores, (users, products)."""
        _, nearest = self._index.search(table["user_vector"].values, self.depth)
        bought, offsets = table["bought"].values, table["bought"].offsets
        scores = ease_scores(
            self._weights, self._catalog.positions(bought), offsets[:-1], offsets[1:]
        )
        lists = [self._catalog.positions(nearest), top_k(scores, self.depth, above=0.0)]
        positions, _ = fuse(lists, self.depth)
        ids = np.where(positions >= 0, self._catalog.ids[positions], NO_PRODUCT)
        ids[table["fallback_status"].values != FallbackStatus.PERSONAL.value] = self._popular
        return {"candidate_ids": ids, "ease_scores": scores}
