"""Remove from an executed notebook what depends on one run on one machine."""

import re
import tempfile
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from courseware.authoring.read import AuthoringError

_CELL_FILE = re.compile(r"/[\w./-]*ipykernel_\d+/\d+\.py")
# XGBoost's tracker greets each Dask worker from C++, address and time included.
_TRACKER = re.compile(r"^\[[\d:]+\] task \[xgboost\.dask-\d+\].*\n?", re.MULTILINE)
# A widget's model by itself, and as others refer to it (IPY_MODEL_...).
_MODEL_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def clean(notebook: NotebookNode, course: Path) -> NotebookNode:
    """Drop timings and papermill's metadata, and write paths relative to the course, in place.

    Text that arrived in pieces becomes one output: where it broke was a matter of milliseconds.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        for output in cell.get("outputs", []):
            for key in ("text", "data", "traceback", "evalue"):
                if key in output:
                    output[key] = _relative(output[key], course)
            if output.output_type == "stream":
                output.text = _TRACKER.sub("", output.text)
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("text") != ""]
    _rename_models(notebook)
    return notebook


def machine_paths(notebook: NotebookNode) -> list[str]:
    """Return what is left of this machine's paths in outputs: ``cell 7: …`` each."""
    homes = {str(Path.home()), tempfile.gettempdir()} - {"/"}
    pattern = re.compile("|".join(rf"{re.escape(home)}/\S*" for home in sorted(homes)))
    found = []
    for index, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            found += [f"cell {index}: {match}" for match in pattern.findall(_text(output))]
    return found


def refuse_machine_paths(notebook: NotebookNode, name: str) -> None:
    """Raise if an output names a path of this machine.

    Raises:
        AuthoringError: naming the cell and the path.
    """
    if left := machine_paths(notebook):
        raise AuthoringError(f"{name}: an output contains a path of this machine: {left[0]}")


def _relative(value: Any, course: Path) -> Any:
    if isinstance(value, str):
        return _CELL_FILE.sub("<cell>", value.replace(f"{course}/", "").replace(str(course), "."))
    if isinstance(value, list):
        return [_relative(item, course) for item in value]
    if isinstance(value, dict):
        # Images and other encoded data cannot hold a path.
        return {
            key: item if key.startswith("image/png") else _relative(item, course)
            for key, item in value.items()
        }
    return value


def _text(output: NotebookNode) -> str:
    data = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
    return "\n".join(str(part) for part in (output.get("text", ""), data, output.get("traceback")))


def _rename_models(notebook: NotebookNode) -> None:
    """Give widget models names by order of appearance instead of random ones."""
    state = notebook.metadata.get("widgets")
    if not state:
        return
    import json

    import nbformat

    text = nbformat.writes(notebook)
    names: dict[str, str] = {}
    for found in _MODEL_ID.findall(json.dumps(state)):
        names.setdefault(found, f"{len(names):032x}")
    text = _MODEL_ID.sub(lambda match: names.get(match.group(), match.group()), text)
    notebook.update(nbformat.reads(text, as_version=4))
