"""The committed outputs of marked cells, against a run with the committed parameters."""

import subprocess
import sys
from pathlib import Path


def test_marked_cells_give_what_is_committed(copied_course):
    notebooks = sorted((copied_course / "labs_solutions").glob("*.ipynb"))
    assert notebooks
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-q"]
        + ["-p", "nbval_tolerance", "-p", "no:cacheprovider", "--rootdir", copied_course]
        + ["-c", "/dev/null", "--nbval-cell-timeout", "900", "-x", *notebooks],
        cwd=copied_course,
        env={**__import__("os").environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1_500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6_000:]
