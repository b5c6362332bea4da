"""What is done to somebody's course is done as its owner, in bounded time and memory.

So whatever an attendee puts into a seat (a link to another user's file, a file system that never
answers), root's commands can harm only what the attendee could harm anyway.
"""

import json
import multiprocessing
import os
import pwd
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from courseware.course import installed, load
from courseware.errors import LabError, message_of

SECONDS = 600.0  # that one seat may take
MEMORY = 2 << 30  # bytes that one seat may take
ANSWER = 100_000_000  # bytes


def as_owner(folder: Path, work: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Do ``work`` in a process of the owner of ``folder`` and return what it returned.

    Only root can become somebody else; everybody else's process stays theirs.

    Args:
        folder: a course or a seat.
        work: what it returns is sent as JSON.
        seconds: that it may take.

    Raises:
        LabError: with the message of the error that ``work`` ended in, or if it took too long.
    """
    load(installed().loads["workspace"])  # the owner may not be able to read where it is
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(sender, folder, work), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise LabError(f"{folder.name} did not answer within {seconds:.0f} s.")
        value, problem = json.loads(receiver.recv_bytes(ANSWER))
    except EOFError:
        raise LabError(f"The process that worked on {folder.name} was ended.") from None
    finally:
        process.kill()
        process.join(1)
    if problem is not None:
        raise LabError(problem)
    return value


def _answer(sender: Connection, folder: Path, work: Callable[[], Any]) -> None:
    problem = value = None
    try:
        _become_owner(folder)
        _limit_memory()
        value = work()
    except Exception as error:
        problem = message_of(error) or type(error).__name__
    sender.send_bytes(json.dumps([value, problem]).encode())


def _become_owner(folder: Path) -> None:
    owner = folder.lstat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    try:
        group = pwd.getpwuid(owner.st_uid).pw_gid
    except KeyError:  # a number without a name; never the group of root
        group = owner.st_gid or owner.st_uid
    os.setgroups([group])
    os.setgid(group)
    os.setuid(owner.st_uid)


def _limit_memory() -> None:
    most = psutil.Process().memory_info().vms + MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
