"""The attendee's notebook: solutions cut by nbgrader's own preprocessor, stubs instead."""

import copy
import json

from nbformat import NotebookNode

from courseware.authoring.read import AuthoringError, exercise_id, places, signatures
from courseware.course import Section


def stub(exercise: str, title: str) -> str:
    """Return the line that replaces a solution."""
    text = json.dumps(f"Exercise {exercise}: {title}", ensure_ascii=False)
    return f"raise NotImplementedError({text})"


def attendee_notebook(
    notebook: NotebookNode, section: Section, titles: dict[str, str]
) -> NotebookNode:
    """Return a copy of the source notebook with every solution replaced by its stub.

    Args:
        notebook: as ``read_source`` gives it.
        section: named in errors.
        titles: exercise id -> title.

    Raises:
        AuthoringError: if an exercise has no title (no entry in its section's module), or if a
            stub's signature differs from its solution's.
    """
    from nbgrader.preprocessors import ClearSolutions

    notebook = copy.deepcopy(notebook)
    for where, cell in zip(places(section, notebook), notebook.cells, strict=True):
        exercise = exercise_id(cell)
        if exercise is None:
            continue
        if exercise not in titles:
            raise AuthoringError(
                f"{where}: exercise {exercise} is not in the list EXERCISES of section "
                f"{section.number}. course.toml names the module of this list."
            )
        solved = _signatures(cell, where)
        cutter = ClearSolutions(
            code_stub={"python": stub(exercise, titles[exercise])}, enforce_metadata=False
        )
        cutter.preprocess_cell(cell, {"language": "python"}, 0)
        if (left := _signatures(cell, where)) != solved:
            raise AuthoringError(
                f"{where}: the stub of exercise {exercise} defines {left}, the solution {solved}. "
                "Keep the def line and the docstring above the solution."
            )
    return notebook


def _signatures(cell: NotebookNode, where: str) -> dict[str, str]:
    try:
        return signatures(cell.source)
    except SyntaxError as error:
        raise AuthoringError(f"{where}, line {error.lineno}: {error.msg}.") from None
