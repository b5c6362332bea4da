"""Which rows of a block of lines keep the contract of events, and what is wrong with the others.

The contract of a row: nine columns by name (others are ignored), one row per line; ``event_time``
as ``YYYY-MM-DD HH:MM:SS`` and `` UTC`` or ``+00:00``, from 1970 to 2261; a known ``event_type``;
``product_id`` and ``user_id`` of digits, below 2^63; a ``user_session``; a finite ``price`` of 0 or
more. ``brand`` and ``category_code`` may be empty; ``category_id`` is not read.

Nearly every block is good throughout, and pyarrow parses it at once. One that is not is halved
until the bad lines stand in a small block, which is judged line by line in Python.
"""

import csv
import math
import re
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from multistage.datasets.rees46.label import EVENT_COLUMNS
from multistage.datasets.rees46.read import not_utf8
from multistage.errors import CourseError

EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
KEPT = ("cart", "purchase")
IDS = ("product_id", "user_id")
FIRST_TIME, END_TIME = datetime(1970, 1, 1), datetime(2262, 1, 1)  # of pandas' nanoseconds
SMALL_BYTES = 64 << 10  # of a block that is judged line by line
QUARANTINE_COLUMNS = ("file", "line", "reason", "text")
KEPT_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("user_session", pa.string()),
        ("product_id", pa.int64()),
        ("event_time", pa.timestamp("s")),
        ("event_type", pa.string()),
        ("category_code", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
    ]
)
# Times and ids are read as text: pyarrow would take "2019-10-01T10:00:00", " 1" and "0x1" as well.
_TYPES = dict.fromkeys(KEPT_SCHEMA.names, pa.string()) | {
    "event_type": pa.dictionary(pa.int32(), pa.string()),
    "price": pa.float64(),
}
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})(?: UTC|\+00:00)")


class Block(NamedTuple):
    """What was found in a block; its first line is line 1."""

    kept: pa.Table  # carts and purchases, of ``KEPT_SCHEMA``
    good: int  # rows, those kept among them
    bad: list[tuple[int, str, str]]  # line, reason, text
    lines: int


def parse_block(block: bytes, header: tuple[str, ...], name: str) -> Block:
    """Return the rows of a block to keep, and what is wrong with those that break the contract.

    Args:
        block: whole lines, without the header. Blank ones are no rows.
        header: the file's column names.
        name: the file's, for the message.

    Raises:
        CourseError: if the text is not UTF-8.
    """
    parsed = _parse_good(block, header)
    if parsed:
        return parsed
    cut = block.rfind(b"\n", 0, len(block) // 2) + 1
    if len(block) < SMALL_BYTES or cut == 0:
        return _judge_lines(block, header, name)
    one, two = (parse_block(part, header, name) for part in (block[:cut], block[cut:]))
    return Block(
        kept=pa.concat_tables([one.kept, two.kept]),
        good=one.good + two.good,
        bad=one.bad + [(one.lines + line, reason, text) for line, reason, text in two.bad],
        lines=one.lines + two.lines,
    )


def _parse_good(block: bytes, header: tuple[str, ...]) -> Block | None:
    """The rows of a block all of whose lines are good; None if one is not."""
    lone = b"\r" in block and block.count(b"\r") != block.count(b"\r\n")
    if not block or b'"' in block or lone:  # pyarrow would end a line at a lone "\r"
        return None
    names = [name if name in EVENT_COLUMNS else f"ignored {i}" for i, name in enumerate(header)]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
            pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa_csv.ConvertOptions(
                column_types=_TYPES,
                include_columns=KEPT_SCHEMA.names,
                null_values=[""],
                strings_can_be_null=True,
            ),
        ).combine_chunks()
        columns = {name: table[name].chunk(0) for name in KEPT_SCHEMA.names}
        columns["event_time"] = _parse_times(columns["event_time"])
        columns |= {name: _parse_ids(columns[name]) for name in IDS}
    except pa.ArrowInvalid:
        return None
    kind, price = columns["event_type"], columns["price"]
    kinds = kind.dictionary.to_pylist()
    if (
        kind.null_count + columns["user_session"].null_count + price.null_count
        or not set(kinds) <= set(EVENT_TYPES)
        or not pc.all(pc.is_finite(price)).as_py()
        or pc.min(price).as_py() < 0
    ):
        return None
    keep = np.array([name in KEPT for name in kinds])[kind.indices.to_numpy()]
    at = pa.array(np.flatnonzero(keep))
    kept = pa.table({name: column.take(at) for name, column in columns.items()})
    return Block(kept.cast(KEPT_SCHEMA), len(table), [], len(table))


