import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from courseware.course import PRISTINE, PROGRESS
from courseware.errors import LabError
from courseware.lab import backup, state
from courseware.lab.seats import look_at
from courseware.lab.state import notebook_statuses, servers
from multistage.serving.triton import TritonServer
from multistage.workspace import Workspace
from tests.small_course import write_map

NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# One"]},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {"tags": ["exercise-1.1"]},
            "source": ["def f():\n", "    raise NotImplementedError"],
            "outputs": [],
            "execution_count": None,
        },
    ],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}
NAMES = ("01-one.ipynb", "02-two.ipynb", "03-three.ipynb")
DONE = {"version": 1, "exercises": {"1.1": {"passed": True}, "2.1": {"passed": False}}}
COUNTS = {"exercises": 1, "solved": 0, "stuck": {}}


@pytest.fixture
def course(small_course):
    root = small_course()
    for folder in (root / PRISTINE / "images", root / "notebooks" / "images"):
        folder.mkdir(parents=True)
        (folder / "a.svg").write_text("<svg/>")
    for number, name in enumerate(NAMES, 1):
        text = json.dumps(NOTEBOOK).replace("1.1", f"{number}.1")
        (root / PRISTINE / name).write_text(text)
        (root / "notebooks" / name).write_text(text)
    return root


def one(course):
    return course / "notebooks" / NAMES[0]


def edited(course):
    body = json.loads(one(course).read_text())
    body["cells"][1]["source"] = ["def f():\n", "    return 42"]
    one(course).write_text(json.dumps(body))


def executed(course):
    body = json.loads(one(course).read_text())
    body["cells"][1]["execution_count"] = 3
    one(course).write_text(json.dumps(body))


def deleted(course):
    one(course).unlink()


def renamed(course):
    one(course).rename(course / "notebooks" / "mine.ipynb")


def truncated(course):
    one(course).write_text(one(course).read_text()[:100])


def emptied(course):
    one(course).write_text("")


def invalid(course):
    one(course).write_text('{"cells": 3}')


def nested(course):
    one(course).write_text("[" * 50_000)


def binary(course):
    one(course).write_bytes(b"\xff\x00\xfe")


def read_only(course):
    edited(course)
    one(course).chmod(0o400)
    (course / "notebooks").chmod(0o500)


def only_read_only(course):
    one(course).chmod(0o444)


def link(course):
    one(course).rename(course / "elsewhere.ipynb")
    one(course).symlink_to(course / "elsewhere.ipynb")


def broken_link(course):
    one(course).unlink()
    one(course).symlink_to("nowhere")


def folder(course):
    one(course).unlink()
    one(course).mkdir()
    (one(course) / "x").write_text("x")


def opened(course):
    edited(course)
    checkpoints = course / "notebooks" / ".ipynb_checkpoints"
    checkpoints.mkdir()
    (checkpoints / "01-one-checkpoint.ipynb").write_text("older work")


def own_files(course):
    (course / "notebooks" / "data").mkdir()
    (course / "notebooks" / "data" / "notes.txt").write_text("notes")


def odd_names(course):
    (course / "notebooks" / "two\nlines.txt").write_text("two lines")
    Path(os.fsdecode(b"%b/notebooks/\xe9t\xe9" % os.fsencode(course))).write_text("latin")


def socket_(course):
    os.chdir(course / "notebooks")  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("server")
    os.chdir(course)


def pipes(course):
    one(course).unlink()
    os.mkfifo(one(course))
    os.mkfifo(course / "notebooks" / "pipe")


def deep(course):
    for count in range(1_100):
        os.mkdir("d" if count else course / "notebooks" / "d")
        os.chdir("d" if count else course / "notebooks" / "d")
    Path("work").write_text("deep work")
    os.chdir(course)


def hidden_files(course):
    (course / "notebooks" / ".reset-notes.txt").write_text("my notes")
    (course / "notebooks" / ".reset-old").mkdir()


def hard_link(course):
    (course / PRISTINE / NAMES[0]).unlink()
    os.link(one(course), course / PRISTINE / NAMES[0])


def no_pictures(course):
    shutil.rmtree(course / "notebooks" / "images")


def unreadable(course):
    edited(course)
    one(course).chmod(0)
    (course / "notebooks" / "mine").mkdir()
    (course / "notebooks" / "mine" / "work").write_text("closed work")
    (course / "notebooks" / "mine").chmod(0o500)


def progress_pipe(course):
    (course / PROGRESS).parent.mkdir(exist_ok=True)
    os.mkfifo(course / PROGRESS)


def endless_progress(course):
    (course / PROGRESS).parent.mkdir(exist_ok=True)
    (course / PROGRESS).symlink_to("/dev/zero")


