"""A home that is not there or cannot be written: kernels get one of their own."""

import json
import os

import nbformat
import pytest

from tests.environments.surroundings import isolated, lab

SOURCE = """
    # %% [markdown]
    # # One

    # %%
    import os
    import matplotlib.pyplot as plt

    os.path.expanduser("~") == os.environ["IPYTHONDIR"]
    """
# Root may write anywhere but where the file system is mounted read-only.
READ_ONLY = """
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
HOME="$1" "$0" -m courseware.lab run --profile ci
HOME="$1" "$0" -m courseware.lab status --json >&2
exec env HOME="$1" "$0" -m courseware.lab doctor --json
"""


def without_home():
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return {name: value for name, value in kept.items() if name not in ("HOME", "MPLCONFIGDIR")}


@pytest.fixture
def course(small_course):
    root = small_course(_01_one=SOURCE)
    (root / "notebooks" / ".pristine").mkdir()
    (root / "notebooks" / ".pristine" / "01-one.ipynb").write_text('{"cells": []}')
    return root


def outputs(course):
    """What the last cell shows: whether its home is its own, and no complaint of Matplotlib's."""
    executed = nbformat.read(course / "build/run/store-ci/01-one.ipynb", as_version=4)
    return [
        output.get("text") or output.data["text/plain"] for output in executed.cells[-1].outputs
    ]


def test_a_read_only_home(course, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    ended = isolated(READ_ONLY, home, environment=without_home())
    assert "passed" in ended.stdout, ended.stderr
    assert outputs(course) == ["True"]
    assert '"01-one"' in ended.stderr
    found = json.loads(ended.stdout[ended.stdout.index("[\n") :])
    (line,) = [one for one in found if one["what"] == "home"]
    assert (line["state"], line["found"]) == ("note", f"{home} cannot be written")
    assert "make lab" in line["fix"]


def test_a_home_that_does_not_exist_is_not_made(course, tmp_path):
    home = tmp_path / "no" / "home"
    environment = without_home() | {"HOME": str(home)}
    assert lab(environment, "run", "--profile", "ci").returncode == 0
    assert outputs(course) == ["True"]
    assert not home.parent.exists()
    found = json.loads(lab(environment, "doctor", "--json").stdout)
    assert f"{home} does not exist" in [one["found"] for one in found]
