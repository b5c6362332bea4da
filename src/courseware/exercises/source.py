"""The solutions of exercises, read out of the lab sources in ``labs_solutions``."""

import ast
import contextlib
import hashlib
import itertools
import json
import linecache
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from courseware.course import installed
from courseware.errors import LabError
from courseware.exercises.exercise import section_of

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"
_CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def solution(course: Path, exercise: str) -> str:
    """Return the code of the solved cell of ``exercise``, without its marks.

    Raises:
        LabError: if its lab or its cell is missing.
    """
    lines = exercise_cell(cells_of(course, exercise), exercise).source.split("\n")
    return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))


@cache
def reference(course: Path, exercise: str) -> Callable[..., Any]:
    """Return the solution of ``exercise`` as a function, defined outside any notebook.

    The lab's source is read once per process.

    Raises:
        LabError: if its lab or its cell is missing.
    """
    return answer_in(cells_of(course, exercise), exercise)


def changed(exercise: str, edits: dict[str, str]) -> Callable[..., Any]:
    """Return the lab's solution of ``exercise`` with pieces of its text replaced: a mistake.

    The source is read at the first call.

    Args:
        exercise: its id.
        edits: text of the solution -> what stands in its place, wherever it occurs.

    Raises:
        LabError: at a call, if the solution does not hold one of the texts.
    """

    def mistake(*arguments: Any) -> Any:
        return _changed(exercise, tuple(edits.items()))(*arguments)

    return mistake


@cache
def _changed(exercise: str, edits: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
    cells = cells_of(installed().folder, exercise)
    own = exercise_cell(cells, exercise)
    for text, other in edits:
        if text not in own.source:
            raise LabError(f"The solution of {exercise} does not contain {text!r}.")
        own.source = own.source.replace(text, other)
    return answer_in(cells, exercise)


def answer_in(cells: list[Any], exercise: str) -> Callable[..., Any]:
    """Define and return what a notebook hands to ``check(exercise, …)``.

    Besides the exercise's own cell only the imports and definitions above are run that it needs:
    none of the work of the notebook. An import or definition that fails is left out.

    Args:
        cells: of a notebook, solved or not.
        exercise: its id.

    Raises:
        LabError: if the exercise or its check cell is missing.
        Exception: whatever the exercise's own cell raises.
    """
    own = exercise_cell(cells, exercise)
    name = _checked_name(_tagged(cells, f"check-{exercise}"), exercise)
    space = definitions_above(cells, exercise)
    code = own.source
    # A name of its own for each code: TensorFlow reads the source of what it traces by that name.
    file = f"<exercise {exercise}, {hashlib.sha256(code.encode()).hexdigest()[:8]}>"
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), space)
    if name not in space:
        raise LabError(f"Exercise {exercise}: its cell does not define {name}.")
    return space[name]


def definitions_above(cells: list[Any], exercise: str) -> dict[str, Any]:
    """Return what the imports and definitions above the cell of ``exercise`` define.

    Only those are run that the cell needs, itself or by way of others: a definition may do more
    than define, such as register a class, and imports cost time.
    """
    own = exercise_cell(cells, exercise)
    above = [
        node
        for cell in itertools.takewhile(lambda cell: cell is not own, cells)
        if cell.cell_type == "code"
        for node in _body(cell.source)
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
    ]
    needed = _used(_body(own.source)) | {"*"}
    chosen: list[ast.stmt] = []
    while more := [node for node in above if node not in chosen and _defined(node) & needed]:
        chosen += more
        needed |= _used(more)
    space: dict[str, Any] = {"__name__": f"exercise_{exercise.replace('.', '_')}"}
    for node in above:
        if node in chosen:
            with contextlib.suppress(Exception):
                exec(compile(ast.Module([node], []), "<above>", "exec"), space)
    return space


def _body(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:  # a line of IPython's own, or an unfinished cell
        return []


def _used(nodes: list[ast.stmt]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {name.asname or name.name.split(".")[0] for name in node.names}
    return {node.name}


def exercise_cell(cells: list[Any], exercise: str) -> Any:
    """Return the cell whose definition ``check(exercise, …)`` gets when cells run in their order.

    That is the last one above the check that defines what is checked: whoever copies the
    exercise's cell and solves the copy passes in the notebook. If none defines it, it is the cell
    tagged ``exercise-<id>``.

    Raises:
        LabError: if there is neither, or no check.
    """
    check = _tagged(cells, f"check-{exercise}")
    name = _checked_name(check, exercise)
    above = list(itertools.takewhile(lambda cell: cell is not check, cells))
    for cell in reversed(above):
        if cell.cell_type == "code" and name in _set_at_top(_body(cell.source)):
            return cell
    return _tagged(cells, f"exercise-{exercise}")


def _set_at_top(nodes: list[ast.stmt]) -> set[str]:
    """The functions, classes and variables that statements set, and none that they import."""
    targets = [t for node in nodes if isinstance(node, ast.Assign) for t in node.targets]
    defined = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {n.name for n in defined} | {t.id for t in targets if isinstance(t, ast.Name)}


def _checked_name(check: Any, exercise: str) -> str:
    called = rf"check\(\s*[\"']{re.escape(exercise)}[\"']\s*,\s*([\w.]+)\s*\)"
    if not (found := re.search(called, check.source)):
        raise LabError(f'The check cell of {exercise} has no check("{exercise}", name).')
    return found.group(1)


def _tagged(cells: list[Any], tag: str) -> Any:
    """The last cell with this tag; those before it were copied."""
    for cell in reversed(cells):
        if tag in cell.metadata.get("tags", []):
            return cell
    raise LabError(f"The notebook has no cell tagged {tag}.")


def cells_of(course: Path, exercise: str) -> list[Any]:
    """Return the cells of the lab, or of the further notebook, that holds ``exercise``.

    Raises:
        LabError: if there is none.
    """
    section = section_of(exercise)
    folder = course / "labs_solutions"
    files = [*folder.glob(f"{section:02d}-*.py"), *folder.glob(f"further/{section:02d}-*.py")]
    if not files:
        raise LabError(f"The source of section {section} is missing in labs_solutions.")
    for file in files:
        cells = read_cells(file.read_text())
        if any(f"exercise-{exercise}" in cell.metadata["tags"] for cell in cells):
            return cells
    raise LabError(f"No source of section {section} has a cell tagged exercise-{exercise}.")


def read_cells(text: str) -> list[SimpleNamespace]:
    """Return the cells of a source in jupytext's percent format, with what is read of them here.

    (Importing jupytext takes two seconds, and the first check of a notebook would wait for it.)
    """
    parts = _CELL.split(text)
    return [
        SimpleNamespace(
            cell_type="markdown" if "[markdown]" in mark else "code",
            source=source.strip("\n"),
            metadata={"tags": json.loads(mark.partition("tags=")[2] or "[]")},
        )
        for mark, source in zip(parts[1::2], parts[2::2], strict=True)
    ]
