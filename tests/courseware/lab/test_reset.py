import contextlib
import json
import os
import re
import resource
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
from courseware.lab import backup, build, state
from courseware.lab.seats import look_at
from courseware.lab.state import notebook_statuses, servers
from multistage.serving.triton import TritonServer
from multistage.workspace import Workspace
from tests.conftest import COURSE
from tests.environments.surroundings import isolated
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
    yield root
    # Some tests leave folders that are too deep for pytest to remove.
    subprocess.run(["chmod", "-R", "u+rwX", root], capture_output=True, check=False)
    subprocess.run(["rm", "-rf", root], check=True)


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
    unreadable: "unreadable",
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
                found[name] = read(item) if stat.S_ISREG(mode) else 0
    return dict(sorted(found.items()))


def read(file):
    """Return what a file holds, also of one that its owner may not read."""
    mode = file.stat().st_mode
    if not mode & stat.S_IRUSR:
        file.chmod(0o600)
    try:
        return file.read_bytes()
    finally:
        if not mode & stat.S_IRUSR:
            file.chmod(mode)


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


def progress_is_a_link(course, outside):
    (course / "workspace").mkdir(exist_ok=True)
    (outside / "progress.json").write_text(json.dumps(DONE))
    (course / PROGRESS).symlink_to(outside / "progress.json")


def names_of_ours_are_links(course, outside):
    """Names that were written to in the first edition."""
    progress(course)
    for name in (".progress.json-new", ".checking-1.1", ".partial-x", ".reset-x"):
        (course / "workspace" / name).symlink_to(outside / "precious")


def notebooks_is_a_link(course, outside):
    (course / "notebooks").rename(outside / "notebooks")
    (outside / "notebooks" / "mine.txt").write_text("precious")
    (course / "notebooks").symlink_to(outside / "notebooks")


def pictures_are_a_link(course, outside):
    (outside / "images").mkdir()
    (outside / "images" / "b.svg").write_text("precious")
    shutil.rmtree(course / "notebooks" / "images")
    (course / "notebooks" / "images").symlink_to(outside / "images")


def a_folder_of_links(course, outside):
    (course / "notebooks" / "mine").mkdir()
    (course / "notebooks" / "mine" / "all").symlink_to(outside)
    (course / "notebooks" / "mine" / "precious").symlink_to(outside / "precious")


def artifacts_are_a_link(course, outside):
    (outside / "store-ci" / "data").mkdir(parents=True)
    (outside / "store-ci" / "data" / "x").write_text("precious")
    (course / "workspace").mkdir(exist_ok=True)
    (course / "workspace" / "store-ci").symlink_to(outside / "store-ci")
    edited(course)


def a_folder_becomes_a_link_after_the_reset(course, outside):
    own_files(course)
    backup.reset(course)
    (course / "notebooks" / "data").symlink_to(outside)


LINKS = [
    progress_is_a_link,
    names_of_ours_are_links,
    notebooks_is_a_link,
    pictures_are_a_link,
    a_folder_of_links,
    artifacts_are_a_link,
    a_folder_becomes_a_link_after_the_reset,
]


@pytest.mark.parametrize("linked", LINKS, ids=lambda linked: linked.__name__)
def test_no_link_is_followed_out_of_the_course(course, tmp_path, linked):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    linked(course, outside)
    if linked is artifacts_are_a_link:
        write_map(course, **{"01-one": {"makes": ["data"]}})
    before = contents(outside)
    for arguments in (
        ["status"],
        ["reset", "--section", "1", "--yes"],
        ["restore", "latest"],
        ["reset", "--yes", "--artifacts"],
    ):
        code, said = lab(course, *arguments)
        assert code == 0 or re.search("is a link|There is no backup|names no lab", said)
        assert contents(outside) == before, arguments


