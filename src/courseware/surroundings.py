"""Settings of the user's shell and home that must not change a result.

A classroom's machine may have a home that cannot be written, packages of another course on
``PYTHONPATH``, and another conda environment that is active. None of it may change a result.
"""

import os
import sys
from pathlib import Path

# Packages, a standard library and a start-up file that are meant for another Python.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


def drop_foreign_packages() -> None:
    """Start this process anew without ``FOREIGN``, if one of them is set.

    Python has put these folders before its own packages already, and may have imported modules from
    there, so it has to start again. If this package itself comes from ``PYTHONPATH``, nothing is
    done.
    """
    folders = [Path(f).resolve() for f in os.environ.get("PYTHONPATH", "").split(os.pathsep) if f]
    if Path(__file__).resolve().parents[1] in folders:
        return
    if any(os.environ.get(name) for name in FOREIGN):
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)


def name_a_home() -> None:
    """Set ``HOME`` to a folder that does not exist, if the system knows no home of this user.

    This happens in a container that runs with an arbitrary user id (``docker run --user 1234``).
    Jupyter's libraries otherwise fail when they are imported.
    """
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = "/nonexistent"  # Debian's home for users that have none


def home_problem() -> str:
    """Return what is wrong with the user's home, such as "~ does not exist"; "" if nothing."""
    home = os.path.expanduser("~")
    if not os.path.isdir(home):
        return f"{home} does not exist"
    if not os.access(home, os.W_OK | os.X_OK):
        return f"{home} cannot be written"
    return ""
