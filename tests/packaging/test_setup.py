"""`make setup` where something is missing: what is named, and a Python that uv fetches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COURSE
from tests.environments.surroundings import isolated
from tests.packaging.python_mirror import make_mirror

# What every system has: enough for a shell script, and no compiler, Python or package manager.
TOOLS = "sh awk cat df dirname echo env getconf grep head ln mkdir paste rm sed tail uname"
UV = COURSE / "build" / "uv" / "bin" / "uv"


def allow(tools: Path, *names: str) -> None:
    tools.mkdir(parents=True, exist_ok=True)
    for name in names:
        (tools / Path(name).name).symlink_to(shutil.which(name) or name)


@pytest.fixture
def machine(tmp_path):
    """Return a function that runs setup.sh in a fresh course, where PATH holds these tools only."""
    course = tmp_path / "course"
    shutil.copytree(COURSE / "requirements", course / "requirements")
    allow(tmp_path / "tools", *TOOLS.split())

    def set_up(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
        release = tmp_path / "os-release"
        return subprocess.run(
            ["sh", course / "requirements" / "setup.sh", *arguments],
            env={"PATH": str(tmp_path / "tools"), "HOME": str(tmp_path), "OS_RELEASE": str(release)}
            | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return set_up


def refused(ended: subprocess.CompletedProcess) -> str:
    """The one line that a refusal says, on standard error."""
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    return line


DISTRIBUTIONS = {
    "ID=debian\nVERSION_ID=12": "apt-get install g++ python3-venv",
    "ID=debian\nVERSION_ID=13": "apt-get install g++ python3-venv",
    "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=24.04": "apt-get install g++ python3-venv",
    "ID=linuxmint\nID_LIKE='ubuntu debian'": "apt-get install g++ python3-venv",
    "ID=fedora\nVERSION_ID=43": "dnf install gcc-c++ python3",
    'ID="rocky"\nID_LIKE="rhel centos fedora"': "dnf install gcc-c++ python3",
    'ID="opensuse-leap"\nID_LIKE="suse"\nVERSION_ID=15.6': "zypper install gcc-c++ python311",
    'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"': "zypper install gcc-c++ python3",
    "ID=manjaro\nID_LIKE=arch": "pacman -S gcc python",
}


@pytest.mark.parametrize("release", DISTRIBUTIONS, ids=lambda text: text.split("\n")[0])
def test_what_is_missing_is_named_for_the_distribution(machine, tmp_path, release):
    (tmp_path / "os-release").write_text(release + "\n")
    line = refused(machine())
    assert line.startswith("missing: g++ (NVTabular builds a C++ extension), a Python from 3.8 on")
    assert line.endswith(f" Install as root: {DISTRIBUTIONS[release]}")


def test_of_an_unknown_distribution_no_command_is_made_up(machine, tmp_path):
    (tmp_path / "os-release").write_text("ID=void\n")
    assert refused(machine()).endswith("or uv from 0.8 on (to fetch packages).")


def test_only_what_is_missing_is_named(machine, tmp_path):
    (tmp_path / "os-release").write_text("ID=debian\n")
    allow(tmp_path / "tools", sys.executable)
    (tmp_path / "tools" / Path(sys.executable).name).rename(tmp_path / "tools" / "python3")
    line = refused(machine())
    assert line == (
        "missing: g++ (NVTabular builds a C++ extension). Install as root: apt-get install g++"
    )


@pytest.fixture
def with_compiler_and_uv(tmp_path, machine):
    if not (shutil.which("g++") and UV.exists()):
        pytest.skip("no g++, or no build/uv: make setup makes it")
    allow(tmp_path / "tools", "g++", str(UV))
    return machine


@pytest.fixture
def with_compiler_and_own_uv(with_compiler_and_uv, tmp_path):
    """As after a first set-up: nothing is left to fetch."""
    allow(tmp_path / "course" / "build" / "uv" / "bin", str(UV))
    return with_compiler_and_uv


@pytest.fixture(scope="session")
def mirror(tmp_path_factory):
    if not shutil.which("patchelf"):
        pytest.skip("no patchelf: apt-get install patchelf")
    try:
        return make_mirror(tmp_path_factory.mktemp("mirror"))
    except RuntimeError as error:
        pytest.skip(str(error))


LOOK = """
import ctypes, os, sys, sysconfig
ctypes.CDLL(os.path.join(sys.base_prefix, "lib", "libpython3.11.so.1.0"))
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
print(sys.base_prefix)
"""


def base_of(course: Path) -> str:
    """The Python below the course's environment, complete."""
    return subprocess.run(
        [course / ".venv" / "bin" / "python", "-c", LOOK],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()


def test_without_python_3_11_one_is_fetched_into_the_course(with_compiler_and_uv, mirror, tmp_path):
    before = {file.name for file in tmp_path.iterdir()}
    ended = with_compiler_and_uv(UV_PYTHON_DOWNLOADS_JSON_URL=mirror.as_uri())
    assert ended.returncode == 0, ended.stderr
    assert "fetching one into build/python" in ended.stdout
    course = tmp_path / "course"
    assert Path(base_of(course)).is_relative_to(course / "build" / "python")
    # nothing but uv's cache is outside of it, no link in ~/.local/bin either
    assert {file.name for file in tmp_path.iterdir()} - before <= {".cache"}
    assert not (tmp_path / ".local").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(with_compiler_and_uv, mirror, tmp_path):
    for _ in range(2):
        ended = with_compiler_and_uv(UV_PYTHON_DOWNLOADS_JSON_URL=mirror.as_uri())
        assert ended.returncode == 0, ended.stderr
        assert base_of(tmp_path / "course")
        shutil.rmtree(tmp_path / "course" / "build" / "python")


@pytest.mark.parametrize("missing", ["bin", "include", ""], ids=["bin", "headers", "everything"])
def test_half_a_python_is_fetched_anew(with_compiler_and_uv, mirror, tmp_path, missing):
    course = tmp_path / "course"
    mirrored = {"UV_PYTHON_DOWNLOADS_JSON_URL": mirror.as_uri()}
    assert with_compiler_and_uv(**mirrored).returncode == 0
    (half,) = (
        p for p in (course / "build" / "python").glob("cpython-3.11.*") if not p.is_symlink()
    )
    shutil.rmtree(half / missing)
    half.mkdir(exist_ok=True)
    ended = with_compiler_and_uv(**mirrored)
    assert ended.returncode == 0, ended.stderr
    assert base_of(course)


def test_an_environment_that_was_moved_is_made_anew(with_compiler_and_own_uv, tmp_path):
    """Its scripts start the Python of the old place, or none."""
    course = tmp_path / "course"
    assert with_compiler_and_own_uv(sys.executable).returncode == 0
    for name in ("Makefile", "pyproject.toml"):
        (course / name).write_bytes((COURSE / name).read_bytes())
    (course / ".venv" / ".ready-cpu").write_text(f"{course}\n")
    assert not will_set_up(course)
    python = (course / ".venv" / "bin" / "python").readlink()
    (course / ".venv" / "bin" / "python").unlink()
    assert will_set_up(course)  # its Python is gone
    (course / ".venv" / "bin" / "python").symlink_to(python)
    moved = course.rename(tmp_path / "moved")
    assert will_set_up(moved)
    subprocess.run(
        ["sh", "requirements/setup.sh", sys.executable], cwd=moved, check=True, timeout=60
    )
    assert f"{moved}/.venv" in (moved / ".venv" / "bin" / "activate").read_text()


def will_set_up(course: Path) -> bool:
    """Whether make would install the environment."""
    ended = subprocess.run(
        ["make", "-n", "setup"],
        cwd=course,
        env={"PATH": os.environ["PATH"], "HOME": str(course)},
        capture_output=True,
        text=True,
        check=True,
    )
    return "setup.sh" in ended.stdout


def test_a_download_that_fails_names_the_ways_out(with_compiler_and_uv, tmp_path):
    nowhere = (tmp_path / "no-mirror.json").as_uri()
    line = refused(with_compiler_and_uv(UV_PYTHON_DOWNLOADS_JSON_URL=nowhere))
    assert line.startswith("Python 3.11 could not be fetched (")
    assert "Instead: make PYTHON=/path/to/python3.11" in line  # no package manager, no package
    assert "UV_PYTHON_INSTALL_MIRROR=" in line
    assert not (tmp_path / "course" / ".venv").exists()


def test_a_python_that_is_named_is_taken(with_compiler_and_own_uv, tmp_path):
    ended = with_compiler_and_own_uv(sys.executable)
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "course" / "build" / "python").exists()
    python = (tmp_path / "course" / ".venv" / "bin" / "python").resolve()
    assert python.is_relative_to(Path(sys.base_prefix).resolve())


