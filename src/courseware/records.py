"""Metrics that a notebook records in its outputs."""

from collections.abc import Iterator
from typing import Any

RECORD = "record"  # the key of a recorded metric in an output's metadata


def record(name: str, value: float) -> None:
    """Print a metric and keep it in this cell's output, where ``lab run`` finds it.

    Args:
        name: such as ``"auc_dlrm"``.
        value: a number; kept as a float.
    """
    from IPython.display import display

    value = float(value)
    kept = {RECORD: {"name": name, "value": value}}
    display({"text/plain": f"{name} = {value:.4g}"}, metadata=kept, raw=True)


def read_records(notebook: Any) -> dict[str, float]:
    """Return the metrics that ``record`` kept in an executed notebook (an nbformat node)."""
    return dict(_records(notebook))


def _records(notebook: Any) -> Iterator[tuple[str, float]]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            kept = output.get("metadata", {}).get(RECORD)
            if kept:
                yield kept["name"], kept["value"]
