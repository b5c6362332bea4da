"""Give a program other surroundings than this machine's: its own mounts, network or host name."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import COURSE

# For :func:`isolated`: "$1" is a course, "$2" a folder that only root may enter, or empty; the rest
# are folders that everybody needs of it (see closed_folder), and may enter from now on. /mnt is a
# disk of 300 MB.
OPEN = """
course="$1" closed="$2"
shift 2
mount -t tmpfs -o size=300m,mode=755 tmpfs /mnt
mkdir /mnt/aside
if [ "$closed" ]; then
  n=0
  for folder in "$@"; do
    n=$((n + 1)); mkdir /mnt/aside/$n; mount --rbind "$folder" /mnt/aside/$n
  done
  mount -t tmpfs -o mode=755 tmpfs "$closed"
  n=0
  for folder in "$@"; do
    n=$((n + 1)); mkdir -p "$folder"; mount --rbind /mnt/aside/$n "$folder"
  done
fi
"""


def isolated(
    script: str,
    *arguments: object,
    net: bool = False,
    uts: bool = False,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a shell script with mounts of its own, which nobody else sees and which end with it.

    Where this process may not do that (no root, a chroot, a container without the right), the
    test is skipped.

    Args:
        script: ends at its first error. ``"$0"`` is this Python, ``"$@"`` are the arguments.
        arguments: given to the script, as text.
        net: also give it a network of its own: nothing but a loopback, which is down.
        uts: also give it a host name of its own: ``hostname NAME`` changes nobody else's.
        environment: all of its variables; by default those of this process.
        timeout: seconds after which the test fails.
    """
    options = ("--mount", *["--net"] * net, *["--uts"] * uts)
    if problem := _refusal(options):
        pytest.skip(f"unshare {' '.join(options)} is not allowed here: {problem}")
    return subprocess.run(
        ["unshare", *options, "sh", "-ec", script, sys.executable, *map(str, arguments)],
        env=dict(os.environ if environment is None else environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def lab(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``lab`` with these variables and no others."""
    return subprocess.run(
        [sys.executable, "-m", "courseware.lab", *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@functools.cache
def _refusal(options: tuple[str, ...]) -> str:
    """What the system says where it does not allow this, else nothing."""
    attempt = ["unshare", *options, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        ended = subprocess.run(attempt, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return (ended.stderr.strip() or f"exit code {ended.returncode}") if ended.returncode else ""


def closed_folder(course: Path) -> tuple[Path | str, list[Path]]:
    """The folder around this environment that others may not enter, and what is needed of it."""
    needed = [Path(sys.prefix), Path(sys.base_prefix), COURSE]
    closed = {p for one in needed for p in one.parents if not p.stat().st_mode & 0o001}
    tops = [p for p in closed if not closed & set(p.parents)]
    if len(tops) > 1:
        pytest.skip(f"other accounts can enter neither of {', '.join(map(str, tops))}")
    if not tops:
        return "", []
    return tops[0], [folder for folder in (*needed, course) if folder.is_relative_to(tops[0])]
