"""From events to labelled interactions.

The recipe is that of the 2022 RecSys tutorial: within a session, a product that was put into the
cart and bought has target 1, one that was put into the cart and never bought in it has target 0.
Views, and purchases of what this session never put into a cart, say nothing here.
"""

import pandas as pd

KEYS = ["user_id", "user_session", "product_id"]
CATEGORY_LEVELS = 3


def label(events: pd.DataFrame) -> pd.DataFrame:
    """Return one row per user, session and product that was put into the cart.

    Args:
        events: REES46's columns; ``event_time`` datetime64 in UTC. Sessions must be complete.

    Returns:
        ``user_id``, ``user_session``, ``product_id``, ``timestamp`` (of the last cart or purchase
        event), ``target`` (int8) and that last event's ``category_code``, ``brand``, ``price``.
    """
    acted = events[events["event_type"].isin(["cart", "purchase"]) & events["user_session"].notna()]
    acted = acted.sort_values(
        [*KEYS, "event_time", "event_type", "price", "brand", "category_code"], kind="stable"
    )
    carted = acted["event_type"].eq("cart").groupby([acted[k] for k in KEYS]).transform("any")
    bought = acted["event_type"].eq("purchase").groupby([acted[k] for k in KEYS]).transform("any")
    acted = acted.assign(target=bought.astype("int8"))[carted]
    rows = acted.drop_duplicates(KEYS, keep="last")
    rows = rows.rename(columns={"event_time": "timestamp"})
    columns = [*KEYS, "timestamp", "target", "category_code", "brand", "price"]
    return rows[columns].reset_index(drop=True)


def split_category(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace ``category_code`` (``a.b.c``) by ``cat_0``, ``cat_1``, ``cat_2``; null if absent."""
    levels = rows["category_code"].astype(object).str.split(".", n=CATEGORY_LEVELS, expand=True)
    rows = rows.drop(columns="category_code")
    for level in range(CATEGORY_LEVELS):
        rows[f"cat_{level}"] = levels.get(level)
    return rows
