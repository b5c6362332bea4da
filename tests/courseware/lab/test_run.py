import inspect
import json
import shutil
import subprocess
import sys

import nbformat
import pytest

from courseware.course import PRISTINE, Course
from courseware.errors import LabError
from courseware.lab import app, seats
from courseware.lab.runner import run_sections
from courseware.workspaces import missing_before
from multistage.workspace import Workspace
from tests.small_course import write_map

pytestmark = pytest.mark.real

HEAD = """
    # %% [markdown]
    # # Lab {n}

    # %% tags=["parameters"]
    dataset, profile, events = "store", "laptop", None

    # %%
    from pathlib import Path
    from courseware.records import record
    from multistage.workspace import Workspace
    workspace = Workspace.open(dataset, profile)
    with Path("order.txt").open("a") as file:
        file.write("{n} ")
    """
READ = """
    # %%
    text = (workspace.read("{name}") / "x.txt").read_text()
    """
WRITE = """
    # %% [markdown]
    # ## Hand over

    # %%
    with workspace.write("{name}", producer="lab") as folder:
        (folder / "x.txt").write_text(f"{{dataset}} {{profile}} {{events}}")
    record("n", {n})
    """


def dedented(text):
    return "\n".join(line[4:] if line.startswith("    ") else line for line in text.split("\n"))


def lab(n, reads=(), writes=(), more=""):
    parts = [HEAD.format(n=n)]
    parts += [READ.format(name=name) for name in reads]
    parts += [WRITE.format(name=name, n=n) for name in writes]
    return "\n".join(dedented(part) for part in parts) + more


MAPS = {
    "01-one": {"makes": ["data"]},
    "02-two": {"reads": ["data"], "makes": ["features"]},
    "04-four": {"reads": ["data", "features"], "makes": ["export/index"]},
}


@pytest.fixture
def course(small_course):
    return small_course(
        MAPS,
        _01_one=lab(1, writes=["data"]),
        _02_two=lab(2, ["data"], ["features"]),
        _04_four=lab(4, ["data", "features"], ["export/index"]),
    )


def order(course):
    file = course / "labs_solutions" / "order.txt"
    ran = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return [int(n) for n in ran]


def test_all_sections_run_in_order_and_leave_a_summary(course):
    workspace = Workspace.open("movielens", "ci", course)
    summary = run_sections(Course.read(course), workspace)
    assert order(course) == [1, 2, 4]
    folder = course / "build" / "run" / "movielens-ci"
    written = json.loads((folder / "summary.json").read_text())
    assert written == summary.to_dict()
    assert {key: written[key] for key in ("dataset", "profile")} == {
        "dataset": "movielens",
        "profile": "ci",
    }
    assert [(s["section"], s["status"], s["metrics"]) for s in written["sections"]] == [
        ("01-one", "passed", {"n": 1.0}),
        ("02-two", "passed", {"n": 2.0}),
        ("04-four", "passed", {"n": 4.0}),
    ]
    assert sorted(file.name for file in folder.iterdir()) == [
        "01-one.ipynb",
        "02-two.ipynb",
        "04-four.ipynb",
        "summary.json",
    ]
    assert [item.name for item in folder.parent.iterdir()] == ["movielens-ci"]
    text = (workspace.read("data") / "x.txt").read_text()
    assert text == "movielens ci None"
    for file in folder.iterdir():
        assert str(course) not in file.read_text()

    # A late attendee: nothing is missing, then something is damaged, then gone.
    run_sections(Course.read(course), workspace, [4])
    assert order(course) == [4]
    (workspace.folder / "features" / "x.txt").write_text("damaged")
    assert missing_before(Course.read(course), workspace, [4]) == [2]
    shutil.rmtree(workspace.folder / "features")
    assert missing_before(Course.read(course), workspace, [4]) == [2]
    (workspace.folder / "data" / "x.txt").unlink()
    run_sections(Course.read(course), workspace, [4])
    assert order(course) == [1, 2, 4]


def test_only_what_is_needed_is_built_first(course):
    workspace = Workspace.open("store", "ci", course)
    assert missing_before(Course.read(course), workspace, [1]) == []
    assert missing_before(Course.read(course), workspace, [2]) == [1]
    assert missing_before(Course.read(course), workspace, [1, 2]) == []
    assert missing_before(Course.read(course), workspace, [4]) == [1, 2]


def test_events_mean_the_same_in_the_labs(course, monkeypatch):
    (course / "here").mkdir()
    monkeypatch.chdir(course / "here")
    workspace = Workspace.open("rees46", "ci")
    run_sections(Course.read(course), workspace, [1], events="*.csv")
    assert (workspace.read("data") / "x.txt").read_text() == "rees46 ci ../here/*.csv"


