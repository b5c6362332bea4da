"""Time first: cut the interactions into train, valid and test, then one row per pair in each.

De-duplicating before the cut would let later events delete training rows; dropping what training
has not seen would hide the cold start. So neither is done: unseen users and products are marked.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from multistage.datasets.contract import CATALOG_COLUMNS, INTERACTION_COLUMNS

PAIR = ["user_id", "product_id"]
ORDER = ["timestamp", "user_id", "product_id"]


@dataclass(frozen=True)
class Split:
    """The tables of the contract, and how many rows each step dropped."""

    tables: dict[str, pd.DataFrame]
    dropped: dict[str, int]


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


def split_by_time(rows: pd.DataFrame, valid: pd.Timestamp, test: pd.Timestamp) -> pd.Series:
    """Return for each row 0 (train), 1 (valid, from ``valid`` on) or 2 (test, from ``test`` on)."""
    return (rows["timestamp"] >= valid).astype("int8") + (rows["timestamp"] >= test).astype("int8")


def build(rows: pd.DataFrame, part: pd.Series, user_core: int, product_core: int) -> Split:
    """Return the contract's tables from labelled rows and the split (0, 1, 2) of each.

    Args:
        rows: interactions; where a pair recurs inside a split the last one is kept, by time, then
            by ``user_session`` if that is there, then by the order given.
        part: as :func:`split_by_time` returns it.
        user_core: users with fewer training rows are dropped from training, to the fixed point.
        product_core: likewise for products.
    """
    names = [c for c in INTERACTION_COLUMNS if c in rows.columns]
    order = [*ORDER, *(["user_session"] if "user_session" in rows else [])]
    rows = rows.assign(part=part).sort_values(order, kind="stable", ignore_index=True)
    repeated = rows.duplicated([*PAIR, "part"], keep="last")
    dropped = {"repeated_pairs": int(repeated.sum())}
    parts = {
        name: rows.loc[~repeated & (rows["part"] == i), names]
        for i, name in enumerate(["train", "valid", "test"])
    }
    del rows
    train = core(parts["train"], user_core, product_core)
    dropped["core"] = len(parts["train"]) - len(train)
    parts["train"] = train
    for name, table in parts.items():
        table = table.assign(
            user_known=table["user_id"].isin(train["user_id"].unique()),
            product_known=table["product_id"].isin(train["product_id"].unique()),
        )
        parts[name] = table[list(INTERACTION_COLUMNS)].reset_index(drop=True)
    return Split({**parts, "catalog": catalog(train), "users": users(train)}, dropped)


def core(rows: pd.DataFrame, user_core: int, product_core: int) -> pd.DataFrame:
    """Drop users and products with too few rows until none is left that has too few."""
    while True:
        keep = np.ones(len(rows), bool)
        for key, least in (("user_id", user_core), ("product_id", product_core)):
            if least > 1:
                keep &= (rows.groupby(key)[key].transform("size") >= least).to_numpy(bool)
        if keep.all():
            return rows
        rows = rows[keep]


def catalog(train: pd.DataFrame) -> pd.DataFrame:
    """One row per product, its attributes those of its last training row."""
    last = train.sort_values(ORDER, kind="stable").drop_duplicates("product_id", keep="last")
    return last[list(CATALOG_COLUMNS)].sort_values("product_id").reset_index(drop=True)


def users(train: pd.DataFrame) -> pd.DataFrame:
    """One row per user: ``user_id``, ``interactions`` (int64), ``last_seen`` (UTC)."""
    grouped = train.groupby("user_id", sort=True)["timestamp"]
    table = grouped.agg(interactions="size", last_seen="max").reset_index()
    return table.astype({"interactions": "int64"})
