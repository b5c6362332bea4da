"""Time first: cut the interactions into train, valid and test, then one row per pair in each.

De-duplicating before the cut would let later events delete training rows; dropping what training
has not seen would hide the cold start. So neither is done: unseen users and products are marked.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from multistage.datasets.contract import CATALOG_COLUMNS, INTERACTION_COLUMNS, SPLITS

PAIR = ["user_id", "product_id"]


@dataclass(frozen=True)
class Split:
    """Which rows are in train, valid and test; nothing is copied before it is asked for.

    Attributes:
        rows: labelled rows, with the contract's columns; both ids categorical.
        positions: of the rows of each split, in order of time.
        dropped: how many rows each step dropped.
    """

    rows: pd.DataFrame
    positions: dict[str, np.ndarray]
    dropped: dict[str, int]

    def part(self, name: str, begin: int = 0, end: int | None = None) -> pd.DataFrame:
        """Rows ``begin`` to ``end`` of a split."""
        return _take(self.rows, self.positions[name][begin:end], INTERACTION_COLUMNS)

    def catalog(self) -> pd.DataFrame:
        """One row per product of training, its attributes those of its last row there."""
        _, last, _ = self._last_of_training("product_id")
        return _take(self.rows, last, CATALOG_COLUMNS)

    def users(self) -> pd.DataFrame:
        """``user_id``, ``interactions`` and ``last_seen`` (UTC) of each user of training."""
        ids, last, count = self._last_of_training("user_id")
        seen = self.rows["timestamp"].array.take(last)
        return pd.DataFrame({"user_id": ids, "interactions": count, "last_seen": seen})

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The five tables of the contract."""
        parts = {name: self.part(name) for name in SPLITS}
        return {**parts, "catalog": self.catalog(), "users": self.users()}

    def _last_of_training(self, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids of training, sorted; the position of each one's last row; how many it has."""
        ids, train = self.rows[key].cat, self.positions["train"]
        code = ids.codes.to_numpy()[train]
        count = np.bincount(code, minlength=len(ids.categories))
        last = np.empty(len(count), train.dtype)
        last[code] = train  # of several rows of an id the last one written stays
        there = count > 0
        return ids.categories.to_numpy()[there], last[there], count[there]


def month_bounds(first: pd.Timestamp, last: pd.Timestamp) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the starts of valid and test: the last but one and the last calendar month."""
    test = pd.Timestamp(last).tz_localize(None).to_period("M")
    bounds = ((test - 1).start_time.tz_localize("UTC"), test.start_time.tz_localize("UTC"))
    if bounds[0] <= first:
        raise ValueError("the interactions span less than three calendar months")
    return bounds


def time_bounds(timestamps: pd.Series) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the starts of valid and test: months if there are three, else the last 20 and 10%."""
    first, last = timestamps.min(), timestamps.max()
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    if months >= 3:
        return month_bounds(first, last)
    valid, test = timestamps.quantile([0.8, 0.9], interpolation="higher")
    return valid, test


def stray(timestamps: pd.Series, share: float = 0.01) -> np.ndarray:
    """Return which rows have a date far from all others, such as one of 2250 in a log of 2019.

    One such row would be the last month, and so the test part, by itself. The months that hold rows
    form runs without a gap. Rows outside of the longest run, by rows, are stray if they are few.

    Args:
        timestamps: ``(n,)`` in UTC.
        share: if more than this share is outside, none is: the log itself has a hole.

    Returns:
        ``(n,)`` bool.
    """
    month = timestamps.dt.year.to_numpy() * 12 + timestamps.dt.month.to_numpy()
    month -= month.min()  # a few thousand at most, so nothing need be sorted
    rows = np.bincount(month)
    run = np.cumsum(rows == 0)  # every empty month begins another
    largest = np.argmax(np.bincount(run, weights=rows))
    outside = (run != largest)[month]
    return outside if outside.mean() <= share else np.zeros(len(month), bool)


def split_by_time(rows: pd.DataFrame, valid: pd.Timestamp, test: pd.Timestamp) -> pd.Series:
    """Return for each row 0 (train), 1 (valid, from ``valid`` on) or 2 (test, from ``test`` on)."""
    return (rows["timestamp"] >= valid).astype("int8") + (rows["timestamp"] >= test).astype("int8")


def make_split(rows: pd.DataFrame, part: pd.Series, user_core: int, product_core: int) -> Split:
    """Keep one row per pair in each split, then the core of training.

    Args:
        rows: interactions; where a pair recurs inside a split the last one is kept, by time, then
            by ``user_session`` if that is there, then by the order given.
        part: as :func:`split_by_time` returns it.
        user_core: users with fewer training rows are dropped from training, to the fixed point.
        product_core: likewise for products.
    """
    columns = {name: rows[name] for name in rows if name in INTERACTION_COLUMNS}
    columns |= {name: rows[name].astype("category") for name in PAIR}
    user, product = (columns[name].cat.codes.to_numpy() for name in PAIR)
    train, valid, test = _last_of_pairs(rows, user, product, part.to_numpy())
    dropped = {"repeated_pairs": len(rows) - len(train) - len(valid) - len(test)}
    kept = core(user[train], product[train], user_core, product_core)
    dropped["core"] = len(kept) - int(kept.sum())
    train = train[kept]
    columns["user_known"] = _known(user, train)
    columns["product_known"] = _known(product, train)
    positions = dict(zip(SPLITS, (train, valid, test), strict=True))
    return Split(pd.DataFrame(columns, copy=False), positions, dropped)


def core(user: np.ndarray, product: np.ndarray, user_core: int, product_core: int) -> np.ndarray:
    """Which rows stay, once users and products with too few of them are dropped to the fixed point.

    Args:
        user, product: (n,) codes of each row's, small integers.
        user_core, product_core: fewest rows of a user and of a product that stays.

    Returns:
        (n,) bool.
    """
    kept = np.ones(len(user), bool)
    while True:
        few = np.zeros(len(user), bool)
        for code, least in ((user, user_core), (product, product_core)):
            few |= np.bincount(code[kept], minlength=code.max(initial=0) + 1)[code] < least
        few &= kept
        if not few.any():
            return kept
        kept &= ~few


def _last_of_pairs(
    rows: pd.DataFrame, user: np.ndarray, product: np.ndarray, part: np.ndarray
) -> list[np.ndarray]:
    """Positions of each pair's last row in each part; of a part in order of time, user, product."""
    time = rows["timestamp"].to_numpy("datetime64[ns]")
    keys = [time, part, product, user]
    if "user_session" in rows:
        keys.insert(0, pd.factorize(rows["user_session"], sort=True)[0])
    order = np.lexsort(keys).astype(np.int32)  # stable
    ends = np.zeros(len(order), bool)
    ends[-1:] = True
    for key in (user, product, part):
        ends[:-1] |= key[order[1:]] != key[order[:-1]]
    last = order[ends]
    del order, ends
    parts = [last[part[last] == i] for i in range(len(SPLITS))]
    return [at[np.argsort(time[at], kind="stable")] for at in parts]


def _known(code: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Whether each row's code occurs in training."""
    known = np.zeros(code.max(initial=0) + 1, bool)
    known[code[train]] = True
    return known[code]


def _take(rows: pd.DataFrame, at: np.ndarray, columns: tuple[str, ...]) -> pd.DataFrame:
    taken = {name: rows[name].array.take(at) for name in columns}
    ids = {name: taken[name].astype("int64") for name in PAIR if name in taken}
    return pd.DataFrame(taken | ids, copy=False)
