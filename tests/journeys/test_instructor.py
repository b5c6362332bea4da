"""An instructor makes seats, people work in them in every way, and root resets them all."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import pytest

from courseware.lab.state import NotebookState
from tests.courseware.lab import test_reset
from tests.courseware.lab.test_reset import DIRT, LINKS, backed_up, contents, edited, users_work
from tests.courseware.lab.test_seats import REFUSED, VANDALS

OWNER = 12_345  # and the numbers after it: users without a name

course = test_reset.course  # the small course with three pristine notebooks


@pytest.fixture
def room():
    """A folder that everybody may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder).resolve() / "room"
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)
        subprocess.run(["rm", "-rf", Path(folder, "room")], check=True)


def seats(*arguments, code=0):
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", "seats", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout)


def dirty_seats(folders, outside):
    """Do to each seat what one of the tests of a single seat does; return seat -> what was done."""
    done = {}
    for folder, change in zip(folders, [*DIRT, *VANDALS, *LINKS, *REFUSED], strict=False):
        (outside / folder.name).mkdir()
        if change in REFUSED:
            edited(folder)  # so that there is work to keep
        change(*[folder, outside / folder.name][: change.__code__.co_argcount])
        done[folder] = change
    return done


@pytest.mark.timeout(600)
def test_seats_in_every_disorder_are_created_watched_and_reset(course, room):
    (course / "labs_solutions" / "01-one.py").write_text("# %%\n1 + 1\n")
    number = len([*DIRT, *VANDALS, *LINKS, *REFUSED]) + 1
    made = seats("create", number, "--root", room, "--course", course)["created"]
    assert made == [f"seat-{index:02d}" for index in range(1, number + 1)]
    assert seats("create", number, "--root", room, "--course", course)["created"] == []
    folders = [room / name for name in made]
    fresh = contents(folders[0])
    assert all(contents(folder) == fresh for folder in folders)
    assert "notebooks/.pristine/01-one.ipynb" in fresh
    assert "notebooks/images/a.svg" in fresh

    # One seat for each way to make a mess, hostile ones too; the last one stays as it is.
    outside = room.parent / "outside"
    outside.mkdir()
    done = dirty_seats(folders, outside)
    for index, folder in enumerate(folders):
        if os.geteuid() == 0 and not folder.is_symlink():
            subprocess.run(["chown", "-Rh", f"{OWNER + index}:{OWNER + index}", folder], check=True)
    refused = {folder.name for folder, change in done.items() if change in REFUSED}
    work = {
        folder: users_work(folder)
        for folder, change in done.items()
        if change in DIRT and (folder / "notebooks").is_dir()
    }
    before = [contents(folder) for folder in (outside, course, *room.glob("elsewhere-*"))]

    told = seats("status", "--root", room)
    assert [row["seat"] for row in told] == made
    states = {row["seat"]: row["notebooks"].get("01-one") for row in told}
    for folder, change in done.items():
        assert change not in DIRT or states[folder.name] == DIRT[change], change.__name__
    assert set(get_args(NotebookState)) <= set(states.values())

    rows = seats("reset", "--root", room, "--course", course, "--yes", code=1)
    assert [row["seat"] for row in rows] == made
    assert {row["seat"] for row in rows if row["problem"]} == refused, rows
    assert before == [contents(folder) for folder in (outside, course, *room.glob("elsewhere-*"))]
    for folder in folders:
        if folder.name in refused:
            continue
        now = contents(folder)
        changed = {name for name in fresh if now.get(name, 0) != fresh[name]}
        assert not changed, (done.get(folder), changed)
        assert {name for name in now if name.startswith("notebooks/")} <= set(fresh)
        assert work.get(folder, set()) <= backed_up(folder)
        if os.geteuid() == 0:
            owners = {(item.lstat().st_uid) for item in (folder, *folder.glob("*/*"))}
            assert owners == {folder.lstat().st_uid} != {0}

    everything = contents(room)
    again = seats("reset", "--root", room, "--course", course, "--yes", code=1)
    assert contents(room) == everything
    assert {row["seat"] for row in again if row["problem"]} == refused
    assert not any(row["backup"] for row in again)
