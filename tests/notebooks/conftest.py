"""The five labs, executed once a session in a copy of the course and looked at by many tests."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from multistage.serving.feature_store import REDIS
from tests.redis_server import BINARY, RedisServer

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
    shutil.copy(course / "course.toml", root)
    downloads = course / "workspace" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    (root / "workspace").mkdir()
    (root / "workspace" / "downloads").symlink_to(downloads)
    return root


def run_labs(root: Path, dataset: str, **environment: str) -> LabRun:
    """Run all labs on ``dataset``, with these variables set."""
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab"]
        + ["run", "--dataset", dataset, "--profile", PROFILE, "--root", str(root)],
        env=os.environ | environment,
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
def redis_server(tmp_path_factory):
    """A Redis of its own, or None where it is not installed."""
    if not BINARY:
        yield None
        return
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def movielens_run(copied_course, redis_server):
    """All labs on MovieLens, with Redis as lab 5's online store."""
    address = f"127.0.0.1:{redis_server.port}" if redis_server else ""
    return run_labs(copied_course, "movielens", **{REDIS: address})


@pytest.fixture(params=["store", "movielens"])
def lab_run(request):
    """Each of the two runs in turn."""
    return request.getfixturevalue(f"{request.param}_run")
