"""Parse a block of event lines, and say of each one that breaks the contract why.

Most blocks are good, and parsed at once. One that is not is halved until the bad lines stand in a
small block, which is judged row by row.
"""

import csv

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from multistage.datasets.event_files import not_utf8
from multistage.datasets.event_parsing import (
    END_SECOND,
    EVENT_TYPES,
    FIRST_SECOND,
    KEPT,
    READ,
    SHARD_SCHEMA,
    Block,
    parse_good,
)
from multistage.errors import CourseError

LENIENT_BYTES = 64 << 10  # where something is wrong, blocks are halved down to this
QUARANTINE_COLUMNS = ("file", "line", "reason", "text")


def parse_block(block: bytes, header: tuple[str, ...], name: str) -> Block:
    """Return the rows of a block to keep, and what is wrong with those that break the contract.

    Args:
        block: whole lines, without the header. Blank ones are no rows.
        header: the file's column names.
        name: the file's, for the message.

    Raises:
        CourseError: if the text is not UTF-8.
    """
    parsed = parse_good(block, header)
    if parsed:
        return parsed
    # Some row breaks the contract: find out which.
    cut = block.rfind(b"\n", 0, len(block) // 2) + 1
    if len(block) < LENIENT_BYTES or cut == 0:
        return _parse_leniently(block, header, name)
    one, two = (parse_block(part, header, name) for part in (block[:cut], block[cut:]))
    return Block(
        kept=pa.concat_tables([one.kept, two.kept]),
        good=one.good + two.good,
        bad=one.bad + [(one.lines + line, reason, text) for line, reason, text in two.bad],
        lines=one.lines + two.lines,
    )


def _parse_leniently(block: bytes, header: tuple[str, ...], name: str) -> Block:
    text = block.decode("utf-8", "surrogateescape")  # what is not UTF-8 may stand in no column read
    number, lines = [], []
    for i, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            number.append(i)
            lines.append(line.removesuffix("\r"))
    frame, length = _fields(lines, header)
    try:
        "".join(frame.to_numpy().ravel()).encode()
    except UnicodeEncodeError:
        raise CourseError(not_utf8(name)) from None
    reasons = pd.Series("", index=frame.index, dtype=object)

    def refuse(wrong: pd.Series, reason: str) -> None:
        reasons[wrong & (reasons == "")] = reason

    refuse(length == 0, "bad quotes")
    refuse(length < len(header), "short line")
    refuse(length > len(header), "long line")
    stamp = frame["event_time"].str.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: UTC|\+00:00)", flags=0
    )
    time = pd.to_datetime(
        frame["event_time"].str[:19].where(stamp), format="%Y-%m-%d %H:%M:%S", errors="coerce"
    )
    seconds = time.to_numpy("datetime64[s]").astype("int64")  # that of NaT is the least of all
    refuse((seconds < FIRST_SECOND) | (seconds >= END_SECOND), "bad event_time")
    refuse(~frame["event_type"].isin(EVENT_TYPES), "unknown event_type")
    ids = {}
    for column in ("product_id", "user_id"):
        refuse(frame[column] == "", f"missing {column}")
        ids[column] = frame[column].map(_parse_id).astype("int64")
        refuse(ids[column] < 0, f"bad {column}")
    refuse(frame["user_session"] == "", "missing user_session")
    price = frame["price"].map(_parse_price).astype("float64")
    refuse(~np.isfinite(price), "bad price")
    refuse(price < 0, "negative price")
    bad = np.flatnonzero(reasons != "")
    quarantine = [(number[i], reasons.iat[i], _shown(lines[i])) for i in bad]
    good = frame[reasons == ""]
    columns = {
        "user_id": ids["user_id"][good.index],
        "user_session": good["user_session"],
        "product_id": ids["product_id"][good.index],
        "event_time": time[good.index].to_numpy("datetime64[s]"),
        "event_type": good["event_type"],
        "category_code": good["category_code"].where(good["category_code"] != "", None),
        "brand": good["brand"].where(good["brand"] != "", None),
        "price": price[good.index],
    }
    rows = _rows(columns)
    kept = rows.filter(pc.is_in(rows["event_type"], pa.array(KEPT)))
    count = block.count(b"\n") + (not block.endswith(b"\n") and block != b"")
    return Block(kept, len(rows), quarantine, count)


def _fields(lines: list[str], header: tuple[str, ...]) -> tuple[pd.DataFrame, pd.Series]:
    """The fields of each line as text, short lines filled up, and how many each line had.

    Of a line whose quotes cannot be read, or with a quoted field of more than 128 KiB, it has none.
    """
    split = [_unquoted(line) if '"' in line else line.split(",") for line in lines]
    places = [header.index(name) for name in READ]
    fields = [[row[place] if place < len(row) else "" for place in places] for row in split]
    frame = pd.DataFrame(fields, columns=READ, dtype=object)
    return frame, pd.Series([len(row) for row in split], dtype="int64")


def _unquoted(line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error:
        return []


def _shown(line: str) -> str:
    return line[:300].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _parse_id(text: str) -> int:
    digits = text.lstrip("0")
    if text.isascii() and text.isdigit() and len(digits) <= 19 and int(digits or "0") < 2**63:
        return int(digits or "0")
    return -1


def _parse_price(text: str) -> float:
    try:
        return float(text) if text.isascii() and "_" not in text else np.nan
    except ValueError:
        return np.nan


def _rows(columns: dict) -> pa.Table:
    arrays = [pa.array(columns[f.name], f.type, from_pandas=True) for f in SHARD_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SHARD_SCHEMA)
