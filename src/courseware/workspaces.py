"""The workspaces of a course: what its labs make, one folder for a data set in a profile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from courseware.course import Course, installed, load
from courseware.errors import needs_no_traceback


class Workspace(Protocol):
    """What the command ``lab`` asks of the class that ``course.toml`` names as ``workspace``."""

    course: Path
    dataset: str
    profile: Any  # has a name

    @property
    def folder(self) -> Path:
        """Where its artifacts are; it need not exist yet."""

    def artifacts(self) -> list[str]:
        """The names of the artifacts that are there, intact or not."""

    def read(self, name: str) -> Path:
        """The folder of an artifact that is intact, else an error in words."""

    def problem(self, name: str) -> str:
        """What is wrong with an artifact, and "" if it is intact."""


def open_workspace(course: Course, dataset: str = "", profile: str = "") -> Workspace:
    """Return the workspace of a data set in a profile, by default the course's."""
    open_ = load(installed().loads["workspace"]).open
    return open_(dataset or course.dataset, profile or course.profile, course.folder)


def workspaces(course: Course) -> Iterator[Workspace]:
    """Yield a workspace for each folder ``workspace/<dataset>-<profile>``."""
    for folder in sorted((course.folder / "workspace").glob("*-*")):
        dataset, _, profile = folder.name.rpartition("-")
        if not folder.is_dir() or profile not in course.profiles:
            continue
        try:
            yield open_workspace(course, dataset, profile)
        except Exception as error:
            if not needs_no_traceback(error):
                raise


def missing_before(course: Course, workspace: Workspace, numbers: list[int]) -> list[int]:
    """Return the sections to run before ``numbers``: what they make is missing or damaged."""
    sections = {section.number: section for section in course.sections}
    maker = {name: section.number for section in course.sections for name in section.makes}
    again: set[int] = set()
    waiting = [name for number in numbers for name in sections[number].reads]
    while waiting:
        name = waiting.pop()
        number = maker[name]
        if number not in again | set(numbers) and workspace.problem(name):
            again.add(number)
            waiting += sections[number].reads
    return sorted(again)
