"""Run somebody's answer so that it can do no harm to the notebook around it.

For the time of a check, what it prints is caught (and dropped beyond a limit), what it displays is
dropped, a timer ends it, its memory is bounded, and what it replaced or set is put back: attributes
of libraries, seeds, the working directory, the environment.
"""

import builtins
import contextlib
import io
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import pandas as pd

from courseware import memory
from courseware.exercises.shell import find_shell

PRINT_LIMIT = 2_000  # characters of output that are kept
PATIENCE = 3  # times its limit that a call may take on a busy machine
ROOM = 2**30  # bytes that a call may take at least; half of what is free if that is more
_OURS = ("courseware.", "multistage.")


class TimeUp(BaseException):
    """The time limit has passed. Not an ``Exception``, so that an answer does not swallow it."""


class Printed(io.TextIOBase):
    """A text stream that keeps the first ``PRINT_LIMIT`` characters and drops the rest."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._size = 0

    def writable(self) -> bool:
        """Return True: anything may be written."""
        return True

    def write(self, text: str) -> int:
        """Keep what still fits and say that all of it was written."""
        room = PRINT_LIMIT - self._size
        if room > 0:
            self._kept.append(text[:room])
            self._size += len(text[:room])
        return len(text)

    @property
    def text(self) -> str:
        """What was kept."""
        return "".join(self._kept)


def time_left(seconds: float, taken: float, computed: float) -> float:
    """Return the seconds that work may still go on, 0 if its time is up.

    Its limit is ``seconds`` by the clock, or ``PATIENCE`` times that while the machine is so busy
    with other work that it has not had ``seconds`` of computing yet.

    Args:
        seconds: the limit.
        taken: seconds by the clock since it began.
        computed: seconds that a core has worked on it.
    """
    busy = min(seconds - computed, PATIENCE * seconds - taken)
    return max(seconds - taken, busy, 0.0)


def within(seconds: float, function: Callable[[], None]) -> None:
    """Call ``function`` and raise ``TimeUp`` in it if it has not ended in time.

    The limit is that of :func:`time_left`. An answer may catch whatever is raised in it and loop
    on: so the timer rings again after a few random microseconds for as long as the call goes on,
    until a ring falls between two ``try``. It needs the main thread, where notebooks run their
    cells; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        _limited(function)
        return
    delays = random.Random(0)
    clock, computing = time.monotonic(), time.process_time()

    def ring(number: int, frame: FrameType | None) -> None:
        left = time_left(seconds, time.monotonic() - clock, time.process_time() - computing)
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))
        # Once the call is left nothing is raised: the code that tidies up must run to its end.
        elif _is_limited(frame):
            signal.setitimer(signal.ITIMER_REAL, delays.uniform(5e-6, 5e-4))
            raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        _limited(function)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _limited(function: Callable[[], None]) -> None:
    function()


def _is_limited(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _limited.__code__:
            return True
        frame = frame.f_back
    return False


@contextmanager
def guarded() -> Iterator[tuple[Printed, list[str]]]:
    """Keep the body from doing harm; yield what it prints and the names that it replaces.

    The names are filled in when the body has ended.
    """
    printed = Printed()
    with (
        unpatched() as changed,
        surroundings_kept(),
        nothing_shown(),
        memory.bounded(max(ROOM, memory.free_bytes() // 2)),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        yield printed, changed


@contextmanager
def unpatched() -> Iterator[list[str]]:
    """Put back what the body replaced in libraries; yield the list of names, filled at the end."""
    kept = {place: _callables(place) for place in _watched()}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for place, before in kept.items():
            changed += _put_back(place, before)


@contextmanager
def surroundings_kept() -> Iterator[None]:
    """Put back the seeds, the working directory and the environment that the body changed."""
    state, numbers = np.random.get_state(), random.getstate()
    folder, environment = os.getcwd(), dict(os.environ)
    try:
        yield
    finally:
        np.random.set_state(state)
        random.setstate(numbers)
        with contextlib.suppress(OSError):  # a folder that is gone
            os.chdir(folder)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)


@contextmanager
def nothing_shown() -> Iterator[None]:
    """Drop what the body displays in a notebook, close its figures, make ``exit()`` an error."""
    shell = find_shell()
    if shell is None:
        yield
        return
    from IPython.utils.capture import capture_output

    before = _figures()
    shell.ask_exit = _leave
    try:
        with capture_output(stdout=False, stderr=False):
            yield
    finally:
        del shell.ask_exit
        for number in _figures() - before:
            sys.modules["matplotlib.pyplot"].close(number)


def _leave() -> None:
    raise SystemExit("exit() ends the notebook's kernel")


def _figures() -> set[int]:
    plot = sys.modules.get("matplotlib.pyplot")
    return set(plot.get_fignums()) if plot else set()


def _watched() -> list[Any]:
    ours = [module for name, module in sys.modules.items() if name.startswith(_OURS) and module]
    return [builtins, math, random, np, np.random, np.linalg, pd, pd.DataFrame, pd.Series, *ours]


def _callables(place: ModuleType | type) -> dict[str, object]:
    return {name: value for name, value in vars(place).items() if callable(value)}


def _put_back(place: ModuleType | type, before: dict[str, object]) -> list[str]:
    now = vars(place)
    changed = [name for name, value in before.items() if now.get(name, before) is not value]
    for name in changed:
        setattr(place, name, before[name])
    return [f"{place.__name__}.{name}" for name in changed]
