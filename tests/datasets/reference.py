"""The preparation's recipe once more: plain Python and pandas, all in memory, nothing shared.

It is slow and it is meant to be read; the real one must give the same rows.
"""

import csv
import gzip
import math
from datetime import datetime

import pandas as pd

TYPES = {"view", "cart", "remove_from_cart", "purchase"}
TABLE = [
    "user_id",
    "product_id",
    "timestamp",
    "target",
    "brand",
    "cat_0",
    "cat_1",
    "cat_2",
    "price",
]


def read(file):
    """Return the good events as dictionaries, and (line, reason) of the others."""
    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    lines = content.decode("utf-8").split("\n")
    header = lines[0].rstrip("\r").split(",")
    good, bad = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        line = line.removesuffix("\r")
        try:
            fields = next(csv.reader([line])) if '"' in line else line.split(",")
        except csv.Error:
            bad.append((number, "bad quotes"))
            continue
        reason = why_not(fields, header)
        if reason:
            bad.append((number, reason))
        else:
            good.append(dict(zip(header, fields, strict=False)))
    return good, bad


def why_not(fields, header):
    if len(fields) < len(header):
        return "short line"
    if len(fields) > len(header):
        return "long line"
    row = dict(zip(header, fields, strict=False))
    time = row["event_time"]
    if not (time.endswith(" UTC") or time.endswith("+00:00")) or len(time) not in (23, 25):
        return "bad event_time"
    try:
        if not 1970 <= moment(time).year <= 2261:
            return "bad event_time"
    except ValueError:
        return "bad event_time"
    if row["event_type"] not in TYPES:
        return "unknown event_type"
    for key in ("product_id", "user_id"):
        if row[key] == "":
            return f"missing {key}"
        if not all("0" <= c <= "9" for c in row[key]) or int(row[key]) >= 2**63:
            return f"bad {key}"
    if row["user_session"] == "":
        return "missing user_session"
    if "_" in row["price"] or not row["price"].isascii():  # which float() would take
        return "bad price"
    try:
        price = float(row["price"])
    except ValueError:
        return "bad price"
    if not math.isfinite(price):
        return "bad price"
    return "negative price" if price < 0 else None


def moment(time):
    if not all(c in "0123456789-: " for c in time[:19]):
        raise ValueError(time)
    return datetime.strptime(time[:19], "%Y-%m-%d %H:%M:%S")


def label(events):
    """One row per user, session and product that was carted; events are dictionaries."""
    unique, groups = set(), {}
    for e in events:
        if e["event_type"] not in ("cart", "purchase"):
            continue
        event = (
            moment(e["event_time"]),
            e["event_type"] == "purchase",
            float(e["price"]),
            # nulls sort last, as in pandas
            (e["brand"] == "", e["brand"]),
            (e["category_code"] == "", e["category_code"]),
        )
        key = (int(e["user_id"]), e["user_session"], int(e["product_id"]))
        if (key, event) not in unique:
            unique.add((key, event))
            groups.setdefault(key, []).append(event)
    rows = []
    for (user, session, product), group in groups.items():
        if all(is_purchase for _, is_purchase, *_ in group):
            continue  # never put into the cart
        time, _, price, brand, code = max(group)
        levels = [level or None for level in code[1].split(".", 2)] + [None] * 3
        rows.append(
            {
                "user_id": user,
                "user_session": session,
                "product_id": product,
                "timestamp": pd.Timestamp(time, tz="UTC"),
                "target": int(any(is_purchase for _, is_purchase, *_ in group)),
                "brand": brand[1] or None,
                "cat_0": levels[0],
                "cat_1": levels[1],
                "cat_2": levels[2],
                "price": price,
            }
        )
    return rows


def split(rows, valid, test, core=5):
    """Return train, valid and test: time first, the last row of each pair, then the core."""
    parts = []
    for begin, end in ((None, valid), (valid, test), (test, None)):
        last = {}
        for row in sorted(rows, key=lambda r: (r["timestamp"], r["user_session"])):
            t = row["timestamp"]
            if (begin is None or t >= begin) and (end is None or t < end):
                last[row["user_id"], row["product_id"]] = row
        parts.append(list(last.values()))
    while True:
        users = pd.Series([r["user_id"] for r in parts[0]], dtype=object).value_counts()
        products = pd.Series([r["product_id"] for r in parts[0]], dtype=object).value_counts()
        kept = [
            r for r in parts[0] if users[r["user_id"]] >= core and products[r["product_id"]] >= core
        ]
        if len(kept) == len(parts[0]):
            return parts
        parts[0] = kept


def frame(rows):
    """As a table in a canonical order, to be compared."""
    table = pd.DataFrame(rows, columns=TABLE)
    return canonical(table)


def canonical(table):
    table = table[TABLE].astype({"target": int, "price": float, "user_id": int, "product_id": int})
    for name in ("brand", "cat_0", "cat_1", "cat_2"):
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    table["timestamp"] = pd.to_datetime(table["timestamp"], utc=True)
    return table.sort_values(TABLE, key=lambda c: c.astype(str)).reset_index(drop=True)
