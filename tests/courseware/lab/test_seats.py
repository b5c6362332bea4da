"""Damaged seats, and folders of seats in which not every seat can be repaired."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from courseware.course import PRISTINE, PROGRESS
from courseware.errors import LabError
from courseware.lab import backup, seats
from courseware.lab.owner import as_owner
from courseware.lab.pristine import seat_files
from tests.courseware.lab import test_reset
from tests.courseware.lab.test_reset import (
    NAMES,
    backed_up,
    contents,
    edited,
    killed_after,
    lab,
    one,
)

course = test_reset.course  # the small course with three pristine notebooks


@pytest.fixture
def seat(course, tmp_path):
    (course / "labs_solutions" / "01-one.py").write_text("# %%\n1 + 1\n")
    seats.create(course, tmp_path / "room", 1)
    return tmp_path / "room" / "seat-01"


def elsewhere(seat):
    return seat.parent / f"elsewhere-{seat.name}"


def no_notebooks(seat):
    shutil.rmtree(seat / "notebooks")


def a_file_for_notebooks(seat):
    shutil.rmtree(seat / "notebooks")
    (seat / "notebooks").write_text("work")


def a_link_for_notebooks(seat):
    target = elsewhere(seat)
    shutil.move(seat / "notebooks", target)
    (target / "precious").write_text("precious")
    (seat / "notebooks").symlink_to(target)


def no_pristine(seat):
    shutil.rmtree(seat / PRISTINE)


def a_link_for_pristine(seat):
    shutil.move(seat / PRISTINE, elsewhere(seat))
    (seat / PRISTINE).symlink_to(elsewhere(seat))


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


def own_files_everywhere(seat):
    for folder in (PRISTINE, "notebooks/images", "notebooks"):
        (seat / folder / ".reset-abc").write_text("work")
    (seat / PRISTINE / "images" / "a.svg").write_text("work")


def no_map(seat):
    (seat / "course.toml").unlink()


def a_pipe_for_the_map(seat):
    (seat / "course.toml").unlink()
    os.mkfifo(seat / "course.toml")


def hard_links(seat):
    for folder in ("labs_solutions", PRISTINE, "notebooks/images"):
        for file in (seat / folder).glob("*.*"):
            os.link(file, seat / f"{file.name}-{file.parent.name}")


def links_for_folders(seat):
    for folder in ("labs_solutions", "notebooks/images"):
        (elsewhere(seat) / folder).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(seat / folder, elsewhere(seat) / folder)
        (seat / folder).symlink_to(elsewhere(seat) / folder)
    (elsewhere(seat) / "labs_solutions" / "01-one.py").write_text("precious")


def everything_read_only(seat):
    (seat / "notebooks" / "images" / "b.svg").write_text("work")
    for item in sorted(seat.rglob("*"), reverse=True):
        item.chmod(0o500 if item.is_dir() else 0o400)
    seat.chmod(0o500)


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
    own_files_everywhere,
    no_map,
    a_pipe_for_the_map,
    hard_links,
    links_for_folders,
    everything_read_only,
    a_file_for_sources,
    other_sources,
    another_picture,
    more_pictures,
]


@pytest.mark.parametrize("vandal", VANDALS, ids=lambda vandal: vandal.__name__)
def test_a_seat_taken_apart_is_looked_at_and_restored(course, seat, vandal):
    fresh = contents(seat)
    vandal(seat)
    before = contents(elsewhere(seat))
    work = {value for value in contents(seat).values() if value == b"work"}
    row = seats.look_at(seat)
    assert row["problem"] or set(row["notebooks"].values()) <= {"pristine", "read-only"}, row
    seats.reset(seat, seat_files(course))
    left = {k: v for k, v in contents(seat).items() if not k.startswith("workspace/")}
    assert {k: v for k, v in left.items() if k in fresh or "/" in k} == fresh
    assert all((seat / name).stat().st_nlink == 1 for name, value in fresh.items() if value)
    assert work <= backed_up(seat)
    assert contents(elsewhere(seat)) == before
    assert seats.reset(seat, seat_files(course)) is None


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
        if not killed_after(lines, partial(backup.reset, seat, given=seat_files(course))):
            break
        deaths += 1
        assert work <= set(contents(seat).values())
        seats.reset(seat, seat_files(course))
        left = {k: v for k, v in contents(seat).items() if not k.startswith("workspace/")}
        assert left == fresh
        assert work <= backed_up(seat)
        shutil.rmtree(seat)
        shutil.copytree(dirtied, seat)
    assert deaths > 10


def lab_seats(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "courseware.lab", "seats", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "200"},
    )


def command(*arguments):
    ended = lab_seats(*arguments, "--json")
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr


@pytest.fixture
def room(course, seat):
    """Three seats, all edited."""
    seats.create(course, seat.parent, 3)
    for folder in seat.parent.iterdir():
        edited(folder)
    return seat.parent


def a_file_for_workspace(seat):
    (seat / "workspace").rmdir()
    (seat / "workspace").write_text("in the way")


def a_link_for_workspace(seat):
    elsewhere(seat).mkdir()
    (elsewhere(seat) / ".checking-1.1").write_text("precious")
    (seat / "workspace").rmdir()
    (seat / "workspace").symlink_to(elsewhere(seat))


def a_link_for_backups(seat):
    (elsewhere(seat) / "001-20260101-000000").mkdir(parents=True)
    (elsewhere(seat) / "001-20260101-000000" / "x").write_text("precious")
    (seat / backup.BACKUPS).symlink_to(elsewhere(seat))


def a_link_for_the_seat(seat):
    shutil.move(seat, elsewhere(seat))
    seat.symlink_to(elsewhere(seat))


def a_file_for_the_seat(seat):
    shutil.rmtree(seat)
    seat.write_text("work")


REFUSED = {
    a_file_for_workspace: "workspace is a link or not a folder",
    a_link_for_workspace: "workspace is a link or not a folder",
    a_link_for_backups: "backups is a link or not a folder",
    a_link_for_the_seat: "link or not a folder",
    a_file_for_the_seat: "link or not a folder",
}


@pytest.mark.parametrize("vandal", REFUSED, ids=lambda vandal: vandal.__name__)
def test_a_seat_that_cannot_be_reset_does_not_stop_the_others(course, room, vandal):
    seat = room / "seat-01"
    vandal(seat)
    kept = {k: v for k, v in contents(room).items() if not k.startswith(("seat-02", "seat-03"))}
    code, rows = command("reset", "--root", room, "--course", course, "--yes")
    assert code == 1
    assert REFUSED[vandal] in rows[0]["problem"]
    assert [bool(row["backup"]) for row in rows] == [False, True, True]
    looks = command("status", "--root", room)[1]
    assert [row["notebooks"].get("01-one") for row in looks][1:] == ["pristine", "pristine"]
    assert looks[0]["problem"] or looks[0]["notebooks"]["01-one"] == "edited"
    now = contents(room)
    assert {k: v for k, v in now.items() if not k.startswith(("seat-02", "seat-03"))} == kept


def test_one_seat_and_one_section_alone(course, room):
    second = room / "seat-02"
    (second / "notebooks" / NAMES[1]).write_text("work")
    shutil.rmtree(second / "labs_solutions")
    code, (row,) = command(
        "reset", "--root", room, "seat-02", "--section", "2", "--course", course, "--yes"
    )
    assert (code, row["seat"], row["problem"]) == (0, "seat-02", None)
    looks = {row["seat"]: row["notebooks"] for row in command("status", "--root", room)[1]}
    assert looks["seat-01"]["01-one"] == looks["seat-02"]["01-one"] == "edited"
    assert looks["seat-02"]["02-two"] == "pristine"
    assert (second / "labs_solutions" / "01-one.py").is_file()
    assert command("restore", "seat-02", "--root", room)[1] == {
        row["backup"].rpartition("/")[2]: ["notebooks/02-two.ipynb"]
    }
    code, said = command("restore", "seat-02", "latest", "--root", room)
    assert said == {"restored": ["notebooks/02-two.ipynb"], "backup": None}
    assert (second / "notebooks" / NAMES[1]).read_text() == "work"
    for arguments in (("reset", "seat-7", "--course", course, "--yes"), ("restore", "../room")):
        code, said = command(*arguments, "--root", room)
        assert (code, "There is no seat" in said) == (1, True)


def test_status_names_what_was_added_and_who_fails_where(course, room):
    one(room / "seat-01").rename(room / "seat-01" / "notebooks" / "mine.ipynb")
    (room / "seat-01" / "notebooks" / "[b]\x1b[31m.txt").write_text("notes")
    entries = {
        "1.1": {"passed": False, "failures": 5},
        "2.1": {"passed": True, "solution_shown": True, "failures": 0},
        "3.1": {"passed": True},
    }
    (room / "seat-02" / PROGRESS).write_text(json.dumps({"exercises": entries}))
    first, second, third = command("status", "--root", room)[1]
    assert first["added"] == {"[b]\x1b[31m.txt": "", "mine.ipynb": "01-one"}
    assert (second["passed"], second["solved"], second["exercises"]) == (1, 1, 3)
    assert second["stuck"] == {"1.1": 5}
    assert third["stuck"] == third["added"] == {}
    assert first["owner"] == (room / "seat-01").owner()
    said = lab_seats("status", "--root", room).stdout
    for words in ("mine.ipynb (was 01-one)", "[b]\\x1b[31m.txt", "1.1 (5 times)", "1 of 9"):
        assert "".join(words.split()) in "".join(said.replace("│", "").split()), words


def test_what_is_said_of_seats_that_are_there_and_of_no_course(course, room):
    again = lab_seats("create", 3, "--root", room, "--course", course)
    assert again.stdout == f"3 seats are there, 0 are new: {room}\n"
    none = lab_seats("create", 3, "--root", room, "--course", "/")
    assert (none.returncode, "with --course" in none.stderr) == (1, True)
    assert "--root names the folder of the seats" in none.stderr
    # What stands at a seat's name stays, whatever it is.
    (room / "seat-04").symlink_to("nowhere")
    assert seats.create(course, room, 5) == ["seat-05"]
    assert sorted(item.name for item in room.iterdir()) == [f"seat-0{n}" for n in range(1, 6)]


def test_a_seat_that_never_answers_is_one_row(seat, monkeypatch):
    monkeypatch.setattr(seats, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(seats, "notebook_statuses", lambda seat: time.sleep(60))
    assert seats.look_at(seat)["problem"] == "seat-01 did not answer within 0 s."
    monkeypatch.setattr(seats, "notebook_statuses", lambda seat: os._exit(1))
    assert "was ended" in seats.look_at(seat)["problem"]


@pytest.fixture
def public_seat(course):
    """A seat of another user, in a folder that everybody may enter; pytest's own are private."""
    if os.geteuid() != 0:
        pytest.skip("only an administrator gives files away")
    with tempfile.TemporaryDirectory() as room:
        os.chmod(room, 0o755)
        seats.create(course, Path(room), 1)
        seat = Path(room) / "seat-01"
        for item in (seat, *seat.rglob("*")):
            os.chown(item, 12345, 54321)
        yield seat


