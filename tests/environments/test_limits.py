"""A full disk and too little memory: both are reported, if possible before a run starts."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from courseware.authoring import build
from courseware.course import Course
from multistage.workspace import Workspace
from tests.environments.surroundings import isolated

HEAD = """
    # %% [markdown]
    # # One

    # %% tags=["parameters"]
    dataset, profile, events = "store", "laptop", None
    """
FILLS = """
    # %%
    from multistage.workspace import Workspace
    with Workspace.open(dataset, profile).write("data", producer="01-one") as folder:
        (folder / "large.bin").write_bytes(b"x" * 100_000_000)
    """
# Works in a copy of the course "$2" on a disk of "$1", and tells which files are there at the end.
ON_A_DISK = """
mount -t tmpfs -o size="$1" tmpfs /mnt
cp -r "$2" /mnt/course
cd /mnt/course
sh -c "$3" "$0" || status=$?
find . -type f -o -name '.?*' | sort >&2
exit ${status:-0}
"""
RUN = '"$0" -m courseware.lab run --profile ci'
NEEDS = """\
profiles = { ci = { memory = [0.7], disk = 50 }, laptop = { memory = [3.7], disk = 150 } }"""


@pytest.fixture
def small_course(small_course):
    """As elsewhere, with profiles that need about as much as those of the real course."""

    def make(**labs: str) -> Path:
        course = small_course(**labs)
        map_ = course / "course.toml"
        map_.write_text(re.sub("^profiles = .*$", NEEDS, map_.read_text(), flags=re.MULTILINE))
        return course

    return make


def test_a_run_that_would_fill_the_disk_does_not_start(small_course):
    course = small_course(_01_one=HEAD)
    ended = isolated(ON_A_DISK, "20m", course, RUN)
    assert ended.returncode == 1
    said, files = ended.stderr.lstrip().split("\n", 1)
    assert said.startswith(
        "lab: 19 MB of disk are free in course, and a run in profile ci takes up"
    )
    assert "to 50 MB. Nothing was changed. Free some space" in said
    assert files == "./course.toml\n./labs_solutions/01-one.py\n"


def test_a_disk_that_fills_up_leaves_the_old_artifact_and_nothing_half_written(small_course):
    course = small_course(_01_one=HEAD + FILLS)
    with Workspace.open("store", "ci", course).write("data", producer="01-one") as folder:
        (folder / "small.txt").write_text("old")
    ended = isolated(ON_A_DISK, "80m", course, f"{RUN} && exit; cat workspace/store-ci/data/*.txt")
    assert "No space left on device" in ended.stdout
    assert ended.stdout.endswith("old")
    assert ended.stderr.splitlines()[-6:] == [
        "./build/run/store-ci/01-one.ipynb",
        "./build/run/store-ci/summary.json",
        "./course.toml",
        "./labs_solutions/01-one.py",
        "./workspace/store-ci/data/manifest.json",
        "./workspace/store-ci/data/small.txt",
    ]


def test_a_full_disk_stops_build_and_reset_and_loses_nothing(small_course):
    course = small_course(_01_one=HEAD)
    build(Course.read(course).find()[0], run=False)
    notebook = course / "notebooks" / "01-one.ipynb"
    notebook.write_text(json.dumps({"cells": [], "mine": "x" * 3_000_000}))
    script = """
        cp -r . ../before
        dd if=/dev/zero of=/mnt/full bs=1k 2>/dev/null || true
        "$0" -m courseware.lab reset --yes && exit
        "$0" -m courseware.lab build --no-execute && exit
        rm /mnt/full
        diff -r . ../before
    """
    ended = isolated(ON_A_DISK, "10m", course, script)
    *said, _ = ended.stderr.split("\n./", 1)
    assert "MB are free. Nothing was changed" in said[0]  # reset asks beforehand
    assert "No space left on device" in said[0]
    assert said[0].count("ree some space, then do it again.") == 2
    assert "Only in" not in ended.stdout
    assert "diff" not in ended.stdout
    assert "/.partial-" not in ended.stderr
    assert "/.01-one" not in ended.stderr


@pytest.fixture
def group():
    """Return a function that makes a control group with a limit of memory, and gives its folder."""
    made = []

    def make(limit: int) -> Path:
        for top, name in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
            folder = Path("/sys/fs/cgroup", top, f"multistage-{os.getpid()}-{len(made)}")
            try:
                folder.mkdir()
                made.append(folder)
                (folder / name).write_text(str(limit))
            except OSError:
                continue
            return folder
        return pytest.skip("no control group can be made here that limits memory")

    yield make
    for folder in made:
        for _ in range(50):  # until its processes are gone
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def limited(group, *command):
    """Run a command in a control group."""
    return subprocess.run(
        ["sh", "-ec", 'echo $$ > "$0/cgroup.procs"; exec "$@"', group, *command],
        capture_output=True,
        text=True,
        timeout=120,
    )


LAB = (sys.executable, "-m", "courseware.lab")


def test_doctor_knows_the_limit_and_that_cached_files_are_no_use_of_it(group, small_course):
    course = small_course(_01_one=HEAD)
    (course / "large.bin").write_bytes(bytes(2**29))
    small = group(3 * 2**30)
    limited(small, "dd", f"if={course / 'large.bin'}", "of=copy.bin", "bs=1M", "conv=fsync")
    ended = limited(small, *LAB, "doctor", "--json")
    (memory,) = [one for one in json.loads(ended.stdout) if one["what"] == "memory"]
    assert 2.7 < float(memory["found"].split(" GB free")[0]) <= 3
    assert memory["state"] == "note"
    assert "choose --profile ci" in memory["fix"]


def test_a_kernel_that_runs_out_of_memory_ends_in_words_that_a_warning_preceded(
    group, small_course
):
    small_course(_01_one=HEAD + "\n    # %%\n    len(b'x' * 2**31)\n")
    ended = limited(group(500 * 2**20), *LAB, "run", "--profile", "ci", "--section", "1")
    assert ended.returncode == 1
    warned = r"lab: 0\.\d GB of memory are free, and profile ci takes up to 0\.7: the\s+kernel may"
    assert re.search(warned, ended.stderr)
    died = r"The kernel died\. 0\.\d GB of memory were free when it started\. If that\s+was\s+too"
    assert re.search(died, ended.stdout)
