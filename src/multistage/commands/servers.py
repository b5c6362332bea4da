"""The Triton servers that run on a course's files."""

from pathlib import Path

from multistage.serving.triton import SERVES, end_groups

SECONDS = 10.0  # that a server has to stop by itself


def running(course: Path) -> dict[int, str]:
    """Return pid -> what it serves, for every Triton server of this user on this course's files.

    A server carries the repository's path in its environment, so one whose notebook died is found
    as well, and no other course's server is. Root sees the servers of all users.
    """
    import psutil

    found = {}
    for process in psutil.process_iter(["pid", "name"]):
        if process.info["name"] != "tritonserver":
            continue
        try:
            serves = process.environ().get(SERVES)
        except psutil.Error:  # another user's, or gone
            continue
        if serves and Path(serves).is_relative_to(course):
            found[process.info["pid"]] = str(Path(serves).relative_to(course))
    return found


def stop(servers: dict[int, str]) -> None:
    """Stop servers that :func:`running` has found."""
    end_groups(servers, SECONDS)
