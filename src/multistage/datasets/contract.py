"""The contract that every data set keeps, and the door through which labs read it.

Interactions have one row per user and product inside each split:

=============  ================  ==========================================================
column         type              meaning
=============  ================  ==========================================================
``user_id``    int64
``product_id`` int64
``timestamp``  datetime64, UTC   of the last event of that user and product in the split
``target``     int8              1 bought (or rated 4 or more), 0 left in the cart
``brand``      string            null where unknown
``cat_0`` ...  string            ``cat_0``, ``cat_1``, ``cat_2``, coarse to fine; null where unknown
``price``      float64           in the shop's currency
``user_known``    bool           whether the user occurs in ``train`` (always true there)
``product_known`` bool           likewise for the product
=============  ================  ==========================================================

A data set that lacks a column has it all null: MovieLens has no brand and no price.
:meth:`Data.has` tells. The catalogue has one row per product as known at the end of training
(``product_id``, ``brand``, ``cat_0``, ``cat_1``, ``cat_2``, ``price``), ``users`` one row per
user seen by then (``user_id``, ``interactions``, ``last_seen``).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from multistage.datasets.store import StoreTruth

# REES46's own, in the order of its files.
EVENT_COLUMNS = (
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
)
INTERACTION_COLUMNS = (
    "user_id",
    "product_id",
    "timestamp",
    "target",
    "brand",
    "cat_0",
    "cat_1",
    "cat_2",
    "price",
    "user_known",
    "product_known",
)
CATALOG_COLUMNS = ("product_id", "brand", "cat_0", "cat_1", "cat_2", "price")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Data:
    """One prepared data set."""

    name: str
    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    catalog: pd.DataFrame
    users: pd.DataFrame
    truth: "StoreTruth | None" = None  # known for the simulated shop only

    @classmethod
    def read(cls, folder: Path, name: str) -> "Data":
        """Read a prepared data set from the Parquet files in ``folder``."""
        tables = {
            table: pd.read_parquet(folder / f"{table}.parquet")
            for table in (*SPLITS, "catalog", "users")
        }
        truth = None
        if (folder / "truth.npz").exists():
            from multistage.datasets.store import StoreTruth

            truth = StoreTruth.load(folder / "truth.npz")
        return cls(name=name, truth=truth, **tables)

    def has(self, column: str) -> bool:
        """Whether the data set knows ``column`` at all (it is not null throughout)."""
        return bool(self.train[column].notna().any())

    def with_validation(self) -> "Data":
        """Return the data as known when the test part begins: ``valid`` has joined ``train``.

        What was chosen on ``valid`` is fitted again on all of it before it meets the test part. The
        catalogue stays that of training, so that products keep their codes and vectors. A pair that
        is in both keeps its last row.
        """
        known = pd.concat([self.train, self.valid], ignore_index=True)
        known = known.sort_values(["timestamp", "user_id", "product_id"], kind="stable")
        known = known.drop_duplicates(["user_id", "product_id"], keep="last", ignore_index=True)
        return replace(self, train=known)
