"""What was known about a user at a point in time.

A training row may use only what came before it: an average over the whole of training would include
the row itself, and the model would depend on a value that serving can never provide. Rows of later
splits get what a feature store would serve then: the state at the end of training.
"""

import numpy as np
import pandas as pd


def add_user_history(interactions: pd.DataFrame) -> pd.DataFrame:
    """Return training interactions with the state of their user just before each.

    Args:
        interactions: with ``user_id``, ``timestamp``, ``price``; in any order.

    Returns:
        A copy with ``user_activity``, ``log(1 + interactions before this one)``, and
        ``user_price``, the mean of ``log(1 + price)`` over them (NaN before the first), both
        float32. Rows with one time stamp do not see each other.
    """
    rows = interactions[["user_id", "timestamp"]].assign(
        count=1, price=np.log1p(interactions["price"]), priced=interactions["price"].notna()
    )
    moments = rows.groupby(["user_id", "timestamp"])[["count", "price", "priced"]].sum()
    before = moments.groupby("user_id").cumsum() - moments
    state = before.reindex(pd.MultiIndex.from_frame(rows[["user_id", "timestamp"]]))
    return interactions.assign(**_features(state.set_axis(interactions.index)))


def user_history(interactions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per user: ``user_id`` and the same features at the end of ``interactions``."""
    rows = pd.DataFrame(
        {
            "user_id": interactions["user_id"],
            "count": 1,
            "price": np.log1p(interactions["price"]),
            "priced": interactions["price"].notna(),
        }
    )
    state = rows.groupby("user_id").sum()
    return pd.DataFrame(_features(state)).reset_index()


def _features(state: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        "user_activity": np.log1p(state["count"]).astype("float32"),
        "user_price": (state["price"] / state["priced"].where(state["priced"] > 0)).astype(
            "float32"
        ),
    }
