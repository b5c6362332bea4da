"""Stage two: what may not be offered to this user leaves, and the gap is filled."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorColumn, TensorTable

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
        self._catalog = read_catalog(exports / "item_features")
        self._available = np.append(self._catalog.available, False)  # the last: unknown products
        popular = popular_products(exports / "popularity").ids
        self._popular = popular[self._available[self._catalog.positions(popular)]]

    def adds(self) -> Schema:
        """Return the candidates, narrower; -1 where too few are left."""
        return Schema([ColumnSchema("candidate_ids", dtype="int64", dims=(None, self.keep))])

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return the candidates that passed, shape (users, keep), in the order retrieved."""
        ids = table["candidate_ids"].values
        positions = self._catalog.positions(ids)
        passed = self._available[positions] & ~self._seen(positions, table["seen"])
        place = np.cumsum(passed, axis=1) - 1
        passed &= place < self.keep
        row, column = np.nonzero(passed)

        kept = np.full((len(ids), self.keep), NO_PRODUCT, "int64")
        kept[row, place[row, column]] = ids[row, column]
        seen, offsets = table["seen"].values, table["seen"].offsets
        for short in np.flatnonzero(kept[:, -1] == NO_PRODUCT):
            mine = seen[offsets[short] : offsets[short + 1]]
            gaps = np.flatnonzero(kept[short] == NO_PRODUCT)
            fill = self._fill(kept[short], mine)[: gaps.size]
            kept[short, gaps[: fill.size]] = fill
        return {"candidate_ids": kept}

    def _seen(self, positions: np.ndarray, seen: TensorColumn) -> np.ndarray:
        """Return for each candidate whether it is among the products that its own user has seen."""
        found = np.zeros(positions.shape, bool)
        mine = np.zeros(self._available.size, bool)
        seen_positions = self._catalog.positions(seen.values)
        for user in range(len(positions)):
            own = seen_positions[seen.offsets[user] : seen.offsets[user + 1]]
            mine[own] = True
            found[user] = mine[positions[user]]
            mine[own] = False
        return found

    def _fill(self, there: np.ndarray, seen: np.ndarray) -> np.ndarray:
        popular = self._popular[: self.keep + there.size + seen.size]  # enough, whatever repeats
        return popular[~np.isin(popular, np.concatenate([there, seen]))]
