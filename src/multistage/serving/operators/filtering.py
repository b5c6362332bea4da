"""Stage two: what may not be offered to this user leaves, and the gap is filled."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.serving.catalog import popular_products, read_catalog
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator


class FilterCandidates(ServingOperator):
    """Drops what each user has seen and what is not available; fills up with popular products."""

    artifacts = ("item_features", "popularity")

    def __init__(self, keep: int, exports: Path | None = None) -> None:
        """Keep the first ``keep`` products a user that pass."""
        self.keep = keep
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read which products are available, and the popular ones among them."""
        catalog = read_catalog(exports / "item_features")
        self._available = catalog.ids[catalog.available]
        popular = popular_products(exports / "popularity").ids
        self._popular = popular[np.isin(popular, self._available)]

    def adds(self) -> Schema:
        """Return ``candidate_ids``, narrower than before; -1 where too few are left."""
        return Schema([ColumnSchema("candidate_ids", dtype="int64", dims=(None, self.keep))])

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the candidates that passed, shape (users, keep), in the order retrieved."""
        candidates = table["candidate_ids"].values
        seen, offsets = table["seen"].values, table["seen"].offsets
        passed = self._offered(candidates) & ~_in_own_row(candidates, seen, offsets)

        kept = np.full((len(candidates), self.keep), NO_PRODUCT, "int64")
        place = np.cumsum(passed, axis=1) - 1
        passed &= place < self.keep
        row, column = np.nonzero(passed)
        kept[row, place[row, column]] = candidates[row, column]

        for short in np.flatnonzero(passed.sum(axis=1) < self.keep):
            mine = seen[offsets[short] : offsets[short + 1]]
            gaps = np.flatnonzero(kept[short] == NO_PRODUCT)
            fill = self._fill(kept[short], mine)[: gaps.size]
            kept[short, gaps[: fill.size]] = fill
        return {"candidate_ids": kept}

    def _offered(self, candidates: np.ndarray) -> np.ndarray:
        found = np.searchsorted(self._available, candidates)
        return self._available[np.minimum(found, self._available.size - 1)] == candidates

    def _fill(self, there: np.ndarray, seen: np.ndarray) -> np.ndarray:
        popular = self._popular[: self.keep + there.size + seen.size]  # enough, whatever repeats
        return popular[~np.isin(popular, np.concatenate([there, seen]))]


def _in_own_row(candidates: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return for each candidate whether it is among the products that its own user has seen."""
    products, codes = np.unique(candidates, return_inverse=True)
    found = np.minimum(np.searchsorted(products, seen), products.size - 1)
    of_a_candidate = products[found] == seen
    user = np.repeat(np.arange(len(candidates)), np.diff(offsets))
    # One number for each pair of user and product: comparing pairs is comparing numbers.
    seen_pairs = (user * products.size + found)[of_a_candidate]
    pairs = np.arange(len(candidates))[:, None] * products.size + codes.reshape(candidates.shape)
    return np.isin(pairs, seen_pairs)
