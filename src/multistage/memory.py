"""Memory: how much is free here, and a bound for what a piece of work may take of it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A container's limit and use, of control groups version 2 and 1.
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
    ),
)


def free_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that programs may still take, in a container within its limit.

    Files that the kernel keeps in memory count as free, as it gives them up first.
    """
    import psutil

    free = psutil.virtual_memory().available
    for limit, used, details in _LIMITS:
        if not (groups / limit).exists() or not (groups / limit).read_text().strip().isdigit():
            continue
        statistics = dict(line.split() for line in (groups / details).read_text().splitlines())
        cached = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
        taken = int((groups / used).read_text()) - cached
        free = min(free, int((groups / limit).read_text()) - taken)
    return free


@contextmanager
def bounded(room: int) -> Iterator[None]:
    """Let this process grow by ``room`` bytes in the body; beyond that it gets a ``MemoryError``.

    Only memory that is written to counts, and none that is merely reserved.
    """
    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = psutil.Process().memory_info().data + room
    # An infinite limit is -1.
    limit = min(value for value in (limit, soft, hard) if value >= 0)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
