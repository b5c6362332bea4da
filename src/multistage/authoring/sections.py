"""The sections of a course: one source file each in ``labs_solutions``."""

from dataclasses import dataclass
from pathlib import Path

from multistage.errors import CourseError
from multistage.exercises.source import lab_sources
from multistage.workspace import PRISTINE


class AuthoringError(CourseError):
    """A lab source is malformed; the message names the file and the cell or line."""


@dataclass(frozen=True)
class Section:
    """One lab: ``labs_solutions/01-introduction.py`` is number 1, name ``01-introduction``."""

    number: int
    source: Path

    @property
    def name(self) -> str:
        """The name of its files, without suffix."""
        return self.source.stem

    @property
    def solved(self) -> Path:
        """The generated notebook with solutions and outputs."""
        return self.source.with_suffix(".ipynb")

    @property
    def attendee(self) -> Path:
        """The generated notebook with stubs and no outputs."""
        return self.source.parent.parent / "notebooks" / f"{self.name}.ipynb"

    @property
    def pristine(self) -> Path:
        """The copy of the attendee's notebook that ``lab reset`` restores from."""
        return self.source.parent.parent / PRISTINE / f"{self.name}.ipynb"


def find_sections(course: Path, numbers: list[int] | None = None) -> list[Section]:
    """Return the sections of the course in order; those of ``numbers`` if given.

    Raises:
        CourseError: if the course has none, or lacks one of ``numbers``.
    """
    sections = {number: Section(number, file) for number, file in lab_sources(course).items()}
    if not sections:
        raise CourseError("No lab sources: expected labs_solutions/01-….py and so on.")
    if not numbers:
        return list(sections.values())
    for number in numbers:
        if number not in sections:
            known = ", ".join(str(n) for n in sections)
            raise CourseError(f"There is no section {number}: choose from {known}.")
    return [sections[number] for number in sorted(set(numbers))]