def nested_progress(course):
    (course / PROGRESS).parent.mkdir(exist_ok=True)
    (course / PROGRESS).write_text("[" * 100_000)


def odd_progress(course):
    """Values of other types, a number of 400 digits, names that are no exercises."""
    (course / PROGRESS).parent.mkdir(exist_ok=True)
    entries = {"1.1": {"passed": [], "failures": "x", "solution_shown": 10**400}, "9" * 5_000: {}}
    (course / PROGRESS).write_text(json.dumps({"exercises": entries}))


def a_mark_that_is_a_folder(course):
    (course / "workspace" / ".checking-1.1" / "x").mkdir(parents=True)
    (course / "workspace" / ".checking-1.2").write_text("123")


def progress(course):
    (course / PROGRESS).parent.mkdir(exist_ok=True)
    (course / PROGRESS).write_text(json.dumps(DONE))


def progress_folder(course):
    (course / PROGRESS).mkdir(parents=True)
    (course / PROGRESS / "x").write_text("progress")


def corrupt_progress(course):
    (course / PROGRESS).parent.mkdir(exist_ok=True)
    (course / PROGRESS).write_text("{")


DIRT = {
    edited: "edited",
    executed: "pristine",
    deleted: "missing",
    renamed: "missing",
    truncated: "unreadable",
    emptied: "unreadable",
    invalid: "unreadable",
    nested: "unreadable",
    binary: "unreadable",
    read_only: "read-only",
    only_read_only: "read-only",
    link: "edited",
    broken_link: "edited",
    folder: "unreadable",
    opened: "edited",
    own_files: "pristine",
    odd_names: "pristine",
    progress: "pristine",
    progress_folder: "pristine",
    corrupt_progress: "pristine",
    socket_: "pristine",
    pipes: "unreadable",
    deep: "pristine",
    hidden_files: "pristine",
    hard_link: "edited",
    no_pictures: "pristine",
    unreadable: "read-only" if os.geteuid() == 0 else "unreadable",
    progress_pipe: "pristine",
    endless_progress: "pristine",
    nested_progress: "pristine",
    odd_progress: "pristine",
    a_mark_that_is_a_folder: "pristine",
}


def contents(folder):
    """What stands in a folder: path -> bytes, the target of a link, None for a folder, 0 else."""
    found, waiting = {}, [folder] if folder.exists() else []
    while waiting:  # some are too deep for recursion
        for item in sorted(waiting.pop().iterdir()):
            name, mode = str(item.relative_to(folder)), item.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[name] = os.readlink(item)
            elif stat.S_ISDIR(mode):
                found[name] = None
                waiting.append(item)
            else:
                found[name] = item.read_bytes() if stat.S_ISREG(mode) else 0
    return dict(sorted(found.items()))


def users_work(course):
    """Everything in notebooks/ that is not pristine, and the progress: none of it may be lost."""
    pristine = set(contents(course / PRISTINE).values()) | {b"<svg/>"}
    work = {value for value in contents(course / "notebooks").values() if value}
    if (course / PROGRESS).is_file():
        work.add((course / PROGRESS).read_bytes())
    return work - pristine


def backed_up(course):
    found = set()
    for name in backup.list_backups(course):
        found |= set(contents(course / backup.BACKUPS / name).values())
    return found


@pytest.mark.parametrize("dirty", DIRT, ids=lambda dirty: dirty.__name__)
def test_reset_restores_each_byte_and_keeps_the_work(course, dirty):
    before = contents(course / "notebooks")
    dirty(course)
    assert notebook_statuses(course)[0].state == DIRT[dirty]
    work = users_work(course)
    backup.reset(course)
    assert contents(course / "notebooks") == before
    assert not one(course).is_symlink()
    assert one(course).stat().st_nlink == 1
    assert one(course).stat().st_mode & 0o777 == 0o644
    assert not os.path.lexists(course / PROGRESS)
    assert not list((course / "workspace").glob(".*"))
    assert work <= backed_up(course)
    # A second reset changes nothing, and makes no backup.
    everything = contents(course)
    assert backup.plan_reset(course).empty
    assert backup.reset(course) is None
    assert contents(course) == everything


@pytest.mark.parametrize("dirty", DIRT, ids=lambda dirty: dirty.__name__)
def test_restore_brings_back_what_reset_took(course, dirty):
    dirty(course)
    work = users_work(course)
    if backup.reset(course) is None:
        assert not work
        return
    kept = backed_up(course)
    files, replaced = backup.restore(course, "latest")
    assert work <= users_work(course)
    assert replaced is None
    # The backup is still there, and restoring it again changes nothing.
    assert backed_up(course) == kept
    everything = contents(course)
    assert backup.restore(course, "latest") == (files, None)
    assert contents(course) == everything


