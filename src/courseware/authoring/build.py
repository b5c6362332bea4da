"""Write both notebooks of each section, and find where they differ from their source."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from courseware.authoring.attendee import attendee_notebook
from courseware.authoring.clean import clean, refuse_machine_paths
from courseware.authoring.execute import execute
from courseware.authoring.read import read_source
from courseware.course import Section
from courseware.exercises.exercise import exercises_of

Titles = Callable[[int], dict[str, str]]


def registered_titles(section: int) -> dict[str, str]:
    """Return exercise id -> title, from the section's module of checks."""
    return {exercise.id: exercise.title for exercise in exercises_of(section).values()}


def attendee_file(section: Section, titles: Titles = registered_titles) -> bytes:
    """Return what the file of the attendee's notebook holds; nothing is executed or written.

    Raises:
        AuthoringError: if the source is malformed.
    """
    notebook = attendee_notebook(read_source(section), section, titles(section.number))
    return _text(notebook).encode()


def build(
    section: Section,
    run: bool = True,
    titles: Titles = registered_titles,
    keep: Callable[[Path], None] = lambda file: None,
) -> tuple[Path, Path]:
    """Write the solved and the attendee's notebook of ``section``; return their paths.

    Args:
        section: its source is read.
        run: execute the solved notebook with the parameters in it; if False, outputs of cells
            that did not change are kept from the notebook that is there.
        titles: section number -> exercise id -> title, written into the stubs.
        keep: called with the attendee's notebook before that is replaced.

    Raises:
        AuthoringError: if the source is malformed or an output names a path of this machine.
        CellError: if a cell fails.
    """
    source = read_source(section)
    attendee = attendee_notebook(source, section, titles(section.number))
    if run:
        solved = clean(execute(source, section.source.parent), section.course)
        refuse_machine_paths(solved, section.solved.name)
        solved.metadata.update(source.metadata)
    else:
        solved = _with_outputs_of(source, section.solved)
    _write(solved, section.solved)
    keep(section.attendee)
    _write(attendee, section.pristine)
    _write(attendee, section.attendee)
    return section.solved, section.attendee


def drift(section: Section, titles: Titles = registered_titles) -> list[str]:
    """Return what differs between the source and its two notebooks; empty if they are in step.

    Outputs are not compared, except that the attendee's notebook must have none.
    """
    source = read_source(section)
    attendee = attendee_notebook(source, section, titles(section.number))
    return [
        *_differences(source, section.solved),
        *_differences(attendee, section.attendee),
        *_outputs(section.attendee),
        *_differences(attendee, section.pristine),
        *_outputs(section.pristine),
    ]


def _differences(wanted: NotebookNode, file: Path) -> list[str]:
    name = f"{file.parent.name}/{file.name}"
    if not file.exists():
        return [f"{name} is missing"]
    there = nbformat.read(file, as_version=4)
    if len(there.cells) != len(wanted.cells):
        return [f"{name} has {len(there.cells)} cells, its source {len(wanted.cells)}"]
    return [
        f"{name}, cell {index} differs from its source"
        for index, (a, b) in enumerate(zip(there.cells, wanted.cells, strict=True), 1)
        if _identity(a) != _identity(b)
    ]


def _identity(cell: NotebookNode) -> tuple[str, str, str, list[str]]:
    return cell.id, cell.cell_type, cell.source, list(cell.metadata.get("tags", []))


def _outputs(file: Path) -> list[str]:
    if not file.exists():
        return []
    cells = nbformat.read(file, as_version=4).cells
    return [
        f"{file.parent.name}/{file.name}, cell {index} has outputs"
        for index, cell in enumerate(cells, 1)
        if cell.get("outputs") or cell.get("execution_count")
    ]


def _with_outputs_of(source: NotebookNode, file: Path) -> NotebookNode:
    if not file.exists():
        return source
    there = {cell.id: cell for cell in nbformat.read(file, as_version=4).cells}
    for cell in source.cells:
        old = there.get(cell.id)
        if old is not None and cell.cell_type == "code":
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return source


def _write(notebook: NotebookNode, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{file.stem}-", suffix=".ipynb", dir=file.parent)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(_text(notebook))
        os.chmod(aside, 0o644)
        os.replace(aside, file)
    except OSError:  # such as a full disk
        os.unlink(aside)
        raise


def _text(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook).rstrip("\n") + "\n"
