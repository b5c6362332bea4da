"""The solutions of exercises, read out of the lab sources in ``labs_solutions``."""

from pathlib import Path

from multistage.errors import CourseError
from multistage.exercises.exercise import section_of

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"


def lab_sources(course: Path) -> dict[int, Path]:
    """Return the sources of the labs by section number: 1 -> ``labs_solutions/01-….py``."""
    files = sorted((course / "labs_solutions").glob("[0-9][0-9]-*.py"))
    return {int(file.name[:2]): file for file in files}


def solution(course: Path, exercise: str) -> str:
    """Return the code of the solved cell of ``exercise``, without its marks.

    Raises:
        CourseError: if its lab or its cell is missing.
    """
    import jupytext

    section = section_of(exercise)
    file = lab_sources(course).get(section)
    if file is None:
        raise CourseError(f"The source of section {section} is missing in {course}/labs_solutions.")
    for cell in jupytext.read(file).cells:
        if f"exercise-{exercise}" in cell.metadata.get("tags", []):
            lines = cell.source.split("\n")
            return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))
    raise CourseError(f"{file.name} has no cell tagged exercise-{exercise}.")
