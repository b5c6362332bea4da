"""A check that takes its kernel with it: ended if it must be, and told of by the next check.

Python's timers do not ring inside one call of compiled code (``sum(range(10**13))``), and no guard
stops ``os._exit`` or a machine that has run out of memory. So a check leaves a file while it runs.
One that is found by another process tells that the kernel died. A timer of the system ends the
kernel when nothing else can, and writes into the file where the answer was.
"""

import contextlib
import faulthandler
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OWN_LINE = re.compile(r'File "[^"]*ipykernel_[^"]*", line (\d+) in (\S+)')


@contextmanager
def marked(file: Path | None, seconds: float) -> Iterator[None]:
    """Keep ``file`` while the body runs, and end the process if it runs longer than ``seconds``.

    Args:
        file: None, or one that cannot be written, leaves the body without either.
        seconds: by the clock; far more than a timer of Python's needs to end the body.
    """
    stream = None
    if file is not None:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            stream = file.open("w")
    if stream is None:
        yield
        return
    with stream:
        print(os.getpid(), file=stream, flush=True)
        faulthandler.dump_traceback_later(seconds, exit=True, file=stream)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            file.unlink(missing_ok=True)


def died(file: Path | None) -> str:
    """Return what the attendee should know of a check that never ended, and forget it.

    Returns:
        Empty if there was none, or if it is running now in another kernel.
    """
    try:
        pid, _, dump = file.read_text(errors="replace").partition("\n") if file else ("", "", "")
    except OSError:
        return ""
    if not pid or (pid != str(os.getpid()) and Path("/proc", pid).exists()):
        return ""
    file.unlink(missing_ok=True)
    again = "Change the answer, run its cell, and check again."
    if found := _OWN_LINE.search(dump):
        return (
            f"The last check had to end the kernel: line {found[1]} of {found[2]} was busy with "
            f"one call that nothing can interrupt. {again}"
        )
    return (
        "The last check of this exercise never ended: the kernel was restarted or died. Did it "
        f"need too much memory, or end the process? {again}"
    )
