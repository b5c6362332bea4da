"""From events to labelled interactions.

The recipe is that of the 2022 RecSys tutorial: within a session, a product that was put into the
cart and bought has target 1, one that was put into the cart and never bought in it has target 0.
Views, and purchases of what this session never put into a cart, say nothing here.
"""

import numpy as np
import pandas as pd

TEXT = ["brand", "category_code"]
ROW_COLUMNS = [
    "user_id",
    "user_session",
    "product_id",
    "timestamp",
    "target",
    "category_code",
    "brand",
    "price",
]
CATEGORY_LEVELS = 3


def label(events: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return one row per user, session and product that was put into the cart.

    Args:
        events: REES46's columns (``category_id`` is not needed); ``event_time`` datetime64.
            Sessions must be complete.

    Returns:
        ``user_id``, ``user_session``, ``product_id``, ``timestamp`` (of the last cart or purchase
        event), ``target`` (int8) and that last event's ``category_code``, ``brand``, ``price``;
        and how many purchases were dropped because their session never put them into the cart.
        Of events of the same second the purchase counts as the last, then the highest price.
    """
    acted = events[events["event_type"].isin(["cart", "purchase"])]
    session = pd.factorize(acted["user_session"])[0]
    acted = acted.assign(session=session, purchase=(acted["event_type"] == "purchase"))
    keys = ["user_id", "session", "product_id"]
    acted = acted.sort_values([*keys, "event_time", "purchase", "price", *TEXT], kind="stable")
    columns = [acted[key].to_numpy() for key in keys]
    n = len(acted)
    first = np.ones(n, bool)  # of its group
    first[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)[: n - 1]
    starts = np.flatnonzero(first)
    purchase = acted["purchase"].to_numpy()
    size = np.diff(np.append(starts, n))
    bought = np.add.reduceat(purchase.astype(np.int64), starts) if n else size
    carted = bought < size
    rows = acted[np.append(first[1:], True)[:n]]  # the last of each group
    rows = rows.assign(target=(bought > 0).astype("int8"))[carted]
    rows = rows.rename(columns={"event_time": "timestamp"})[ROW_COLUMNS].reset_index(drop=True)
    return rows, int(bought[~carted].sum())


def split_category(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace ``category_code`` (``a.b.c``) by ``cat_0``, ``cat_1``, ``cat_2``; null if absent."""
    code = rows["category_code"].astype("category")
    levels = pd.Series(code.cat.categories, dtype=object).str.split(".", n=CATEGORY_LEVELS)
    rows = rows.drop(columns="category_code")
    for level in range(CATEGORY_LEVELS):
        values = np.append(levels.str[level].astype(object).to_numpy(), None)  # code -1: null
        rows[f"cat_{level}"] = values[code.cat.codes.to_numpy()]
    return rows
