"""Read and lock what somebody else may have prepared: a link, a pipe, a device, gigabytes."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JSON_BYTES = 1_000_000  # far more than any progress
OWN = stat.S_IRUSR | stat.S_IWUSR  # what its owner needs to read a file and save it


def read_regular(file: Path, most: int) -> bytes:
    """Return what a file holds; a link is not followed, a pipe is not waited for.

    Args:
        file: to read.
        most: bytes that it may have.

    Raises:
        OSError: if it cannot be opened, or is a link, a folder, a pipe and the like.
        ValueError: if it is larger.
    """
    with open(file, "rb", opener=_open) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a file", str(file))
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{file.name} is larger than {most:,} bytes")
    return content


def _open(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_json(file: Path, most: int = JSON_BYTES) -> Any:
    """Return what a JSON file holds; see :func:`read_regular`.

    Raises:
        OSError: if it cannot be opened, or is a link.
        ValueError: if it is no JSON, too large, or nested too deeply.
    """
    try:
        return json.loads(read_regular(file, most))
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"{file.name} is nested too deeply") from error


def is_folder(item: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(item.lstat().st_mode)
    except OSError:
        return False


def stands(top: Path, item: Path) -> bool:
    """Whether anything stands at ``item`` below the folder ``top``, reached through no link."""
    parents = [top / parent for parent in item.parents if parent != Path()]
    return all(map(is_folder, parents)) and os.path.lexists(top / item)


def leaves(top: Path) -> Iterator[Path]:
    """Yield what a folder holds, relative to it and in order: files, links, empty folders.

    A folder that cannot be read is yielded as well; pipes, sockets and devices are not.
    """
    waiting = [top]
    while waiting:
        item = waiting.pop()
        mode = item.lstat().st_mode
        if stat.S_ISDIR(mode):
            try:
                inside = sorted((item / name for name in os.listdir(item)), reverse=True)
            except OSError:
                inside = []
            waiting += inside
            if not inside and item != top:
                yield item.relative_to(top)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield item.relative_to(top)


def leaves_below(top: Path, folder: Path) -> Iterator[Path]:
    """Yield the :func:`leaves` of a folder below ``top``; none if it is missing or a link."""
    if stands(top, folder) and is_folder(top / folder):
        yield from leaves(top / folder)


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder while the body runs; it ends with the process at the latest.

    Args:
        folder: that exists.
        wait: for another process that holds it.

    Raises:
        BlockingIOError: if another process holds it and ``wait`` is False.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
