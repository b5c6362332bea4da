"""Read a lab source into a notebook with deterministic ids, and refuse malformed marks."""

import ast
import hashlib
import re
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from courseware.course import Section
from courseware.errors import LabError
from courseware.exercises.source import BEGIN, END

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
_MARK = re.compile(r"(BEGIN|END)\s*_?\s*SOLUTION", re.IGNORECASE)


class AuthoringError(LabError):
    """A lab source is malformed; the message names the file and the cell or line."""


def read_source(section: Section) -> NotebookNode:
    """Return the lab source as a notebook: no outputs, ids that depend on the cells alone.

    Raises:
        AuthoringError: for an unpaired, nested or misspelt mark, a mark outside an exercise cell,
            an exercise without a check cell below it; the message names file, cell and line.
    """
    import jupytext

    cells = jupytext.read(section.source).cells
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = {"tags": list(tags)} if (tags := cell.metadata.get("tags")) else {}
    notebook = new_notebook(cells=cells, metadata=METADATA)
    _refuse_malformed(section, notebook)
    return notebook


def places(section: Section, notebook: NotebookNode) -> list[str]:
    """Return where each cell begins: ``"01-introduction.py:57, cell 12"``."""
    lines = section.source.read_text().split("\n")
    starts = [f":{number}" for number, line in enumerate(lines, 1) if line.startswith("# %%")]
    if len(starts) != len(notebook.cells):  # text before the first mark is a cell as well
        starts = [""] * len(notebook.cells)
    return [f"{section.source.name}{line}, cell {i}" for i, line in enumerate(starts, 1)]


def exercise_id(cell: NotebookNode) -> str | None:
    """Return ``"2.1"`` if the cell is tagged ``exercise-2.1``, else None."""
    return _tagged(cell, "exercise-")


def check_id(cell: NotebookNode) -> str | None:
    """Return ``"2.1"`` if the cell is tagged ``check-2.1``, else None."""
    return _tagged(cell, "check-")


def _tagged(cell: NotebookNode, prefix: str) -> str | None:
    for tag in cell.metadata.get("tags", []):
        if tag.startswith(prefix):
            return tag.removeprefix(prefix)
    return None


def _refuse_malformed(section: Section, notebook: NotebookNode) -> None:
    waiting: str | None = None  # an exercise whose check cell must come next
    for where, cell in zip(places(section, notebook), notebook.cells, strict=True):
        marks = _marks(cell, where)
        exercise = exercise_id(cell)
        if exercise and waiting:
            raise AuthoringError(f"{where}: exercise {waiting} has no check cell below it.")
        if exercise:
            if not exercise.startswith(f"{section.number}."):
                raise AuthoringError(f"{where}: exercise {exercise} is in the wrong section.")
            if marks == 0:
                raise AuthoringError(f"{where}: exercise {exercise} has no {BEGIN} and {END}.")
            if marks > 1:
                raise AuthoringError(f"{where}: exercise {exercise} has more than one solution.")
            waiting = exercise
        elif marks:
            raise AuthoringError(f"{where}: a solution in a cell without the tag exercise-…")
        if check := check_id(cell):
            if check != waiting:
                raise AuthoringError(f"{where}: check {check} does not follow its exercise.")
            if f'check("{check}"' not in cell.source:
                raise AuthoringError(f'{where}: expected a call of check("{check}", …).')
            waiting = None
    if waiting:
        raise AuthoringError(f"{section.source.name}: exercise {waiting} has no check cell.")


def _marks(cell: NotebookNode, where: str) -> int:
    """The number of solutions in the cell."""
    regions, opened = 0, 0
    for number, line in enumerate(cell.source.split("\n"), 1):
        if not _MARK.search(line):
            continue
        mark, place = line.strip(), f"{where}, line {number}"
        if mark not in (BEGIN, END):
            raise AuthoringError(f"{place}: expected {BEGIN!r} or {END!r}, found {mark!r}.")
        if mark == BEGIN and opened:
            raise AuthoringError(f"{place}: {BEGIN!r} inside the solution that line {opened} began")
        if mark == END and not opened:
            raise AuthoringError(f"{place}: {END!r} without {BEGIN!r} before it.")
        regions += mark == BEGIN
        opened = number if mark == BEGIN else 0
    if opened:
        raise AuthoringError(f"{where}, line {opened}: {BEGIN!r} without {END!r} after it.")
    return regions


def signatures(source: str) -> dict[str, str]:
    """Return the functions and classes at the top of a cell: name -> arguments, as text."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = f"({ast.unparse(node.args)})"
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found[node.name] = ", ".join(f"{m.name}({ast.unparse(m.args)})" for m in methods)
    return found


def definitions(section: Section, *names: str) -> list[Any]:
    """Return functions and classes that a lab defines, so that other code needs no copy of them.

    The lab's imports are executed as well, and nothing of its work.

    Raises:
        AuthoringError: if the lab does not define one of ``names``.
    """
    space: dict[str, Any] = {"__name__": section.name}
    for cell in read_source(section).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import | ast.ImportFrom) or getattr(node, "name", "") in names:
                exec(compile(ast.Module([node], []), section.source.name, "exec"), space)
    for name in names:
        if name not in space:
            raise AuthoringError(f"{section.source.name} does not define {name}.")
    return [space[name] for name in names]
