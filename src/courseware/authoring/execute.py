"""Execute a notebook with papermill, in one fresh kernel of this very interpreter."""

import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from traitlets import default

from courseware.kernels import OwnKernelSpecs
from courseware.loopback import check_loopback
from courseware.memory import free_bytes
from courseware.surroundings import home_problem

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LINES = 6  # of an error's message that are kept


class OwnKernel(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``, whatever kernels the machine has.

    Its messages are encrypted, since other users may have accounts on the machine, and what it
    logs to standard error is dropped: errors of cells come back in the notebook. It reads none of
    the user's settings for IPython, since start-up files there could change what a notebook
    prints, and it has a home of its own where the user's cannot be written.
    """

    @default("kernel_spec_manager")
    def _own_specs(self) -> OwnKernelSpecs:
        return OwnKernelSpecs()

    @default("transport_encryption")
    def _encrypted(self) -> str:
        return "auto"

    async def _async_pre_start_kernel(self, **kwargs: Any) -> tuple[list[str], dict[str, Any]]:
        self._home = tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True)
        kwargs["env"] = _environment(kwargs.get("env") or os.environ, self._home.name)
        return await super()._async_pre_start_kernel(stderr=subprocess.DEVNULL, **kwargs)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        self._home.cleanup()


def _environment(given: Mapping[str, str], own: str) -> dict[str, str]:
    """The variables of a kernel that may write its settings and caches into the folder ``own``."""
    kept = {**given, "IPYTHONDIR": own}
    if home_problem():
        # What programs keep in the user's home, where these variables do not say otherwise.
        kept = {name: value for name, value in kept.items() if not name.startswith("XDG_")}
        kept["HOME"] = own
    return kept


@dataclass(eq=False)
class CellError(Exception):
    """A cell failed.

    Attributes:
        heading: the nearest markdown heading above the cell.
        line: the line of the cell that failed, empty if it is not known.
        name: the class of the error.
        message: the error's message, a few lines at most.
        user_can_fix: whether the user can fix the error; then its message alone is shown.
    """

    heading: str
    line: str
    name: str
    message: str
    user_can_fix: bool

    def __str__(self) -> str:
        return self.message if self.user_can_fix else f"{self.name}: {self.message}".rstrip(": ")


def execute(
    notebook: NotebookNode,
    folder: Path,
    parameters: dict[str, Any] | None = None,
    output: Path | None = None,
    on_cell: Callable[[int], None] | None = None,
) -> NotebookNode:
    """Run every cell and return the executed notebook.

    Args:
        notebook: left as it is.
        folder: the kernel's working directory.
        parameters: injected below the cell tagged ``parameters``, if given.
        output: where the notebook is saved after each cell, if given.
        on_cell: called with the index of each cell as it starts.

    Raises:
        CellError: if a cell fails, or its kernel dies.
        LabError: if the machine has no loopback interface, over which kernels are reached.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    check_loopback()
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    running = ""
    free = free_bytes()

    def started(cell: NotebookNode, cell_index: int) -> None:
        nonlocal running
        running = cell.source
        if on_cell is not None:
            on_cell(cell_index)

    try:
        return papermill.execute_notebook(
            notebook,
            output,
            parameters=parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=folder,
            kernel_manager_class=OwnKernel,
            on_cell_start=started,
        )
    except PapermillExecutionError as error:
        raise _cell_error(notebook, error) from None
    except RuntimeError as error:  # nbclient's DeadKernelError; another if it dies at its start
        if "Kernel died" not in str(error):
            raise
        message = (
            f"The kernel died. {free / 2**30:.1f} GB of memory were free when it started. If that "
            "was too little, close other programs and idle kernels, or choose --profile ci."
        )
        where = _heading(notebook, running) or "the start of its kernel"
        raise CellError(where, "", "DeadKernelError", message, True) from None


def _cell_error(notebook: NotebookNode, error: Any) -> CellError:
    trace = _ANSI.sub("", "\n".join(error.traceback))
    arrows = re.findall(r"^-+> *\d+ (.*)$", trace, flags=re.MULTILINE)
    # Calm errors render as their message alone (LabError._render_traceback_).
    user_can_fix = trace.strip() == str(error.evalue).strip() and bool(trace.strip())
    own = [line.strip() for line in arrows if line.strip() in error.source]
    message = "\n".join(str(error.evalue).strip().splitlines()[:_LINES])
    return CellError(
        _heading(notebook, error.source), own[0] if own else "", error.ename, message, user_can_fix
    )


def _heading(notebook: NotebookNode, source: str) -> str:
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ +(.+)$", cell.source, flags=re.MULTILINE)
            heading = found[-1].strip() if found else heading
        elif cell.source == source:
            return heading
    return ""