def owners(seat):
    return {(item.stat().st_uid, item.stat().st_gid) for item in (seat, *seat.rglob("*"))}


def test_what_an_administrator_restores_is_the_owners(course, public_seat):
    edited(public_seat)
    shutil.rmtree(public_seat / "notebooks" / "images")
    (public_seat / "notebooks" / "own").mkdir()
    (public_seat / "notebooks" / "own" / "notes.txt").write_text("notes")
    for item in public_seat.rglob("*"):
        os.chown(item, 12345, 54321)
    seats.reset(public_seat, seat_files(course))
    code, said = command("restore", "seat-01", "latest", "--root", public_seat.parent)
    assert said["restored"] == ["notebooks/01-one.ipynb", "notebooks/own/notes.txt"]
    assert "42" in one(public_seat).read_text()
    assert owners(public_seat) == {(12345, 54321)}
    # So it is with the commands for the folder one is in.
    for arguments in (["reset", "--yes"], ["restore", "latest"]):
        code, said = lab(public_seat, *arguments)
        assert code == 0, said
    assert owners(public_seat) == {(12345, 54321)}


def test_files_of_another_owner_are_one_line_and_the_rest_is_reset(course, public_seat):
    """Root had started JupyterLab in the seat: a file may be moved, a folder may not."""
    (public_seat / "notebooks" / "roots.ipynb").write_text("root's work")
    (public_seat / "notebooks" / "roots.ipynb").chmod(0o600)
    folder = public_seat / "notebooks" / ".ipynb_checkpoints"
    folder.mkdir()
    (folder / "x").write_text("root's checkpoint")
    code, (row,) = command("reset", "--root", public_seat.parent, "--course", course, "--yes")
    assert code == 1
    assert ".ipynb_checkpoints: Permission denied" in row["problem"]
    assert "Everything else is done. What was changed is in workspace/backups/001" in row["problem"]
    assert b"root's work" in backed_up(public_seat)
    assert sorted(item.name for item in (public_seat / "notebooks").iterdir()) == sorted(
        [".ipynb_checkpoints", ".pristine", "images", *NAMES]
    )
    os.chown(folder, 12345, 54321)
    assert seats.reset(public_seat, seat_files(course))
    assert b"root's checkpoint" in backed_up(public_seat)


def test_a_user_does_not_read_or_write_with_roots_rights(course, public_seat):
    """What root alone may read is neither read nor moved, however it is reached."""
    secret = public_seat.parent / "secret"
    secret.mkdir(mode=0o700)
    (secret / "03-three.ipynb").write_text("secret")
    shutil.rmtree(public_seat / "workspace")
    (public_seat / "workspace").symlink_to(secret)
    (public_seat / "notebooks" / NAMES[2]).unlink()
    (public_seat / "notebooks" / NAMES[2]).symlink_to(secret / NAMES[2])
    before = contents(secret)
    row = command("status", "--root", public_seat.parent)[1][0]
    assert row["notebooks"]["03-three"] == "edited"
    with pytest.raises(LabError, match="workspace is a link"):
        seats.reset(public_seat, seat_files(course))
    assert as_owner(public_seat, os.getuid) == 12345
    assert as_owner(public_seat, os.getgroups) == [54321]
    with pytest.raises(LabError, match="Permission denied"):
        as_owner(public_seat, (secret / NAMES[2]).read_text)
    assert contents(secret) == before
