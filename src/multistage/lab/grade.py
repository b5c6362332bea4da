"""``lab grade``: run the checks of submitted notebooks, each in a process of its own."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from multistage.errors import CourseError
from multistage.lab.options import Json, Root, Sections
from multistage.workspace import find_course

GRADER = "multistage.lab.grader"
SECONDS = 90.0  # an exercise, imports included


@dataclass(frozen=True)
class Grade:
    """What came of one exercise of one attendee."""

    attendee: str
    exercise: str
    passed: bool
    message: str


def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="An attendee's folder or notebook each; this course if none."),
    ] = None,
    section: Sections = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for grades.json and grades.csv.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="The most an exercise may take.")] = SECONDS,
    jobs: Annotated[int, typer.Option(help="Exercises checked at once.")] = 2,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Check submitted notebooks; write a table of attendee, exercise, passed and message."""
    course = find_course(root)
    target = output or course / "build" / "grades"
    grades = grade(folders or [course], section, seconds, jobs)
    write_grades(grades, target)
    if as_json:
        print(json.dumps([asdict(one) for one in grades], indent=1))
        return
    table = Table()
    for column in ("attendee", "exercise", "passed", "message"):
        table.add_column(column, overflow="fold")
    for one in grades:
        table.add_row(one.attendee, one.exercise, "yes" if one.passed else "no", one.message)
    Console().print(table)
    print(f"written: {target / 'grades.json'}, {target / 'grades.csv'}")


def grade(
    submissions: list[Path],
    sections: list[int] | None = None,
    seconds: float = SECONDS,
    jobs: int = 2,
) -> list[Grade]:
    """Check every exercise of every submission.

    Args:
        submissions: a course folder, a folder of notebooks, or a notebook each; notebooks are
            known by the two digits that their names begin with.
        sections: only these, all by default.
        seconds: the most an exercise may take, imports included; then its process is killed.
        jobs: how many exercises are checked at once.

    Returns:
        One grade for each exercise of each notebook, in order.

    Raises:
        CourseError: if a submission is not there or holds no notebook.
    """
    from multistage.exercises.exercise import exercises_of

    tasks = [
        (attendee, notebook, exercise)
        for attendee, notebook in _notebooks(submissions)
        if not sections or int(notebook.name[:2]) in sections
        for exercise in exercises_of(int(notebook.name[:2]))
    ]
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        return list(pool.map(lambda task: _grade_one(*task, seconds), tasks))


def write_grades(grades: list[Grade], folder: Path) -> None:
    """Write ``grades.json`` and ``grades.csv``, each in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("grades.json", "grades.csv"):
        aside = folder / f".{name}"
        with aside.open("w", newline="") as stream:
            if name.endswith("json"):
                json.dump([asdict(one) for one in grades], stream, indent=1)
            else:
                writer = csv.DictWriter(stream, [field.name for field in fields(Grade)])
                writer.writeheader()
                writer.writerows(asdict(one) for one in grades)
        os.replace(aside, folder / name)


def _notebooks(submissions: list[Path]) -> Iterator[tuple[str, Path]]:
    for submission in submissions:
        path = submission.resolve()
        inside = path / "notebooks" if (path / "notebooks").is_dir() else path
        found = [path] if path.is_file() else sorted(inside.glob("[0-9][0-9]-*.ipynb"))
        if not found:
            raise CourseError(
                f"{submission} holds no notebook: expected 01-….ipynb and so on, in it or in its "
                "folder notebooks."
            )
        for notebook in found:
            yield (path.parent.name if path.is_file() else path.name), notebook


def _grade_one(attendee: str, notebook: Path, exercise: str, seconds: float) -> Grade:
    scratch = Path(tempfile.mkdtemp(prefix="grade-"))
    try:
        shutil.copyfile(notebook, scratch / "submitted.ipynb")
        process = subprocess.Popen(
            [sys.executable, "-m", GRADER, "submitted.ipynb", exercise, "result.json"],
            cwd=scratch,
            env={**os.environ, "HOME": str(scratch), "TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
            message = "Its process ended before the check did."
        except subprocess.TimeoutExpired:
            message = f"It did not end within {seconds:g} s."
        finally:
            _kill(process)
        try:
            verdict = json.loads((scratch / "result.json").read_text())
            return Grade(attendee, exercise, bool(verdict["passed"]), str(verdict["message"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Grade(attendee, exercise, False, message)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
