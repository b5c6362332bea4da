"""The Dockerfile as text, and its steps in a bare Debian root where somebody asks for that."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from multistage.serving.feature_store import REDIS
from tests.conftest import COURSE
from tests.packaging import chroot_build
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


@pytest.fixture
def devcontainer():
    return json.loads((COURSE / ".devcontainer" / "devcontainer.json").read_text())


def test_work_outlives_a_container(devcontainer):
    """Of every service, and of the editor's container: notebooks, and what the labs make."""
    compose = yaml.safe_load((COURSE / "compose.yaml").read_text())
    kept = {name: service["volumes"] for name, service in compose["services"].items()}
    assert kept.pop("redis") == ["redis:/data"]
    mounts = [dict(part.split("=") for part in m.split(",")) for m in devcontainer["mounts"]]
    kept["editor"] = [f"{mount['source']}:{mount['target']}" for mount in mounts]
    assert len(kept) == 3
    for volumes in kept.values():
        targets = {volume.split(":")[1] for volume in volumes}
        assert targets == {"/course/notebooks", "/course/workspace"}
    # compose's volumes are called as the others' are, not after the folder it is started in
    names = {volume: "multistage-" + volume for volume in compose["volumes"]}
    assert {volume: given["name"] for volume, given in compose["volumes"].items()} == names
    lab = {names[volume.split(":")[0]] for volume in kept["lab"]}
    assert lab == {mount["source"] for mount in mounts}


def test_lab_5_uses_the_redis_of_its_compose_file():
    services = yaml.safe_load((COURSE / "compose.yaml").read_text())["services"]
    assert services["lab"]["environment"][REDIS] == "127.0.0.1:6379"
    assert services["redis"]["network_mode"] == "service:lab"


def test_the_editors_container_is_the_image(devcontainer):
    build = devcontainer["build"]
    folder = COURSE / ".devcontainer"
    assert (folder / build["dockerfile"]).resolve() == COURSE / "Dockerfile"
    assert (folder / build["context"]).resolve() == COURSE
    assert any(user.startswith(devcontainer["remoteUser"]) for user in of("cpu")["USER"])
    assert devcontainer["workspaceFolder"] == of("cpu")["WORKDIR"][-1]


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (["notebooks", "workspace"], ""),
        (["workspace"], "docker run -v multistage-notebooks:/course/notebooks …"),
        (
            [],
            "-v multistage-notebooks:/course/notebooks -v multistage-workspace:/course/workspace …",
        ),
    ],
    ids=["all", "some", "none"],
)
def test_a_container_says_what_would_be_lost_with_it(tmp_path, kept, said):
    lines = ["22 1 0:21 / / rw - overlay overlay rw"]
    lines += ["30 22 0:30 /course/notebooks /elsewhere rw - ext4 /dev/sdb rw"]  # its other end
    lines += [f"23 22 0:22 / /course/{name} rw - ext4 /dev/sda rw" for name in kept]
    (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
    ended = subprocess.run(
        ["sh", COURSE / "requirements" / "container.sh", "echo", "as", "asked"],
        env=os.environ | {"MOUNTS": str(tmp_path / "mounts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "as asked\n"
    assert bool(ended.stderr) == bool(said)
    assert said in ended.stderr


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_starts_with_that_word(target):
    words = of(target)
    assert json.loads(words["ENTRYPOINT"][-1]) == ["sh", "/course/requirements/container.sh"]


def test_every_change_is_tested_on_a_cpu_and_the_gpu_by_hand_or_at_night():
    flows = {
        name: yaml.safe_load((COURSE / ".github" / "workflows" / f"{name}.yml").read_text())
        for name in ("test", "nightly")
    }
    # YAML reads the key "on" as true
    assert set(flows["test"][True]) == {"push", "pull_request"}
    assert set(flows["nightly"][True]) == {"workflow_dispatch", "schedule"}
    runs = {
        name: [step.get("run") for job in flow["jobs"].values() for step in job["steps"]]
        for name, flow in flows.items()
    }
    assert ".ci/run" in runs["test"]
    assert "make test PROFILE=gpu" in runs["nightly"]


def test_files_are_copied_where_docker_would(tmp_path):
    (tmp_path / "build" / "course" / ".venv").mkdir(parents=True)
    (tmp_path / "build" / "course" / ".venv" / "python").symlink_to("/usr/bin/python3.11")
    root = Root(tmp_path / "cpu", work="/course")
    root.copy("--from=build /course /course", {"build": tmp_path / "build"})
    root.copy("Makefile pyproject.toml ./", {})
    root.copy("requirements requirements", {})
    root.copy("data_scripts .", {})
    course = tmp_path / "cpu" / "course"
    assert os.readlink(course / ".venv" / "python") == "/usr/bin/python3.11"
    assert (course / "Makefile").read_text() == (COURSE / "Makefile").read_text()
    assert (course / "requirements" / "cpu.txt").exists()
    assert (course / "simulate_store.py").exists()  # a folder's content, as Docker has


def test_what_is_generated_stays_out_of_the_image(tmp_path, monkeypatch):
    (tmp_path / "course" / "src" / "build").mkdir(parents=True)
    for name in (".dockerignore", "README.md"):
        (tmp_path / "course" / name).write_bytes((COURSE / name).read_bytes())
    for ignored in (".venv", "build", "workspace", ".git", "src/__pycache__"):
        (tmp_path / "course" / ignored).mkdir()
    monkeypatch.setattr(chroot_build, "COURSE", tmp_path / "course")
    Root(tmp_path / "root", work="/course").copy(". /course", {})
    copied = {str(file.relative_to(tmp_path / "root")) for file in tmp_path.glob("root/**/*")}
    assert copied == {
        "course",
        "course/.dockerignore",
        "course/README.md",
        "course/src",
        "course/src/build",  # only the folder build of the course itself is ignored
    }


def test_the_readme_has_two_lines_for_an_empty_machine():
    install, make = chroot_build.empty_machine((COURSE / "README.md").read_text())
    assert make == "make run && make test"
    assert {"g++", "make", "python3-venv", "python3-dev"} <= set(install.split())
    assert "3.1" not in install  # a version that another distribution does not have


@pytest.mark.skipif(ROOT not in os.environ, reason=f"{ROOT} names no folder to build a root in")
@pytest.mark.parametrize("what", ["image", "ci", "readme --suite=trixie"])
def test_in_a_bare_debian(what):
    subprocess.run(
        [sys.executable, "-m", "tests.packaging.chroot_build", *what.split(), os.environ[ROOT]],
        cwd=COURSE,
        check=True,
    )
