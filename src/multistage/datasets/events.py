"""Read REES46 event files in bounded memory: nothing is lost silently.

A file is read in blocks that end at a line's end and fit the processor's cache. A block is parsed
by pyarrow with the types of the contract; only where that fails, row by row reasons are found. Rows
that break the contract go to quarantine with file, line and reason. Views are checked and counted,
then let go: what remains (carts and purchases, some 2% of REES46) is written to one Arrow file a
task, with one batch for each partition of users, so that later steps hold one partition at a time.

The contract of a row: nine columns by name (others are ignored), one row a line; ``event_time``
as ``YYYY-MM-DD HH:MM:SS`` and `` UTC`` or ``+00:00``, from 1970 to 2261; a known ``event_type``;
``product_id`` and ``user_id`` of digits, below 2^63; a ``user_session``; a finite ``price`` of 0 or
more. ``brand`` and ``category_code`` may be empty; ``category_id`` is not read.
"""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.ipc

from multistage.datasets.contract import EVENT_COLUMNS
from multistage.errors import CourseError

EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
KEPT = ("cart", "purchase")
TASK_BYTES = 64 << 20
BLOCK_BYTES = 2 << 20  # parsed at once: larger ones leave the processor's cache, and take longer
SHARD_ROWS = 1 << 17  # written at once: a compressed month is one task
LENIENT_BYTES = 64 << 10  # where something is wrong, blocks are halved down to this
QUARANTINE_COLUMNS = ("file", "line", "reason", "text")
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
_READ = [name for name in EVENT_COLUMNS if name != "category_id"]
_REQUIRED = [name for name in _READ if name not in ("category_code", "brand")]
_TYPES = {name: pa.string() for name in _READ} | {
    "event_type": pa.dictionary(pa.int32(), pa.string()),
    "price": pa.float64(),
}
_IDS = (
    "product_id",
    "user_id",
)  # read as text: pyarrow would take " 1", "-0" and "0x1" for numbers
FIRST_SECOND, END_SECOND = 0, 9_214_646_400  # 1970 to 2261, what pandas' nanoseconds can hold


@dataclass
class Counts:
    """What became of the rows of some part of the input."""

    read: int = 0
    views: int = 0  # and removals from the cart: nothing is learned from them
    kept: int = 0
    quarantined: Counter = field(default_factory=Counter)  # reason -> rows

    def add(self, other: "Counts") -> None:
        """Add the counts of another part."""
        self.read += other.read
        self.views += other.views
        self.kept += other.kept
        self.quarantined.update(other.quarantined)


@dataclass(frozen=True)
class Task:
    """A part of a file: bytes ``begin`` to ``end``, or all of it if compressed."""

    file: Path
    name: str  # how reports call the file
    header: tuple[str, ...]
    begin: int
    end: int | None


@dataclass(frozen=True)
class TaskResult:
    """What :func:`filter_task` leaves behind; lines count from the task's first."""

    task: Task
    counts: Counts
    lines: int
    quarantine: list[tuple[int, str, str]]  # line, reason, text


class Block(NamedTuple):
    """What :func:`parse_block` found in a block; its first line is line 1."""

    kept: pa.Table  # carts and purchases, of ``SHARD_SCHEMA``
    good: int  # rows, those kept among them
    bad: list[tuple[int, str, str]]  # line, reason, text
    lines: int


def plan(files: list[Path], task_bytes: int = TASK_BYTES) -> list[Task]:
    """Cut the files into tasks.

    Raises:
        CourseError: if a file is empty, is not UTF-8 text or lacks a column.
    """
    tasks = []
    for file, name in zip(files, _short_names(files), strict=True):
        header, begin = read_header(file, name)
        if _is_gzip(file):
            tasks.append(Task(file, name, header, begin, None))
            continue
        size = file.stat().st_size
        starts = range(begin, max(size, begin + 1), task_bytes)
        tasks += [Task(file, name, header, s, min(s + task_bytes, size)) for s in starts]
    return tasks


def read_header(file: Path, name: str) -> tuple[tuple[str, ...], int]:
    """Return the column names and the position after the first line.

    Raises:
        CourseError: as :func:`plan` says.
    """
    try:
        with gzip.open(file) if _is_gzip(file) else file.open("rb") as stream:
            line = stream.readline(1 << 16)
    except (OSError, EOFError, zlib.error) as error:
        raise CourseError(f"{name} cannot be read ({error}): give plain or gzip files.") from None
    if not line.strip():
        raise CourseError(f"{name} is empty: expected a header with {', '.join(EVENT_COLUMNS)}.")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CourseError(_not_utf8(name)) from None
    header = tuple(column.strip() for column in next(csv.reader([text.rstrip("\r\n")])))
    missing = [column for column in EVENT_COLUMNS if column not in header]
    if missing:
        raise CourseError(
            f"{name} lacks the column {', '.join(missing)}: its header has "
            f"{', '.join(header)[:200]}; expected REES46's nine columns."
        )
    return header, len(line)


def filter_task(task: Task, shard: Path, partitions: int) -> TaskResult:
    """Check the rows of ``task`` and write its carts and purchases to ``shard`` (Arrow).

    The file has ``partitions`` batches for each ``SHARD_ROWS`` or so of them; batch ``b`` holds the
    rows with ``user_id % partitions == b % partitions``.

    Raises:
        CourseError: if the text is not UTF-8.
    """
    counts, quarantine, lines, waiting = Counts(), [], 0, []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(shard), SHARD_SCHEMA, options=options) as writer:
        for text, broken in _blocks(task):
            block = parse_block(text, task.header, task.name)
            bad = block.bad
            if broken:
                bad.append((block.lines + 1, "broken gzip tail", broken))
            counts.read += block.good + len(bad)
            counts.quarantined.update(reason for _, reason, _ in bad)
            quarantine += [(lines + line, reason, text) for line, reason, text in bad]
            lines += block.lines
            counts.views += block.good - len(block.kept)
            counts.kept += len(block.kept)
            waiting.append(block.kept)
            if sum(map(len, waiting)) >= SHARD_ROWS:
                _write_partitions(writer, waiting, partitions)
                waiting = []
        _write_partitions(writer, waiting, partitions)
    return TaskResult(task, counts, lines, quarantine)


