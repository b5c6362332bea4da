"""Where the answers of strangers run: bubblewrap, and the limits that the system sets.

They see the system's programs, the environment and the course, all read-only, and an empty folder
of their own. They have no network, no process but their own, and none of the caller's variables.
"""

import errno
import functools
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from courseware.course import MAP, installed

SCRATCH = 64 * 2**20  # bytes that may be written to files
LIMITS = {  # of prlimit; bytes, if it is not a number of something
    "data": 4 * 2**30,  # what is written to; TensorFlow takes half of one
    "as": 6 * 2**30,  # all addresses, so that what is shared counts too
    "fsize": SCRATCH,
    "nofile": 256,
    "core": 0,
}
THREADS = 1_000
_OPTIONS = (
    "--unshare-ipc --unshare-pid --unshare-net --unshare-uts --die-with-parent --new-session "
    f"--proc /proc --dev /dev --size {SCRATCH} --perms 1777 --tmpfs /tmp"
).split()
_FIRST_ACCOUNT, _ACCOUNTS = 65_000, 500  # ids that Debian reserves and gives to nobody

# linux/filter.h, linux/seccomp.h, and each machine's linux/audit.h and asm/unistd.h
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_CLONE3, _CLONE_THREAD = 435, 0x10000
_KIND_AND_CLONE = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}
_REFUSED = {
    "x86_64": {
        **{"fork": 57, "vfork": 58, "unshare": 272, "setns": 308, "memfd_create": 319},
        **{"memfd_secret": 447, "shmget": 29, "msgget": 68},
        **{"add_key": 248, "request_key": 249, "keyctl": 250},
    },
    "aarch64": {
        **{"unshare": 97, "setns": 268, "memfd_create": 279},
        **{"memfd_secret": 447, "shmget": 194, "msgget": 186},
        **{"add_key": 217, "request_key": 218, "keyctl": 219},
    },
}


def problem() -> str:
    """Return why there can be no sandbox here, in the system's words; "" if there can."""
    if not shutil.which("bwrap"):
        return "bubblewrap is missing: apt-get install bubblewrap."
    with system_calls() as rules:
        ended = subprocess.run(
            [*sandboxed(0, rules), sys.executable, "-c", "import courseware.lab.grader"],
            env=environment("/tmp"),
            pass_fds=[rules],
            capture_output=True,
            text=True,
            errors="replace",
        )
    said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
    return f"bubblewrap does not work here: {said[-1]}." if ended.returncode else ""


def limited() -> list[str]:
    """Return a command that runs the one after it within ``LIMITS``."""
    return ["/usr/bin/prlimit", *(f"--{name}={most}:{most}" for name, most in LIMITS.items())]


def environment(folder: str) -> dict[str, str]:
    """Return all variables that an answer sees; ``folder`` is where it may write."""
    return {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "-1",  # a GPU's memory is for those who train
        # As many exercises as cores are checked at once
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }


def sandboxed(number: int, rules: int) -> list[str]:
    """Return a command that runs the one after it in a sandbox. Its variables are the caller's.

    Args:
        number: of the task. Root runs each under another account, as a limit of threads is one of
            an account; for an ordinary user, the sandbox has accounts of its own.
        rules: the descriptor that :func:`system_calls` yields.
    """
    command = [shutil.which("bwrap") or "bwrap", *_OPTIONS, "--seccomp", str(rules)]
    for option in _seen():
        command += option
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    limits = [*limited(), f"--nproc={THREADS}:{THREADS}"]
    if os.geteuid():
        return [*command, "--unshare-all", *limits]
    account = str(_FIRST_ACCOUNT + number % _ACCOUNTS)
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    changed = ["/usr/bin/setpriv", "--reuid", account, "--regid", account, "--clear-groups"]
    return [*command, *changed, *limits]


@contextmanager
def system_calls() -> Iterator[int]:
    """Yield a descriptor with the rules that bubblewrap's ``--seccomp`` reads once.

    They refuse what no limit of memory counts, other processes, and the caller's key ring. It is a
    program of the kernel's packet filter: on each call, first the kind of machine is compared.
    """
    kind, clone = _KIND_AND_CLONE[platform.machine()]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, kind), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    code += [(_AT_LEAST, 0, 1, 2**30), (_RETURN, 0, 0, _KILL)]  # a second numbering, of x86-64
    for number in _REFUSED[platform.machine()].values():
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    # The C library then uses clone, whose flags can be seen, and a thread may be started
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    code += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16), (_HAS, 1, 0, _CLONE_THREAD)]
    code += [(_RETURN, 0, 0, _ERROR | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    rules, fill = os.pipe()
    os.write(fill, b"".join(struct.pack("HBBI", *line) for line in code))
    os.close(fill)
    try:
        yield rules
    finally:
        os.close(rules)


@functools.cache
def _seen() -> list[list[str]]:
    """The options that show the system, this Python, its environment and the course."""
    course = installed().folder
    own = [course / "src", course / "labs_solutions", course / MAP]
    links, python = [], Path(sys.prefix, "bin", "python")
    while python.is_symlink():
        links.append(python)
        python = Path(os.path.normpath(python.parent / os.readlink(python)))
    base = [python.resolve().parents[1], python.parents[1], Path(sys.base_prefix)]
    system = [Path("/", name) for name in ("bin", "sbin", "lib", "lib32", "lib64")]
    shown = [Path("/usr"), Path("/etc/ld.so.cache"), *system, *base, Path(sys.prefix), *own, *links]
    options: dict[Path, list[str]] = {}
    for path in dict.fromkeys(shown):
        shown_with = (p for p in path.parents if options.get(p, [""])[0] == "--ro-bind")
        if path == Path("/") or any(shown_with):  # / is the base of a link to /bin/python
            continue
        # bubblewrap makes folders on the way that others than root may not enter
        for parent in reversed(path.parents[:-1]):
            options.setdefault(parent, ["--dir", str(parent)])
        if path.is_symlink():
            options[path] = ["--symlink", os.readlink(path), str(path)]
        elif path.exists():
            options[path] = ["--ro-bind", str(path), str(path)]
    return list(options.values())
