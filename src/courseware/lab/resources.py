"""Check memory and disk before a run, against what earlier runs were measured to take."""

import shutil
from pathlib import Path

from courseware.course import Course, Needs
from courseware.errors import LabError
from courseware.memory import free_bytes


def memory_needed(course: Course, profile: str, numbers: list[int] | None = None) -> float:
    """Return the largest peak in GB of these sections, by default of all; 0 if not known."""
    peaks = dict(enumerate(course.profiles.get(profile, Needs()).memory, 1))
    return max([peaks.get(number, 0.0) for number in numbers or peaks], default=0.0)


def memory_problem(course: Course, profile: str, numbers: list[int]) -> str:
    """Return a warning if less memory is free than these sections took, else ""."""
    free, needed = free_bytes() / 2**30, memory_needed(course, profile, numbers)
    if free >= needed:
        return ""
    return (
        f"{free:.1f} GB of memory are free, and profile {profile} takes up to {needed:.1f}: the "
        "kernel may be killed. Close other programs and idle kernels"
        + (", or choose --profile ci." if profile != "ci" else ".")
    )


def free_megabytes(course: Path) -> int:
    """Return the MB that may still be written where the course keeps what it makes."""
    folders = [course / name for name in ("workspace", "build")]
    return min(
        shutil.disk_usage(folder if folder.exists() else course).free >> 20 for folder in folders
    )


def check_disk(course: Course, profile: str) -> None:
    """Refuse a run if the disk has too little free space for it.

    Raises:
        LabError: if less is free than a run of this profile takes.
    """
    free = free_megabytes(course.folder)
    needed = course.profiles.get(profile, Needs()).disk
    if free < needed:
        raise LabError(
            f"{free} MB of disk are free in {course.folder.name}, and a run in profile "
            f"{profile} takes up to {needed} MB. Nothing was changed. Free some "
            "space, then run it again; lab reset --artifacts deletes what earlier runs made."
        )
