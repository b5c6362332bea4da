"""Locks, conda environment and image name one set of versions, and no file names an index."""

import re
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from packaging.markers import Marker, default_environment
from packaging.specifiers import SpecifierSet

from multistage.commands import checks
from tests.conftest import COURSE

REPLACED = {"tensorflow-cpu", "tensorflow-cpu-aws", "faiss-cpu"}  # by the GPU's builds
CUDA = re.compile(r"nvidia-[\w-]+-cu11|faiss-gpu-cu11")
PIN = re.compile(
    r"^\s*(?:- )?([\w.-]+)(?:\[[\w,]+\])?==?([\w.]+)(?:=\S*)?\s*(?:;(.*?))?\s*\\?$", re.MULTILINE
)
ADDRESS = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|file:")


def pins(text: str) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version, _ in PIN.findall(text)}


def read(name: str) -> str:
    return (COURSE / name).read_text()


CPU = pins(read("requirements/cpu.txt"))
GPU = pins(read("requirements/gpu.txt"))
MARKERS = {name: marker for name, _, marker in PIN.findall(read("requirements/cpu.txt")) if marker}
MACHINES = ("x86_64", "aarch64")
SOURCES = {  # built where they are installed: no wheel, or none for every machine
    *("betterproto", "merlin-core", "merlin-dataloader", "merlin-models", "merlin-systems"),
    *("nvtabular", "stringcase"),
}


def of(machine: str) -> dict[str, str]:
    """The pins of cpu.txt that apply on such a machine."""
    here = {"sys_platform": "linux", "platform_machine": machine}
    left = {name for name, marker in MARKERS.items() if not Marker(marker).evaluate(here)}
    return {name: version for name, version in CPU.items() if name not in left}


def test_both_locks_have_one_version_of_what_they_share():
    assert len(CPU) > 200
    assert {name: GPU.get(name) for name in CPU.keys() - REPLACED} == {
        name: CPU[name] for name in CPU.keys() - REPLACED
    }
    added = GPU.keys() - CPU.keys()
    assert added >= {"faiss-gpu-cu11", "nvidia-cudnn-cu11"}
    assert [name for name in added if not CUDA.fullmatch(name)] == []
    assert not REPLACED & GPU.keys()


def test_the_gpu_lock_is_for_cuda_11_8_and_cudnn_8_6():
    assert GPU["tensorflow"] == CPU["tensorflow-cpu"] == "2.12.1"
    assert GPU["nvidia-cuda-runtime-cu11"].startswith("11.8.")
    assert GPU["nvidia-cudnn-cu11"].startswith("8.6.")


def test_one_lock_is_for_x86_64_and_64_bit_arm():
    """Only TensorFlow's builds differ; no other pin needs a marker."""
    assert {name: marker.strip() for name, marker in MARKERS.items()} == {
        "tensorflow-cpu": "platform_machine == 'x86_64'",
        "tensorflow": "platform_machine == 'aarch64'",
        "tensorflow-cpu-aws": "platform_machine == 'aarch64'",
    }
    ours, theirs = map(of, MACHINES)
    assert ours.keys() - theirs.keys() == {"tensorflow-cpu"}
    assert {theirs[name] for name in theirs.keys() - ours.keys()} == {ours["tensorflow-cpu"]}


@pytest.mark.parametrize("name", ["gpu", "uv"])
def test_the_other_locks_have_no_marker(name):
    assert " ; " not in read(f"requirements/{name}.txt")


@pytest.mark.parametrize("machine", MACHINES)
def test_doctor_compares_with_the_pins_of_its_machine(monkeypatch, machine):
    here = {**default_environment(), "platform_machine": machine}
    monkeypatch.setattr("packaging.markers.default_environment", here.copy)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(checks, "_installed", of(machine).get)
    finding = checks.packages(COURSE)
    assert (finding.state, finding.found) == ("ok", f"{len(of(machine))} as pinned")


