"""From event files to labelled interactions on Dask, one partition of users in memory at a time.

1. Files are read in blocks that fit the processor's cache
   (:mod:`multistage.datasets.rees46.read`). Rows that break the contract go to quarantine with
   file, line and reason (:mod:`multistage.datasets.rees46.quarantine`). Views are checked and
   counted, then let go: what remains (carts and purchases, some 2% of REES46) goes to an Arrow file
   aside, one batch for each partition of users.
2. Every partition gathers its batches, drops exact repeats and labels its sessions
   (:mod:`multistage.datasets.rees46.label`). All events of a user are in one partition, so a
   session may span blocks, files and midnights.

What is held at once does not grow with the number of events; the labelled interactions that are
returned (30 bytes each, under 2% of REES46's events) do.
"""

import csv
import ctypes
import errno
import glob
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from pandas.api.types import union_categoricals
from pyarrow import feather

from multistage.datasets.rees46.label import label_sessions
from multistage.datasets.rees46.quarantine import KEPT_SCHEMA, QUARANTINE_COLUMNS, parse_block
from multistage.datasets.rees46.read import TASK_BYTES, Task, plan, read_blocks
from multistage.datasets.splits import PAIR
from multistage.errors import CourseError

SHARD_ROWS = 1 << 17  # written at once: a compressed month is one task
QUARANTINE_LIMIT = 0.01
QUARANTINE_ROWS = 10_000  # of a task whose text is kept; all are counted
OTHER_FORMAT_ROWS = 1_000  # bad ones before the first good one: given up
PARTITION_BYTES = 256 << 20
MOST_PARTITIONS = 64  # every task writes, and every partition reads, all of the others' files
TEXT = ["category_code", "brand"]
LABELLED_SCHEMA = pa.schema(
    [
        *[(name, pa.dictionary(pa.int32(), pa.int64())) for name in PAIR],
        ("timestamp", pa.timestamp("ns")),
        ("target", pa.int8()),
        *[(name, pa.dictionary(pa.int32(), pa.string())) for name in TEXT],
        ("price", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Labelled:
    """Labelled interactions, and what became of every row that was read."""

    rows: pd.DataFrame  # as of :func:`label_sessions`, without sessions; ids and texts categorical
    report: dict[str, Any]
    quarantine: list[tuple[str, int, str, str]]  # file, line, reason, text

    def write_quarantine(self, file: Path) -> None:
        """Write the quarantined rows as CSV."""
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(QUARANTINE_COLUMNS)
            writer.writerows(self.quarantine)


def find_files(pattern: str | None) -> list[Path]:
    """Return the event files that match a glob, sorted.

    Raises:
        CourseError: if there are none.
    """
    files = sorted(Path(f) for f in glob.glob(pattern, recursive=True)) if pattern else []
    files = [file for file in files if file.is_file()]
    if not files:
        raise CourseError(
            f"No file matches events={pattern!r}: expected a glob of REES46 event files, such as "
            "--events 'data/2019-*.csv.gz'."
        )
    return files


def read_logs(
    files: list[Path],
    folder: Path,
    scheduler: str | None = None,
    limit: float = QUARANTINE_LIMIT,
    task_bytes: int = TASK_BYTES,
    partition_bytes: int = PARTITION_BYTES,
) -> Labelled:
    """Read, check, filter and label event files of any number and order.

    Args:
        files: CSV with a header, plain or (by the name's end) ``.gz``.
        folder: where to put a temporary folder of about 1% of the input's size. Workers of another
            scheduler must see it, and the files, under the same paths.
        scheduler: address of a running Dask scheduler (``tcp://...``); by default, threads here.
        limit: largest share of rows that may be quarantined.
        task_bytes: size of a task's part of a plain file.
        partition_bytes: of input, for each partition of users.

    Raises:
        CourseError: if a file cannot be used, too many rows break the contract, or the disk is
            full; the temporary folder is removed.
    """
    tasks = plan(files, task_bytes)
    size = sum(file.stat().st_size * (8 if file.suffix == ".gz" else 1) for file in files)
    partitions = int(np.clip(size // partition_bytes, 1, MOST_PARTITIONS))
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".logs-", dir=folder) as aside,
            _computer(scheduler) as compute,
        ):
            shards = [Path(aside) / f"shard-{i:05}.arrow" for i in range(len(tasks))]
            results = compute(
                filter_task, [(t, s, partitions) for t, s in zip(tasks, shards, strict=True)]
            )
            report, quarantine = _merge(results)
            _check_quarantine(report, quarantine, limit)
            parts = [Path(aside) / f"labelled-{p:03}.arrow" for p in range(partitions)]
            steps = Counter()
            for outcome in compute(
                label_partition, [(shards, p, partitions, part) for p, part in enumerate(parts)]
            ):
                steps.update(outcome)
            rows = _gather(parts, steps["labelled"])
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CourseError(
                f"The disk is full ({error.strerror}) while interactions are prepared: free about "
                f"{max(size // 50, 1 << 20) >> 20} MiB there, or choose another folder. "
                "Nothing half-written is left."
            ) from None
        raise
    return Labelled(rows, report | steps, quarantine)


@dataclass
class Filtered:
    """What became of the rows of a task; lines count from the task's first."""

    file: str
    read: int = 0
    views: int = 0  # and removals from the cart: nothing is learned from them
    lines: int = 0
    quarantined: Counter = field(default_factory=Counter)  # reason -> rows
    quarantine: list[tuple[int, str, str]] = field(default_factory=list)  # line, reason, text


def filter_task(task: Task, shard: Path, partitions: int) -> Filtered:
    """Check the rows of ``task`` and write its carts and purchases to ``shard`` (Arrow).

    The file has ``partitions`` batches for each ``SHARD_ROWS`` or so of them; batch ``b`` holds the
    rows with ``user_id % partitions == b % partitions``.

    Raises:
        CourseError: if the text is not UTF-8, a line is far too long, or ``OTHER_FORMAT_ROWS`` rows
            and more break the contract before one keeps it.
    """
    found, waiting = Filtered(task.name), []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(shard), KEPT_SCHEMA, options=options) as writer:
        for text, broken in read_blocks(task):
            block = parse_block(text, task.header, task.name)
            bad = block.bad
            if broken:
                bad.append((block.lines + 1, "broken gzip tail", broken))
            found.read += block.good + len(bad)
            found.views += block.good - len(block.kept)
            found.quarantined.update(reason for _, reason, _ in bad)
            found.quarantine += [
                (found.lines + line, reason, text)
                for line, reason, text in bad[: QUARANTINE_ROWS - len(found.quarantine)]
            ]
            found.lines += block.lines
            if found.read == found.quarantined.total() >= OTHER_FORMAT_ROWS:
                _, reason, text = found.quarantine[0]
                raise CourseError(
                    f"{task.name} has another format: none of {found.read:,} rows keeps the "
                    f"contract. The first is refused for {reason}: {text[:120]}"
                )
            waiting.append(block.kept)
            if sum(map(len, waiting)) >= SHARD_ROWS:
                _write_partitions(writer, waiting, partitions)
                waiting = []
        _write_partitions(writer, waiting, partitions)
    return found


def _write_partitions(
    writer: pa.ipc.RecordBatchFileWriter, tables: list[pa.Table], partitions: int
) -> None:
    rows = pa.concat_tables([KEPT_SCHEMA.empty_table(), *tables]).combine_chunks()
    rows = pa.record_batch([column.chunk(0) for column in rows.columns], schema=KEPT_SCHEMA)
    part = rows["user_id"].to_numpy() % partitions
    for p in range(partitions):
        writer.write_batch(rows.take(pa.array(np.flatnonzero(part == p))))


def label_partition(
    shards: list[Path], partition: int, partitions: int, output: Path
) -> dict[str, int]:
    """Label one partition of users into ``output`` and return how many events each step merged.

    The counts are ``repeated`` (exact repeats of an event), ``purchases_without_cart`` (in their
    session), ``same_session`` (events beyond the first of a session's interaction) and ``labelled``
    (interactions).
    """
    batches = []
    for shard in shards:
        with pa.ipc.open_file(pa.OSFile(str(shard))) as file:
            mine = range(partition, file.num_record_batches, partitions)
            batches += [file.get_batch(b) for b in mine]
    table = pa.Table.from_batches(batches, KEPT_SCHEMA)
    del batches
    columns = {name: table[name].to_numpy() for name in ("user_id", "product_id", "price")}
    columns |= {name: _categorical(table[name]) for name in ("event_type", *TEXT)}
    columns["event_time"] = table["event_time"].to_numpy()
    columns["user_session"] = _encode(table["user_session"])[0]  # only their order is needed
    events = pd.DataFrame(columns, copy=False)
    del table, columns
    unique = events.drop_duplicates()
    rows, without_cart = label_sessions(unique)
    # Of one user's rows of the same second the order decides later; sessions are not needed then.
    keys = ["user_session", "timestamp", "product_id", "user_id"]
    rows = rows.take(np.lexsort([rows[key].to_numpy() for key in keys]))
    rows = rows.astype(dict.fromkeys(PAIR, "category"))
    table = pa.Table.from_pandas(rows, LABELLED_SCHEMA, preserve_index=False)
    feather.write_feather(table, str(output), compression="zstd")
    return {
        "repeated": len(events) - len(unique),
        "purchases_without_cart": without_cart,
        "same_session": len(unique) - without_cart - len(rows),
        "labelled": len(rows),
    }


def _encode(text: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes in the order of the different texts, -1 for null, and those texts."""
    coded = text.combine_chunks().dictionary_encode()
    order = pc.sort_indices(coded.dictionary)
    rank = np.full(len(order) + 1, -1, np.int32)
    rank[order.to_numpy()] = np.arange(len(order))
    return rank[coded.indices.fill_null(-1).to_numpy()], coded.dictionary.take(order)


def _categorical(text: pa.ChunkedArray) -> pd.Categorical:
    codes, known = _encode(text)
    return pd.Categorical.from_codes(codes, known.to_pandas())


def _gather(parts: list[Path], count: int) -> pd.DataFrame:
    """All partitions' rows, column by column; ids and texts as the smallest codes that do."""
    columns = {}
    for name in LABELLED_SCHEMA.names:
        read = (feather.read_table(part, [name], memory_map=False)[name] for part in parts)
        if name in (*PAIR, *TEXT):
            columns[name] = union_categoricals([p.to_pandas() for p in read], sort_categories=True)
            continue
        values, at = np.empty(count, LABELLED_SCHEMA.field(name).type.to_pandas_dtype()), 0
        for part in read:  # one held at a time
            values[at : at + len(part)] = part.to_numpy()
            at += len(part)
        columns[name] = values
    columns["timestamp"] = pd.DatetimeIndex(columns["timestamp"], tz="UTC")
    return pd.DataFrame(columns, copy=False)


def _merge(results: list[Filtered]) -> tuple[dict[str, Any], list[tuple[str, int, str, str]]]:
    """Counts of all rows, and the quarantine with lines counted from the start of each file."""
    quarantined, quarantine = Counter(), []
    lines: Counter[str] = Counter()
    for result in results:  # in the order of the plan: file by file, block by block
        file = result.file
        before = 1 + lines[file]  # the header is line 1
        quarantine += [(file, before + line, why, text) for line, why, text in result.quarantine]
        quarantined.update(result.quarantined)
        lines[file] += result.lines
    report = {
        "files": len(lines),
        "read": sum(result.read for result in results),
        "quarantined": dict(sorted(quarantined.items())),
        "views": sum(result.views for result in results),
    }
    return report, quarantine


def _check_quarantine(
    report: dict[str, Any], quarantine: list[tuple[str, int, str, str]], limit: float
) -> None:
    reasons = Counter(report["quarantined"])
    if reasons.total() > limit * report["read"]:
        file, line, why, text = quarantine[0]
        raise CourseError(
            f"{reasons.total():,} of {report['read']:,} rows break the contract "
            f"({', '.join(f'{reason}: {n:,}' for reason, n in reasons.most_common())}), more than "
            f"the {limit:.1%} allowed. The first is {file} line {line} ({why}): {text[:120]}. "
            "Fix the files, or raise the limit."
        )


@contextmanager
def _computer(scheduler: str | None) -> Iterator[Callable[[Callable, list[tuple]], list]]:
    """A map over lists of arguments: by threads here, or by the workers of a Dask scheduler."""
    if not scheduler:
        yield _compute_here
        return
    from distributed import Client

    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except OSError:
        raise CourseError(
            f"No Dask scheduler answers at {scheduler}: start one with dask-scheduler and "
            "dask-worker, or leave --scheduler out to work here."
        ) from None
    with client:
        yield lambda function, arguments: client.gather(
            [client.submit(function, *args, pure=False) for args in arguments]
        )


def _compute_here(function: Callable, arguments: list[tuple]) -> list:
    import dask

    lazy = [dask.delayed(function, pure=False)(*args) for args in arguments]
    results = list(dask.compute(*lazy, scheduler="threads", num_workers=os.cpu_count()))
    _release_memory()
    return results


def _release_memory() -> None:
    """Give the system back what Arrow and, under Linux, numpy freed: both keep it for later."""
    pa.default_memory_pool().release_unused()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)
