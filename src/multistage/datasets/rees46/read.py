"""The bytes of event files: headers checked, cut into tasks, read as blocks of whole lines.

A plain file is cut into tasks at any byte, for a line belongs to the task in which it begins. A
gzip file is one task, for it can only be read from its start; all that a cut or damaged one still
gives is read.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from multistage.datasets.rees46.label import EVENT_COLUMNS
from multistage.errors import CourseError

TASK_BYTES = 64 << 20
BLOCK_BYTES = 2 << 20  # parsed at once: larger ones leave the processor's cache, and take longer
LINE_BYTES = 1 << 20  # of the longest line; without a bound, one line could fill the memory


@dataclass(frozen=True)
class Task:
    """A part of a file: bytes ``begin`` to ``end``, or all of it if compressed."""

    file: Path
    name: str  # how reports call the file
    header: tuple[str, ...]
    begin: int
    end: int | None


def plan(files: list[Path], task_bytes: int = TASK_BYTES) -> list[Task]:
    """Cut the files into tasks.

    Raises:
        CourseError: if a file is empty or not UTF-8 text, has other line ends, or misses a column.
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
        raise CourseError(not_utf8(name)) from None
    text = text.rstrip("\r\n")
    if "\r" in text:
        raise CourseError(
            f"{name} ends its lines with a carriage return alone, as old Macs did: convert it, for "
            "example with tr '\\r' '\\n'."
        )
    header = tuple(column.strip() for column in next(csv.reader([text])))
    missing = [column for column in EVENT_COLUMNS if column not in header]
    if missing:
        raise CourseError(
            f"{name} has no column {', '.join(missing)}: its header has "
            f"{', '.join(header)[:200]}; expected REES46's nine columns."
        )
    return header, len(line)


def read_blocks(task: Task) -> Iterator[tuple[bytes, str]]:
    """Whole lines of the task, and on a broken end the reason for it.

    Raises:
        CourseError: if a line has more than ``LINE_BYTES``.
    """
    if task.end is None:
        yield from _gzip_blocks(task)
        return
    with task.file.open("rb") as stream:
        # A line belongs to the task in which it begins.
        begin = task.begin
        if begin > 0:
            stream.seek(begin - 1)
            begin += len(_read_line(stream, task)) - 1
        stream.seek(begin)
        while begin < task.end:
            block = stream.read(min(BLOCK_BYTES, task.end - begin))
            if not block.endswith(b"\n"):
                block += _read_line(stream, task)
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
                if len(rest) - cut > LINE_BYTES:
                    raise _too_long(task)
                yield rest[:cut], ""
                rest = rest[cut:]
    except (EOFError, zlib.error) as error:
        cut = rest.rfind(b"\n") + 1
        tail = rest[cut:].decode("utf-8", "replace")[:200]
        yield rest[:cut], f"{error}; last read: {tail}"
        return
    yield rest, ""


def _read_line(stream: BinaryIO, task: Task) -> bytes:
    """The rest of a line."""
    line = stream.readline(LINE_BYTES + 1)
    if len(line) > LINE_BYTES:
        raise _too_long(task)
    return line


def _too_long(task: Task) -> CourseError:
    return CourseError(
        f"{task.name} has a line of more than {LINE_BYTES >> 20} MiB: expected one row per line. "
        "Is it a log of events, and complete?"
    )


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


def not_utf8(name: str) -> str:
    """What to say of a file that is no UTF-8 text."""
    return f"{name} is not UTF-8 text: convert it, for example with iconv -t UTF-8."
