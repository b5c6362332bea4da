"""The one error that a user can fix: its message says what was wrong and how to go on."""


class CourseError(Exception):
    """Something the user can fix. The message names the input, what was expected, what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook in place of a traceback: the message alone."""
        return [str(self)]
