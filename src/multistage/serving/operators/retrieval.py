"""Stage one: a query vector a user, and the products nearest to it."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.features import Neighbours
from multistage.features.candidates import fuse, top_k
from multistage.serving.catalog import popular_products, read_catalog
from multistage.serving.neighbours import neighbour_scores
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
    """Asks two sources for each user apart: the FAISS index, and the neighbours of what was bought.

    Their lists are fused by reciprocal rank. Users without features get popular products. The depth
    of the search is fixed: a user's candidates depend on nobody else in the request. What the
    neighbours say of every product is passed on, for the ranker wants to know it too.
    """

    artifacts = ("index", "popularity", "neighbours", "item_features")

    def __init__(self, depth: int, exports: Path | None = None) -> None:
        """Search ``depth`` products a user: the candidates wanted, and spare ones to filter."""
        self.depth = depth
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read the index, the neighbours and the popular products."""
        import faiss

        # Above this many queries FAISS calls BLAS, which adds up in another order: equal users
        # would get scores that differ in the last bit, by the size of the request.
        faiss.cvar.distance_compute_blas_threshold = 1 << 30
        # One search is far shorter than waking a second thread.
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(exports / "index" / "index.faiss"))
        self._weights = Neighbours.load(exports / "neighbours" / "bought.npz").weights
        self._catalog = read_catalog(exports / "item_features")
        popular = popular_products(exports / "popularity").ids[: self.depth]
        self._popular = np.full(self.depth, NO_PRODUCT, "int64")
        self._popular[: popular.size] = popular

    def adds(self) -> Schema:
        """Return the candidates, best first (-1 where there are too few), and the scores of all."""
        return Schema(
            [
                ColumnSchema("candidate_ids", dtype="int64", dims=(None, self.depth)),
                ColumnSchema("neighbour_scores", dtype="float32", dims=(None, None)),
            ]
        )

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the candidates, (users, depth), and the neighbours' scores, (users, products)."""
        _, nearest = self._index.search(table["user_vector"].values, self.depth)
        bought, offsets = table["bought"].values, table["bought"].offsets
        scores = neighbour_scores(
            self._weights, self._catalog.positions(bought), offsets[:-1], offsets[1:]
        )
        lists = [self._catalog.positions(nearest), top_k(scores, self.depth, above=0.0)]
        positions, _ = fuse(lists, self.depth)
        ids = np.where(positions >= 0, self._catalog.ids[positions], NO_PRODUCT)
        ids[table["mark"].values != Mark.PERSONAL.value] = self._popular
        return {"candidate_ids": ids, "neighbour_scores": scores}
