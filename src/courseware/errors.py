"""Errors that the user can fix: the message says what was wrong and how to go on."""

import errno

_FULL = {errno.ENOSPC, errno.EDQUOT}


class LabError(Exception):
    """Something the user can fix. The message names the input, what was expected, what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook in place of a traceback: the message alone."""
        return [str(self)]


def says_all(error: BaseException) -> bool:
    """Whether the message of ``error`` says all, and no traceback is needed.

    That is so of the system's errors, and of an error that tells IPython to show no traceback:
    :class:`LabError` here, and an error of the course's own package.
    """
    return isinstance(error, OSError) or hasattr(error, "_render_traceback_")


def said(error: Exception) -> str:
    """Return what an error says, in one line; of the system's, without its number."""
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        return f"{what}. Free some space, then do it again." if error.errno in _FULL else what
    return str(error)
