"""An instructor makes seats, people work in them in every way, and all are reset."""

import json
import subprocess
import sys
from typing import get_args

import pytest

from courseware.lab import backup
from courseware.lab.state import NotebookState
from tests.courseware.lab import test_reset
from tests.courseware.lab.test_reset import DIRT, backed_up, contents, users_work

SEATS = 30

course = test_reset.course  # the small course with three pristine notebooks


def seats(*arguments):
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", "seats", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.timeout(300)
def test_thirty_seats_are_created_watched_and_reset(course, tmp_path):
    (course / "labs_solutions" / "01-one.py").write_text("# %%\n1 + 1\n")
    room = tmp_path / "room"
    made = seats("create", SEATS, "--root", room, "--course", course)["created"]
    assert made == [f"seat-{number:02d}" for number in range(1, SEATS + 1)]
    assert seats("create", SEATS, "--root", room, "--course", course)["created"] == []
    folders = [room / name for name in made]
    fresh = contents(folders[0])
    assert all(contents(folder) == fresh for folder in folders)
    assert "notebooks/.pristine/01-one.ipynb" in fresh
    assert "notebooks/images/a.svg" in fresh

    # One seat for each way to make a mess; the rest stay as they are.
    for folder, dirty in zip(folders, DIRT, strict=False):
        dirty(folder)
    vandal = folders[len(DIRT)]
    (vandal / "labs_solutions" / "01-one.py").write_text("# my own notes\n")
    (vandal / "notebooks" / ".pristine" / "02-two.ipynb").unlink()
    work = {folder: users_work(folder) for folder in folders if folder != vandal}

    told = {row["seat"]: row["notebooks"]["01-one"] for row in seats("status", "--root", room)}
    expected = {f.name: DIRT[d] for f, d in zip(folders, DIRT, strict=False)}
    assert {name: told[name] for name in expected} == expected
    assert set(told.values()) == set(get_args(NotebookState))

    rows = seats("reset", "--root", room, "--course", course, "--yes")
    kept = {row["seat"]: row["backups"] for row in rows}
    for folder in folders:
        now = contents(folder)
        assert {k: v for k, v in now.items() if not k.startswith("workspace/backups")} | {
            k: v for k, v in fresh.items() if k.startswith("workspace")
        } == {**fresh, **{k: v for k, v in now.items() if k == "elsewhere.ipynb"}}
        assert work.get(folder, {b"# my own notes\n"}) <= backed_up(folder)
        assert bool(kept[folder.name]) == bool(backup.list_backups(folder))

    everything = contents(room)
    again = seats("reset", "--root", room, "--course", course, "--yes")
    assert contents(room) == everything
    assert not any(row["backups"] or row["problem"] for row in again)