# A Python 3.11 with a part missing, as the packages of distributions leave it.
PARTIAL = {
    "has no headers": "import sysconfig; sysconfig.get_paths = lambda: {'include': '/nowhere'}",
    "has no shared library": (
        "import ctypes, sys, sysconfig\n"
        "def nothing(*_): raise OSError\n"
        "ctypes.CDLL = nothing\n"
        "sysconfig.get_config_var = lambda name: None\n"
        "sys.base_prefix = '/nowhere'\n"
    ),
    "is Python 3.12.4": (
        "import collections, sys\n"
        "sys.version = '3.12.4 (main)'\n"
        "sys.version_info = collections.namedtuple('V', 'a b releaselevel')(3, 12, 'final')\n"
    ),
    "is Python 3.11.0rc1": (
        "import collections, sys\n"
        "sys.version = '3.11.0rc1 (main)'\n"
        "sys.version_info = collections.namedtuple('V', 'a b releaselevel')(3, 11, 'candidate')\n"
    ),
}


@pytest.mark.parametrize("lack", PARTIAL)
def test_a_named_python_that_is_incomplete_is_refused(with_compiler_and_own_uv, tmp_path, lack):
    base = Path(sys.base_prefix) / "bin" / "python3.11"
    python = tmp_path / "partial-python"
    python.write_text(f'#!/bin/sh\nexec {base} "$1" "$2" "{PARTIAL[lack]}\n$3"\n')
    python.chmod(0o755)
    line = refused(with_compiler_and_own_uv(python))
    assert line.startswith(f"PYTHON={python}: {python} {lack}.")


