"""The solutions of exercises, read out of the lab sources in ``labs_solutions``."""

import ast
import contextlib
import linecache
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from courseware.errors import LabError
from courseware.exercises.exercise import section_of

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"


def solution(course: Path, exercise: str) -> str:
    """Return the code of the solved cell of ``exercise``, without its marks.

    Raises:
        LabError: if its lab or its cell is missing.
    """
    lines = exercise_cell(_cells(course, exercise), exercise).source.split("\n")
    return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))


def reference(course: Path, exercise: str) -> Callable[..., Any]:
    """Return the solution of ``exercise`` as a function, defined outside any notebook.

    Raises:
        LabError: if its lab or its cell is missing.
    """
    return answer_in(_cells(course, exercise), exercise)


def answer_in(cells: list[Any], exercise: str) -> Callable[..., Any]:
    """Define and return what a notebook hands to ``check(exercise, …)``.

    Only imports and definitions above are run besides the exercise's own cell: none of the work
    of the notebook. An import or definition that fails is left out.

    Args:
        cells: of a notebook, solved or not.
        exercise: its id.

    Raises:
        LabError: if the exercise or its check cell is missing.
        Exception: whatever the exercise's own cell raises.
    """
    own = exercise_cell(cells, exercise)
    name = _checked_name(cells, exercise)
    space: dict[str, Any] = {"__name__": f"exercise_{exercise.replace('.', '_')}"}
    for cell in cells[: cells.index(own)]:
        if cell.cell_type == "code":
            _define(cell.source, space)
    code = own.source
    file = f"<exercise {exercise}>"
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), space)
    if name not in space:
        raise LabError(f"Exercise {exercise}: its cell does not define {name}.")
    return space[name]


def exercise_cell(cells: list[Any], exercise: str) -> Any:
    """Return the cell tagged ``exercise-<id>``.

    Raises:
        LabError: if there is none.
    """
    return _tagged(cells, f"exercise-{exercise}")


def _checked_name(cells: list[Any], exercise: str) -> str:
    source = _tagged(cells, f"check-{exercise}").source
    found = re.search(rf"check\(\s*[\"']{re.escape(exercise)}[\"']\s*,\s*([\w.]+)\s*\)", source)
    if not found:
        raise LabError(f'The check cell of {exercise} has no check("{exercise}", name).')
    return found.group(1)


def _tagged(cells: list[Any], tag: str) -> Any:
    for cell in cells:
        if tag in cell.metadata.get("tags", []):
            return cell
    raise LabError(f"The notebook has no cell tagged {tag}.")


def _cells(course: Path, exercise: str) -> list[Any]:
    import jupytext

    section = section_of(exercise)
    file = next((course / "labs_solutions").glob(f"{section:02d}-*.py"), None)
    if file is None:
        raise LabError(f"The source of section {section} is missing in labs_solutions.")
    return jupytext.read(file).cells


def _define(source: str, space: dict[str, Any]) -> None:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a line of IPython's own, or an unfinished cell
        return
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    for node in body:
        if isinstance(node, kinds):
            with contextlib.suppress(Exception):
                exec(compile(ast.Module([node], []), "<above>", "exec"), space)