def test_a_link_for_workspace_is_refused_before_anything_is_changed(course, tmp_path):
    edited(course)
    (course / "workspace").symlink_to(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(LabError, match="workspace is a link or not a folder: put a folder"):
        backup.reset(course)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", '{"cells": [1]}'])
def test_a_damaged_pristine_copy_is_not_put_over_anything(course, text):
    edited(course)
    (course / PRISTINE / NAMES[1]).write_text(text)
    before = contents(course)
    with pytest.raises(LabError, match=r"02-two\.ipynb is damaged, and has no lab source"):
        backup.reset(course)
    assert contents(course) == before


def test_what_is_saved_at_the_last_moment_is_in_the_backup(course, monkeypatch):
    def save_and_move(source, target):
        source.write_text("saved at the last moment")
        move(source, target)

    move = backup._move
    edited(course)
    monkeypatch.setattr(backup, "_move", save_and_move)
    backup.reset(course)
    assert b"saved at the last moment" in backed_up(course)
    assert one(course).read_bytes() == (course / PRISTINE / NAMES[0]).read_bytes()


def test_what_is_saved_while_nothing_is_there_stays(course, monkeypatch):
    def move_and_save(source, target):
        move(source, target)
        if source == one(course):
            source.write_text("saved in between")

    move = backup._move
    for change in (edited, own_files):
        change(course)
    first = one(course).read_bytes()
    monkeypatch.setattr(backup, "_move", move_and_save)
    with pytest.raises(LabError, match=r"01-one\.ipynb was saved at this very moment: do it again"):
        backup.reset(course)
    assert one(course).read_text() == "saved in between"
    assert not (course / "notebooks" / "data").exists()  # all the rest is done
    monkeypatch.undo()
    backup.reset(course)
    assert {first, b"saved in between", b"notes"} <= backed_up(course)


def test_an_editor_that_has_the_file_open_writes_into_the_backup(course):
    edited(course)
    with one(course).open("a") as editor:
        backup.reset(course)
        editor.write("a last line")
    assert one(course).read_bytes() == (course / PRISTINE / NAMES[0]).read_bytes()
    assert any(b"a last line" in content for content in backed_up(course) if content)


def test_the_latest_backup_is_the_one_made_last_whatever_the_clock_says(course):
    edited(course)
    first = backup.reset(course)
    ahead = first.rename(first.with_name("001-20991231-235959"))  # the clock went back since
    first_edition = first.with_name("20260101-000000")
    first_edition.mkdir()
    (first_edition / "x").write_text("old")
    one(course).write_text("later work")
    second = backup.reset(course)
    assert list(backup.list_backups(course)) == [first_edition.name, ahead.name, second.name]
    backup.restore(course, "latest")
    assert one(course).read_text() == "later work"


FULL = """
mkdir "$1/small"
mount -t tmpfs -o size=$2 none "$1/small"
cp -r "$1/course" "$1/small/course"
cd "$1/small/course"
head -c 100m /dev/zero > fill 2> /dev/null || true
for try in 1 2; do
  "$0" -m courseware.lab reset --yes 2>> "$1/said" || echo "failed" >> "$1/said"
done
cp -r notebooks "$1/while-full"
ls -A workspace >> "$1/left" 2>&1 || true
rm fill
"$0" -m courseware.lab reset --yes
cp -r notebooks workspace "$1/afterwards"
"""


@pytest.mark.parametrize("size", ["400k", "nr_inodes=60"])
def test_a_full_disk_changes_nothing(course, tmp_path, size):
    edited(course)
    own_files(course)
    (course / "notebooks" / "data" / "large").write_bytes(b"x" * 100_000)
    work, before = users_work(course), contents(course / "notebooks")
    (tmp_path / "afterwards").mkdir()
    script = FULL
    if size.startswith("nr_inodes"):
        script = (
            FULL.replace("-o size=$2", "-o $2")
            .replace(
                "head -c 100m /dev/zero > fill 2> /dev/null || true",
                "mkdir fill; for n in $(seq 100); do touch fill/$n || break; done 2> /dev/null",
            )
            .replace("rm fill", "rm -r fill")
        )
    ended = isolated(script, tmp_path, size)
    assert ended.returncode == 0, ended.stderr
    said = (tmp_path / "said").read_text()
    assert said.count("failed") == 2
    assert said.lower().count("free some space") >= 2
    assert "Traceback" not in said
    assert contents(tmp_path / "while-full") == before
    assert "backups" not in (tmp_path / "left").read_text()
    kept = contents(tmp_path / "afterwards" / "workspace").values()
    assert work <= set(kept)
    fresh = (course / PRISTINE / NAMES[0]).read_bytes()
    assert (tmp_path / "afterwards" / "notebooks" / NAMES[0]).read_bytes() == fresh


VOLUMES = """
cd "$1/course"
mkdir -p workspace "$1/volume"
cp -r notebooks/. "$1/volume"
mount -t tmpfs none workspace
mount --bind "$1/volume" notebooks
"$0" -m courseware.lab reset --yes
cp -r notebooks workspace "$1/afterwards"
"$0" -m courseware.lab restore latest
cp -r notebooks "$1/restored"
"""


def test_notebooks_and_workspace_may_be_volumes_of_their_own(course, tmp_path):
    """As in a container: nothing can be renamed from one to the other."""
    edited(course)
    own_files(course)
    opened(course)
    (course / "notebooks" / "link").symlink_to("/dev/zero")
    os.mkfifo(course / "notebooks" / "data" / "pipe")
    work, before = users_work(course), contents(course / PRISTINE)
    (tmp_path / "afterwards").mkdir()
    ended = isolated(VOLUMES, tmp_path)
    assert ended.returncode == 0, ended.stderr
    now = contents(tmp_path / "afterwards" / "notebooks")
    assert {k: v for k, v in now.items() if not k.startswith(".pristine")} == before
    assert work <= set(contents(tmp_path / "afterwards" / "workspace").values())
    assert work <= set(contents(tmp_path / "restored").values())


def test_a_large_file_takes_no_memory(course):
    with (course / "notebooks" / "large").open("wb") as stream:
        stream.truncate(3 << 30)
    with one(course).open("ab") as stream:
        stream.truncate(3 << 30)
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (2 << 30, 2 << 30))
    for arguments in (["status"], ["reset", "--yes"]):
        code, said = lab(course, *arguments, preexec_fn=limit)
        assert code == 0, said
    kept = course / said["backup"] / "notebooks"
    assert [(kept / name).stat().st_size for name in ("large", NAMES[0])] == [3 << 30] * 2


