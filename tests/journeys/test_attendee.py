"""An attendee in a real browser: lab 1 in JupyterLab up to the first exercise, wrong, then right.

The pictures that it takes are kept in ``build/journey`` to be looked at.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest

from courseware.authoring import build
from courseware.course import PROGRESS, Course
from courseware.exercises.source import solution
from courseware.lab import backup
from courseware.lab.state import notebook_statuses
from tests.conftest import COURSE
from tests.journeys.browser import Browser, find_chromium, wait_for

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]
NOTEBOOK = "notebooks/01-introduction.ipynb"
WRONG = '''def ndcg_at_k(recommended, relevant, k):
    """Forgets the order."""
    return len(set(recommended[:k]) & relevant) / min(k, len(relevant))
'''
# The open notebook's panel, its cells, and one cell by tag.
PANEL = "[...window.jupyterapp.shell.widgets('main')].find(w => w.content?.widgets)"
CELL = f"({PANEL}).content.widgets.find(c => (c.model.getMetadata('tags') || []).includes('%s'))"


@pytest.fixture(scope="module")
def seat(tmp_path_factory):
    """A fresh course with its attendee notebooks."""
    root = tmp_path_factory.mktemp("attendee")
    shutil.copytree(COURSE / "labs_solutions", root / "labs_solutions")
    (root / "notebooks").mkdir()
    shutil.copy(COURSE / "course.toml", root)
    build(Course.read(root).find([1])[0], run=False)
    return root


@pytest.fixture(scope="module")
def jupyter(seat):
    """JupyterLab on loopback, of this environment and nobody's own settings; its address."""
    options = "--no-browser --ip=127.0.0.1 --port=0 --allow-root --ServerApp.token=attendee"
    options += " --LabApp.expose_app_in_browser=True"
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options.split(), f"--ServerApp.root_dir={seat}"],
        cwd=seat,
        env={
            **os.environ,
            "JUPYTER_RUNTIME_DIR": str(seat / ".runtime"),
            "JUPYTER_CONFIG_DIR": str(seat / ".config"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def address():
        for file in (seat / ".runtime").glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                url = json.loads(file.read_text())["url"]
                urllib.request.urlopen(f"{url}api?token=attendee", timeout=5).close()
                return url
        return None

    try:
        yield wait_for(address, 90, "JupyterLab")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def page(jupyter, tmp_path_factory):
    """The browser with lab 1 open and its kernel ready."""
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        browser.open(f"{jupyter}lab/tree/{NOTEBOOK}?token=attendee")
        ready(browser)
        yield browser


def ready(browser):
    browser.wait(
        f"({PANEL}).sessionContext.session.kernel.status === 'idle' && !!{CELL % 'parameters'}",
        120,
        "the notebook and its kernel",
    )
    browser.run(f"window.jupyterapp.shell.activateById(({PANEL}).id)")


def write(browser, tag, source):
    browser.run(f"{CELL % tag}.model.sharedModel.setSource({json.dumps(source)})")


def run_cell(browser, tag):
    browser.run(
        f"(async () => {{ const nb = ({PANEL}).content;"
        f"nb.activeCellIndex = nb.widgets.indexOf({CELL % tag}); nb.deselectAll();"
        "await window.jupyterapp.commands.execute('notebook:run-cell'); })()"
    )


def card(browser, tag, kind):
    """The text of the card below a cell, once there is one of this kind on the screen."""
    script = f"{CELL % tag}.node.querySelector('.courseware-{kind}')?.innerText"
    return browser.wait(script, 90, f"a card that says {kind}")


def picture(browser, name):
    folder = COURSE / "build" / "journey"
    folder.mkdir(parents=True, exist_ok=True)
    browser.picture(folder / f"{name}.png")


def test_the_journey(page, seat):
    # Runs everything: the notebook stops at the first exercise and says its name.
    source = page.run(f"{CELL % 'parameters'}.model.sharedModel.getSource()")
    write(page, "parameters", source.replace('"laptop"', '"ci"'))
    page.run("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    stopped = page.wait(
        f"(() => {{ const nb = ({PANEL}).content; const cell = {CELL % 'check-1.1'};"
        "const outputs = cell.model.sharedModel.getOutputs();"
        "const error = outputs.find(o => o.output_type === 'error');"
        "if (!error) return null;"
        "nb.activeCellIndex = nb.widgets.indexOf(cell); nb.scrollToItem(nb.activeCellIndex);"
        "return error.evalue; })()",
        240,
        "the stop at the first stub",
    )
    assert stopped.startswith("Exercise 1.1:")
    assert "Not filled in yet" in card(page, "check-1.1", "open")
    assert not page.run("document.querySelector('.jp-Dialog, .Toastify__toast')?.innerText")
    picture(page, "1-stub")

    # A wrong answer: the card names the mistake.
    write(page, "exercise-1.1", WRONG)
    run_cell(page, "exercise-1.1")
    run_cell(page, "check-1.1")
    said = card(page, "check-1.1", "wrong")
    assert "A hit counts the same on every place" in said
    assert 'hint("1.1")' in said
    picture(page, "2-wrong")

    # The right one: the card turns.
    write(page, "exercise-1.1", solution(seat, "1.1"))
    run_cell(page, "exercise-1.1")
    run_cell(page, "check-1.1")
    assert "Passed" in card(page, "check-1.1", "passed")
    picture(page, "3-passed")
    page.run("window.jupyterapp.commands.execute('docmanager:save').then(() => true)")

    # The page is loaded anew: the notebook is as it was left, and progress is kept.
    page.reload()
    ready(page)
    page.run(
        f"(() => {{ const nb = ({PANEL}).content;"
        f"nb.activeCellIndex = nb.widgets.indexOf({CELL % 'check-1.1'});"
        "nb.scrollToItem(nb.activeCellIndex); return true; })()"
    )
    assert "Passed" in card(page, "check-1.1", "passed")
    picture(page, "4-reloaded")
    entry = json.loads((seat / PROGRESS).read_text())["exercises"]["1.1"]
    assert entry["passed"]
    assert entry["attempts"] == 2
    status = notebook_statuses(seat)[0]
    assert (status.state, status.passed) == ("edited", 1)

    # It is reset while it is open: the open tab does not overwrite the fresh notebook unasked.
    kept = backup.reset(seat)
    assert "Passed" in (kept / NOTEBOOK).read_text()
    status = notebook_statuses(seat)[0]
    assert (status.state, status.passed) == ("pristine", 0)
    write(page, "exercise-1.1", WRONG)
    page.run("void window.jupyterapp.commands.execute('docmanager:save')")
    page.wait("!!document.querySelector('.jp-Dialog')", 30, "JupyterLab's question")
    picture(page, "5-reset")
    assert notebook_statuses(seat)[0].state == "pristine"
    page.run(
        "[...document.querySelectorAll('.jp-Dialog button')]"
        ".find(button => button.innerText.includes('Revert')).click()"
    )
    page.wait(
        f"{CELL % 'exercise-1.1'}.model.sharedModel.getSource().includes('NotImplementedError')",
        30,
        "the stub again",
    )