def test_an_unknown_section_is_named(course):
    with pytest.raises(LabError, match="no section 3: choose from 1, 2, 4"):
        run_sections(Course.read(course), Workspace.open("store", "ci", course), [3])


def lab_command(course, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "courseware.lab", *arguments],
        cwd=course,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("x = [1]\nx[3]\n", "    x[3]\nIndexError: list index out of range"),
        (
            "from courseware.errors import LabError\nraise LabError('Too few rows: 3.')\n",
            "Too few rows: 3.",
        ),
    ],
)
def test_a_failure_is_told_in_a_few_lines(small_course, body, said):
    course = small_course(
        _01_one="# %% [markdown]\n# # One\n\n# %% [markdown]\n# ## The deed\n\n# %%\n" + body,
        _02_two=lab(2),
    )
    ended = lab_command(course, "run", "--profile", "ci")
    assert ended.returncode == 1
    assert f"01-one failed at: The deed\n{said}\n" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert len(ended.stdout.splitlines()) < 15
    written = json.loads((course / "build/run/store-ci/summary.json").read_text())
    assert [s["status"] for s in written["sections"]] == ["failed", "skipped"]
    assert written["sections"][0]["error"]["at"] == "The deed"
    executed = nbformat.read(course / "build/run/store-ci/01-one.ipynb", as_version=4)
    assert executed.cells[-1].outputs[-1].output_type == "error"


def test_json_is_the_summary_alone(course):
    ended = lab_command(course, "run", "--profile", "ci", "--section", "1", "--json")
    assert ended.returncode == 0
    written = (course / "build/run/store-ci/summary.json").read_text()
    assert json.loads(ended.stdout) == json.loads(written)


@pytest.mark.parametrize("of", [(), ("seats",)])
def test_help_says_what_each_command_does_in_one_line(course, of):
    lines = lab_command(course, *of, "--help").stdout.split("Commands:")[1].splitlines()
    assert len(lines) > 3
    assert [line for line in lines if line.endswith("...")] == []


@pytest.mark.parametrize("of", [app.app, seats.app], ids=["lab", "seats"])
def test_every_command_answers_programs_too(of):
    for command in of.registered_commands:
        assert "as_json" in inspect.signature(command.callback).parameters, command.name


def test_a_look_at_the_course_loads_nothing_heavy(course):
    """Or ``lab status`` would not answer at once."""
    code = f"""
import sys
from courseware.lab import app
sys.argv = ["lab", "status", "--root", {str(course)!r}]
try:
    app.app()
finally:
    heavy = {{"numpy", "pandas", "pydantic", "IPython", "nbformat", "merlin", "tensorflow"}}
    print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    (course / PRISTINE).mkdir()
    (course / PRISTINE / "01-one.ipynb").write_text('{"cells": []}')
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "[]\n"), ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--profile", "tpu"), "lab: Unknown profile 'tpu'"),
        (("run", "--root", "/"), "lab: No course folder holds"),
        (("build", "--section", "7"), "lab: There is no section 7"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(course, arguments, said):
    ended = lab_command(course, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith(said)
    assert "Traceback" not in ended.stderr


def test_build_runs_first_what_a_lab_needs(course):
    """As ``lab run`` does: whoever edits lab 4 need not know how to make its inputs."""
    ended = lab_command(course, "build", "--section", "4")
    assert ended.returncode == 0, ended.stderr
    assert order(course) == [1, 2, 4]
    assert (course / "notebooks" / "04-four.ipynb").exists()
    assert not (course / "notebooks" / "02-two.ipynb").exists()
    assert lab_command(course, "build", "--section", "4").returncode == 0
    assert order(course) == [4]


def test_a_damaged_table_that_a_lab_does_not_read_is_not_made_anew(course):
    workspace = Workspace.open("store", "ci", course)
    run_sections(Course.read(course), workspace)
    assert order(course) == [1, 2, 4]
    (workspace.folder / "features" / "x.txt").write_text("damaged")
    write_map(course, **{**MAPS, "04-four": {"reads": ["data"], "makes": ["export/index"]}})
    assert missing_before(Course.read(course), workspace, [4]) == []


def test_a_lab_that_does_not_make_what_the_map_says_has_failed(course):
    maps = {**MAPS, "01-one": {"makes": ["data", "extra"]}}
    write_map(course, **maps)
    ended = lab_command(course, "run", "--profile", "ci", "--section", "1")
    assert ended.returncode == 1
    assert "'extra' is missing. course.toml says that this lab makes it" in ended.stdout