@pytest.fixture
def built(course):
    """The same course, whose first notebook is built from a source; it was edited since."""
    write_map(course, **{"01-one": {}})
    (course / "labs_solutions" / "01-one.py").write_text("# %% [markdown]\n# # One\n\n# %%\n1\n")
    build.command(execute=False, root=course)
    for name in NAMES[1:]:
        (course / "notebooks" / name).unlink()
        (course / PRISTINE / name).unlink()
    return course


def no_copies(course):
    shutil.rmtree(course / PRISTINE)


def no_copy(course):
    (course / PRISTINE / NAMES[0]).unlink()


def a_damaged_copy(course):
    (course / PRISTINE / NAMES[0]).write_text("{")


def a_pipe_for_a_copy(course):
    (course / PRISTINE / NAMES[0]).unlink()
    os.mkfifo(course / PRISTINE / NAMES[0])


def a_copy_with_a_second_name(course):
    """Whoever edits the notebook edits the copy."""
    one(course).unlink()
    os.link(course / PRISTINE / NAMES[0], one(course))


def a_link_for_the_copies(course):
    shutil.move(course / PRISTINE, course.parent / "elsewhere")
    (course / PRISTINE).symlink_to(course.parent / "elsewhere")


@pytest.mark.parametrize(
    "damage",
    [
        no_copies,
        no_copy,
        a_damaged_copy,
        a_pipe_for_a_copy,
        a_copy_with_a_second_name,
        a_link_for_the_copies,
    ],
)
def test_reset_makes_the_pristine_copies_again(built, damage):
    fresh = contents(built / "notebooks")
    damage(built)
    one(built).write_text(one(built).read_text().replace("# One", "# Mine"))
    work = one(built).read_bytes()
    if damage not in (a_copy_with_a_second_name, a_link_for_the_copies):
        with pytest.raises(LabError, match="lab reset makes it again, and keeps what you changed"):
            notebook_statuses(built)
    everything = contents(built)
    assert not backup.plan_reset(built).empty
    assert contents(built) == everything
    backup.reset(built)
    assert contents(built / "notebooks") == fresh
    assert work in backed_up(built)
    assert backup.plan_reset(built).empty


def test_the_pictures_have_pristine_copies(course, built):
    assert contents(COURSE / PRISTINE / "images") == contents(COURSE / "notebooks" / "images")
    (built / "notebooks" / "images" / "new.svg").write_text("<svg>new</svg>")
    build.command(execute=False, root=built)
    assert "new.svg" in contents(built / PRISTINE / "images")
    no_pictures(built)
    backup.reset(built)
    assert (built / "notebooks" / "images" / "new.svg").read_text() == "<svg>new</svg>"


@pytest.mark.parametrize("damage", [lambda course: None, no_copies, a_copy_with_a_second_name])
def test_a_build_keeps_an_edited_notebook(built, damage):
    fresh = contents(built / "notebooks")
    build.command(execute=False, root=built)
    assert backup.list_backups(built) == {}  # nothing had been edited
    damage(built)
    one(built).write_text(one(built).read_text().replace("# One", "# Mine"))
    work = one(built).read_bytes()
    build.command(execute=False, root=built)
    assert one(built).read_bytes() == fresh[NAMES[0]]
    assert work in backed_up(built)


def test_two_resets_do_not_meet(course):
    edited(course)
    with backup.only_one(course):
        code, said = lab(course, "reset", "--yes")
    assert (code, "is running: wait for it" in said) == (1, True)
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


def lab(course, *arguments, **options):
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", *arguments, "--root", course, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
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