def test_restore_keeps_what_it_replaces(course):
    edited(course)
    first = one(course).read_bytes()
    backup.reset(course)
    one(course).write_text("newer work")
    files, kept = backup.restore(course, "latest")
    assert files == ["notebooks/01-one.ipynb"]
    assert one(course).read_bytes() == first
    assert (kept / "notebooks" / "01-one.ipynb").read_text() == "newer work"


def test_outputs_that_ran_wild_are_not_read_for_a_look(course, monkeypatch):
    one(course).write_text(one(course).read_text() + " " * 100)
    assert notebook_statuses(course)[0].state == "pristine"
    monkeypatch.setattr(state, "MOST", one(course).stat().st_size - 1)
    assert notebook_statuses(course)[0].state == "edited"


@pytest.mark.parametrize("text", ["", "{", '{"cells": [1]}'])
def test_a_damaged_pristine_copy_is_not_put_over_anything(course, text):
    edited(course)
    (course / PRISTINE / NAMES[1]).write_text(text)
    before = contents(course)
    with pytest.raises(LabError, match=r"02-two\.ipynb is damaged, and no lab source"):
        backup.reset(course)
    assert contents(course) == before


def test_two_resets_do_not_meet(course):
    edited(course)
    with backup.only_one(course):
        code, said = lab(course, "reset", "--yes")
    assert (code, "is at work: wait for it" in said) == (1, True)
    assert "42" in one(course).read_text()
    assert lab(course, "reset", "--yes")[0] == 0


def test_one_section_alone(course):
    edited(course)
    progress(course)
    (course / "notebooks" / "02-two.ipynb").write_text("mine")
    (course / "notebooks" / "01-one-Copy1.ipynb").write_text("copy")
    (course / "notebooks" / "notes.txt").write_text("notes")
    backup.reset(course, [1])
    assert (course / "notebooks" / "02-two.ipynb").read_text() == "mine"
    assert (course / "notebooks" / "notes.txt").read_text() == "notes"
    assert not (course / "notebooks" / "01-one-Copy1.ipynb").exists()
    assert list(json.loads((course / PROGRESS).read_text())["exercises"]) == ["2.1"]
    assert one(course).read_bytes() == (course / PRISTINE / NAMES[0]).read_bytes()
    with pytest.raises(LabError, match="no section 7: choose from 1, 2, 3"):
        backup.reset(course, [7])


def killed_after(lines, action):
    """Do ``action`` in a child process that is killed at a given line of backup.py.

    Returns:
        Whether it was killed; False if it had ended before.
    """
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename != backup.__file__:
                return None
            left -= event == "line"
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        with contextlib.suppress(BaseException):
            sys.settrace(trace)
            action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_at_any_moment_it_loses_nothing_and_is_finished_later(course, tmp_path):
    before = contents(course / "notebooks")
    for dirty in (edited, opened, own_files, progress):
        with contextlib.suppress(FileExistsError):
            dirty(course)
    (course / "notebooks" / NAMES[1]).unlink()
    work = users_work(course)
    dirtied = tmp_path / "dirtied"
    shutil.copytree(course, dirtied, symlinks=True)
    deaths = 0
    for lines in range(1, 2_000, 13):
        if not killed_after(lines, partial(backup.reset, course)):
            break
        deaths += 1
        assert work <= users_work(course) | backed_up(course)
        backup.reset(course)
        assert contents(course / "notebooks") == before
        assert not (course / PROGRESS).exists()
        assert work <= backed_up(course)
        assert not list((course / backup.BACKUPS).glob(".*"))
        shutil.rmtree(course)
        shutil.copytree(dirtied, course, symlinks=True)
    assert deaths > 10


def test_a_restore_killed_at_any_moment_loses_nothing_and_may_be_repeated(course, tmp_path):
    edited(course)
    own_files(course)
    first = users_work(course)
    name = backup.reset(course).name
    one(course).write_text("newer work")
    progress(course)
    work = first | users_work(course)
    dirtied = tmp_path / "dirtied"
    shutil.copytree(course, dirtied, symlinks=True)
    deaths = 0
    for lines in range(1, 2_000, 13):
        if not killed_after(lines, partial(backup.restore, course, name)):
            break
        deaths += 1
        assert work <= users_work(course) | backed_up(course)
        backup.restore(course, name)
        assert first <= users_work(course)
        assert work <= users_work(course) | backed_up(course)
        shutil.rmtree(course)
        shutil.copytree(dirtied, course, symlinks=True)
    assert deaths > 10


def lab(course, *arguments):
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", *arguments, "--root", course, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr


