"""The one error that a user can mend: its message says what was wrong and how to go on."""


class CourseError(Exception):
    """Something the user can mend. The message names the input, what was expected, what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook in place of a traceback: the message alone."""
        return [str(self)]


def said(error: Exception) -> str:
    """Return what an error says, in one line; of the system's, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