def _write_partitions(
    writer: pa.ipc.RecordBatchFileWriter, tables: list[pa.Table], partitions: int
) -> None:
    rows = pa.concat_tables([SHARD_SCHEMA.empty_table(), *tables]).combine_chunks()
    rows = pa.record_batch([column.chunk(0) for column in rows.columns], schema=SHARD_SCHEMA)
    part = rows["user_id"].to_numpy() % partitions
    for p in range(partitions):
        writer.write_batch(rows.take(pa.array(np.flatnonzero(part == p))))


def parse_block(block: bytes, header: tuple[str, ...], name: str) -> Block:
    """Return the rows of a block to keep, and what is wrong with those that break the contract.

    Args:
        block: whole lines, without the header. Blank ones are no rows.
        header: the file's column names.
        name: the file's, for the message.

    Raises:
        CourseError: if the text is not UTF-8.
    """
    parsed = _parse_typed(block, header)
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


def _parse_typed(block: bytes, header: tuple[str, ...]) -> Block | None:
    """Parse a block all of whose lines are good rows; None if one is not."""
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
                include_columns=_READ,
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
    columns = {name: table[name].chunk(0) for name in _READ} | ids | {"event_time": seconds}
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


def _parse_leniently(block: bytes, header: tuple[str, ...], name: str) -> Block:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        raise CourseError(_not_utf8(name)) from None
    number, lines = [], []
    for i, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            number.append(i)
            lines.append(line.removesuffix("\r"))
    frame, length = _fields(lines, header)
    reasons = pd.Series("", index=frame.index, dtype=object)

    def refuse(wrong: pd.Series, reason: str) -> None:
        reasons[wrong & (reasons == "")] = reason

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
    quarantine = [(number[i], reasons.iat[i], lines[i][:300]) for i in bad]
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
    """The fields of each line as text, short lines filled up, and how many each line had."""
    split = [next(csv.reader([x])) if '"' in x else x.split(",") for x in lines]
    places = [header.index(name) for name in _READ]
    fields = [[row[place] if place < len(row) else "" for place in places] for row in split]
    frame = pd.DataFrame(fields, columns=_READ, dtype=object)
    return frame, pd.Series([len(row) for row in split], dtype="int64")


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


def _unique(header: tuple[str, ...]) -> list[str]:
    """Column names with those that the contract does not know made distinct."""
    return [name if name in EVENT_COLUMNS else f"ignored {i}" for i, name in enumerate(header)]


def _blocks(task: Task) -> Iterator[tuple[bytes, str]]:
    """Whole lines of the task, and on a broken end the reason for it."""
    if task.end is None:
        yield from _gzip_blocks(task)
        return
    with task.file.open("rb") as stream:
        # A line belongs to the task in which it begins.
        begin = task.begin
        if begin > 0:
            stream.seek(begin - 1)
            begin += len(stream.readline()) - 1
        stream.seek(begin)
        while begin < task.end:
            block = stream.read(min(BLOCK_BYTES, task.end - begin))
            if not block.endswith(b"\n"):
                block += stream.readline()
            begin += len(block)
            yield block, ""


def _gzip_blocks(task: Task) -> Iterator[tuple[bytes, str]]:
    """Blocks of a gzip file; all that a cut or damaged one still gives."""
    rest, skip = b"", task.begin
    try:
        for piece in _gunzip(task.file):
            rest += piece[skip:]
            skip = max(skip - len(piece), 0)
            if len(rest) >= BLOCK_BYTES:
                cut = rest.rfind(b"\n") + 1
                yield rest[:cut], ""
                rest = rest[cut:]
    except (EOFError, zlib.error) as error:
        cut = rest.rfind(b"\n") + 1
        tail = rest[cut:].decode("utf-8", "replace")[:200]
        yield rest[:cut], f"{error}; last read: {tail}"
        return
    yield rest, ""


def _gunzip(file: Path) -> Iterator[bytes]:
    """Decompress piece by piece: unlike ``gzip.open`` it keeps what comes before a broken end."""
    with file.open("rb") as stream:
        member, data = zlib.decompressobj(31), b""
        begun = False
        while True:
            data = data or stream.read(1 << 20)
            if not data:
                if begun:
                    raise EOFError("the compressed data end too early")
                return
            begun = True
            yield member.decompress(data, 1 << 20)
            data = member.unconsumed_tail
            if member.eof:
                data = member.unused_data.lstrip(b"\0")  # padding after a member is allowed
                member, begun = zlib.decompressobj(31), False


def _is_gzip(file: Path) -> bool:
    return file.suffix == ".gz"


def _short_names(files: list[Path]) -> list[str]:
    """File names, with as many parent folders as it takes to tell them apart."""
    for depth in range(1, max((len(f.parts) for f in files), default=1) + 1):
        names = ["/".join(f.parts[-depth:]) for f in files]
        if len(set(names)) == len(names):
            break
    return names


def _not_utf8(name: str) -> str:
    return f"{name} is not UTF-8 text: convert it, for example with iconv -t UTF-8."
