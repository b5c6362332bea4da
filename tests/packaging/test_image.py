"""The Dockerfile as text, and its steps in a bare Debian root where somebody asks for that."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import COURSE
from tests.packaging.chroot_build import COURSE as BUILT
from tests.packaging.chroot_build import Root, steps

DOCKERFILE = (COURSE / "Dockerfile").read_text()
ROOT = "MULTISTAGE_CHROOT"  # an empty folder: build the image's steps there


def of(target: str) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for word, rest in steps(DOCKERFILE, (target,)):
        words.setdefault(word, []).append(rest)
    return words


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_jupyterlab_with_a_token_and_not_as_root(target):
    words = of(target)
    assert words["USER"][-1] not in ("root", "0")
    command = json.loads(words["CMD"][-1])
    assert command[:2] == ["jupyter", "lab"]
    assert not [part for part in command if "token" in part or "password" in part]
    assert "8888/api" in words["HEALTHCHECK"][-1]
    assert not any("TOKEN" in line for line in words.get("ENV", []))


def test_base_images_are_pinned():
    for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert re.search(r":[\w.-]*\d", image), image


def test_ports_are_published_on_loopback_only():
    services = yaml.safe_load((COURSE / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all(s["shm_size"] == "1g" for n, s in services.items() if n != "redis")


def test_files_are_copied_where_docker_would(tmp_path):
    root = Root(tmp_path, work="/course")
    root.copy("Makefile pyproject.toml ./")
    root.copy("requirements requirements")
    root.copy("data_scripts .")
    assert (tmp_path / "course" / "Makefile").read_text() == (BUILT / "Makefile").read_text()
    assert (tmp_path / "course" / "requirements" / "cpu.txt").exists()
    assert (tmp_path / "course" / "simulate_store.py").exists()  # a folder's content, as Docker has


@pytest.mark.skipif(ROOT not in os.environ, reason=f"{ROOT} names no folder to build a root in")
def test_steps_run_in_a_bare_debian():
    subprocess.run(
        [sys.executable, "-m", "tests.packaging.chroot_build", os.environ[ROOT]],
        cwd=COURSE,
        check=True,
    )
