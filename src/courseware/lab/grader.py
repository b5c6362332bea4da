"""Check one exercise of a submitted notebook in this process, which does nothing else.

``python -m courseware.lab.grader NOTEBOOK EXERCISE RESULT`` reads a secret from its standard input
and writes ``{"passed", "message", "secret"}`` to the file RESULT. ``lab grade`` starts it in a
folder of its own and kills it when its time is up. Before the submitted code runs, this process
gives up what it does not need: memory beyond a limit, large files and many of them, the network,
other processes, and every change to a file outside its folder.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MEMORY = 4 * 2**30  # bytes that may be written to; TensorFlow takes half of one
FILE_BYTES = 50 * 2**20
FILES = 100  # that may be opened to write
MESSAGE = 10_000  # characters
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000

_CHANGES = {
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "shutil.rmtree",
    "shutil.move",
}
_REFUSED = {
    "socket.connect": "the network",
    "socket.bind": "the network",
    "socket.sendto": "the network",
    "socket.getaddrinfo": "the network",
    "subprocess.Popen": "other programs",
    "os.system": "other programs",
    "os.exec": "other programs",
    "os.posix_spawn": "other programs",
    "os.spawn": "other programs",
    "os.fork": "other processes",
    "os.forkpty": "other processes",
    "os.kill": "other processes",
    "os.killpg": "other processes",
    "signal.pthread_kill": "other processes",
}


def main(notebook: str, exercise: str, result: str) -> None:
    """Check ``exercise`` of ``notebook`` and write the file ``result``."""
    from courseware.exercises.exercise import find_exercise

    secret = sys.stdin.read()
    task = find_exercise(exercise)
    aside = Path(result).with_suffix(".new")
    _limit()
    cells = _read(Path(notebook))
    with aside.open("w") as stream:
        _forbid(Path.cwd().resolve())
        json.dump(_judge(task, cells) | {"secret": secret}, stream)
    os.replace(aside, result)
    os._exit(0)


def _read(notebook: Path) -> list[SimpleNamespace] | str:
    """The cells of a notebook, or what is wrong with it. (Importing nbformat takes seconds.)"""
    try:
        return [
            SimpleNamespace(
                cell_type=cell["cell_type"],
                source="".join(cell["source"]),
                metadata=dict(cell["metadata"]),
            )
            for cell in json.loads(notebook.read_text())["cells"]
        ]
    except Exception as error:
        return f"The notebook cannot be read ({type(error).__name__})."


def _judge(task: Any, cells: Any) -> dict[str, Any]:
    from courseware.errors import LabError
    from courseware.exercises import Wrong
    from courseware.exercises.engine import probe
    from courseware.exercises.guard import unpatched
    from courseware.exercises.source import answer_in

    if isinstance(cells, str):
        return _failed(cells)
    try:
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            unpatched() as replaced,
        ):
            answer = answer_in(cells, task.id)
        if replaced:
            return _failed(f"It replaced {', '.join(replaced)}. Leave the libraries as they are.")
        probe(task, answer)
    except NotImplementedError:
        return _failed("Not filled in.")
    except (Wrong, LabError) as error:
        return _failed(str(error))
    except MemoryError:
        return _failed("It wants too much memory.")
    except BaseException as error:
        return _failed(f"It raised {type(error).__name__}: {error}")
    return {"passed": True, "message": ""}


def _failed(message: str) -> dict[str, Any]:
    return {"passed": False, "message": message[:MESSAGE]}


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # A network namespace of its own has no way out; where the kernel allows none, the refusals
    # below stand alone.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _forbid(folder: Path) -> None:
    """Refuse, from now on and for good, what an answer to an exercise has no use for."""
    written = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _REFUSED:
            raise PermissionError(f"An answer has no use for {_REFUSED[event]}.")
        if event in _CHANGES:
            for path in arguments[:2]:
                _refuse_outside(path, folder)
        if event == "open" and _writes(arguments):
            _refuse_outside(arguments[0], folder)
            nonlocal written
            written += 1
            if written > FILES:
                raise PermissionError("An answer has no use for so many files.")

    sys.addaudithook(watch)


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str) and any(letter in mode for letter in "wax+"):
        return True
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _refuse_outside(path: Any, folder: Path) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    target = Path(os.path.realpath(os.fsdecode(path)))
    if target != Path(os.devnull) and not target.is_relative_to(folder):
        raise PermissionError(f"An answer may not change {target.name}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
