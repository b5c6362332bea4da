"""Where root runs the tests, what a user may do differs: the tests of resets run as a user too."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import COURSE
from tests.environments.surroundings import OPEN, closed_folder, isolated

USER = 65_534
TESTS = [f"tests/courseware/lab/test_{name}.py" for name in ("reset", "seats")]


AS_USER = (
    OPEN
    + f"""
cd "$course"
mkdir tmp
chown {USER}:{USER} tmp
export PYTHONPATH="$course/src" TMPDIR="$course/tmp" HOME="$course/tmp"
exec setpriv --reuid={USER} --regid={USER} --clear-groups \\
  "$0" -m pytest -q -m 'not real' -p no:cacheprovider {" ".join(TESTS)}
"""
)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
@pytest.mark.timeout(600)
def test_the_tests_of_resets_pass_as_an_ordinary_user():
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("src", "tests", "labs_solutions", "notebooks"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(COURSE / part, copy / part, ignore=ignored)
        for file in ("course.toml", "pyproject.toml"):
            shutil.copy(COURSE / file, copy)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        closed, needed = closed_folder(copy)
        ended = isolated(AS_USER, copy, closed, *needed, timeout=540)
    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr
    assert " passed" in ended.stdout