def _parse_ids(text: pa.StringArray) -> pa.Int64Array:
    """Digits as numbers; ArrowInvalid if one is missing, something else, or too large."""
    if text.null_count or not pc.all(pc.ascii_is_decimal(text)).as_py():
        raise pa.ArrowInvalid("an id is not made of digits")
    return text.cast(pa.int64())


def _parse_times(text: pa.StringArray) -> pa.TimestampArray:
    """Seconds of ``YYYY-MM-DD HH:MM:SS`` and `` UTC`` or ``+00:00``; ArrowInvalid if one is not."""
    if text.null_count:
        raise pa.ArrowInvalid("a time is missing")
    text = text.cast(pa.binary())
    zone = pc.binary_slice(text, 19, 26)  # one byte more than the longer zone has
    good = pc.or_(pc.equal(zone, b" UTC"), pc.equal(zone, b"+00:00"))
    good = pc.and_(good, pc.equal(pc.binary_slice(text, 10, 11), b" "))  # a "T" would do otherwise
    time = pc.binary_slice(text, 0, 19).cast(pa.string()).cast(pa.timestamp("s"))
    span = pc.min_max(time).as_py()
    if not (pc.all(good).as_py() and FIRST_TIME <= span["min"] <= span["max"] < END_TIME):
        raise pa.ArrowInvalid("a time is not of the contract")
    return time


class _BadRow(Exception):
    """Says what is wrong with a row."""


def _judge_lines(block: bytes, header: tuple[str, ...], name: str) -> Block:
    text = block.decode("utf-8", "surrogateescape")  # what is not UTF-8 may stand in no column read
    lines = text.removesuffix("\n").split("\n") if text else []
    places = {column: header.index(column) for column in KEPT_SCHEMA.names}
    good, bad = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = _split(line.removesuffix("\r"))
        row = {column: fields[place] for column, place in places.items() if place < len(fields)}
        try:
            "".join(row.values()).encode()
            good.append(_parse_row(row, len(fields), len(header)))
        except UnicodeEncodeError:
            raise CourseError(not_utf8(name)) from None
        except _BadRow as wrong:
            shown = line.removesuffix("\r")[:300].encode("utf-8", "surrogateescape")
            bad.append((number, str(wrong), shown.decode("utf-8", "replace")))
    kept = [row for row in good if row["event_type"] in KEPT]
    return Block(pa.Table.from_pylist(kept, KEPT_SCHEMA), len(good), bad, len(lines))


def _split(line: str) -> list[str]:
    """The fields; none where quotes cannot be read, or a quoted field has more than 128 KiB."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]))
    except csv.Error:
        return []


def _parse_row(row: dict[str, str], fields: int, expected: int) -> dict[str, Any]:
    """The values of a row; _BadRow with the first thing that is wrong with it.

    Args:
        row: column -> text, of the columns that are read.
        fields: how many the line has; 0 where its quotes cannot be read.
        expected: how many the header has.
    """
    if not fields:
        raise _BadRow("bad quotes")
    if fields != expected:
        raise _BadRow("short line" if fields < expected else "long line")
    time = _parse_time(row["event_time"])
    if row["event_type"] not in EVENT_TYPES:
        raise _BadRow("unknown event_type")
    ids = {column: _parse_id(row[column], column) for column in IDS}
    if not row["user_session"]:
        raise _BadRow("missing user_session")
    price = _parse_price(row["price"])
    text = {column: row[column] or None for column in ("category_code", "brand")}
    return {**row, **ids, **text, "event_time": time, "price": price}


def _parse_time(text: str) -> datetime:
    shape = _TIME.fullmatch(text)
    try:
        time = datetime.fromisoformat(shape[1]) if shape else END_TIME
    except ValueError:
        time = END_TIME
    if not FIRST_TIME <= time < END_TIME:
        raise _BadRow("bad event_time")
    return time


def _parse_id(text: str, column: str) -> int:
    if not text:
        raise _BadRow(f"missing {column}")
    digits = text.lstrip("0") or "0"
    if not (text.isascii() and text.isdigit() and len(digits) <= 19 and int(digits) < 2**63):
        raise _BadRow(f"bad {column}")
    return int(digits)


def _parse_price(text: str) -> float:
    try:
        price = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        price = math.nan
    if not math.isfinite(price):
        raise _BadRow("bad price")
    if price < 0:
        raise _BadRow("negative price")
    return price
