"""The contract that every data set keeps.

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

A column that a data set does not know is null throughout: MovieLens has no brand and no price.
:meth:`Data.has` tells. The catalogue has one row per product as known at the end of training
(``product_id``, ``brand``, ``cat_0``, ``cat_1``, ``cat_2``, ``price``), ``users`` one row per
user seen by then (``user_id``, ``interactions``, ``last_seen``).
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

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


class Truth(Protocol):
    """True probabilities, of a data set that was simulated."""

    settings: Any  # of the simulation
    product_ids: np.ndarray  # int64, in the order of ``Data.catalog.product_id``

    def purchase_probability(
        self, user_ids: np.ndarray, product_ids: np.ndarray, timestamps: np.ndarray
    ) -> np.ndarray:
        """P(target = 1) of each user with this product in the cart at this time: ``(n,)``."""

    def purchase_intensity(self, user_ids: np.ndarray) -> np.ndarray:
        """Expected purchases in the test month: ``(n, len(product_ids))``."""


@dataclass(frozen=True)
class Data:
    """One prepared data set."""

    name: str
    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    catalog: pd.DataFrame
    users: pd.DataFrame
    truth: Truth | None = None  # known for the simulated shop only

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
