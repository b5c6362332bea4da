"""The five labs, executed once a session in a copy of the course and looked at by many tests."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROFILE = "ci"


@dataclass(frozen=True)
class LabRun:
    """What ``lab run`` did in a copy of the course."""

    course: Path
    dataset: str
    said: str  # standard output and error
    code: int

    @property
    def folder(self) -> Path:
        """The folder with the executed notebooks and the summary."""
        return self.course / "build" / "run" / f"{self.dataset}-{PROFILE}"

    @property
    def summary(self) -> dict:
        """The summary, as it was written."""
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by the number of the section."""
        return {s["section"][:2]: s["metrics"] for s in self.summary["sections"]}


@pytest.fixture(scope="session")
def copied_course(course, tmp_path_factory):
    """A copy of the labs, so that nobody's workspace is touched; downloads are shared."""
    root = tmp_path_factory.mktemp("course")
    for folder in ("labs_solutions", "notebooks"):
        shutil.copytree(course / folder, root / folder)
    downloads = course / "workspace" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    (root / "workspace").mkdir()
    (root / "workspace" / "downloads").symlink_to(downloads)
    return root


def run_labs(root: Path, dataset: str) -> LabRun:
    """Run all labs on ``dataset``."""
    ended = subprocess.run(
        [sys.executable, "-m", "multistage.lab"]
        + ["run", "--dataset", dataset, "--profile", PROFILE, "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1_200,
        check=False,
    )
    return LabRun(root, dataset, ended.stdout, ended.returncode)


@pytest.fixture(scope="session")
def store_run(copied_course):
    """All labs on the simulated shop."""
    return run_labs(copied_course, "store")


@pytest.fixture(scope="session")
def movielens_run(copied_course):
    """All labs on MovieLens."""
    return run_labs(copied_course, "movielens")


@pytest.fixture(params=["store", "movielens"])
def lab_run(request):
    """Each of the two runs in turn."""
    return request.getfixturevalue(f"{request.param}_run")
