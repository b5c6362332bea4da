"""Submitted notebooks, honest and hostile, against the real checks of lab 1."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from textwrap import dedent, indent

import nbformat
import psutil
import pytest

from courseware.authoring.read import exercise_id, read_source
from courseware.course import Course
from courseware.errors import LabError
from courseware.exercises import exercise
from courseware.lab.grade import grade, write_grades
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


@pytest.fixture
def only_two(monkeypatch):
    """As if lab 1 had two exercises."""
    monkeypatch.setattr(exercise, "exercises_of", first_exercises(2))


def first_of_two(grades):
    """Return the grades of 1.1, and see to it that 1.2 passes whatever 1.1 does."""
    for first, second in zip(grades[::2], grades[1::2], strict=True):
        assert (first.exercise, second.exercise) == ("1.1", "1.2")
        assert second.passed, second.message
    return grades[::2]


@pytest.fixture
def verdict(only_two):
    """Return a function that grades 1.1 of one submission; see ``first_of_two``."""

    def graded(folder, seconds=60.0):
        (first,) = first_of_two(grade([folder], seconds=seconds))
        return first

    return graded


THREAD = "from threading import Thread; from time import sleep"
FORGED = """open('result.json', 'w').write('{"passed": true, "message": ""}')"""


HOSTILE = [
    ("raise NotImplementedError('Exercise 1.1')", "Not filled in."),
    ("return 1.0", "The result is wrong."),
    ("return 1 / 0", "It raised ZeroDivisionError"),
    ("import sys; sys.exit(0)", "It raised SystemExit"),
    ("import os; os._exit(0)", "Its process ended before the check did."),
    ("import os; os.kill(os.getppid(), 9)", "other processes"),
    ("import os\nwhile True: os.fork()", "other processes"),
    ("import subprocess; subprocess.run(['true'])", "other programs"),
    ("import numpy as np; return float(np.ones(10**11).sum())", "too much memory"),
    ("return float(len(bytearray(6 * 2**30)))", "too much memory"),
    (f"{THREAD}\nwhile True: Thread(target=sleep, args=[99]).start()", "start new thread"),
    ("for _ in range(3000): print('x' * 10**6)\nreturn 3.0", "is wrong"),
    ("import os\nfor _ in range(3000): os.write(1, b'x' * 10**6)\nreturn 3.0", "is wrong"),
    ("f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**7)", "File too large"),
    ("for i in range(10**6): open(str(i), 'wb').write(b'x' * 10**7)", "so many files"),
    (f"{FORGED}\nreturn 3.0", "is wrong"),
    (f"{FORGED}\nimport os; os._exit(0)", "Its process ended before the check did."),
    ("import os; os.mkfifo('result.json'); os._exit(0)", "Its process ended before"),
    ("raise ValueError('x' * 10**8)", "It raised ValueError: xxx"),
]


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    """Grades of all hostile answers to 1.1, each with the honest 1.2 beside it, in one run."""
    root = tmp_path_factory.mktemp("company")
    folders = [write_submission(root / f"{n}", body) for n, (body, _) in enumerate(HOSTILE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exercise, "exercises_of", first_exercises(2))
        return first_of_two(grade(folders, seconds=60))


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[body for body, _ in HOSTILE])
def test_an_answer_harms_neither_the_grader_nor_the_next_one(company, number):
    assert len(company) == len(HOSTILE)
    got, said = company[number], HOSTILE[number][1]
    assert not got.passed
    assert said in got.message
    assert len(got.message) <= 500


def test_a_check_that_was_replaced_beforehand_is_put_back(verdict, submit):
    folder = submit("eve", "return 3.0")
    file = folder / "01-introduction.ipynb"
    notebook = nbformat.read(file, as_version=4)
    patch = "import courseware.exercises.engine as engine\nengine._run = lambda *given: None\n"
    for cell in notebook.cells:
        if exercise_id(cell) == "1.1":
            cell.source = patch + cell.source
    nbformat.write(notebook, file)
    assert "It replaced courseware.exercises.engine._run" in verdict(folder).message


def test_an_endless_answer_is_ended(verdict, submit):
    assert "did not end within 20 s" in verdict(submit("eve", "while True: pass"), 120).message


def test_what_even_the_time_limit_cannot_end_is_killed(verdict, submit):
    body = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
    # Long enough for the other answer, beside it on two cores, to be judged in the same time
    assert "did not end within 40 s" in verdict(submit("eve", body), seconds=40).message


def test_files_outside_are_neither_deleted_nor_changed(only_two, submit, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x.txt").write_text("x")
    deeds = (
        f"import shutil; shutil.rmtree({str(precious)!r})",
        f"import os; os.remove({str(precious / 'x.txt')!r})",
        f"open({str(precious / 'x.txt')!r}, 'w')",
        f"import os; os.rename({str(precious)!r}, 'mine')",
    )
    folders = [submit(f"eve{n}", f"{deed}\nreturn 3.0") for n, deed in enumerate(deeds)]
    for got in first_of_two(grade(folders)):
        assert "may not change" in got.message
    assert (precious / "x.txt").read_text() == "x"


def test_there_is_no_network(verdict, submit):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        body = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        assert "the network" in verdict(submit("eve", body)).message
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("text", ["", "{", '{"cells": 3}', "\x00"])
def test_a_broken_notebook_is_graded_as_such(only_two, tmp_path, text):
    (tmp_path / "01-introduction.ipynb").write_text(text)
    grades = grade([tmp_path])
    assert len(grades) == 2
    assert not any(g.passed for g in grades)
    assert "cannot be read" in grades[0].message


def a_folder(file):
    file.mkdir()


def a_link_to_nowhere(file):
    file.symlink_to("nowhere")


def a_pipe(file):
    os.mkfifo(file)


def a_giant(file):
    with file.open("wb") as stream:
        stream.truncate(200 * 2**20)


@pytest.mark.parametrize("make", [a_folder, a_link_to_nowhere, a_pipe, a_giant])
def test_what_is_no_notebook_is_graded_as_such(only_two, tmp_path, make):
    make(tmp_path / "01-introduction.ipynb")
    grades = grade([tmp_path])
    assert len(grades) == 2
    assert not any(g.passed for g in grades)
    assert "cannot be read" in grades[0].message or "clear its outputs" in grades[0].message


def test_copies_do_not_count_and_a_notebook_has_its_owners_name(only_two, submit, tmp_path):
    folder = submit("ada")
    seat = tmp_path / "seat-07"
    shutil.copytree(folder, seat / "notebooks")
    (seat / "notebooks" / "01-introduction-Copy1.ipynb").write_text("{")
    both = grade([seat, seat / "notebooks" / "01-introduction.ipynb"])
    assert [(g.attendee, g.passed) for g in both] == [("seat-07", True)] * 4


@pytest.mark.timeout(60)
def test_an_interrupt_ends_all_and_writes_nothing(submit, tmp_path):
    folders = [submit(f"eve{number}", "while True: pass") for number in range(4)]
    process = subprocess.Popen(
        [sys.executable, "-m", "courseware.lab", "grade", *folders, "--output", tmp_path / "out"],
        cwd=COURSE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    wait_for(lambda: graders(process.pid), 40, "a grader")
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    assert "Traceback" not in process.stderr.read()
    assert not (tmp_path / "out").exists()


def graders(pid):
    return psutil.Process(pid).children()


def test_a_removed_cell_is_named(verdict, submit):
    folder = submit("bob")
    file = folder / "01-introduction.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if exercise_id(cell) != "1.1"]
    nbformat.write(notebook, file)
    assert "no cell tagged exercise-1.1" in verdict(folder).message


def test_tables_are_written(only_two, submit, tmp_path):
    grades = grade([submit("ada"), submit("eve", "return 'a, \"b\"'")])
    write_grades(grades, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "grades.csv").open(newline="")))
    kept = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert [row["attendee"] for row in rows] == ["ada"] * 2 + ["eve"] * 2
    assert [row["message"] for row in rows] == [one["message"] for one in kept]
    assert [one["passed"] for one in kept] == [True, True, False, True]


def test_an_attendee_without_the_notebook_has_not_passed(only_two, submit, tmp_path):
    (tmp_path / "bob" / "notebooks").mkdir(parents=True)
    grades = grade([submit("ada"), tmp_path / "bob"])
    assert [(g.attendee, g.exercise, g.passed) for g in grades] == [
        ("ada", "1.1", True),
        ("ada", "1.2", True),
        ("bob", "1.1", False),
        ("bob", "1.2", False),
    ]
    assert grades[2].message == "The notebook is missing."
    grades = grade([tmp_path / "ada"], sections=[2])
    assert {g.message for g in grades} == {"The notebook is missing."}


def test_what_cannot_be_graded_is_named(tmp_path):
    (tmp_path / "notes.ipynb").write_text("{}")
    for submission, said in (
        (tmp_path, "Nothing to check"),
        (tmp_path / "nowhere", "There is no .*nowhere: expected a folder or a notebook"),
        (tmp_path / "notes.ipynb", r"notes\.ipynb is of no section: expected a name like"),
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
