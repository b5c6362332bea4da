"""The pristine copies in ``notebooks/.pristine``: what ``notebooks`` held at the beginning."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from courseware.course import MAP, PRISTINE, Course
from courseware.errors import LabError
from courseware.files import leaves_below, read_regular, stands

NOTEBOOKS = PRISTINE.parent
IMAGES = "images"
MOST = 50_000_000  # bytes of a notebook that are read; larger ones have outputs that ran wild
AGAIN = "lab reset makes it again, and keeps what you changed."
Files = dict[Path, bytes]  # path relative to the course -> content


def pristine_files(course: Path) -> Files:
    """Return what ``notebooks`` should hold, the pristine copies in it included.

    A copy that is missing or damaged is made again from its lab's source. Nothing is written.

    Raises:
        LabError: if a copy cannot be made again.
    """
    copies = {name: _read(course, name) for name in _names(course)}
    images = PRISTINE / IMAGES if stands(course, PRISTINE / IMAGES) else NOTEBOOKS / IMAGES
    for file in leaves_below(course, images):
        copies[Path(IMAGES, file)] = read_regular(course / images / file, MOST)
    return {folder / name: copies[name] for folder in (PRISTINE, NOTEBOOKS) for name in copies}


def keep_images(course: Path) -> None:
    """Copy the pictures of ``notebooks`` to the pristine copies; a course's author changed them."""
    for file in leaves_below(course, NOTEBOOKS / IMAGES):
        copy = course / PRISTINE / IMAGES / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((course / NOTEBOOKS / IMAGES / file).read_bytes())


def seat_files(course: Path) -> Files:
    """Return what a seat of ``course`` should hold: the map and the lab sources as well.

    Raises:
        LabError: if a pristine copy of the course is missing and cannot be made again.
    """
    sources = Path("labs_solutions")
    python = [file for file in leaves_below(course, sources) if file.suffix == ".py"]
    fixed = [Path(MAP), *(sources / file for file in python)]
    return {file: (course / file).read_bytes() for file in fixed} | pristine_files(course)


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


def cells_of(content: bytes) -> list[dict[str, Any]]:
    """Return the cells of a notebook's file.

    Raises:
        ValueError: if it is no notebook.
    """
    try:
        cells = json.loads(content)["cells"]
        for cell in cells:
            text_of(cell)
        exercises_in(cells)
        return cells
    except (TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        raise ValueError("it is not a notebook") from error


def text_of(cell: dict[str, Any]) -> tuple[str, str]:
    """Return what an attendee edits in a cell: its type and its source."""
    return cell["cell_type"], "".join(cell["source"])


def exercises_in(cells: list[dict[str, Any]]) -> list[str]:
    """Return the ids of the exercises that cells are tagged with, in order."""
    tags = [tag for cell in cells for tag in cell["metadata"].get("tags", [])]
    return [tag.removeprefix("exercise-") for tag in tags if tag.startswith("exercise-")]


def _names(course: Path) -> list[Path]:
    """The notebooks of the course, relative to ``notebooks``."""
    labs = [Path(f"{section.name}.ipynb") for section in Course.read(course).sections]
    there = [file for file in leaves_below(course, PRISTINE) if file.suffix == ".ipynb"]
    if not (labs or there):
        raise LabError(f"{PRISTINE} is missing, and {MAP} names no lab to make it from.")
    further = [file for file in there if file.parent == Path("further")]
    return (labs or [file for file in there if file not in further]) + further


def _read(course: Path, name: Path) -> bytes:
    file, content = PRISTINE / name, None
    with suppress(OSError, ValueError):
        if stands(course, file):
            found = read_regular(course / file, MOST)
            cells_of(found)
            content = found
            if (course / file).lstat().st_nlink == 1:  # else somebody may write to its other name
                return content
    for section in Course.read(course).sections:
        if section.pristine == course / file:
            from courseware.authoring import attendee_file

            read_regular(section.source, MOST)  # no pipe that nobody writes to
            return attendee_file(section)
    if content is None:
        raise LabError(f"{file} is damaged, and has no lab source. Get the course again.")
    return content


def _refuse_damaged(course: Path, notebooks: dict[str, Path]) -> None:
    for file in notebooks.values():
        try:
            cells_of(read_regular(file, MOST))
        except (OSError, ValueError):
            raise LabError(f"{file.relative_to(course)} is damaged. {AGAIN}") from None
