"""Locks, conda environment and image name one set of versions, and no file names an index."""

import re
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.conftest import COURSE

REPLACED = {"tensorflow-cpu", "faiss-cpu"}  # by the GPU's builds
CUDA = re.compile(r"nvidia-[\w-]+-cu11|tensorflow|faiss-gpu-cu11")
PIN = re.compile(r"^\s*(?:- )?([\w.-]+)(?:\[[\w,]+\])?==?([\w.]+)(?:=\S*)?\s*\\?$", re.MULTILINE)
ADDRESS = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|file:")


def pins(text: str) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def read(name: str) -> str:
    return (COURSE / name).read_text()


CPU = pins(read("requirements/cpu.txt"))
GPU = pins(read("requirements/gpu.txt"))


def test_both_locks_have_one_version_of_what_they_share():
    assert len(CPU) > 200
    assert {name: GPU.get(name) for name in CPU.keys() - REPLACED} == {
        name: CPU[name] for name in CPU.keys() - REPLACED
    }
    added = GPU.keys() - CPU.keys()
    assert added >= {"tensorflow", "faiss-gpu-cu11", "nvidia-cudnn-cu11"}
    assert [name for name in added if not CUDA.fullmatch(name)] == []
    assert not REPLACED & GPU.keys()


def test_the_gpu_lock_is_for_cuda_11_8_and_cudnn_8_6():
    assert GPU["tensorflow"] == CPU["tensorflow-cpu"] == "2.12.1"
    assert GPU["nvidia-cuda-runtime-cu11"].startswith("11.8.")
    assert GPU["nvidia-cudnn-cu11"].startswith("8.6.")


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


def test_the_gpu_lock_resolves(tmp_path):
    """A dry run: every pin exists, with a wheel or a source for this Python."""
    uv = COURSE / "build" / "uv" / "bin" / "uv"
    if not uv.exists():
        pytest.skip("build/uv is made by make setup")
    command = [uv, *["pip", "install", "--dry-run", "--no-deps", "--require-hashes", "--python"]]
    ended = subprocess.run(
        [*command, sys.executable, "--target", tmp_path, "-r", "requirements/gpu.txt"],
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
    assert f"Would install {len(GPU)} packages" in ended.stdout
