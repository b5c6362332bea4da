"""Column functions for the NVTabular workflow.

They are named functions of an importable module because a saved workflow holds them by reference:
a lambda would be pickled by value, and newer NVTabular refuses to load it.
"""

import numpy as np
import pandas as pd


def log_price(price: pd.Series) -> pd.Series:
    """Return ``log(1 + price)`` as float32; a missing price becomes the median of its batch."""
    return np.log1p(price.fillna(price.median())).astype("float32")


def hour(timestamp: pd.Series) -> pd.Series:
    """Return the hour of the day in UTC, 0 to 23."""
    return timestamp.dt.hour


def weekday(timestamp: pd.Series) -> pd.Series:
    """Return the day of the week, 0 for Monday to 6."""
    return timestamp.dt.weekday
