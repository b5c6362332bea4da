"""Check and filter REES46 event files in bounded memory: nothing is lost silently.

A file is read in blocks that end at a line's end and fit the processor's cache
(:mod:`multistage.datasets.event_files`) and parsed with the types of the contract
(:mod:`multistage.datasets.event_parsing`). Rows that break it go to quarantine with file, line and
reason (:mod:`multistage.datasets.event_quarantine`). Views are checked and counted, then let go:
what remains (carts and purchases, some 2% of REES46) is written to one Arrow file a task, with one
batch for each partition of users, so that later steps hold one partition at a time.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from multistage.datasets.event_files import Task, read_blocks
from multistage.datasets.event_parsing import SHARD_SCHEMA
from multistage.datasets.event_quarantine import parse_block
from multistage.errors import CourseError

SHARD_ROWS = 1 << 17  # written at once: a compressed month is one task
QUARANTINE_ROWS = 10_000  # of a task whose text is kept; all are counted
OTHER_FORMAT_ROWS = 1_000  # bad ones before the first good one: given up


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
class TaskResult:
    """What :func:`filter_task` leaves behind; lines count from the task's first.

    The quarantine holds the first ``QUARANTINE_ROWS``; ``counts`` all.
    """

    task: Task
    counts: Counts
    lines: int
    quarantine: list[tuple[int, str, str]]  # line, reason, text


def filter_task(task: Task, shard: Path, partitions: int) -> TaskResult:
    """Check the rows of ``task`` and write its carts and purchases to ``shard`` (Arrow).

    The file has ``partitions`` batches for each ``SHARD_ROWS`` or so of them; batch ``b`` holds the
    rows with ``user_id % partitions == b % partitions``.

    Raises:
        CourseError: if the text is not UTF-8, a line is far too long, or ``OTHER_FORMAT_ROWS`` rows
            and more break the contract before one keeps it.
    """
    counts, quarantine, lines, waiting = Counts(), [], 0, []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(shard), SHARD_SCHEMA, options=options) as writer:
        for text, broken in read_blocks(task):
            block = parse_block(text, task.header, task.name)
            bad = block.bad
            if broken:
                bad.append((block.lines + 1, "broken gzip tail", broken))
            counts.read += block.good + len(bad)
            counts.quarantined.update(reason for _, reason, _ in bad)
            quarantine += [
                (lines + line, reason, text)
                for line, reason, text in bad[: QUARANTINE_ROWS - len(quarantine)]
            ]
            if counts.read == counts.quarantined.total() >= OTHER_FORMAT_ROWS:
                _, reason, text = quarantine[0]
                raise CourseError(
                    f"{task.name} has another format: none of {counts.read:,} rows keeps the "
                    f"contract. The first is refused for {reason}: {text[:120]}"
                )
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
