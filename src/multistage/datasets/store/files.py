"""Write the simulated shop's events as files of any size: one per month, users block by block.

Memory holds some blocks at a time, however many events there are. Each block's rows are sorted by
time; a month's file is not (the preparation does not need it to be).
"""

import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from gzip import compress
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from multistage.datasets.store.events import block_count, simulate_block
from multistage.datasets.store.world import StoreSettings, World
from multistage.errors import CourseError

FORMATS = ("csv.gz", "csv", "parquet")


def write_events(
    settings: StoreSettings, folder: Path, form: str = "csv.gz", workers: int | None = None
) -> list[Path]:
    """Write ``folder/2019-Oct.csv.gz`` and so on, and return the files.

    Args:
        settings: of the shop. The same settings give the same bytes.
        folder: made if it is not there; files of these names in it are replaced when complete.
        form: one of ``csv.gz``, ``csv`` and ``parquet``.
        workers: processes; by default one per core. They change nothing but the time it takes.

    Raises:
        CourseError: if ``form`` is unknown or the settings are impossible.
    """
    if form not in FORMATS:
        raise CourseError(f"Unknown format {form!r}: choose one of {', '.join(FORMATS)}.")
    folder.mkdir(parents=True, exist_ok=True)
    starts = World(settings).month_starts()[:-1]
    workers = workers or os.cpu_count() or 1
    files = [folder / f"{first.item():%Y-%b}.{form}" for first in starts]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for month, file in enumerate(files):
            aside = file.with_name(f".{file.name}")
            jobs = ((settings, block, month, form) for block in range(block_count(settings)))
            if workers == 1:
                _write_parts(aside, (_part(*job) for job in jobs), form)
            else:
                _write_parts(aside, _in_order(pool, jobs, 2 * workers), form)
            os.replace(aside, file)
    return files


def _in_order(
    pool: ProcessPoolExecutor, jobs: Iterator[tuple], most: int
) -> Iterator[bytes | pa.Table]:
    """Yield the jobs' parts in order, with at most ``most`` of them begun ahead."""
    ahead: deque[Future] = deque()
    for job in jobs:
        ahead.append(pool.submit(_part, *job))
        if len(ahead) > most:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _write_parts(file: Path, parts: Iterator[bytes | pa.Table], form: str) -> None:
    if form == "parquet":
        writer = None
        for part in parts:
            writer = writer or pq.ParquetWriter(file, part.schema)
            writer.write_table(part)
        if writer:
            writer.close()
        return
    with file.open("wb") as stream:
        for part in parts:
            stream.write(part)


@lru_cache(maxsize=1)
def _world(settings: StoreSettings) -> World:
    return World(settings)


def _part(settings: StoreSettings, block: int, month: int, form: str) -> bytes | pa.Table:
    events = simulate_block(_world(settings), block, month)
    table = pa.Table.from_pandas(events, preserve_index=False)
    for name in ("category_code", "brand"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.string()))
    if form == "parquet":
        return table
    text = pc.strftime(table["event_time"].cast(pa.timestamp("s", "UTC")), "%Y-%m-%d %H:%M:%S UTC")
    table = table.set_column(0, "event_time", text)
    buffer = io.BytesIO()
    if block == 0:
        buffer.write(",".join(table.column_names).encode() + b"\n")  # pyarrow would quote them
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    pa_csv.write_csv(table, buffer, options)
    content = buffer.getvalue()
    return compress(content, 6, mtime=0) if form == "csv.gz" else content
