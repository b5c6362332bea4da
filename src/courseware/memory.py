"""Memory: how much is free here, and a bound for what a piece of work may take of it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The limit and the use of a control group, of version 2 and of version 1.
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def free_bytes(
    groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Return the bytes that a program may still take, within the limits that are set for it.

    Those of a container, a batch system or a service are limits of control groups, and
    ``ulimit`` has others. Files that the kernel keeps in memory count as free, as it gives them up
    first.
    """
    import psutil

    free = psutil.virtual_memory().available
    for group in _own_groups(groups, membership):
        for limit, used in _LIMITS:
            if not (group / limit).exists() or not (group / limit).read_text().strip().isdigit():
                continue
            lines = (group / "memory.stat").read_text().splitlines()
            statistics = dict(line.split() for line in lines)
            cached = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
            taken = int((group / used).read_text()) - cached
            free = min(free, int((group / limit).read_text()) - taken)
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        if (limit := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY:
            free = min(free, limit)
    return max(free, 0)


def _own_groups(groups: Path, membership: Path) -> Iterator[Path]:
    """The folders of the control groups that this process is in, and of those around them."""
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = groups / controllers
            group = top / path.lstrip("/")
            yield from (g for g in (group, *group.parents) if g.is_relative_to(top))


@contextmanager
def bounded(growth: int) -> Iterator[None]:
    """Let this process grow by ``growth`` bytes in the body; beyond that it gets a ``MemoryError``.

    Only memory that is written to counts, and none that is merely reserved.
    """
    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = psutil.Process().memory_info().data + growth
    # An infinite limit is -1.
    limit = min(value for value in (limit, soft, hard) if value >= 0)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
