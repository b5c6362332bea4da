"""Submitted notebooks, honest and hostile, against the real checks of lab 1."""

import csv
import json
import socket
import subprocess
import sys
from textwrap import dedent, indent

import nbformat
import pytest

from multistage.authoring import find_sections
from multistage.authoring.read import exercise_id, read_source
from multistage.errors import CourseError
from multistage.lab.grade import grade, write_grades
from tests.conftest import COURSE


@pytest.fixture
def submit(tmp_path):
    """Return a function that writes lab 1 as it is, or exercises 1.1 and 1.2 with another 1.1."""
    source = read_source(find_sections(COURSE, [1])[0])

    def submitted(attendee, body=None):
        notebook = nbformat.from_dict(source)
        if body is not None:
            (cell,) = (cell for cell in notebook.cells if exercise_id(cell) == "1.1")
            body = indent(dedent(body).strip(), "    ")
            cell.source = f"def ndcg_at_k(recommended, relevant, k):\n{body}\n"
            ids = [exercise_id(cell) for cell in notebook.cells]
            notebook.cells = notebook.cells[: ids.index("1.3")]
        folder = tmp_path / attendee
        folder.mkdir()
        nbformat.write(notebook, folder / "01-introduction.ipynb")
        return folder

    return submitted


def verdict(folder, seconds=60.0):
    first, second, *_others = grade([folder], seconds=seconds)
    assert (first.exercise, second.exercise) == ("1.1", "1.2")
    assert second.passed, second.message  # whatever the first one does
    return first


def test_the_solved_lab_passes(submit):
    grades = grade([submit("ada")])
    assert [(g.attendee, g.exercise, g.passed) for g in grades] == [
        ("ada", f"1.{number}", True) for number in range(1, 5)
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise NotImplementedError('Exercise 1.1')", "Not filled in."),
        ("return 1.0", "NDCG of a list without hits is wrong."),
        ("return 1 / 0", "It raised ZeroDivisionError"),
        ("import sys; sys.exit(0)", "It raised SystemExit"),
        ("import os; os._exit(0)", "Its process ended before the check did."),
        ("import os; os.kill(os.getppid(), 9)", "other processes"),
        ("import os\nwhile True: os.fork()", "other processes"),
        ("import subprocess; subprocess.run(['true'])", "other programs"),
        ("import numpy as np; return float(np.ones(10**11).sum())", "emory"),
        ("for _ in range(3000): print('x' * 10**6)\nreturn 3.0", "is wrong"),
        ("import os\nfor _ in range(3000): os.write(1, b'x' * 10**6)\nreturn 3.0", "is wrong"),
        ("f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**7)", "File too large"),
        ("open('result.json', 'w').write('{\"passed\": true}')\nreturn 3.0", "is wrong"),
    ],
)
def test_an_answer_harms_neither_the_grader_nor_the_next_one(submit, body, said):
    got = verdict(submit("eve", body))
    assert not got.passed
    assert said in got.message


def test_an_endless_answer_is_ended(submit):
    assert "did not end within 20 s" in verdict(submit("eve", "while True: pass"), 120).message


def test_what_even_the_time_limit_cannot_end_is_killed(submit):
    body = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
    assert "did not end within 30 s" in verdict(submit("eve", body), seconds=30).message


def test_files_outside_are_neither_deleted_nor_changed(submit, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x.txt").write_text("x")
    for number, deed in enumerate(
        (
            f"import shutil; shutil.rmtree({str(precious)!r})",
            f"import os; os.remove({str(precious / 'x.txt')!r})",
            f"open({str(precious / 'x.txt')!r}, 'w')",
            f"import os; os.rename({str(precious)!r}, 'mine')",
        )
    ):
        got = verdict(submit(f"eve{number}", f"{deed}\nreturn 3.0"))
        assert "may not change" in got.message
        assert (precious / "x.txt").read_text() == "x"


def test_there_is_no_network(submit):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        body = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        assert "the network" in verdict(submit("eve", body)).message
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("text", ["", "{", '{"cells": 3}', "\x00"])
def test_a_broken_notebook_is_graded_as_such(tmp_path, text):
    (tmp_path / "01-introduction.ipynb").write_text(text)
    grades = grade([tmp_path])
    assert len(grades) == 4
    assert not any(g.passed for g in grades)
    assert "cannot be read" in grades[0].message


def test_a_removed_cell_is_named(submit):
    folder = submit("bob")
    file = folder / "01-introduction.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if exercise_id(cell) != "1.1"]
    nbformat.write(notebook, file)
    assert "no cell tagged exercise-1.1" in verdict(folder).message


def test_tables_are_written(submit, tmp_path):
    grades = grade([submit("ada"), submit("eve", "return 'a, \"b\"'")])
    write_grades(grades, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "grades.csv").open(newline="")))
    kept = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert [row["attendee"] for row in rows] == ["ada"] * 4 + ["eve"] * 4
    assert [row["message"] for row in rows] == [one["message"] for one in kept]
    assert [one["passed"] for one in kept] == [True] * 4 + [False, True, False, False]


def test_a_folder_without_notebooks_is_named(tmp_path):
    with pytest.raises(CourseError, match="holds no notebook"):
        grade([tmp_path])


def test_the_command_line(submit, tmp_path):
    options = ["--json", "--output", tmp_path / "out", "--root", COURSE]
    ended = subprocess.run(
        [sys.executable, "-m", "multistage.lab", "grade", submit("ada"), *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert [one["passed"] for one in json.loads(ended.stdout)] == [True] * 4
    assert (tmp_path / "out" / "grades.csv").exists()
