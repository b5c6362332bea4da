import json
import os

import pytest

from courseware.course import PROGRESS
from courseware.exercises.progress import Entry, Progress


@pytest.fixture
def progress(small_course, monkeypatch):
    root = small_course()
    monkeypatch.chdir(root / "notebooks")
    return Progress.here()


def test_what_is_kept_is_read_back(progress):
    progress.keep("2.1", Entry(passed=True, attempts=2))
    progress.keep("2.2", Entry(failures=1))
    again = Progress.here()
    assert again.entry("2.1") == Entry(passed=True, attempts=2)
    assert again.entry("2.2") == Entry(failures=1)
    assert again.entry("2.3") == Entry()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        pytest.param("[" * 100_000, id="nested"),
        '{"exercises": 3}',
        '{"exercises": {"1.1": {"other": 1}}}',
        '"x"',
        "\x00",
    ],
)
def test_a_corrupt_file_is_set_aside_and_said(progress, text, capsys):
    progress.file.parent.mkdir(parents=True)
    progress.file.write_text(text)
    assert progress.read() == {}
    assert "could not be read" in capsys.readouterr().err
    kept = list(progress.file.parent.glob("progress-unreadable-*.json"))
    assert [file.read_text() for file in kept] == [text]
    progress.keep("1.1", Entry(passed=True))
    assert progress.entry("1.1").passed


def test_no_half_written_file_is_left(progress):
    progress.keep("1.1", Entry())
    assert [file.name for file in progress.file.parent.iterdir()] == ["progress.json"]
    assert json.loads(progress.file.read_text())["version"] == 1


def test_the_solved_labs_leave_it_alone(progress, monkeypatch):
    course = progress.file.parent.parent
    monkeypatch.chdir(course / "labs_solutions")
    Progress.here().keep("1.1", Entry(passed=True))
    assert not (course / PROGRESS).exists()


def as_a_folder(file):
    file.mkdir(parents=True)


def below_a_file(file):
    file.parent.write_text("no folder")


@pytest.mark.parametrize("unwritable", [as_a_folder, below_a_file])
def test_what_cannot_be_written_is_said_and_remembered(progress, unwritable, capsys, monkeypatch):
    monkeypatch.setattr("courseware.exercises.progress._UNWRITTEN", {})
    unwritable(progress.file)
    progress.keep("1.1", Entry(failures=2))
    assert "workspace/progress.json cannot be written" in capsys.readouterr().err
    assert Progress.here().entry("1.1").failures == 2
    assert not list(progress.file.parent.glob(".progress-*"))


def test_two_kernels_that_keep_progress_at_once_lose_nothing(progress):
    children = []
    for section in (1, 2):
        children.append(os.fork())
        if children[-1] == 0:
            for number in range(100):
                progress.keep(f"{section}.{number}", Entry(attempts=1))
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(progress.read()) == 200


@pytest.mark.timeout(10)
def test_a_pipe_in_its_place_is_not_waited_for(progress):
    progress.file.parent.mkdir()
    os.mkfifo(progress.file)
    assert progress.read() == {}
    progress.keep("1.1", Entry(passed=True))
    assert progress.entry("1.1").passed
