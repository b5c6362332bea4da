"""``lab doctor``: what this machine has, what it lacks, and how to mend it."""

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from multistage.errors import CourseError
from multistage.lab import room
from multistage.lab.options import Json, Root
from multistage.memory import free_bytes
from multistage.surroundings import home_problem
from multistage.workspace import find_course

CORES = 2
PORTS = (8888,)  # JupyterLab's; Triton takes free ones


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands, and what to do if it is not well."""

    what: str
    state: Literal["ok", "note", "broken"]
    found: str
    mend: str = ""


def command(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also start Triton and ask TensorFlow for GPUs.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Look at this machine: what lacks, and how to mend it.

    Looks at Python, packages, cores, memory, disk, ports, Triton. The exit code is 1 if a lab
    breaks.
    """
    findings = list(examine(find_course(root), deep))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def examine(course: Path, deep: bool = False) -> Iterator[Finding]:
    """Yield one finding after the other; ``deep`` adds those that take half a minute."""
    checks: list[Callable[[Path], Finding]] = [
        python,
        packages,
        cores,
        memory,
        disk,
        shared_memory,
        loopback,
        home,
        startup,
        environment,
        libpython,
        tritonserver,
        redis,
        ports,
        gpu,
    ]
    if deep:
        checks += [triton_starts, tensorflow_devices]
    for check in checks:
        try:
            yield check(course)
        except Exception as error:
            name = check.__name__.replace("_", " ")
            yield Finding(name, "note", f"could not be looked at: {type(error).__name__}: {error}")


def python(course: Path) -> Finding:
    """Python 3.11, for which the lock was made; 3.10 where conda or an image brings cuDF."""
    import platform

    version = platform.python_version()
    if sys.version_info[:2] in ((3, 10), (3, 11)):
        return Finding("Python", "ok", version)
    return Finding("Python", "broken", version, "No lab runs. Install Python 3.11, then: make")


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
    said = "; ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
    mend = f"Results may differ or labs fail. Run: make setup{' PROFILE=gpu' * (kind == 'gpu')}"
    return Finding("packages", "broken", said, mend)


def cores(course: Path) -> Finding:
    """Cores this process may use."""
    number = len(os.sched_getaffinity(0))
    mend = f"The labs take longer than they say. {CORES} or more are better."
    return Finding("cores", "ok" if number >= CORES else "note", str(number), mend)


def memory(course: Path) -> Finding:
    """Memory that is free, within the limits of a container or a batch system."""
    free = free_bytes() / 2**30
    most, least = room.memory_needed("laptop"), room.memory_needed("ci")
    found = f"{free:.1f} GB free, {most} needed in profile laptop, {least} in profile ci"
    mend = "Kernels may be killed. Close other programs and idle kernels"
    if free >= most:
        return Finding("memory", "ok", found)
    if free >= least:
        return Finding("memory", "note", found, f"{mend}, or choose --profile ci.")
    return Finding("memory", "broken", found, f"{mend}.")


def disk(course: Path) -> Finding:
    """Room for what the labs make."""
    free, needed = room.free_megabytes(course), room.DISK["laptop"]
    mend = "Artifacts cannot be written. Free some space."
    state = "ok" if free >= needed else "broken"
    said = f"{free} MB" if free < 10_000 else f"{free >> 10} GB"
    return Finding("disk", state, f"{said} free, {needed} MB needed in profile laptop", mend)


def home(course: Path) -> Finding:
    """The user's home, where JupyterLab and other programs keep what they write."""
    problem = home_problem()
    if not problem:
        return Finding("home", "ok", "can be written")
    mend = (
        "JupyterLab does not start by itself. Use make lab, which gives it another home, or: "
        "export HOME=$(mktemp -d). The command lab works."
    )
    return Finding("home", "note", problem, mend)


def startup(course: Path) -> Finding:
    """Files of the user's own that IPython runs at the start of every notebook."""
    profile = Path(os.environ.get("IPYTHONDIR", "~/.ipython")).expanduser() / "profile_default"
    files = [*profile.glob("ipython*config.*"), *profile.glob("startup/*.py")]
    files += profile.glob("startup/*.ipy")
    if not files:
        return Finding("IPython", "ok", "no settings of your own")
    names = ", ".join(sorted(file.name for file in files))
    mend = "Notebooks in JupyterLab run them first, and may differ; lab run and lab build do not."
    return Finding("IPython", "note", f"your own settings: {names}", mend)


