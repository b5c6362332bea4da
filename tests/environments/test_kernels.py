"""Kernels and settings of the user's own: they are kept, and the course uses none of them."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
import pytest

from courseware.authoring import execute
from courseware.kernels import OwnKernelSpecs
from tests.environments.surroundings import lab
from tests.journeys.browser import wait_for

ANSWER = "import sys, numpy; print(sys.executable, numpy.array([1.23456]))"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
SOURCE = f"# %% [markdown]\n# # One\n\n# %%\n{ANSWER}\n"


@pytest.fixture
def home(tmp_path):
    """A home with another course's kernel, start-up files that print and fail, and a history."""
    profile = tmp_path / "home" / ".ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "10-print.py").write_text(
        "import numpy\nnumpy.set_printoptions(precision=1)\nprint('hello')\n"
    )
    (profile / "startup" / "20-fail.py").write_text("raise ValueError('a start-up file of mine')\n")
    with contextlib.closing(sqlite3.connect(profile / "history.sqlite")) as history:
        history.execute("create table sessions (mine)")
    kernel = tmp_path / "home" / ".local" / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    elsewhere = KERNEL | {"argv": ["false", "{connection_file}"]}
    (kernel / "kernel.json").write_text(json.dumps(elsewhere))
    return tmp_path / "home"


@pytest.fixture
def environment(home, tmp_path):
    """The variables of that user, whose environment is somebody else's and who uses another."""
    broken = tmp_path / "packages" / "numpy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a NumPy of another Python')\n")
    startup = tmp_path / "startup.py"
    startup.write_text("print('hello')\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")}
    return kept | {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(broken.parent),
        "PYTHONSTARTUP": str(startup),
        "JUPYTER_PREFER_ENV_PATH": "0",  # what Jupyter decides where the user does not own it
    }


def test_lab_run_uses_none_of_them_and_doctor_names_them(home, environment, small_course):
    course = small_course(_01_one=SOURCE)
    ended = lab(environment, "run", "--profile", "ci")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    executed = nbformat.read(course / "build/run/store-ci/01-one.ipynb", as_version=4)
    (output,) = executed.cells[-1].outputs
    assert output.text.endswith(" [1.23456]\n")
    assert list(home.rglob("history*")) == [home / ".ipython/profile_default/history.sqlite"]
    found = {one["what"]: one for one in json.loads(lab(environment, "doctor", "--json").stdout)}
    assert found["IPython"]["state"] == "note"
    assert "10-print.py, 20-fail.py" in found["IPython"]["found"]


def test_a_kernel_that_dies_at_its_start_is_told_in_words(monkeypatch, tmp_path):
    class Broken(OwnKernelSpecs):
        def get_kernel_spec(self, kernel_name):
            spec = super().get_kernel_spec(kernel_name)
            spec.argv = ["false"]
            return spec

    monkeypatch.setattr(execute, "OwnKernelSpecs", Broken)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ANSWER)])
    with pytest.raises(execute.CellError, match=r"The kernel died\. [\d.]+ GB of memory") as raised:
        execute.execute(notebook, tmp_path)
    assert raised.value.heading == "the start of its kernel"


def test_nbval_takes_the_kernel_of_this_environment(environment, tmp_path):
    """By its option --nbval-current-env; the variables that lead elsewhere are Make's to drop."""
    cell = nbformat.v4.new_code_cell("import sys; print(sys.prefix)", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", text=sys.prefix + "\n")]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, tmp_path / "one.ipynb")
    options = ["--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, tmp_path / "one.ipynb"],
        env=environment | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout


def test_jupyterlab_uses_the_kernel_of_the_course_and_leaves_the_history_alone(
    home, environment, tmp_path
):
    history = home / ".ipython" / "profile_default" / "history.sqlite"
    before = history.read_bytes()
    with contextlib.closing(sqlite3.connect(history)) as other, jupyterlab(environment) as ask:
        other.execute("begin exclusive")  # another kernel, or a file system that cannot lock
        assert list(ask("kernelspecs")["kernelspecs"]) == ["python3"]
        kernel = ask("kernels", {"name": "python3"})["id"]
        runtime = home / ".local" / "share" / "jupyter" / "runtime"
        assert answer(runtime / f"kernel-{kernel}.json") == f"{sys.executable} [1.2]\n"
    assert list(history.parent.glob("history*")) == [history]
    assert history.read_bytes() == before


@contextlib.contextmanager
def jupyterlab(environment):
    """Start ``jupyter lab`` as a user does; yield a function that asks its API."""
    options = "--no-browser --ip=127.0.0.1 --port=0 --allow-root --ServerApp.token=me"
    process = subprocess.Popen(
        ["jupyter", "lab", *options.split(), f"--ServerApp.root_dir={environment['HOME']}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    runtime = Path(environment["HOME"], ".local", "share", "jupyter", "runtime")

    def ask(what, body=None):
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                url = f"{json.loads(file.read_text())['url']}api/{what}?token=me"
                data = json.dumps(body).encode() if body else None
                with urllib.request.urlopen(url, data, timeout=30) as reply:
                    return json.load(reply)
        return None

    try:
        wait_for(lambda: ask("status"), 60, "JupyterLab")
        yield ask
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answer(connection_file):
    """What the kernel prints for ``ANSWER``."""
    from jupyter_client import BlockingKernelClient

    wait_for(connection_file.exists, 30, "the kernel's connection file")
    client = BlockingKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    client.start_channels()
    printed = []
    try:
        client.wait_for_ready(30)
        client.execute_interactive(
            ANSWER,
            timeout=30,
            output_hook=lambda message: printed.append(
                message["content"].get("text") or message["content"].get("evalue") or ""
            ),
        )
    finally:
        client.stop_channels()
    return "".join(printed)
