"""Column functions for the NVTabular workflow.

They are named functions of an importable module because a saved workflow holds them by reference:
a lambda would be pickled by value, and newer NVTabular refuses to load it.
"""

import numpy as np
import pandas as pd


def log_price(price: pd.Series) -> pd.Series:
    """Return ``log(1 + price)`` as float32; a missing price becomes the median of its batch."""
    return np.log1p(price.fillna(price.median())).astype("float32")


def relative_price(price: pd.Series, rows: pd.DataFrame) -> pd.Series:
    """Return the logarithm of the price over the mean price of its category, float32.

    0.7 is twice the usual price of the category, -0.7 half of it, 0 the usual price or unknown.

    Args:
        price: of each row; may be null.
        rows: the same rows, with the column ``<category>_price_mean`` of ``JoinGroupby``.
    """
    (usual,) = [name for name in rows.columns if name.endswith("_price_mean")]
    # JoinGroupby gives rows without a category the mean "inf", and a price may be 0.
    known = rows[usual].where(np.isfinite(rows[usual]) & (price > 0))
    return np.log(price / known).fillna(0.0).astype("float32")


def hour(timestamp: pd.Series) -> pd.Series:
    """Return the hour of the day in UTC, 0 to 23."""
    return timestamp.dt.hour


def weekday(timestamp: pd.Series) -> pd.Series:
    """Return the day of the week, 0 for Monday to 6."""
    return timestamp.dt.weekday