def test_what_packages_print_at_the_start_is_no_answer(with_compiler_and_own_uv, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('good morning')")
    ended = with_compiler_and_own_uv(sys.executable, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr


def test_half_an_environment_is_made_anew(with_compiler_and_own_uv, tmp_path):
    """Killed while packages were installed, with its broken Python first on PATH, as with make."""
    course = tmp_path / "course"
    assert with_compiler_and_own_uv(sys.executable).returncode == 0
    broken = course / ".venv" / "lib" / "python3.11" / "site-packages" / "broken.pth"
    broken.write_text("import x")
    allow(tmp_path / "tools", str(Path(sys.base_prefix) / "bin" / "python3.11"))
    path = f"{course}/.venv/bin:{tmp_path}/tools"
    ended = with_compiler_and_own_uv(PATH=path)
    assert ended.returncode == 0, ended.stderr
    assert not broken.exists()

    broken.write_text("import x")
    (course / ".venv" / ".ready-cpu").write_text(f"{course}\n")  # its installation came to its end
    assert with_compiler_and_own_uv(PATH=path).returncode == 0
    assert broken.exists()


def test_the_environment_is_called_ready_only_while_it_is():
    """uv takes a package for installed whose files it has half written."""
    ended = subprocess.run(
        ["make", "-n", "-B", "setup"], cwd=COURSE, capture_output=True, text=True, check=True
    )
    order = ["setup.sh", "rm -f .venv/.ready", "pip sync", "pip install", "pwd -P > .venv/.ready"]
    assert [ended.stdout.index(step) for step in order] == sorted(map(ended.stdout.index, order))


@pytest.mark.parametrize("state", ["empty", "dangling", "folder", "old"])
def test_a_uv_that_does_not_run_is_replaced(with_compiler_and_uv, mirror, tmp_path, state):
    uv = tmp_path / "course" / "build" / "uv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    if state == "dangling":
        uv.symlink_to("/nowhere/uv")
    elif state == "folder":
        uv.mkdir()
    else:
        uv.write_text("#!/bin/sh\necho usage: uv\n" if state == "old" else "")
        uv.chmod(0o755)
    ended = with_compiler_and_uv(UV_PYTHON_DOWNLOADS_JSON_URL=mirror.as_uri())
    assert ended.returncode == 0, ended.stderr
    assert uv.resolve() == UV.resolve()
    assert base_of(tmp_path / "course")


def test_without_a_uv_that_runs_it_says_where_to_look(machine, tmp_path):
    """pip is told to look at no index."""
    if not shutil.which("g++"):
        pytest.skip("no g++")
    allow(tmp_path / "tools", "g++", str(Path(sys.base_prefix) / "bin" / "python3.11"))
    ended = machine(PIP_NO_INDEX="1", PIP_TARGET=str(tmp_path / "elsewhere"))
    assert ended.returncode == 1
    assert "There is no uv in build/uv that runs" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["with space", "a'b"])
def test_a_python_may_have_any_path(with_compiler_and_own_uv, tmp_path, name):
    (tmp_path / name).symlink_to(Path(sys.base_prefix))
    ended = with_compiler_and_own_uv(tmp_path / name / "bin" / "python3.11")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("python", "words"), [("/usr", "/usr is a folder"), ("/bin/true", "/bin/true")]
)
def test_what_is_no_python_is_refused(with_compiler_and_own_uv, python, words):
    assert f"PYTHON={python}: {words}" in refused(with_compiler_and_own_uv(python))


