"""Stage one: a query vector a user, and the products nearest to it."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.serving.catalog import popular_products
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator
from multistage.serving.request import Mark
from multistage.serving.saved_model import SavedModel


class EncodeUsers(ServingOperator):
    """Runs the query tower on the users' features."""

    artifacts = ("query_tower",)

    def load(self, exports: Path) -> None:
        """Load the query tower."""
        self._tower = SavedModel(exports / "query_tower")
        self.dim = self._tower.output_width

    def adds(self) -> Schema:
        """Return ``user_vector``, one row of ``dim`` numbers a user."""
        return Schema([ColumnSchema("user_vector", dtype="float32", dims=(None, self.dim))])

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the users' vectors."""
        return {
            "user_vector": self._tower({name: table[name].values for name in self._tower.inputs})
        }


class RetrieveCandidates(ServingOperator):
    """Searches the FAISS index for each user apart; users without features get popular products.

    The depth of the search is fixed: a user's candidates depend on nobody else in the request.
    """

    artifacts = ("index", "popularity")
    drops = ("user_vector",)

    def __init__(self, depth: int, exports: Path | None = None) -> None:
        """Search ``depth`` products a user: the candidates wanted, and spare ones to filter."""
        self.depth = depth
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read the index and the popular products."""
        import faiss

        # Above this many queries FAISS calls BLAS, which adds up in another order: equal users
        # would get scores that differ in the last bit, by the size of the request.
        faiss.cvar.distance_compute_blas_threshold = 1 << 30
        # One search is far shorter than waking a second thread.
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(exports / "index" / "index.faiss"))
        popular = popular_products(exports / "popularity").ids[: self.depth]
        self._popular = np.full(self.depth, NO_PRODUCT, "int64")
        self._popular[: popular.size] = popular

    def adds(self) -> Schema:
        """Return the candidates, best first, and their scores; -1 where the index has too few."""
        return Schema(
            [
                ColumnSchema("candidate_ids", dtype="int64", dims=(None, self.depth)),
                ColumnSchema("retrieval_score", dtype="float32", dims=(None, self.depth)),
            ]
        )

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the candidates and their scores, shape (users, depth); popular ones score 0."""
        mark = table["mark"].values
        personal = mark == Mark.PERSONAL
        ids = np.repeat(self._popular[None], mark.size, axis=0)
        scores = np.zeros(ids.shape, "float32")
        if personal.any():
            vectors = table["user_vector"].values[personal]
            scores[personal], ids[personal] = self._index.search(vectors, self.depth)
            scores[ids == NO_PRODUCT] = 0.0  # FAISS writes the lowest of all numbers there
        return {"candidate_ids": ids, "retrieval_score": scores}
