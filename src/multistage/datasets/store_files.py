"""Write the simulated shop's events as files of any size: one a month, block after block of users.

Memory holds some blocks at a time, however many events there are. Each block's rows are sorted by
time; a month's file is not (the preparation does not need it to be).
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from gzip import compress
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from multistage.datasets.store_events import block_count, simulate_block
from multistage.datasets.store_world import StoreSettings, World
from multistage.errors import CourseError

FORMATS = ("csv.gz", "csv", "parquet")
_world: World | None = None  # of a worker process


def write_events(
    settings: StoreSettings, folder: Path, form: str = "csv.gz", workers: int | None = None
) -> list[Path]:
    """Write ``folder/2019-Oct.csv.gz`` and so on, and return the files.

    Args:
        settings: of the shop. The same settings give the same bytes.
        folder: made if it is not there; files of these names in it are replaced when complete.
        form: one of ``csv.gz``, ``csv`` and ``parquet``.
        workers: processes; by default one a core. They change nothing but the time it takes.

    Raises:
        CourseError: if ``form`` is unknown or the settings are impossible.
    """
    if form not in FORMATS:
        raise CourseError(f"Unknown format {form!r}: choose one of {', '.join(FORMATS)}.")
    folder.mkdir(parents=True, exist_ok=True)
    world, files = World(settings), []
    with ProcessPoolExecutor(
        workers or os.cpu_count(), get_context("spawn"), _start, (settings,)
    ) as pool:
        for month, first in enumerate(world.month_starts()[:-1]):
            file = folder / f"{first.item():%Y-%b}.{form}"
            aside = file.with_name(f".{file.name}")
            parts = _in_order(pool, block_count(world), month, form)
            _write_parts(aside, parts, form)
            os.replace(aside, file)
            files.append(file)
    return files


def _in_order(
    pool: ProcessPoolExecutor, blocks: int, month: int, form: str
) -> Iterator[bytes | pa.Table]:
    """Yield the blocks' parts in order, with only a few of them begun ahead."""
    ahead: list[Future] = []
    for block in range(blocks):
        ahead.append(pool.submit(_part, block, month, form))
        if len(ahead) > 2 * pool._max_workers:
            yield ahead.pop(0).result()
    for future in ahead:
        yield future.result()


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


def _start(settings: StoreSettings) -> None:
    global _world
    _world = World(settings)


def _part(block: int, month: int, form: str) -> bytes | pa.Table:
    table = pa.Table.from_pandas(simulate_block(_world, block, month), preserve_index=False)
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