def test_a_warning_before_the_answer_is_no_answer(with_compiler_and_own_uv, tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(
        f'#!/bin/sh\necho "warning: be careful"\nexec {sys.base_prefix}/bin/python3.11 "$@"\n'
    )
    wrapper.chmod(0o755)
    ended = with_compiler_and_own_uv(wrapper)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", ["a:b", "a#b"])
def test_a_folder_whose_name_cannot_work_is_refused(with_compiler_and_uv, tmp_path, name):
    shutil.copytree(tmp_path / "course", tmp_path / name)
    ended = subprocess.run(
        ["sh", tmp_path / name / "requirements" / "setup.sh"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Rename it." in refused(ended)


def test_a_python_that_is_not_there_is_refused(with_compiler_and_uv):
    assert "PYTHON=no-python: no-python is not there." in refused(with_compiler_and_uv("no-python"))


@pytest.mark.parametrize(
    ("tool", "says", "words"),
    [
        ("uname", "Darwin", "runs on Linux, and this is Darwin. On a Mac see docs/mac.md"),
        ("getconf", "glibc 2.31", "needs glibc 2.35 or newer, and this system has 2.31"),
        ("getconf", "", "this system has no glibc"),
    ],
)
def test_a_system_that_cannot_run_it_is_told_where_to_look(machine, tmp_path, tool, says, words):
    stand_in = tmp_path / "tools" / tool
    stand_in.unlink()
    stand_in.write_text(f"#!/bin/sh\necho {says}\n")
    stand_in.chmod(0o755)
    assert words in refused(machine())


def test_a_full_disk_is_named_before_anything_is_installed(with_compiler_and_uv, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=100m tmpfs "$1"; cp -r "$2" "$1"; export PATH="$3"; cd "$1"'
    set_up = script + "; sh requirements/setup.sh"
    ended = isolated(set_up, small, COURSE / "requirements", tmp_path / "tools")
    assert "MB are free in this folder, and the environment needs 4 GB" in refused(ended)
