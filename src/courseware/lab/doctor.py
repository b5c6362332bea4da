"""``lab doctor``: what this machine has, what is missing, and how to fix it."""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from courseware.course import Course, find_course, installed, load
from courseware.errors import LabError
from courseware.lab import resources
from courseware.lab.options import Json, Root
from courseware.loopback import LOOPBACK, check_loopback
from courseware.memory import free_bytes
from courseware.surroundings import home_problem

CORES = 2
PORTS = (8888,)  # JupyterLab's; Triton takes free ones


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, its state, what was found, and how to fix it."""

    what: str
    state: Literal["ok", "note", "broken"]
    found: str
    fix: str = ""


def command(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also start Triton and ask TensorFlow for GPUs.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Look at this machine: what is missing, and how to fix it.

    Looks at Python, packages, cores, memory, disk, ports, Triton. The exit code is 1 if a lab
    cannot run.
    """
    findings = list(examine(find_course(root), deep))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def examine(course: Path, deep: bool = False) -> Iterator[Finding]:
    """Yield the findings in order; ``deep`` adds the checks that take half a minute."""
    known = installed().loads
    checks: list[Callable[[Path], Finding]] = [
        python,
        cores,
        memory,
        disk,
        loopback,
        home,
        startup,
        environment,
        ports,
        *(load(known["checks"]) if "checks" in known else []),
    ]
    if deep and "deep_checks" in known:
        checks += load(known["deep_checks"])
    for check in checks:
        try:
            yield check(course)
        except Exception as error:
            name = check.__name__.replace("_", " ")
            yield Finding(name, "note", f"could not be checked: {type(error).__name__}: {error}")


def python(course: Path) -> Finding:
    """Python 3.11, for which the lock was made; 3.10 where conda or an image brings cuDF."""
    import platform

    version = platform.python_version()
    if sys.version_info[:2] in ((3, 10), (3, 11)):
        return Finding("Python", "ok", version)
    return Finding("Python", "broken", version, "No lab runs. Install Python 3.11, then: make")


def cores(course: Path) -> Finding:
    """Cores this process may use."""
    number = len(os.sched_getaffinity(0))
    fix = f"The labs take longer than the minutes they state. {CORES} or more are better."
    return Finding("cores", "ok" if number >= CORES else "note", str(number), fix)


def memory(course: Path) -> Finding:
    """Memory that is free, within the limits of a container or a batch system."""
    free = free_bytes() / 2**30
    map_ = Course.read(course)
    needed = {name: resources.memory_needed(map_, name) for name in map_.profiles}
    most = needed[map_.profile]
    small = min(needed, key=needed.__getitem__)
    found = f"{free:.1f} GB free, {most} needed in profile {map_.profile}"
    found += f", {needed[small]} in profile {small}" if small != map_.profile else ""
    fix = "Kernels may be killed. Close other programs and idle kernels"
    if free >= most:
        return Finding("memory", "ok", found)
    if free >= needed[small]:
        return Finding("memory", "note", found, f"{fix}, or choose --profile {small}.")
    return Finding("memory", "broken", found, f"{fix}.")


def disk(course: Path) -> Finding:
    """Disk space for what the labs make."""
    map_ = Course.read(course)
    free, needed = resources.free_megabytes(course), map_.profiles[map_.profile].disk
    fix = "Artifacts cannot be written. Free some space."
    state = "ok" if free >= needed else "broken"
    found = f"{free} MB" if free < 10_000 else f"{free >> 10} GB"
    found += f" free, {needed} MB needed in profile {map_.profile}"
    return Finding("disk", state, found, fix)


def home(course: Path) -> Finding:
    """The user's home, where JupyterLab and other programs keep what they write."""
    problem = home_problem()
    if not problem:
        return Finding("home", "ok", "can be written")
    fix = (
        "JupyterLab does not start by itself. Use make lab, which gives it another home, or: "
        "export HOME=$(mktemp -d). The command lab works."
    )
    return Finding("home", "note", problem, fix)


def startup(course: Path) -> Finding:
    """Files of the user's own that IPython runs at the start of every notebook."""
    profile = Path(os.environ.get("IPYTHONDIR", "~/.ipython")).expanduser() / "profile_default"
    files = [*profile.glob("ipython*config.*"), *profile.glob("startup/*.py")]
    files += profile.glob("startup/*.ipy")
    if not files:
        return Finding("IPython", "ok", "no settings of your own")
    names = ", ".join(sorted(file.name for file in files))
    fix = "JupyterLab's kernels run these, so results may differ; lab run and lab build do not."
    return Finding("IPython", "note", f"your own settings: {names}", fix)


def environment(course: Path) -> Finding:
    """Whether other accounts can start this environment, which root builds for their seats."""
    places = {Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix)}
    folders = {parent for place in places for parent in place.parents}
    closed = [folder for folder in sorted(folders) if not folder.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return Finding("environment", "ok", "other accounts can start it")
    fix = (
        "Seats of other accounts cannot use it. Put the course outside of that folder and build it "
        "with a Python outside of it: make PYTHON=/usr/bin/python3.11"
    )
    state = "ok" if os.geteuid() else "note"
    return Finding("environment", state, f"other accounts cannot enter {closed[0]}", fix)


def loopback(course: Path) -> Finding:
    """The address over which kernels and Triton are reached."""
    try:
        check_loopback()
    except LabError as error:
        return Finding("loopback", "broken", f"{LOOPBACK} does not answer", f"No lab runs. {error}")
    return Finding("loopback", "ok", f"{LOOPBACK} answers")


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
    fix = "JupyterLab takes the next free port, and prints which."
    return Finding("ports", "note", f"{', '.join(taken)} taken", fix)


def _print(findings: list[Finding]) -> None:
    console = Console()
    marks = {"ok": "[green]OK[/]     ", "note": "[yellow]note[/]   ", "broken": "[red]broken[/] "}
    for finding in findings:
        console.print(f"{marks[finding.state]} {finding.what}: {finding.found}", highlight=False)
        if finding.state != "ok" and finding.fix:
            console.print(f"         {finding.fix}", highlight=False)
