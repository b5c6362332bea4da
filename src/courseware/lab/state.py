"""What an attendee's course looks like: notebooks, progress, artifacts, servers. All of it fast."""

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from courseware.course import PRISTINE, PROGRESS, Course, installed, load
from courseware.errors import LabError
from courseware.workspaces import workspaces

NotebookState = Literal["pristine", "edited", "read-only", "missing", "unreadable"]
OWN = stat.S_IRUSR | stat.S_IWUSR  # what its owner needs to read a file and save it
VERIFIED_BYTES = 200_000_000  # larger artifacts are not read through for a quick look
LOOKED_AT_BYTES = 50_000_000  # nor are larger notebooks, whose outputs ran wild
AGAIN = "Make them with: lab build --no-execute; in a seat: lab seats reset"


@dataclass(frozen=True)
class NotebookStatus:
    """The notebook of a section, or a further one: ``section`` is ``"further/02-losses"`` then."""

    section: str
    state: NotebookState
    passed: int
    exercises: int


@dataclass(frozen=True)
class ArtifactStatus:
    """One artifact of one workspace."""

    workspace: str
    name: str
    state: str  # "intact", "not verified", or what is wrong


def pristine_notebooks(course: Path) -> dict[str, Path]:
    """Return section name -> the pristine copy of its notebook.

    Raises:
        LabError: if the course has none, or one is damaged.
    """
    found = {file.stem: file for file in sorted((course / PRISTINE).glob("*.ipynb"))}
    if not found:
        raise LabError(f"The pristine notebooks in {PRISTINE} are missing. {AGAIN}")
    _refuse_damaged(course, found)
    return found


def further_notebooks(course: Path) -> dict[str, Path]:
    """Return ``"further/02-losses"`` -> the pristine copy of that notebook; empty if none.

    Raises:
        LabError: if one is damaged.
    """
    files = sorted((course / PRISTINE / "further").glob("*.ipynb"))
    found = {f"further/{file.stem}": file for file in files}
    _refuse_damaged(course, found)
    return found


def _refuse_damaged(course: Path, notebooks: dict[str, Path]) -> None:
    for file in notebooks.values():
        try:
            for cell in read_json(file)["cells"]:
                _text(cell)
        except (OSError, ValueError, TypeError, KeyError):
            raise LabError(f"{file.relative_to(course)} is damaged. {AGAIN}") from None


def read_json(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(file.read_text())
    except RecursionError as error:
        raise ValueError(f"{file.name} is nested too deeply") from error


def notebook_statuses(course: Path) -> list[NotebookStatus]:
    """Return how each section's notebook stands, and after them how each further one does."""
    progress = read_progress(course)
    statuses = []
    for name, pristine in (pristine_notebooks(course) | further_notebooks(course)).items():
        cells = read_json(pristine)["cells"]
        exercises = [
            tag.removeprefix("exercise-")
            for cell in cells
            for tag in cell["metadata"].get("tags", [])
            if tag.startswith("exercise-")
        ]
        passed = sum(bool(progress.get(exercise, {}).get("passed")) for exercise in exercises)
        state = _state(course / "notebooks" / f"{name}.ipynb", cells)
        statuses.append(NotebookStatus(name, state, passed, len(exercises)))
    return statuses


def read_progress(course: Path) -> dict[str, dict[str, Any]]:
    """Return exercise id -> its entry; empty if there is none that can be read."""
    try:
        entries = read_json(course / PROGRESS)["exercises"]
        return {name: dict(entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def artifact_statuses(course: Course) -> list[ArtifactStatus]:
    """Return how each artifact of each workspace stands."""
    statuses = []
    for workspace in workspaces(course):
        for name in workspace.artifacts():
            files = [file for file in (workspace.folder / name).rglob("*") if file.is_file()]
            if sum(file.stat().st_size for file in files) > VERIFIED_BYTES:
                state = "not verified"
            else:
                state = workspace.problem(name) or "intact"
            statuses.append(ArtifactStatus(workspace.folder.name, name, state))
    return statuses


def servers(course: Path) -> dict[int, str]:
    """Return pid -> what it serves, for the servers that run on this course's files."""
    return load(installed().loads["servers"])(course)


def _state(file: Path, pristine: list[dict[str, Any]]) -> NotebookState:
    if not file.exists():
        return "missing"
    if not file.is_file():
        return "unreadable"
    if file.stat().st_size > LOOKED_AT_BYTES:
        return "edited"
    try:
        same = [_text(c) for c in read_json(file)["cells"]] == [_text(c) for c in pristine]
    except (OSError, ValueError, TypeError, KeyError):
        return "unreadable"
    if file.stat().st_mode & OWN != OWN:
        return "read-only"
    return "pristine" if same and not file.is_symlink() else "edited"


def _text(cell: dict[str, Any]) -> tuple[str, str]:
    return cell["cell_type"], "".join(cell["source"])
