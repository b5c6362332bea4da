"""What ``lab doctor`` looks at for this course: packages, Triton, Redis, GPUs."""

import re
import sys
from pathlib import Path

from courseware.lab.doctor import Finding
from courseware.lab.runner import device_name
from multistage.serving.triton import SHARED_MB, TritonServer
from multistage.tensorflow_setup import quiet


def packages(course: Path) -> Finding:
    """Installed packages against the pins of the lock file."""
    if sys.version_info[:2] != (3, 11):
        return Finding("packages", "note", "not compared: the locks are for Python 3.11")
    kind = "gpu" if _built_for_gpus() else "cpu"
    lock = course / "requirements" / f"{kind}.txt"
    if not lock.exists():
        return Finding("packages", "note", f"no {lock.name} in requirements/ to compare with")
    pins = re.findall(r"^([\w.-]+)==(\S+)(.*)$", lock.read_text(), flags=re.MULTILINE)
    pins = [(name, pinned) for name, pinned, rest in pins if ";" not in rest or _applies(rest)]
    wrong = []
    for name, pinned in pins:
        installed = _installed(name) or "missing"
        if installed != pinned.rstrip(";"):
            wrong.append(f"{name} {installed}, pinned {pinned}")
    if not wrong:
        return Finding("packages", "ok", f"{len(pins)} as pinned")
    found = "; ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
    fix = f"Results may differ or labs fail. Run: make setup{' PROFILE=gpu' * (kind == 'gpu')}"
    return Finding("packages", "broken", found, fix)


def shared_memory(course: Path) -> Finding:
    """Free space in /dev/shm, through which Triton talks to its Python backends."""
    import shutil

    free = shutil.disk_usage("/dev/shm").free / 2**20
    fix = (
        "Triton (lab 5) may not start. Remove what killed servers left there "
        "(/dev/shm/multistage_*), or, in a container: docker run --shm-size=64m"
    )
    state = "ok" if free >= SHARED_MB else "broken"
    return Finding("shared memory", state, f"{free:.0f} MB free, {SHARED_MB} needed", fix)


def libpython(course: Path) -> Finding:
    """The shared library of Python that Triton's Python backend loads."""
    import ctypes
    import sysconfig

    version = sysconfig.get_python_version()
    name = f"libpython{version}.so.1.0"
    if (Path(sysconfig.get_config_var("LIBDIR") or "/") / name).exists():
        return Finding("libpython", "ok", name)
    try:
        ctypes.CDLL(name)
    except OSError:
        fix = (
            "Triton (lab 5) does not start. Remove .venv and run make setup: it takes or fetches a "
            "Python that has this library."
        )
        return Finding("libpython", "broken", f"no {name}", fix)
    return Finding("libpython", "ok", name)


def tritonserver(course: Path) -> Finding:
    """The server: on PATH, as in a container, or in its wheel."""
    import shutil
    from importlib.util import find_spec

    if shutil.which("tritonserver"):
        return Finding("Triton server", "ok", "on PATH")
    spec = find_spec("pytriton")
    places = list(spec.submodule_search_locations or []) if spec else []
    if any((Path(place) / "tritonserver" / "bin" / "tritonserver").exists() for place in places):
        return Finding("Triton server", "ok", "in the package nvidia-pytriton")
    return Finding("Triton server", "broken", "not found", "Lab 5 cannot serve. Run: make setup")


def redis(course: Path) -> Finding:
    """Redis, which lab 5 mentions as the next online store and can do without."""
    import shutil

    if shutil.which("redis-server"):
        return Finding("Redis", "ok", "redis-server is installed")
    fix = "Lab 5 uses SQLite. For Redis install its server (Debian, Ubuntu: redis-server)."
    return Finding("Redis", "note", "not installed", fix)


def gpu(course: Path) -> Finding:
    """The GPU that the driver reports."""
    name = device_name()
    if name == "cpu":
        found = "none: the labs run on the CPU"
    elif _built_for_gpus():
        found = f"{name}. To use it: make run PROFILE=gpu; lab doctor --deep tests it first"
    else:
        found = f"{name}, and TensorFlow for CPUs. {_to_get_the_gpu_build()}"
    return Finding("GPU", "ok", found)


def triton_starts(course: Path) -> Finding:
    """Start the server on an empty model repository and stop it again."""
    import tempfile

    with tempfile.TemporaryDirectory() as repository, TritonServer(repository, wait=60) as server:
        found = f"ready after {server.seconds_to_ready:.1f} s"
    return Finding("Triton starts", "ok", found)


def tensorflow_devices(course: Path) -> Finding:
    """The GPUs that TensorFlow itself can use, where the driver reports one."""
    quiet()
    import tensorflow as tf

    seen = [gpu.name for gpu in tf.config.list_physical_devices("GPU")]
    found = f"{tf.__version__} sees {', '.join(seen) or 'no GPU'}"
    if seen:
        return Finding("TensorFlow", "ok", f"{found}. To use it: make run PROFILE=gpu")
    fix = f"The labs run on the CPU. {_to_get_the_gpu_build()}"
    return Finding("TensorFlow", "ok" if device_name() == "cpu" else "note", found, fix)


def _built_for_gpus() -> bool:
    """Whether TensorFlow is the build for CUDA; on Arm, ``tensorflow`` is a build for CPUs."""
    import platform

    return platform.machine() == "x86_64" and bool(_installed("tensorflow"))


def _to_get_the_gpu_build() -> str:
    import platform

    if platform.machine() == "x86_64":
        return "To use the GPU: make setup PROFILE=gpu"
    return "The course uses a GPU on x86-64 only."


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _applies(rest: str) -> bool:
    from packaging.markers import Marker

    marker = rest.split(";", 1)[1].split("\\")[0].split("#")[0].strip()
    return Marker(marker).evaluate()


CHECKS = [packages, shared_memory, libpython, tritonserver, redis, gpu]
DEEP_CHECKS = [triton_starts, tensorflow_devices]