def test_doctor_offers_no_gpu_build_on_arm(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(checks, "_installed", of("aarch64").get)
    monkeypatch.setattr("multistage.commands.checks.device_name", lambda: "GH200")
    assert checks.gpu(COURSE).found.startswith("GH200, and TensorFlow for CPUs")
    assert "PROFILE=gpu" not in checks.gpu(COURSE).found


@pytest.mark.parametrize("name", ["cpu", "gpu", "uv"])
def test_every_pin_has_a_hash_and_no_file_has_an_address(name):
    text = read(f"requirements/{name}.txt")
    for block in re.split(r"\n(?=\S)", text):
        if "==" in block.split("\n")[0]:
            assert "--hash=sha256:" in block, block.split("\n")[0]
    assert not ADDRESS.search(text)


# Versions of the lock that Python 3.10 cannot have: protobuf of this one is too old there.
NOT_FOR_3_10 = {"tensorflow-metadata"}


def is_for_3_10(name: str) -> bool:
    """Whether the lock's version of a package is for Python 3.10 too, as conda and NGC have it."""
    try:
        asked = metadata.metadata(name).get("Requires-Python") or ""
    except metadata.PackageNotFoundError:  # one of the GPU's builds
        asked = ""
    return "3.10" in SpecifierSet(asked) and name not in NOT_FOR_3_10


@pytest.mark.parametrize("name", ["environment.yml", "Dockerfile"])
def test_what_conda_and_the_image_name_has_the_locks_version(name):
    """Or another one, where the lock's is not for its Python."""
    named, locked = pins(read(name)), CPU | GPU
    shared = named.keys() & locked.keys()
    assert len(shared) > 8
    assert {n: named[n] == locked[n] for n in shared} == {n: is_for_3_10(n) for n in shared}


def test_conda_and_the_image_have_one_version_of_what_they_share():
    conda, image = pins(read("environment.yml")), pins(read("Dockerfile"))
    assert {n: image[n] for n in image.keys() & conda.keys()} == {
        n: conda[n] for n in image.keys() & conda.keys()
    }


def test_conda_has_cudf_and_cuda():
    listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    named = {str(one).split("=")[0]: one for one in listed if isinstance(one, str)}
    assert "cudf" in named
    assert named["cuda-version"] == "cuda-version=11.8"
    pip = next(one["pip"] for one in listed if isinstance(one, dict))
    unpinned = [one for one in pip if "==" not in one and one != "-e ."]
    assert unpinned == []


SET_UP = """
Makefile Dockerfile .dockerignore compose.yaml environment.yml .ci/run pyproject.toml
requirements/cpu.in requirements/gpu.in .github/workflows/test.yml .github/workflows/nightly.yml
"""


@pytest.mark.parametrize("name", SET_UP.split())
def test_no_set_up_file_names_an_index_or_a_file_address(name):
    found = [
        line
        for line in read(name).splitlines()
        if ADDRESS.search(line) and "127.0.0.1" not in line  # the image's own health check
    ]
    assert found == []


@pytest.mark.parametrize(
    ("lock", "machine"), [("cpu", "x86_64"), ("cpu", "aarch64"), ("gpu", "x86_64")]
)
def test_a_lock_resolves_for_its_machines(tmp_path, lock, machine):
    """A dry run: every pin has a wheel for the machine, or is a source that is built there."""
    uv = COURSE / "build" / "uv" / "bin" / "uv"
    if not uv.exists():
        pytest.skip("build/uv is made by make setup")
    pinned = GPU if lock == "gpu" else of(machine)
    where = ["--python", sys.executable, "--target", str(tmp_path)]
    where += ["--python-platform", f"{machine}-manylinux_2_36"]  # Debian 12's C library
    wheels = [f"--only-binary={name}" for name in pinned if name not in SOURCES]
    command = [uv, *["pip", "install", "--dry-run", "--no-deps", "--require-hashes"], *where]
    ended = subprocess.run(
        [*command, *wheels, "-r", f"requirements/{lock}.txt"],
        cwd=COURSE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    if re.search(r"dns error|error sending request|[Nn]etwork|timed out|[Cc]onnect", ended.stdout):
        pytest.skip("no package index can be reached")
    assert ended.returncode == 0, ended.stdout[-3_000:]
    assert f"Would install {len(pinned)} packages" in ended.stdout
