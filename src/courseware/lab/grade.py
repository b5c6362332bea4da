"""``lab grade``: run the checks of submitted notebooks, each in a process of its own."""

import contextlib
import csv
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from courseware.course import find_course
from courseware.errors import LabError
from courseware.lab.options import Json, Root, Sections

GRADER = "courseware.lab.grader"
SECONDS = 90.0  # an exercise, imports included
NOTEBOOK_BYTES = 100 * 2**20
MESSAGE = 500  # characters


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
    jobs: Annotated[
        int, typer.Option(min=1, help="Exercises checked at once; as many as cores by default.")
    ] = len(os.sched_getaffinity(0)),
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Check submitted notebooks, each exercise apart.

    Writes a table of attendee, exercise, passed and message. An exercise takes about five seconds
    of a core, nearly all of it to import TensorFlow.
    """
    course = find_course(root)
    target = output or course / "build" / "grades"
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)

        def report(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, description=f"checked {done} of {of}")

        grades = grade(folders or [course], section, seconds, jobs, report)
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
    report: Callable[[int, int], None] = lambda done, of: None,
) -> list[Grade]:
    """Check every exercise of every submission; those of further notebooks are left out.

    Args:
        submissions: a course folder, a folder of notebooks, or a notebook each; notebooks are
            known by the two digits that their names begin with. Of several with the same digits
            in a folder, the one with the shortest name counts: the others are copies.
        sections: only these, all by default.
        seconds: the most an exercise may take, imports included; then its process is killed.
        jobs: how many exercises are checked at once.
        report: is told how many exercises have been checked, and of how many.

    Returns:
        One grade for each exercise, in order. A folder that lacks a section which others have, or
        which is among ``sections``, has not passed it.

    Raises:
        LabError: if a submission is not there, or none holds a notebook with exercises.
    """
    from courseware.exercises.exercise import exercises_of

    found = [(path, *_notebooks(path)) for path in submissions]
    numbers = sections or sorted({number for *_, notebooks in found for number in notebooks})
    tasks = [
        (attendee, notebooks.get(number), exercise)
        for path, attendee, notebooks in found
        for number in (numbers if path.is_dir() else set(numbers) & set(notebooks))
        for exercise, declared in exercises_of(number).items()
        if not declared.further
    ]
    if not tasks:
        raise LabError(
            "Nothing to check: expected 01-….ipynb and so on, in a folder or in its notebooks/."
        )
    grades: list[Grade] = []
    over = threading.Event()
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        for one in pool.map(lambda task: _grade_one(*task, seconds, over), tasks):
            grades.append(one)
            report(len(grades), len(tasks))
    finally:  # an interrupt ends all processes at once
        over.set()
        pool.shutdown(cancel_futures=True)
    return grades


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


def _notebooks(submission: Path) -> tuple[str, dict[int, Path]]:
    """Return whose a submission is, and its notebooks by the number of their section."""
    path = submission.resolve()
    if path.is_file():
        folder = path.parent.parent if path.parent.name == "notebooks" else path.parent
        if not re.match(r"\d\d-", path.name):
            raise LabError(f"{path.name} is of no section: expected a name like 01-….ipynb.")
        return folder.name, {int(path.name[:2]): path}
    if not path.is_dir():
        raise LabError(f"There is no {submission}: expected a folder or a notebook.")
    inside = path / "notebooks" if (path / "notebooks").is_dir() else path
    found = _by_length(inside.glob("[0-9][0-9]-*.ipynb"))
    return path.name, {int(file.name[:2]): file for file in found}


def _by_length(files: Iterator[Path]) -> list[Path]:
    return sorted(files, key=lambda file: len(file.name), reverse=True)


def _grade_one(
    attendee: str, notebook: Path | None, exercise: str, seconds: float, over: threading.Event
) -> Grade:
    if notebook is None:
        return Grade(attendee, exercise, False, "The notebook is missing.")
    scratch = Path(tempfile.mkdtemp(prefix="grade-"))
    try:
        if problem := _copy(notebook, scratch / "submitted.ipynb"):
            return Grade(attendee, exercise, False, problem)
        secret = secrets.token_hex()  # whoever writes the result must have been told it
        process = subprocess.Popen(
            [sys.executable, "-m", GRADER, "submitted.ipynb", exercise, "result.json"],
            cwd=scratch,
            env={
                **os.environ,
                "HOME": str(scratch),
                "TMPDIR": str(scratch),
                "CUDA_VISIBLE_DEVICES": "-1",  # its memory is for those who train
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(secret)
                process.stdin.close()
            message = "Its process ended before the check did."
            if not _has_ended(process, seconds, over):
                message = f"It did not end within {seconds:g} s."
        finally:
            _kill(process)
        verdict = _verdict(scratch / "result.json", secret)
        passed, message = verdict or (False, message)
        return Grade(attendee, exercise, passed, message[:MESSAGE])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(notebook: Path, target: Path) -> str:
    """Copy a submitted notebook; return what is wrong with it."""
    try:
        if notebook.stat().st_size > NOTEBOOK_BYTES:
            return f"The notebook has more than {NOTEBOOK_BYTES >> 20} MB: clear its outputs."
        shutil.copyfile(notebook, target)
    except OSError as error:
        return f"The notebook cannot be read ({error.strerror or error})."
    return ""


def _has_ended(process: subprocess.Popen, seconds: float, over: threading.Event) -> bool:
    """Wait for a process until it has ended (True), its time is up, or all is over.

    It is not reaped, so that its number is nobody else's when its group is killed. Its time is
    that of :func:`courseware.exercises.guard.time_left`.
    """
    import psutil

    from courseware.exercises.guard import time_left

    start = time.monotonic()
    while not over.is_set():
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return True
        time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            computed = sum(psutil.Process(process.pid).cpu_times()[:2])
            if not time_left(seconds, time.monotonic() - start, computed):
                break
    return False


def _verdict(file: Path, secret: str) -> tuple[bool, str] | None:
    """What the grader wrote; None if it did not, or if somebody else did."""
    try:
        if not file.is_file() or file.stat().st_size > 2**20:
            return None
        body = json.loads(file.read_text())
        if body["secret"] != secret:
            return None
        return bool(body["passed"]), str(body["message"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
