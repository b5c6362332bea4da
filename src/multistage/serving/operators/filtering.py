"""Stage two: exclude seen and unavailable products, then fill up with popular ones."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.compiled import compiled
from multistage.serving.catalog import popular_products, read_catalog
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator


class FilterCandidates(ServingOperator):
    """Drops what each user has seen and what is not available; fills up with popular products."""

    artifacts = ("item_features", "popularity")

    def __init__(self, keep: int, exports: Path | None = None) -> None:
        """Keep the first ``keep`` products per user that pass."""
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
        seen, offsets = table["seen"].values, table["seen"].offsets
        kept = np.full((len(ids), self.keep), NO_PRODUCT)
        _keep(
            ids,
            self._catalog.positions(ids),
            self._available,
            self._catalog.positions(seen),
            offsets,
            kept,
        )
        for short in np.flatnonzero(kept[:, -1] == NO_PRODUCT):
            own = seen[offsets[short] : offsets[short + 1]]
            gaps = np.flatnonzero(kept[short] == NO_PRODUCT)
            fill = self._fill(kept[short], own)[: gaps.size]
            kept[short, gaps[: fill.size]] = fill
        return {"candidate_ids": kept}

    def _fill(self, there: np.ndarray, seen: np.ndarray) -> np.ndarray:
        popular = self._popular[: self.keep + there.size + seen.size]  # enough, whatever repeats
        return popular[~np.isin(popular, np.concatenate([there, seen]))]


@compiled("(i8[:, :], i8[:, :], b1[::1], i8[::1], i4[::1], i8[:, ::1])")
def _keep(ids, positions, available, seen, offsets, kept):  # noqa: ANN001, ANN202
    """Fill ``kept`` with each user's first candidates that are available and not seen by them."""
    allowed = available.copy()  # to this user; -1, an unknown product, counts from the end
    for user in range(len(ids)):
        own = seen[offsets[user] : offsets[user + 1]]
        for product in own:
            allowed[product] = False
        place = 0
        for candidate in range(ids.shape[1]):
            if place < kept.shape[1] and allowed[positions[user, candidate]]:
                kept[user, place] = ids[user, candidate]
                place += 1
        for product in own:
            allowed[product] = available[product]
