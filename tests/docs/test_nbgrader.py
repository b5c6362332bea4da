"""What the instructor's guide says of nbgrader, done as it stands there with lab 1."""

import csv
import os
import re
import shutil
import subprocess
import sysconfig

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from courseware.authoring.attendee import attendee_notebook
from courseware.authoring.read import read_source
from courseware.course import Course
from courseware.exercises.exercise import exercises_of
from tests.conftest import COURSE

GUIDE = COURSE / "docs" / "instructor-guide.md"
SEATS = "/srv/course"  # in the guide

pytestmark = pytest.mark.real


@pytest.mark.timeout(300)
def test_nbgrader_marks_a_solved_lab_and_one_that_was_not_filled_in(tmp_path):
    block = r"`build/marks\.py`:\n\n```python\n(.*?)```\n\n```sh\n(.*?)```"
    marks, commands = re.search(block, GUIDE.read_text(), re.DOTALL).groups()
    assert SEATS in marks
    course = tmp_path / "course"
    for folder in ("labs_solutions", "build"):
        (course / folder).mkdir(parents=True)
    shutil.copy(COURSE / "course.toml", course)
    section = Course.read(COURSE).find([1])[0]
    solved = read_source(section)
    # The work of the lab takes a minute, and its exercises need none of it
    tagged = [cell for cell in solved.cells if cell.metadata.get("tags")]
    solved.cells = [new_code_cell("import numpy as np\nimport pandas as pd"), *tagged]
    titles = {name: one.title for name, one in exercises_of(1).items()}
    nbformat.write(solved, course / "labs_solutions" / f"{section.name}.ipynb")
    for name, notebook in (
        ("seat-01", solved),
        ("seat-02", attendee_notebook(solved, section, titles)),
    ):
        folder = tmp_path / "seats" / name / "notebooks"
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{section.name}.ipynb")
    (course / "build" / "marks.py").write_text(marks.replace(SEATS, str(tmp_path / "seats")))
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    ended = subprocess.run(
        ["sh", "-ec", commands],
        cwd=course,
        env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (course / "build" / "nbgrader" / "grades.csv").open(newline="") as table:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(table)}
    assert scores == {"seat-01": 4, "seat-02": 0}
