"""Names and messages that somebody else chose, shown so that a terminal does not obey them."""

from rich.console import Console


def plain_console() -> Console:
    """Return a console that takes text as it is: a file may be named ``[/x]`` or ``:bell:``."""
    return Console(markup=False, emoji=False, highlight=False)


def printable(text: object) -> str:
    """Return text without what a terminal or a table would obey, such as escapes and newlines."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
