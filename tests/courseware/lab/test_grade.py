"""Submitted notebooks against the real checks of lab 1, and the tables of their grades.

Answers that attack are in test_sandbox.py.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from textwrap import dedent, indent

import nbformat
import psutil
import pytest

from courseware.authoring.read import check_id, exercise_id, read_source
from courseware.course import Course
from courseware.errors import LabError
from courseware.exercises import exercise
from courseware.lab import sandbox
from courseware.lab.grade import Grade, grade, write_grades
from tests.conftest import COURSE
from tests.journeys.browser import wait_for

pytestmark = pytest.mark.real


def write_submission(folder, body=None):
    """Write lab 1 as it is, or with another 1.1, into a new folder and return the folder."""
    notebook = nbformat.from_dict(read_source(Course.read(COURSE).find([1])[0]))
    if body is not None:
        (cell,) = (cell for cell in notebook.cells if exercise_id(cell) == "1.1")
        body = indent(dedent(body).strip(), "    ")
        cell.source = f"def ndcg_at_k(recommended, relevant, k):\n{body}\n"
    folder.mkdir()
    nbformat.write(notebook, folder / "01-introduction.ipynb")
    return folder


@pytest.fixture
def submit(tmp_path):
    """Return a function that writes the submission of somebody who is named."""
    return lambda attendee, body=None: write_submission(tmp_path / attendee, body)


def first_exercises(count):
    """Return ``exercises_of`` as if a lab had only its first ``count``."""
    known = exercise.exercises_of
    return lambda section: dict(list(known(section).items())[:count])


@pytest.fixture(autouse=True, scope="module")
def bubblewrap():
    """Where the system allows no sandbox, nothing can be graded."""
    if problem := sandbox.problem():
        pytest.skip(problem)


@pytest.fixture
def only_one(monkeypatch):
    """As if lab 1 had one exercise."""
    monkeypatch.setattr(exercise, "exercises_of", first_exercises(1))


@pytest.fixture
def verdict(only_one):
    """Return a function that grades 1.1 of one submission."""

    def graded(folder, seconds=60.0):
        (first,) = grade([folder], seconds=seconds)
        return first

    return graded


def edit(folder, change):
    """Replace the cells of a submitted notebook by ``change(cells)``."""
    file = folder / "01-introduction.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells = change(notebook.cells)
    nbformat.write(notebook, file)
    return folder


def test_a_check_that_was_replaced_beforehand_is_put_back(verdict, submit):
    patch = "import courseware.exercises.engine as engine\nengine._run = lambda *given: None\n"

    def patched(cells):
        for cell in cells:
            if exercise_id(cell) == "1.1":
                cell.source = patch + cell.source
        return cells

    message = verdict(edit(submit("eve", "return 3.0"), patched)).message
    assert "It replaced courseware.exercises.engine._run" in message


def test_an_endless_answer_is_ended(verdict, submit):
    assert "did not end within 20 s" in verdict(submit("eve", "while True: pass"), 120).message


def test_what_even_the_time_limit_cannot_end_is_killed(only_one, submit):
    """One answer keeps its process busy, one stops it: it then uses no time of a core."""
    bodies = [
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    ]
    folders = [submit(f"eve{number}", body) for number, body in enumerate(bodies)]
    assert {g.message for g in grade(folders, seconds=8)} == {"It did not end within 8 s."}


def a_folder(file):
    file.mkdir()


def a_pipe(file):
    os.mkfifo(file)


def a_link_to_a_device(file):
    file.symlink_to("/dev/zero")


def a_link_to_somebody_elses(file):
    file.symlink_to(file.parents[1] / "ada" / "01-introduction.ipynb")


def a_linked_folder(file):
    (file.parent / "notebooks").symlink_to(file.parents[1] / "ada")


def a_giant(file):
    with file.open("wb") as stream:
        stream.truncate(200 * 2**20)


def text(content):
    return lambda file: file.write_text(content)


NO_NOTEBOOKS = {
    a_folder: "Is a directory",
    a_pipe: "Not a file",
    a_link_to_a_device: "it is a link",
    a_link_to_somebody_elses: "it is a link",
    a_linked_folder: "it is a link",
    a_giant: "larger than 104,857,600 bytes",
    text(""): "JSONDecodeError",
    text("{"): "JSONDecodeError",
    text("\x00"): "JSONDecodeError",
    text('{"cells": 3}'): "TypeError",
    text("[" * 100_000): "RecursionError",
    text('{"cells": ' + "[" * 10**7): "RecursionError",
}


def test_what_is_no_notebook_is_a_row(only_one, submit, tmp_path):
    folders = [submit("ada")]
    for number, make in enumerate(NO_NOTEBOOKS):
        folders.append(tmp_path / f"eve{number}")
        folders[-1].mkdir()
        make(folders[-1] / "01-introduction.ipynb")
    (tmp_path / "deep").mkdir()
    handle = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    folders += [tmp_path / "deep", submit("zoe")]
    first, *wrong, deep, last = grade(folders)
    subprocess.run(["rm", "-r", tmp_path / "deep"], check=True)  # Python's own cannot
    assert (first.passed, deep.message, last.passed) == (True, "The notebook is missing.", True)
    for got, said in zip(wrong, NO_NOTEBOOKS.values(), strict=True):
        assert not got.passed
        assert "cannot be read" in got.message
        assert said in got.message


def test_copies_do_not_count_and_a_notebook_has_its_owners_name(only_one, submit, tmp_path):
    folder = submit("ada")
    seat = tmp_path / "seat-07"
    shutil.copytree(folder, seat / "notebooks")
    (seat / "notebooks" / "01-introduction-Copy1.ipynb").write_text("{")
    inside = seat / "notebooks"
    grades = grade([seat, inside, inside / "01-introduction.ipynb"])
    assert [(g.attendee, g.passed) for g in grades] == [("seat-07", True)] * 3


def test_attendees_are_told_apart(only_one, tmp_path):
    folders = [
        tmp_path / "a" / "notebooks",
        tmp_path / "b" / "notebooks",
        tmp_path / "=1+1\x1b[2J\n",
        tmp_path / "monday" / "ada",
        tmp_path / "tuesday" / "ada",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    named = [g.attendee for g in grade(folders[:3], sections=[1])]
    assert named == ["a", "b", "=1+1 [2J"]
    assert [g.attendee for g in grade(folders[3:], sections=[1])] == ["monday/ada", "tuesday/ada"]


def copied(*bodies, below=()):
    """Return a change that follows the cell of 1.1 by copies; those ``below`` follow the check."""

    def change(cells):
        place = next(n for n, cell in enumerate(cells) if exercise_id(cell) == "1.1")
        made = []
        for body in (*bodies, *below):
            made.append(nbformat.from_dict(cells[place]))
            made[-1].source = f"def ndcg_at_k(recommended, relevant, k):\n    {body}\n"
        at = next(n for n, cell in enumerate(cells) if check_id(cell) == "1.1")
        first, last = made[: len(bodies)], made[len(bodies) :]
        return [*cells[: place + 1], *first, *cells[place + 1 : at + 1], *last, *cells[at + 1 :]]

    return change


def test_of_copies_of_an_exercise_the_one_counts_that_the_check_gets(only_one, submit):
    """That is the last one above the check, whatever its tags; what follows the check is late."""
    stub = "raise NotImplementedError('Exercise 1.1')"
    solved = (
        "import courseware.exercises.source as s; return s.reference(s.installed().folder, '1.1')"
    )
    solved += "(recommended, relevant, k)"
    untagged = edit(edit(submit("bob", stub), copied(solved)), untag_copies)
    grades = grade(
        [
            edit(submit("ada", stub), copied(solved)),
            untagged,
            edit(submit("eve", solved), copied(stub)),
            edit(submit("zoe", stub), copied(below=[solved])),
        ]
    )
    assert [(g.passed, g.message) for g in grades] == [
        (True, ""),
        (True, ""),
        (False, "Not filled in."),
        (False, "Not filled in."),
    ]


def untag_copies(cells):
    _, *copies = (cell for cell in cells if exercise_id(cell) == "1.1")
    for cell in copies:
        cell.metadata.tags = []
    return cells


def start(folders, output):
    """Start ``lab grade`` and return its process."""
    return subprocess.Popen(
        [sys.executable, "-m", "courseware.lab", "grade", *folders, "--output", output],
        cwd=COURSE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def graders(pid):
    """The processes of ``lab grade`` that run answers."""
    below = psutil.Process(pid).children(recursive=True)
    return [one for one in below if "courseware.lab.grader" in one.cmdline()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_when_it_is_ended_all_ends_and_the_grades_so_far_are_kept(submit, tmp_path, sign):
    folders = [submit("bob", "return 1.0"), submit("eve", "while True: pass")]
    process = start([*folders, submit("zoe", "while True: pass")], tmp_path / "out")
    wait_for((tmp_path / "out" / "grades.json").exists, 60, "a grade")
    running = wait_for(lambda: graders(process.pid), 40, "a grader")
    process.send_signal(sign)
    assert process.wait(15) == (130 if sign == signal.SIGINT else -sign)
    assert "Traceback" not in process.stderr.read()
    psutil.wait_procs(running, 10)
    assert [one for one in running if one.is_running()] == []
    kept = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert {one["attendee"] for one in kept} <= {"bob", "eve"}
    assert tuple(kept[0].values())[:3] == ("bob", "1.1", False)


def test_a_removed_cell_is_named(verdict, submit):
    def without(cells):
        return [cell for cell in cells if exercise_id(cell) != "1.1"]

    assert "no cell tagged exercise-1.1" in verdict(edit(submit("bob"), without)).message


def test_tables_are_written(tmp_path):
    said = ["", 'a, "b"', "=1+1", "+1", "-1", "@x", " =1", "\uff1d1", "1+1"]
    grades = [Grade("=eve", "1.1", not text, text) for text in said]
    write_grades(grades, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "grades.csv").open(newline="")))
    kept = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert [one["message"] for one in kept] == said
    assert [one["passed"] for one in kept] == [True] + [False] * 8
    assert [row["message"] for row in rows] == [*said[:2], *(f"'{t}" for t in said[2:8]), "1+1"]
    assert {row["attendee"] for row in rows} == {"'=eve"}


def test_no_link_is_followed_when_tables_are_written(tmp_path):
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("x")
    out.mkdir()
    for name in ("grades.json", "grades.csv", ".grades.json", ".grades.csv"):
        (out / name).symlink_to(precious)
    write_grades([Grade("ada", "1.1", True, "")], out)
    assert precious.read_text() == "x"
    assert not (out / "grades.json").is_symlink()
    assert sorted(os.listdir(out)) == [".grades.csv", ".grades.json", "grades.csv", "grades.json"]


def test_the_course_in_a_seat_does_not_say_where_grades_go(tmp_path, small_course, monkeypatch):
    seat = small_course(_01_introduction="# %%\n1")
    (tmp_path / "elsewhere").mkdir()
    (seat / "build").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(seat)
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", "grade"], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "has a link in it: say where to write, with --output." in ended.stderr
    assert os.listdir(tmp_path / "elsewhere") == []


def test_an_attendee_without_the_notebook_has_not_passed(only_one, submit, tmp_path):
    (tmp_path / "bob" / "notebooks").mkdir(parents=True)
    grades = grade([submit("ada"), tmp_path / "bob"])
    assert [(g.attendee, g.exercise, g.passed, g.message) for g in grades] == [
        ("ada", "1.1", True, ""),
        ("bob", "1.1", False, "The notebook is missing."),
    ]
    grades = grade([tmp_path / "ada"], sections=[2])
    assert {g.message for g in grades} == {"The notebook is missing."}


def test_what_cannot_be_graded_is_named(tmp_path):
    (tmp_path / "notes.ipynb").write_text("{}")
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "notebooks").symlink_to(tmp_path)
    for submission, said in (
        (tmp_path, "Nothing to check"),
        (tmp_path / "eve", "Nothing to check.*Links are ignored"),
        (tmp_path / "nowhere", "There is no .*nowhere: expected a folder or a notebook"),
        (tmp_path / "notes.ipynb", r"notes\.ipynb belongs to no section: expected a name like"),
    ):
        with pytest.raises(LabError, match=said):
            grade([submission])
    with pytest.raises(LabError, match="Nothing to check"):
        grade([COURSE], sections=[9])


def test_exercises_of_further_notebooks_are_left_out(submit, monkeypatch):
    known = first_exercises(1)(1)
    further = {name: replace(task, further=True) for name, task in known.items()}
    monkeypatch.setattr(exercise, "exercises_of", lambda section: further)
    with pytest.raises(LabError, match="Nothing to check"):
        grade([submit("ada")])


def test_the_solved_lab_passes_by_the_command_line(submit, tmp_path):
    options = ["--json", "--output", tmp_path / "out", "--root", COURSE]
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", "grade", submit("ada"), *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert [(g["attendee"], g["exercise"], g["passed"]) for g in json.loads(ended.stdout)] == [
        ("ada", f"1.{number}", True) for number in range(1, 5)
    ]
    assert (tmp_path / "out" / "grades.csv").exists()
