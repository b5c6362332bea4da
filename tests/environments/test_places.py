"""A course in other places: another time zone and language, other packages, another account.

Two runs of lab 1 are compared: a plain one, and one for which everything is unusual at once.
"""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import COURSE
from tests.environments.surroundings import OPEN, closed_folder, isolated

UID = 12_345  # an account that the system's list of users does not know
FOLDER = "Übung für uns"
RUN = ["-m", "courseware.lab", "run", "--section", "1", "--profile", "ci"]
NOTEBOOK = "notebooks/01-introduction.ipynb"

# "$1" is copied onto a disk of 300 MB, and back when all is done.
UNUSUAL = (
    OPEN
    + """
mkdir /mnt/bin
for name in python python3 python3.11 jupyter; do
  printf '#!/bin/sh\\nexit 1\\n' > /mnt/bin/$name; chmod 755 /mnt/bin/$name
done
mkdir -p /mnt/packages/numpy
echo 'raise ImportError("a NumPy of another Python")' > /mnt/packages/numpy/__init__.py
cp -r "$course" "/mnt/$FOLDER"
ln -s "$FOLDER" /mnt/link
chown -R $UID:$UID "/mnt/$FOLDER"
export PATH=/mnt/bin:$PATH PYTHONPATH=/mnt/packages VIRTUAL_ENV=/mnt CONDA_PREFIX=/mnt
status=0
setpriv --reuid $UID --regid $UID --clear-groups sh -ec "$AS_USER" "$0" || status=$?
cp -r "/mnt/$FOLDER/." "$course"
exit $status
"""
)
AS_USER = """
umask 077
cd /mnt/link
"$0" -m courseware.lab run --section 1 --profile ci
"$0" -m courseware.lab status --json > status.json
"$0" -m courseware.lab doctor --json > doctor.json || true
echo '{"cells": [], "mine": 1}' > notebooks/01-introduction.ipynb
"$0" -m courseware.lab reset --yes --json > reset.json
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Both courses, run at the same time, and what the unusual one said."""
    plain, unusual = (tmp_path_factory.mktemp("places") / name for name in ("plain", "unusual"))
    for course in (plain, unusual):
        for folder in ("labs_solutions", "notebooks"):
            shutil.copytree(COURSE / folder, course / folder)
        shutil.copy(COURSE / "course.toml", course)
    closed, needed = closed_folder(unusual)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *RUN], cwd=plain, **quiet)
    try:
        kept = {"PATH": os.environ["PATH"], "TZ": "Pacific/Auckland", "LC_ALL": "C"}
        ended = isolated(
            UNUSUAL,
            unusual,
            closed,
            *needed,
            environment=kept | {"UID": str(UID), "FOLDER": FOLDER, "AS_USER": AS_USER},
            timeout=300,
        )
    finally:
        code = process.wait(300)
    assert code == 0
    return SimpleNamespace(plain=plain, unusual=unusual, ended=ended)


def test_data_and_metrics_are_the_same_to_the_byte(runs):
    assert runs.ended.returncode == 0, runs.ended.stdout + runs.ended.stderr
    sums, metrics = zip(*map(made, (runs.plain, runs.unusual)), strict=True)
    assert len(sums[0]) > 3
    assert sums[0] == sums[1]
    assert "pipeline_ndcg_at_10" in metrics[0]
    assert metrics[0] == metrics[1]


def made(course):
    """The checksums of the data that lab 1 made, and the metrics that it measured."""
    manifest = json.loads((course / "workspace/store-ci/data/manifest.json").read_text())
    summary = json.loads((course / "build/run/store-ci/summary.json").read_text())
    return manifest["sha256"], summary["sections"][0]["metrics"]


def test_an_account_that_owns_nothing_but_its_course_looks_and_resets(runs):
    assert runs.ended.returncode == 0, runs.ended.stdout + runs.ended.stderr
    status = json.loads((runs.unusual / "status.json").read_text())
    assert {one["state"] for one in status["notebooks"]} == {"pristine"}
    assert [one["state"] for one in status["artifacts"]] == ["intact"]
    findings = json.loads((runs.unusual / "doctor.json").read_text())
    found = {one["what"]: one for one in findings}
    assert found["home"]["found"] == "/nonexistent does not exist"
    assert [one for one in findings if "could not be checked" in one["found"]] == []
    reset = json.loads((runs.unusual / "reset.json").read_text())
    assert reset["changed"] == [NOTEBOOK]
    assert '"mine"' in (runs.unusual / reset["backup"] / NOTEBOOK).read_text()
    assert (runs.unusual / NOTEBOOK).read_bytes() == (COURSE / NOTEBOOK).read_bytes()


def test_doctor_names_an_environment_that_others_cannot_start(tmp_path):
    """Root builds it for thirty seats; with a Python below /root, none of them starts."""
    if os.geteuid():
        pytest.skip("only root is told")
    (tmp_path / "closed").mkdir(mode=0o700)
    look = (
        "import sys\n"
        "sys.base_prefix, course = sys.argv[1:]\n"
        "from courseware.lab.doctor import Path, environment\n"
        "print(environment(Path(course)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", look, tmp_path / "closed" / "python", COURSE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "state='note', found='other accounts cannot enter " in ended.stdout, ended.stderr
