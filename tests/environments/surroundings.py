"""Give a program other surroundings than this machine's: its own mounts, network or host name."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest


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
