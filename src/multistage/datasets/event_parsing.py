"""Parse a block of event lines all of which keep the contract, fast.

The contract of a row: nine columns by name (others are ignored), one row a line; ``event_time``
as ``YYYY-MM-DD HH:MM:SS`` and `` UTC`` or ``+00:00``, from 1970 to 2261; a known ``event_type``;
``product_id`` and ``user_id`` of digits, below 2^63; a ``user_session``; a finite ``price`` of 0 or
more. ``brand`` and ``category_code`` may be empty; ``category_id`` is not read.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from multistage.datasets.contract import EVENT_COLUMNS

EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
KEPT = ("cart", "purchase")
FIRST_SECOND, END_SECOND = 0, 9_214_646_400  # 1970 to 2261, what pandas' nanoseconds can hold
SHARD_SCHEMA = pa.schema(
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
READ = [name for name in EVENT_COLUMNS if name != "category_id"]
_REQUIRED = [name for name in READ if name not in ("category_code", "brand")]
# Ids are read as text: pyarrow would take " 1", "-0" and "0x1" for numbers.
_IDS = ("product_id", "user_id")
_TYPES = {name: pa.string() for name in READ} | {
    "event_type": pa.dictionary(pa.int32(), pa.string()),
    "price": pa.float64(),
}


class Block(NamedTuple):
    """What a parser found in a block; its first line is line 1."""

    kept: pa.Table  # carts and purchases, of ``SHARD_SCHEMA``
    good: int  # rows, those kept among them
    bad: list[tuple[int, str, str]]  # line, reason, text
    lines: int


def parse_good(block: bytes, header: tuple[str, ...]) -> Block | None:
    """Return the rows of a block all of whose lines are good; None if one is not."""
    lone = b"\r" in block and block.count(b"\r") != block.count(b"\r\n")
    if not block or b'"' in block or lone:  # pyarrow would end a line at a lone "\r"
        return None
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            pa_csv.ReadOptions(
                column_names=_unique(header), use_threads=False, block_size=len(block) + 1
            ),
            pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa_csv.ConvertOptions(
                column_types=_TYPES,
                include_columns=READ,
                null_values=[""],
                strings_can_be_null=True,
            ),
        ).combine_chunks()
        seconds = _parse_times(table["event_time"].chunk(0))
        ids = {name: _parse_ids(table[name].chunk(0)) for name in _IDS}
    except pa.ArrowInvalid:
        return None
    kind = table["event_type"].chunk(0)
    if (
        any(table[name].null_count for name in _REQUIRED)
        or not set(kind.dictionary.to_pylist()) <= set(EVENT_TYPES)
        or not pc.all(pc.is_finite(table["price"])).as_py()
        or pc.min(table["price"]).as_py() < 0
    ):
        return None
    wanted = np.array([name in KEPT for name in kind.dictionary.to_pylist()])
    keep = np.flatnonzero(wanted[kind.indices.to_numpy()])
    columns = {name: table[name].chunk(0) for name in READ} | ids | {"event_time": seconds}
    kept = {name: columns[name].take(pa.array(keep)) for name in SHARD_SCHEMA.names}
    kept["event_type"] = kept["event_type"].cast(pa.string())
    return Block(pa.table(kept, SHARD_SCHEMA), len(table), [], len(table))


def _parse_ids(text: pa.StringArray) -> pa.Int64Array:
    """Digits as numbers; ArrowInvalid if one is something else, or too large."""
    if not pc.all(pc.ascii_is_decimal(text)).as_py():
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
    span = pc.min_max(time.cast(pa.int64()))
    inside = span["min"].as_py() >= FIRST_SECOND and span["max"].as_py() < END_SECOND
    if not (pc.all(good).as_py() and inside):
        raise pa.ArrowInvalid("a time is not of the contract")
    return time


def _unique(header: tuple[str, ...]) -> list[str]:
    """Column names with those that the contract does not know made distinct."""
    return [name if name in EVENT_COLUMNS else f"ignored {i}" for i, name in enumerate(header)]