def environment(course: Path) -> Finding:
    """Whether other accounts can start this environment, which root builds for their seats."""
    places = {Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix)}
    folders = {parent for place in places for parent in place.parents}
    closed = [folder for folder in sorted(folders) if not folder.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return Finding("environment", "ok", "other accounts can start it")
    mend = (
        "Seats of other accounts cannot use it. Put the course outside of that folder and build it "
        "with a Python outside of it: make PYTHON=/usr/bin/python3.11"
    )
    state = "ok" if os.geteuid() else "note"
    return Finding("environment", state, f"other accounts cannot enter {closed[0]}", mend)


def shared_memory(course: Path) -> Finding:
    """Room in /dev/shm, through which Triton talks to its Python backends."""
    import shutil

    from multistage.serving.triton import SHARED_MB

    free = shutil.disk_usage("/dev/shm").free / 2**20
    mend = (
        "Triton (lab 5) may not start. Remove what killed servers left there "
        "(/dev/shm/multistage_*), or, in a container: docker run --shm-size=64m"
    )
    state = "ok" if free >= SHARED_MB else "broken"
    return Finding("shared memory", state, f"{free:.0f} MB free, {SHARED_MB} needed", mend)


def loopback(course: Path) -> Finding:
    """The address over which kernels and Triton are reached."""
    from multistage.loopback import LOOPBACK, check_loopback

    try:
        check_loopback()
    except CourseError as error:
        return Finding("loopback", "broken", f"{LOOPBACK} does not answer", f"No lab runs. {error}")
    return Finding("loopback", "ok", f"{LOOPBACK} answers")


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
        mend = (
            "Triton (lab 5) does not start. Remove .venv and run make setup: it takes or fetches a "
            "Python that has this library."
        )
        return Finding("libpython", "broken", f"no {name}", mend)
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
    mend = "Lab 5 uses SQLite. For Redis install its server (Debian, Ubuntu: redis-server)."
    return Finding("Redis", "note", "not installed", mend)


def ports(course: Path) -> Finding:
    """Ports that programs of the course take by default."""
    import socket

    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(str(port))
    if not taken:
        return Finding("ports", "ok", f"{', '.join(map(str, PORTS))} free")
    mend = "JupyterLab takes the next free port; its own line tells which."
    return Finding("ports", "note", f"{', '.join(taken)} taken", mend)


def gpu(course: Path) -> Finding:
    """The GPU that the driver reports."""
    from multistage.lab.runner import device

    name = device()
    if name == "cpu":
        found = "none: the labs run on the CPU"
    elif _built_for_gpus():
        found = f"{name}. To use it: make run PROFILE=gpu; lab doctor --deep asks TensorFlow first"
    else:
        found = f"{name}, and TensorFlow for CPUs. {_to_get_the_gpu_build()}"
    return Finding("GPU", "ok", found)


def triton_starts(course: Path) -> Finding:
    """Start the server on an empty model repository and stop it again."""
    import tempfile

    from multistage.serving.triton import TritonServer

    with tempfile.TemporaryDirectory() as repository, TritonServer(repository, wait=60) as server:
        found = f"ready after {server.seconds_to_ready:.1f} s"
    return Finding("Triton starts", "ok", found)


def tensorflow_devices(course: Path) -> Finding:
    """The GPUs that TensorFlow itself can use, where the driver reports one."""
    from multistage.lab.runner import device
    from multistage.notebook import quiet

    quiet()
    import tensorflow as tf

    seen = [gpu.name for gpu in tf.config.list_physical_devices("GPU")]
    found = f"{tf.__version__} sees {', '.join(seen) or 'no GPU'}"
    if seen:
        return Finding("TensorFlow", "ok", f"{found}. To use it: make run PROFILE=gpu")
    mend = f"The labs run on the CPU. {_to_get_the_gpu_build()}"
    return Finding("TensorFlow", "ok" if device() == "cpu" else "note", found, mend)


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


def _print(findings: list[Finding]) -> None:
    console = Console()
    marks = {"ok": "[green]OK[/]     ", "note": "[yellow]note[/]   ", "broken": "[red]broken[/] "}
    for finding in findings:
        console.print(f"{marks[finding.state]} {finding.what}: {finding.found}", highlight=False)
        if finding.state != "ok" and finding.mend:
            console.print(f"         {finding.mend}", highlight=False)
