"""Damaged seats, and folders of seats in which not every seat can be repaired."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest

from courseware.course import PRISTINE
from courseware.lab import backup, seats
from tests.courseware.lab import test_reset
from tests.courseware.lab.test_reset import NAMES, backed_up, contents, edited, killed_after, one

course = test_reset.course  # the small course with three pristine notebooks


@pytest.fixture
def seat(course, tmp_path):
    (course / "labs_solutions" / "01-one.py").write_text("# %%\n1 + 1\n")
    seats.create(course, tmp_path / "room", 1)
    return tmp_path / "room" / "seat-01"


def no_notebooks(seat):
    shutil.rmtree(seat / "notebooks")


def a_file_for_notebooks(seat):
    shutil.rmtree(seat / "notebooks")
    (seat / "notebooks").write_text("work")


def a_link_for_notebooks(seat):
    elsewhere = seat.parent / "elsewhere"
    shutil.move(seat / "notebooks", elsewhere)
    (elsewhere / "precious").write_text("precious")
    (seat / "notebooks").symlink_to(elsewhere)


def no_pristine(seat):
    shutil.rmtree(seat / PRISTINE)


def a_link_for_pristine(seat):
    shutil.move(seat / PRISTINE, seat.parent / "elsewhere")
    (seat / PRISTINE).symlink_to(seat.parent / "elsewhere")


def broken_pristine(seat):
    (seat / PRISTINE / NAMES[0]).write_text("work")


def a_folder_for_pristine(seat):
    (seat / PRISTINE / NAMES[0]).unlink()
    (seat / PRISTINE / NAMES[0]).mkdir()
    (seat / PRISTINE / NAMES[0] / "x").write_text("work")


def more_pristine(seat):
    (seat / PRISTINE / "04-four.ipynb").write_text("work")


def no_sources(seat):
    shutil.rmtree(seat / "labs_solutions")


def killed_in_between(seat):
    (seat / "labs_solutions" / "01-one.py").unlink()
    for folder in ("labs_solutions", PRISTINE, "notebooks/images", "workspace"):
        (seat / folder / ".reset-abc").write_text("half")


def a_file_for_sources(seat):
    shutil.rmtree(seat / "labs_solutions")
    (seat / "labs_solutions").write_text("work")


def other_sources(seat):
    (seat / "labs_solutions" / "01-one.py").write_text("work")


def another_picture(seat):
    (seat / "notebooks" / "images" / "a.svg").write_text("work")


def more_pictures(seat):
    (seat / "notebooks" / "images" / "b.svg").write_text("work")


VANDALS = [
    no_notebooks,
    a_file_for_notebooks,
    a_link_for_notebooks,
    no_pristine,
    a_link_for_pristine,
    broken_pristine,
    a_folder_for_pristine,
    more_pristine,
    no_sources,
    killed_in_between,
    a_file_for_sources,
    other_sources,
    another_picture,
    more_pictures,
]


@pytest.mark.parametrize("vandal", VANDALS, ids=lambda vandal: vandal.__name__)
def test_a_seat_taken_apart_is_looked_at_and_mended(course, seat, vandal):
    fresh = contents(seat)
    vandal(seat)
    elsewhere = contents(seat.parent / "elsewhere")
    work = {value for value in contents(seat).values() if value == b"work"}
    row = seats.look_at(seat)
    assert row["problem"] or list(row["notebooks"].values()) == ["pristine"] * 3, row
    seats.reset(seat, course)
    left = {k: v for k, v in contents(seat).items() if not k.startswith("workspace/")}
    assert left == fresh
    assert work <= backed_up(seat)
    assert contents(seat.parent / "elsewhere") == elsewhere
    assert seats.reset(seat, course) == []


def test_killed_at_any_moment_a_seats_reset_loses_nothing_and_is_finished_later(
    course, seat, tmp_path
):
    fresh = contents(seat)
    for vandal in (edited, other_sources, broken_pristine, more_pictures):
        vandal(seat)
    work = {one(seat).read_bytes(), b"work"}
    dirtied = tmp_path / "dirtied"
    shutil.copytree(seat, dirtied)
    deaths = 0
    for lines in range(1, 4_000, 31):
        if not killed_after(lines, partial(seats.reset, seat, course)):
            break
        deaths += 1
        assert work <= set(contents(seat).values())
        seats.reset(seat, course)
        left = {k: v for k, v in contents(seat).items() if not k.startswith("workspace/")}
        assert left == fresh
        assert work <= backed_up(seat)
        shutil.rmtree(seat)
        shutil.copytree(dirtied, seat)
    assert deaths > 10


def command(*arguments):
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", "seats", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.returncode, json.loads(ended.stdout)


def test_a_seat_that_cannot_be_reset_does_not_stop_the_others(course, seat):
    room = seat.parent
    seats.create(course, room, 3)
    for folder in room.iterdir():
        edited(folder)
    shutil.rmtree(seat / "workspace")
    (seat / "workspace").write_text("in the way")
    code, rows = command("reset", "--root", room, "--course", course, "--yes")
    assert code == 1
    assert "File exists" in rows[0]["problem"]
    assert [bool(row["backups"]) for row in rows] == [False, True, True]
    states = [row["notebooks"]["01-one"] for row in command("status", "--root", room)[1]]
    assert states == ["edited", "pristine", "pristine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator gives files away")
def test_what_an_administrator_restores_is_the_owners(course, seat):
    for item in (seat, *seat.rglob("*")):
        os.chown(item, 12345, 54321)
    edited(seat)
    shutil.rmtree(seat / "notebooks" / "images")
    (seat / "notebooks" / "own").mkdir()
    (seat / "notebooks" / "own" / "notes.txt").write_text("notes")
    os.chown(seat / "notebooks" / "own", 12345, 54321)
    seats.reset(seat, course)
    backup.restore(seat, "latest")
    assert "42" in one(seat).read_text()
    owners = {(item.stat().st_uid, item.stat().st_gid) for item in seat.rglob("*")}
    assert owners == {(12345, 54321)}
