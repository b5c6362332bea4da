"""What tests of several folders share: the course itself, and small courses to break."""

import signal
import sys
import types
from pathlib import Path
from textwrap import dedent

import pytest

from courseware.exercises import Exercise
from multistage.loopback import bypass_proxies
from tests.small_course import write_map

COURSE = Path(__file__).resolve().parents[1]
REAL = {"environments", "journeys", "notebooks", "serving"}  # what `make check` leaves out

# A shell starts what runs in its background with interrupts ignored, and every process below
# inherits that: tests that interrupt something would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

bypass_proxies()  # the browser and the requests of these tests go to this machine


@pytest.fixture(scope="session")
def course() -> Path:
    """The folder of this course."""
    return COURSE


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """Return a function that writes sources into a course of their own and returns its folder."""

    def make(maps: dict[str, dict[str, list[str]]] | None = None, **sources: str) -> Path:
        root = tmp_path / "course"
        named = {name.lstrip("_").replace("_", "-"): text for name, text in sources.items()}
        write_map(root, **{name: (maps or {}).get(name, {}) for name in named})
        for name, text in named.items():
            (root / "labs_solutions" / f"{name}.py").write_text(dedent(text).lstrip())
        monkeypatch.chdir(root)
        return root

    return make


@pytest.fixture
def register(monkeypatch):
    """Return a function that makes exercises known as those of their section."""

    def known(*exercises: Exercise) -> None:
        name = f"multistage.exercises.section_{exercises[0].section}"
        module = types.ModuleType(name)
        module.EXERCISES = list(exercises)
        monkeypatch.setitem(sys.modules, name, module)

    return known


@pytest.hookimpl(tryfirst=True)  # pytest-xdist's own hook reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share costly fixtures on one of pytest-xdist's workers, the longest first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
        if REAL & set(item.path.relative_to(COURSE / "tests").parts):
            item.add_marker(pytest.mark.real)
    items.sort(key=lambda item: "notebooks" not in item.path.parts)  # stable: files stay together


def _group(item: pytest.Item) -> str:
    folder = item.path.relative_to(COURSE / "tests").parts[0]
    if folder != "notebooks":
        return folder
    data = getattr(item, "callspec", None) and item.callspec.params.get("lab_run")
    return data or ("store" if "store_run" in item.fixturenames else item.path.stem)
