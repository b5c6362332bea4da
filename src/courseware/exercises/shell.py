"""The IPython shell around this code, if there is one."""

import sys
from typing import Any


def find_shell() -> Any:
    """Return the shell of a notebook or of IPython; None elsewhere."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def find_notebook() -> Any:
    """Return the shell if it is a notebook's, which shows rich text; None elsewhere."""
    shell = find_shell()
    return shell if hasattr(shell, "kernel") else None
