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
        found = np.searchsorted(self._available, candidates)
        found = np.minimum(found, self._available.size - 1)
        available = self._available[found] == candidates

        kept = np.full((len(candidates), self.keep), NO_PRODUCT, "int64")
        for row, (ids, offered) in enumerate(zip(candidates, available, strict=True)):
            mine = seen[offsets[row] : offsets[row + 1]]
            left = ids[offered & ~np.isin(ids, mine)][: self.keep]
            if left.size < self.keep:
                left = np.concatenate([left, self._fill(left, mine)])
            kept[row, : left.size] = left
        return {"candidate_ids": kept}

    def _fill(self, left: np.ndarray, seen: np.ndarray) -> np.ndarray:
        popular = self._popular[: self.keep + seen.size]  # enough: at most ``keep`` are left
        return popular[~np.isin(popular, np.concatenate([left, seen]))][: self.keep - left.size]
