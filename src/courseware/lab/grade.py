"""``lab grade``: run the checks of submitted notebooks, each in a sandbox of its own."""

import contextlib
import csv
import errno
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from courseware.course import find_course
from courseware.errors import LabError, message_of
from courseware.files import read_regular
from courseware.lab import sandbox
from courseware.lab.options import Json, Root, Sections

GRADER = "courseware.lab.grader"
SECONDS = 90.0  # an exercise, imports included
NOTEBOOK_BYTES = 100 * 2**20
VERDICT_BYTES = 2**16  # a pipe holds as many
MESSAGE = 500  # characters
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # also as wide characters


@dataclass(frozen=True)
class Grade:
    """The result of one exercise of one attendee."""

    attendee: str
    exercise: str
    passed: bool
    message: str


@dataclass(frozen=True)
class Submission:
    """What one attendee handed in.

    Attributes:
        owner: the folder whose name is the attendee's.
        folder: holds the notebooks.
        notebooks: their names, by the number of their section.
        whole: sections that others handed in are expected; not so for a single notebook.
    """

    owner: Path
    folder: Path
    notebooks: dict[int, str]
    whole: bool = True


def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Attendees' folders or notebooks; by default this course."),
    ] = None,
    section: Sections = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for grades.json and grades.csv.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time limit of an exercise.")] = SECONDS,
    jobs: Annotated[
        int, typer.Option(min=1, help="Exercises checked at once; as many as cores by default.")
    ] = len(os.sched_getaffinity(0)),
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run answers without a sandbox, with all your rights."),
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Check submitted notebooks, each exercise in a sandbox.

    The sandbox needs bubblewrap. Writes a table of attendee, exercise, passed and message; it is
    written again after every exercise. An exercise takes about five seconds of a core.
    """
    target = output or _own_folder(find_course(root))
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)

        def report(grades: list[Grade], of: int) -> None:
            done = len(grades)
            bar.update(task, completed=done, total=of, description=f"checked {done} of {of}")
            write_grades(grades, target)

        grades = grade(folders or [find_course(root)], section, seconds, jobs, report, trust)
    if as_json:
        print(json.dumps([asdict(one) for one in grades], indent=1))
        return
    table = Table()
    for column in ("attendee", "exercise", "passed", "message"):
        table.add_column(column, overflow="fold")
    for one in grades:
        table.add_row(one.attendee, one.exercise, "yes" if one.passed else "no", one.message)
    Console(markup=False, emoji=False, highlight=False).print(table)
    print(f"written: {target / 'grades.json'}, {target / 'grades.csv'}")


def grade(
    submissions: list[Path],
    sections: list[int] | None = None,
    seconds: float = SECONDS,
    jobs: int = 2,
    report: Callable[[list[Grade], int], None] = lambda grades, of: None,
    trust: bool = False,
) -> list[Grade]:
    """Check every exercise of every submission; those of further notebooks are left out.

    Args:
        submissions: a course folder, a folder of notebooks, or a notebook each; notebooks are
            known by the two digits that their names begin with. Of several with the same digits
            in a folder, the one with the shortest name counts: the others are copies.
        sections: only these, all by default.
        seconds: the most an exercise may take, imports included; then its process is killed.
        jobs: how many exercises are checked at once.
        report: is told, each time that one was checked, the grades so far and how many there will
            be.
        trust: answers run without a sandbox, with this process's rights and variables.

    Returns:
        One grade for each exercise, in order. Whoever has not handed in a section that others
        have, or that is among ``sections``, has not passed it.

    Raises:
        LabError: if a submission is not there, none holds a notebook with exercises, or there can
            be no sandbox.
    """
    from courseware.exercises.exercise import exercises_of

    found = [_submission(path) for path in submissions]
    names = _names([one.owner for one in found])
    numbers = sections or sorted({number for one in found for number in one.notebooks})
    tasks = [
        (one, names[one.owner], number, exercise)
        for one in found
        for number in (numbers if one.whole else set(numbers) & set(one.notebooks))
        for exercise, declared in exercises_of(number).items()
        if not declared.further
    ]
    if not tasks:
        raise LabError(
            "Nothing to check: expected 01-….ipynb and so on, in a folder or in its notebooks/. "
            "Links are ignored."
        )
    if not trust and (problem := sandbox.problem()):
        raise LabError(
            f"{problem} It is the sandbox in which answers are run. If you know who wrote them, "
            "--trust runs them without a sandbox: they may then do whatever you may do."
        )
    over = threading.Event()
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        futures = [
            pool.submit(_grade_one, *task, place, seconds, trust, over)
            for place, task in enumerate(tasks)
        ]
        for _ in as_completed(futures):
            report([one.result() for one in futures if one.done()], len(tasks))
    finally:  # an interrupt ends all processes at once
        over.set()
        pool.shutdown(cancel_futures=True)
    return [one.result() for one in futures]


def write_grades(grades: list[Grade], folder: Path) -> None:
    """Write ``grades.json`` and ``grades.csv``, each in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(one) for one in grades]
    for name in ("grades.json", "grades.csv"):
        # Its name cannot be guessed, and it is made only where nothing is
        handle, aside = tempfile.mkstemp(dir=folder)
        try:
            with open(handle, "w", encoding="utf-8", newline="") as stream:
                if name.endswith("json"):
                    json.dump(rows, stream, indent=1)
                else:
                    writer = csv.DictWriter(stream, [field.name for field in fields(Grade)])
                    writer.writeheader()
                    writer.writerows({key: _cell(row[key]) for key in row} for row in rows)
            os.replace(aside, folder / name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(aside)


def _cell(value: str | bool) -> str | bool:
    """A cell of a table that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _plain(text: str, most: int | None = None) -> str:
    """Text without line ends, terminal escapes, or anything else that is not seen."""
    shown = (c if unicodedata.category(c)[0] not in "CZ" else " " for c in text)
    return " ".join("".join(shown).split())[:most]


def _own_folder(course: Path) -> Path:
    """The folder for grades in a course, whose ``build`` an attendee may have made a link."""
    folder = course / "build" / "grades"
    if folder.resolve() != course.resolve() / "build" / "grades":
        raise LabError(f"The path of {folder} has a link in it: say where to write, with --output.")
    return folder


def _submission(path: Path) -> Submission:
    """Look at what an attendee, or root, put there: no link in it is followed."""
    path = Path(os.path.abspath(path))
    if not os.path.lexists(path):
        raise LabError(f"There is no {path.name}: expected a folder or a notebook.")
    if not path.is_dir():
        if not re.match(r"[0-9]{2}-", path.name):
            raise LabError(
                f"{_plain(path.name)} belongs to no section: expected a name like 01-….ipynb."
            )
        return Submission(
            _owner(path.parent), path.parent, {int(path.name[:2]): path.name}, whole=False
        )
    inside = path / "notebooks"
    folder = inside if os.path.lexists(inside) else path
    with contextlib.suppress(OSError), _entered(folder) as handle:
        names = [name for name in os.listdir(handle) if re.match(r"[0-9]{2}-.*\.ipynb$", name)]
        names.sort(key=lambda name: (len(name), name), reverse=True)
        return Submission(_owner(path), folder, {int(name[:2]): name for name in names})
    return Submission(_owner(path), folder, {})


def _owner(folder: Path) -> Path:
    return folder.parent if folder.name == "notebooks" else folder


def _names(owners: list[Path]) -> dict[Path, str]:
    """Name attendees after their folders, with as much of the path as tells them apart."""
    for parts in range(1, max(len(owner.parts) for owner in owners) + 1):
        names = {owner: _plain("/".join(owner.parts[-parts:])) for owner in owners}
        if len(set(names.values())) == len(names):
            break
    return names


@contextlib.contextmanager
def _entered(folder: Path) -> Iterator[int]:
    """Yield a descriptor of a folder. An attendee may have made a link of ``notebooks``."""
    theirs = os.O_NOFOLLOW if folder.name == "notebooks" else 0
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | theirs)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(submission: Submission, number: int) -> bytes:
    """Return a notebook.

    Raises:
        LabError: in words for the table, if there is none.
    """
    try:
        with _entered(submission.folder) as handle:
            if number not in submission.notebooks:
                raise LabError("The notebook is missing.")
            file = Path(f"/proc/self/fd/{handle}", submission.notebooks[number])
            return read_regular(file, NOTEBOOK_BYTES)
    except OSError as error:
        # A link to a folder is no folder, for who follows no links
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR)
        why = "it is a link" if linked else error.strerror
    except ValueError as error:
        why = str(error)
    raise LabError(f"The notebook cannot be read ({why}).")


def _grade_one(
    submission: Submission,
    attendee: str,
    number: int,
    exercise: str,
    place: int,
    seconds: float,
    trust: bool,
    over: threading.Event,
) -> Grade:
    try:
        passed, message = _check(_read(submission, number), exercise, place, seconds, trust, over)
    except LabError as error:
        passed, message = False, str(error)
    except Exception as error:  # this machine's trouble with it; the others go on
        passed, message = False, f"It could not be checked: {message_of(error)}"
    return Grade(attendee, exercise, passed, _plain(message, MESSAGE))


def _check(
    notebook: bytes, exercise: str, place: int, seconds: float, trust: bool, over: threading.Event
) -> tuple[bool, str]:
    """Run the grader, and return its verdict."""
    secret = secrets.token_hex().encode()  # whoever writes a verdict must have been told it
    with (
        sandbox.system_calls() as rules,
        tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as scratch,
        subprocess.Popen(
            [
                *(sandbox.limited() if trust else sandbox.sandboxed(place, rules)),
                *(sys.executable, "-m", GRADER, exercise),
            ],
            cwd=scratch,
            env=sandbox.environment(scratch if trust else "/tmp"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[rules],
            start_new_session=True,
        ) as process,
    ):
        try:
            feeding = threading.Thread(target=_feed, args=[process, secret + b"\n" + notebook])
            feeding.start()
            ended = _has_ended(process, seconds, over)
        finally:
            process.kill()  # what it started in the sandbox dies with it
        feeding.join()
        if not ended:
            return False, f"It did not end within {seconds:g} s."
        return _verdict(process, secret.decode())


def _feed(process: subprocess.Popen, given: bytes) -> None:
    """Write to a process, which may end before it has read all."""
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(given)


def _has_ended(process: subprocess.Popen, seconds: float, over: threading.Event) -> bool:
    """Wait for a process until it has ended (True), its time is up, or all is over.

    Its time is that of :func:`courseware.exercises.guard.time_left`.
    """
    import psutil

    from courseware.exercises.guard import time_left

    start = time.monotonic()
    while not over.wait(0.1):
        if process.poll() is not None:
            return True
        with contextlib.suppress(psutil.NoSuchProcess):
            outermost = psutil.Process(process.pid)
            family = [outermost, *outermost.children(recursive=True)]
            computed = sum(sum(one.cpu_times()[:2]) for one in family)
            if not time_left(seconds, time.monotonic() - start, computed):
                break
    return False


def _verdict(process: subprocess.Popen, secret: str) -> tuple[bool, str]:
    """What the grader wrote, if it was the grader."""
    os.set_blocking(process.stdout.fileno(), False)
    try:
        body = json.loads(os.read(process.stdout.fileno(), VERDICT_BYTES))
        if body["secret"] == secret:
            return bool(body["passed"]), str(body["message"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return False, "Its process ended before the check did."
