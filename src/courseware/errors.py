"""Errors that the user can fix: the message says what was wrong and how to go on."""

import errno

_FULL = {errno.ENOSPC, errno.EDQUOT}


class LabError(Exception):
    """Something the user can fix. The message names the input, what was expected, what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook in place of a traceback: the message alone."""
        return [str(self)]


def needs_no_traceback(error: BaseException) -> bool:
    """Whether the message of ``error`` is enough for the user, without a traceback.

    That holds for the operating system's errors, and for errors that tell IPython to show no
    traceback: :class:`LabError` here, and the errors of the course's own package.
    """
    return isinstance(error, OSError) or hasattr(error, "_render_traceback_")


def message_of(error: Exception) -> str:
    """Return an error's message in one line; without the number that the system's errors have."""
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        return f"{what}. Free some space, then do it again." if error.errno in _FULL else what
    return str(error)
