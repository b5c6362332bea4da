"""Check memory and disk before a run, by what runs were measured to take."""

import shutil
from pathlib import Path

from multistage.errors import CourseError
from multistage.memory import free_bytes
from multistage.workspace import Workspace

# GB that the processes of each section held at most, with Triton's in lab 5, on data set store. For
# profile gpu: the memory in use on the whole machine.
MEMORY = {
    "ci": {1: 0.7, 2: 1.2, 3: 2.2, 4: 1.6, 5: 2.2},
    "laptop": {1: 1.4, 2: 1.6, 3: 2.2, 4: 3.7, 5: 2.4},
    "gpu": dict.fromkeys(range(1, 6), 12.0),
}
# MB that a run needs: twice what all sections write (21 and 68), since new files are written beside
# the old ones, and rounded up. For profile gpu: scaled by the number of users.
DISK = {"ci": 50, "laptop": 150, "gpu": 400}


def memory_needed(profile: str, sections: list[int] | None = None) -> float:
    """Return the largest peak in GB of these sections, by default of all."""
    peaks = MEMORY[profile]
    return max([peaks[number] for number in sections or peaks if number in peaks], default=0.0)


def memory_problem(profile: str, sections: list[int]) -> str:
    """Return a warning if less memory is free than these sections took, else ""."""
    free, needed = free_bytes() / 2**30, memory_needed(profile, sections)
    if free >= needed:
        return ""
    return (
        f"{free:.1f} GB of memory are free, and profile {profile} took up to {needed:.1f}: the "
        "kernel may be killed. Close other programs and idle kernels"
        + (", or choose --profile ci." if profile != "ci" else ".")
    )


def free_megabytes(course: Path) -> int:
    """Return the MB that may still be written where the course keeps what it makes."""
    folders = [course / name for name in ("workspace", "build")]
    return min(
        shutil.disk_usage(folder if folder.exists() else course).free >> 20 for folder in folders
    )


def check_disk(workspace: Workspace) -> None:
    """Refuse a run for which the disk has too little room.

    Raises:
        CourseError: if less is free than a run of this profile takes.
    """
    free, needed = free_megabytes(workspace.course), DISK[workspace.profile.name]
    if free < needed:
        raise CourseError(
            f"{free} MB of disk are free in {workspace.course.name}, and a run in profile "
            f"{workspace.profile.name} takes up to {needed} MB. Nothing was changed. Free some "
            "space, then run it again; lab reset --artifacts deletes what earlier runs made."
        )
