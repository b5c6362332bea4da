"""From events to labelled interactions.

The recipe is that of the 2022 RecSys tutorial: within a session, a product that was put into the
cart and bought has target 1, one that was put into the cart and never bought in it has target 0.
Views, and purchases of what this session never put into a cart, say nothing here.
"""

import numpy as np
import pandas as pd

EVENT_COLUMNS = (  # of REES46's files, in their order
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


def label_sessions(events: pd.DataFrame) -> tuple[pd.DataFrame, int]:
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
    purchase = (acted["event_type"] == "purchase").to_numpy()
    keys = [
        acted["user_id"].to_numpy(),
        pd.factorize(acted["user_session"])[0],
        acted["product_id"].to_numpy(),
    ]
    last = [acted["event_time"].to_numpy(), purchase, acted["price"].to_numpy()]
    text = [_rank(acted[name]) for name in TEXT]
    order = np.lexsort([*keys, *last, *text][::-1])
    acted, purchase = acted.take(order), purchase[order]
    n = len(acted)
    first = np.ones(n, bool)  # of its group
    first[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)[: n - 1]
    starts = np.flatnonzero(first)
    size = np.diff(np.append(starts, n))
    bought = np.add.reduceat(purchase.astype(np.int64), starts) if n else size
    carted = bought < size
    rows = acted[np.append(first[1:], True)[:n]]  # the last of each group
    rows = rows.assign(target=(bought > 0).astype("int8"))[carted]
    rows = rows.rename(columns={"event_time": "timestamp"})[ROW_COLUMNS].reset_index(drop=True)
    return rows, int(bought[~carted].sum())


def _rank(text: pd.Series) -> np.ndarray:
    """Integers in the order of the texts, nulls last."""
    codes, known = pd.factorize(text, sort=True)
    return np.where(codes < 0, len(known), codes)


def split_category(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace ``category_code`` (``a.b.c``) by ``cat_0``, ``cat_1``, ``cat_2``; null if absent.

    What lies below the third level stays in it (``c.d``); a level that is empty (``a..c``) is null.
    They are categorical, as rows may be many and texts are few.
    """
    code = rows["category_code"].astype("category")
    levels = pd.Series(code.cat.categories, dtype=object).str.split(".", n=CATEGORY_LEVELS - 1)
    others = {name: rows[name] for name in rows.columns if name != "category_code"}
    rows = pd.DataFrame(others, copy=False)
    for level in range(CATEGORY_LEVELS):
        known = pd.Categorical(levels.str[level].replace("", None))
        rows[f"cat_{level}"] = known.take(code.cat.codes.to_numpy(), allow_fill=True)  # -1: null
    return rows