def test_the_command_line_asks_before_it_touches_anything(course):
    edited(course)
    everything = contents(course)
    code, said = lab(course, "reset")
    assert (code, "give --yes" in said) == (1, True)
    code, said = lab(course, "reset", "--dry-run")
    assert (code, said["changed"], said["backup"]) == (0, ["notebooks/01-one.ipynb"], None)
    assert contents(course) == everything
    code, said = lab(course, "reset", "--yes")
    assert (code, said["backup"] is not None) == (0, True)
    assert lab(course, "restore")[1] == {
        os.path.basename(said["backup"]): ["notebooks/01-one.ipynb"]
    }
    code, said = lab(course, "restore", "latest")
    assert said == {"restored": ["notebooks/01-one.ipynb"], "backup": None}
    assert "42" in one(course).read_text()


def test_artifacts_go_only_if_asked_and_downloads_stay(course):
    made = {"01-one": "data", "02-two": "features/tables", "03-three": "export/index"}
    write_map(course, **{lab: {"makes": [name]} for lab, name in made.items()})
    workspace = Workspace.open("store", "ci", course)
    for name in made.values():
        with workspace.write(name, producer="x") as folder:
            (folder / "x").write_text("x")
    (course / "workspace" / "downloads").mkdir()
    assert lab(course, "reset", "--yes")[0] == 0
    assert len(workspace.artifacts()) == 3
    assert lab(course, "reset", "--yes", "--artifacts", "--section", "2")[0] == 0
    assert workspace.artifacts() == ["data", "export/index"]
    assert lab(course, "reset", "--yes", "--artifacts")[0] == 0
    assert workspace.artifacts() == []
    assert (course / "workspace" / "downloads").is_dir()


def test_status_tells_notebooks_checks_and_artifacts(course):
    edited(course)
    progress(course)
    (course / "notebooks" / NAMES[2]).unlink()
    workspace = Workspace.open("store", "ci", course)
    for name in ("data", "features"):
        with workspace.write(name, producer="x") as folder:
            (folder / "x").write_text("x")
    (workspace.folder / "data" / "x").write_text("y")
    code, said = lab(course, "status")
    assert code == 0
    assert said["notebooks"] == [
        {"section": "01-one", "state": "edited", "passed": 1} | COUNTS,
        {"section": "02-two", "state": "pristine", "passed": 0} | COUNTS,
        {"section": "03-three", "state": "missing", "passed": 0} | COUNTS,
    ]
    states = {artifact["name"]: artifact["state"] for artifact in said["artifacts"]}
    assert states["features"] == "intact"
    assert "x is changed" in states["data"]
    assert said["servers"] == []


def test_a_further_notebook_is_counted_apart(course):
    progress(course)
    text = json.dumps(NOTEBOOK).replace("exercise-1.1", "exercise-1.9")
    for folder in (PRISTINE, Path("notebooks")):
        (course / folder / "further").mkdir()
        (course / folder / "further" / "01-more.ipynb").write_text(text)
    code, said = lab(course, "status")
    assert code == 0
    assert [row["section"] for row in said["notebooks"]][-1] == "further/01-more"
    assert (
        said["notebooks"][-1] | {"section": ""}
        == {
            "section": "",
            "state": "pristine",
            "passed": 0,
        }
        | COUNTS
    )
    row = look_at(course)
    assert row["notebooks"]["further/01-more"] == "pristine"
    assert (row["passed"], row["exercises"]) == (1, 3)
    (course / PRISTINE / "further" / "01-more.ipynb").write_text("{")
    assert "further/01-more.ipynb is damaged" in look_at(course)["problem"]


@pytest.mark.real
def test_only_this_courses_servers_are_stopped(course, tmp_path):
    """Real servers, one of them of another course."""
    ours, theirs = (
        folder / "workspace" / "store-ci" / "serving" / "model_repository"
        for folder in (course, tmp_path / "another")
    )
    for repository in (ours, theirs):
        repository.mkdir(parents=True)
    with TritonServer(ours) as server, TritonServer(theirs) as other:
        assert servers(course) == {server.pid: "workspace/store-ci/serving/model_repository"}
        assert lab(course, "status")[1]["servers"] == [
            {"pid": server.pid, "serves": "workspace/store-ci/serving/model_repository"}
        ]
        code, said = lab(course, "reset", "--yes")
        assert (code, len(said["servers"])) == (0, 1)
        assert not server.running
        assert other.running
        assert servers(course) == {}


def test_a_folder_that_is_no_data_set_is_left_alone(course):
    (course / "workspace" / "My Data-ci" / "features").mkdir(parents=True)
    assert lab(course, "status")[0] == 0
    assert lab(course, "reset", "--artifacts", "--yes")[0] == 0
    assert (course / "workspace" / "My Data-ci" / "features").is_dir()
