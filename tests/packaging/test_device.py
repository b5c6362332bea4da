"""The profile gpu, on a machine without a GPU: what it sets, and states that are simulated."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from courseware.authoring.read import read_source
from courseware.course import Course
from multistage.device import load_libraries
from multistage.errors import CourseError
from multistage.profiles import PROFILES
from tests.conftest import COURSE

# NVIDIA's management library, as merlin-core meets it on a machine with one GPU.
ONE_GPU = """
class NVMLError(Exception): pass
NVMLError_LibraryNotFound = NVMLError_DriverNotLoaded = NVMLError_Unknown = NVMLError
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
"""
QUIET = "from multistage.tensorflow_setup import quiet; quiet()"
HAS_GPU = "from merlin.core.has_gpu import HAS_GPU; print(HAS_GPU)"
CLUSTER = """
from merlin.core.compat import cudf
from merlin.core.utils import Distributed
try:
    with Distributed(n_workers=1, processes=False, dashboard_address=None) as cluster:
        print(cudf is None, cluster.cluster_type)
except ImportError as error:
    print(cudf is None, error)
"""
DATA = """
import pandas as pd
from merlin.io import Dataset
data = Dataset(pd.DataFrame({"a": [1, 2]}))
print(data.cpu, len(data.compute()))
"""


def look(tmp_path, *code: str) -> list[str]:
    """What Python prints on a machine whose driver reports one GPU."""
    (tmp_path / "pynvml.py").write_text(ONE_GPU)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DASK", "CUDA"))}
    return subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout.splitlines()


def test_without_us_merlin_stumbles_over_a_gpu_without_cudf(tmp_path):
    has_gpu, cluster = look(tmp_path, HAS_GPU, CLUSTER)
    assert has_gpu == "True"
    assert cluster.startswith("True")  # no cuDF
    assert "dask_cuda" in cluster


def test_a_gpu_without_cudf_is_worked_on_with_pandas(tmp_path):
    assert look(tmp_path, QUIET, HAS_GPU, CLUSTER, DATA) == ["False", "True cpu", "True 2"]


def test_dask_may_be_imported_before(tmp_path):
    assert look(tmp_path, "import dask.distributed", QUIET, HAS_GPU) == ["False"]


def test_where_cudf_is_asked_for_merlin_decides(tmp_path):
    asked = "import os; os.environ['MULTISTAGE_CUDF'] = '1'"
    assert look(tmp_path, asked, QUIET, HAS_GPU) == ["True"]


def test_a_kernel_takes_memory_as_it_needs_it():
    code = "import os; from multistage.tensorflow_setup import quiet; quiet(); print(*os.environ)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k != "TF_FORCE_GPU_ALLOW_GROWTH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "TF_FORCE_GPU_ALLOW_GROWTH" in ended.stdout.split()


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ builds the two libraries")
def test_libraries_are_loaded_whatever_their_order_and_answer_nobody_else(tmp_path):
    """liba needs libb, which no path of the loader holds: libb has to be loaded first.

    What they define stays theirs: among CUDA's libraries, libnvblas has the names of BLAS.
    """
    (tmp_path / "b.cc").write_text('extern "C" int b() { return 7; }')
    (tmp_path / "a.cc").write_text('extern "C" int b(); extern "C" int course_a() { return b(); }')
    for name, needs in (("b", ""), ("a", "-L. -l:libb_course.so.1")):
        library = f"lib{name}_course.so.1"
        command = f"g++ -shared -fPIC {name}.cc -o {library} -Wl,-soname,{library} {needs}"
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    (tmp_path / "libbroken.so").write_text("no library")
    load_libraries(sorted(tmp_path.glob("lib*.so*")))
    assert "liba_course.so.1" in Path("/proc/self/maps").read_text()
    with pytest.raises(AttributeError, match="undefined symbol"):
        _ = ctypes.CDLL(None).course_a


def test_profile_gpu_says_where_trees_grow():
    assert {name: p.tree_device for name, p in PROFILES.items()} == {
        "ci": "cpu",
        "laptop": "cpu",
        "gpu": "cuda",
    }


def test_no_cell_branches_on_the_device():
    """Sizes and devices come from the profile: a cell neither asks for them nor names them."""
    device = re.compile(
        r"list_(?:physical|logical)_devices|tf\.device\(|is_gpu_available|HAS_GPU|nvidia-smi|"
        r"CUDA_VISIBLE|\bcudf\b|\bcupy\b|device\s*=\s*[\"']|profile\s*(?:==|!=|in)\s|"
        r"profile\.name|gpu_hist|StandardGpuResources|index_cpu_to_gpu"
    )
    found = [
        f"{section.name}, cell {index}: {match[0]}"
        for section in Course.read(COURSE).find()
        for index, cell in enumerate(read_source(section).cells, 1)
        if cell.cell_type == "code" and (match := device.search(cell.source))
    ]
    assert found == []


def test_without_a_gpu_the_profile_fails_and_says_why():
    ended = subprocess.run(
        [sys.executable, "-m", "multistage.device"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 1
    assert "sees no GPU" in ended.stderr
    assert "make setup PROFILE=gpu" in ended.stderr
    assert "Traceback" not in ended.stderr


def would_do(*arguments: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "PROFILE")}
    return subprocess.run(
        ["make", "-n", *arguments],
        cwd=COURSE,
        env=clean,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


@pytest.mark.parametrize(("target", "work"), [("run", "lab run"), ("test", "pytest -n")])
def test_make_asks_for_the_gpu_first(target, work):
    """The driver before anything is installed, TensorFlow before anything runs."""
    said = would_do("-W", "requirements/gpu.txt", target, "PROFILE=gpu")
    order = ["requirements/driver.sh", "pip sync", "python -m multistage.device", work]
    assert [said.index(step) for step in order] == sorted(said.index(step) for step in order)
    assert "multistage.device" not in would_do(target)
    assert "requirements/driver.sh" not in would_do(target)


def test_make_leaves_an_active_environment_alone():
    """uv would take the one that is active, and delete from it what the lock does not name."""
    said = would_do("-B", "setup")
    changes = [line for line in said.splitlines() if "uv pip" in line]
    assert [" ".join(line.split()[1:3]) for line in changes] == ["pip sync", "pip install"]
    assert all("--python .venv/bin/python" in line for line in changes)


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ builds a driver")
@pytest.mark.parametrize(
    ("started", "number", "code"), [(0, 2, 0), (0, 0, 1), (100, 0, 1)], ids=str
)
def test_make_asks_the_driver(tmp_path, started, number, code):
    """A driver with GPUs, one without, and one that does not start (100: no device)."""
    (tmp_path / "cuda.cc").write_text(
        f'extern "C" int cuInit(unsigned) {{ return {started}; }}'
        f'extern "C" int cuDeviceGetCount(int *n) {{ *n = {number}; return 0; }}'
    )
    build = "g++ -shared -fPIC cuda.cc -o libcuda.so.1"
    subprocess.run(build.split(), cwd=tmp_path, check=True)
    ended = subprocess.run(
        ["sh", COURSE / "requirements" / "driver.sh", sys.executable],
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code
    said = "" if code == 0 else "Profile gpu: CUDA's driver finds no GPU."
    assert ended.stderr.startswith(said)
    assert len(ended.stderr.splitlines()) == code


def test_make_installs_the_lock_of_the_device():
    assert "requirements/gpu.txt" in would_do("-W", "requirements/gpu.txt", "setup", "PROFILE=gpu")
    assert "requirements/cpu.txt" in would_do("-W", "requirements/cpu.txt", "setup")


@pytest.mark.parametrize("lock", ["cpu", "gpu"])
def test_doctor_offers_the_profile_where_there_is_a_gpu(tmp_path, monkeypatch, lock):
    """A driver that reports one: with the CPU's TensorFlow, and with the GPU's."""
    from multistage.commands import checks

    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho Tesla T4\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(checks, "_installed", lambda name: "2.12.1" if lock == "gpu" else None)
    found = checks.gpu(tmp_path).found
    assert found.startswith("Tesla T4")
    assert {"cpu": "make setup PROFILE=gpu", "gpu": "make run PROFILE=gpu"}[lock] in found


def test_doctor_offers_the_profile_where_tensorflow_sees_a_gpu(tmp_path, monkeypatch):
    import tensorflow as tf

    from multistage.commands import checks

    assert "PROFILE=gpu" not in checks.tensorflow_devices(tmp_path).found
    seen = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: seen)
    found = checks.tensorflow_devices(tmp_path).found
    assert "GPU:0" in found
    assert "make run PROFILE=gpu" in found


def test_the_error_is_one_that_a_user_can_fix(monkeypatch):
    from multistage import device

    class NoGpu:
        __version__ = "2.12.1"

        class config:
            list_physical_devices = staticmethod(lambda kind: [])

        class test:
            is_built_with_cuda = staticmethod(lambda: False)

    monkeypatch.setattr(device, "set_up_device", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorflow", NoGpu)
    with pytest.raises(CourseError, match="built for CPUs only, sees no GPU"):
        device.require_gpu()


TREES = """
import socket, sys
def unknown(name):
    raise socket.gaierror(-2, "Name or service not known")
socket.gethostbyname = unknown
bound = set()
def listens(event, given):
    if event == "socket.bind" and "xgboost" in sys._getframe(1).f_code.co_filename:
        bound.add(given[1][0])
sys.addaudithook(listens)
from dask import array
from distributed import Client
from xgboost import dask as xgb
with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
    x = array.arange(64, chunks=32).reshape(64, 1)
    data = xgb.DaskDMatrix(client, x, x[:, 0] % 2)
    grown = xgb.train(client, {"objective": "binary:logistic"}, data, num_boost_round=2)
print(grown["booster"].num_boosted_rounds(), *bound)
"""


def test_trees_grow_on_a_machine_whose_name_has_no_address(tmp_path):
    """As in a bare Debian; and XGBoost's tracker listens to this machine only."""
    assert look(tmp_path, QUIET, TREES) == ["2 127.0.0.1"]
