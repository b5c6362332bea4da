"""What an attendee's course looks like: notebooks, progress, artifacts, servers. All of it fast."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from courseware.course import PRISTINE, PROGRESS, Course, installed, load
from courseware.files import OWN, leaves, read_json, read_regular
from courseware.lab.pristine import (
    IMAGES,
    MOST,
    cells_of,
    exercises_in,
    further_notebooks,
    pristine_notebooks,
    text_of,
)
from courseware.workspaces import Workspace, workspaces

NotebookState = Literal["pristine", "edited", "read-only", "missing", "unreadable"]
VERIFIED_BYTES = 200_000_000  # larger artifacts are not read through for a quick look
ADDED = 20  # files of an attendee's own that are told
STUCK = 3  # failures of an exercise since it last passed


@dataclass(frozen=True)
class NotebookStatus:
    """The notebook of a section, or a further one: ``section`` is ``"further/02-losses"`` then."""

    section: str
    state: NotebookState
    passed: int  # exercises, without those whose solution was shown
    solved: int  # exercises whose solution was shown
    exercises: int
    stuck: dict[str, int]  # exercises that failed often -> how often since they last passed


@dataclass(frozen=True)
class ArtifactStatus:
    """One artifact of one workspace."""

    workspace: str
    name: str
    state: str  # "intact", "not verified", or what is wrong


def notebook_statuses(course: Path) -> list[NotebookStatus]:
    """Return how each section's notebook stands, and after them how each further one does."""
    progress = read_progress(course)
    statuses = []
    for name, pristine in (pristine_notebooks(course) | further_notebooks(course)).items():
        cells = cells_of(read_regular(pristine, MOST))
        exercises = exercises_in(cells)
        entries = {exercise: progress.get(exercise, {}) for exercise in exercises}
        shown = {name for name, entry in entries.items() if entry.get("solution_shown") is True}
        passed = {name for name, entry in entries.items() if entry.get("passed") is True}
        failures = {name: _whole(entry.get("failures")) for name, entry in entries.items()}
        statuses.append(
            NotebookStatus(
                section=name,
                state=_state(course / "notebooks" / f"{name}.ipynb", pristine, cells),
                passed=len(passed - shown),
                solved=len(shown),
                exercises=len(exercises),
                stuck={name: n for name, n in failures.items() if n >= STUCK},
            )
        )
    return statuses


def read_progress(course: Path) -> dict[str, dict[str, Any]]:
    """Return exercise id -> its entry; empty if there is none that can be read."""
    try:
        entries = read_json(course / PROGRESS)["exercises"]
        return {name: dict(entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def added_files(course: Path) -> dict[str, str]:
    """Return what an attendee put into ``notebooks`` -> the notebook that it was, or "".

    A notebook is a renamed one if it holds the exercises of a section whose own is missing.
    """
    known = pristine_notebooks(course)
    missing = {
        name: exercises_in(cells_of(read_regular(file, MOST)))
        for name, file in known.items()
        if not os.path.lexists(course / "notebooks" / file.name)
    }
    ours = {f"{name}.ipynb" for name in known} | {PRISTINE.name, IMAGES, "further"}
    added = {}
    for name in sorted(set(os.listdir(course / "notebooks")) - ours)[:ADDED]:
        added[name] = ""
        with suppress(OSError, ValueError):
            if name.endswith(".ipynb"):
                held = exercises_in(cells_of(read_regular(course / "notebooks" / name, MOST)))
                added[name] = next((was for was in missing if held and missing[was] == held), "")
    return added


def artifact_statuses(course: Course) -> list[ArtifactStatus]:
    """Return how each artifact of each workspace stands."""
    statuses = []
    for workspace in workspaces(course):
        try:
            statuses += [_artifact(workspace, name) for name in workspace.artifacts()]
        except (OSError, RecursionError) as error:
            statuses.append(ArtifactStatus(workspace.folder.name, "", f"cannot be read: {error}"))
    return statuses


def servers(course: Path) -> dict[int, str]:
    """Return pid -> what it serves, for the servers that run on this course's files."""
    return load(installed().loads["servers"])(course)


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


def _artifact(workspace: Workspace, name: str) -> ArtifactStatus:
    folder = workspace.folder / name
    files = [folder / file for file in leaves(folder)]
    if sum(file.lstat().st_size for file in files) > VERIFIED_BYTES:
        state = "not verified"
    else:
        state = workspace.problem(name) or "intact"
    return ArtifactStatus(workspace.folder.name, name, state)


def _state(file: Path, pristine: Path, cells: list[dict[str, Any]]) -> NotebookState:
    try:
        about = file.lstat()
        if stat.S_ISLNK(about.st_mode) or file.samefile(pristine):
            return "edited"
        if stat.S_ISREG(about.st_mode) and about.st_size > MOST:
            return "edited"
        if not about.st_mode & stat.S_IRUSR:  # root could read it
            return "unreadable"
        found = cells_of(read_regular(file, MOST))
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (OSError, ValueError):
        return "unreadable"
    if about.st_mode & OWN != OWN:
        return "read-only"
    same = [text_of(cell) for cell in found] == [text_of(cell) for cell in cells]
    return "pristine" if same else "edited"
