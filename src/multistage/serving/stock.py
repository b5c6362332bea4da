"""Merlin Systems' own four-stage graph, for comparison: one user, one request.

Its ``PredictTensorflow`` is replaced, at export, by an operator for Triton's TensorFlow backend,
which the server from PyPI and current images do not have. ``PredictHere`` stays in Python.
"""

import io
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from merlin.dag import BaseOperator, ColumnSelector, DataFormats
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.serving.operators.base import ServingOperator
from multistage.serving.saved_model import SavedModel


class PredictHere(BaseOperator):
    """Calls a SavedModel in the process of the graph, as ``PredictTensorflow`` means to.

    An input of the model that the stock graph has no column for is fed zeros: it drops the scores
    of retrieval on the way, so the ranker never learns what retrieval thought.
    """

    def __init__(self, folder: Path, output: str) -> None:
        """Call the model in ``folder``; its one output gets the name ``output``."""
        super().__init__()
        self.name, self.output = Path(folder).name, output
        self._folder = Path(folder)
        self._model = SavedModel(folder)
        self._width = self._model.output_width

    __getstate__ = ServingOperator.__getstate__

    def load_artifacts(self, artifact_path: str | None = None) -> None:
        """Load the model from an exported repository (Merlin's interface)."""
        if artifact_path:
            self._model = SavedModel(Path(artifact_path) / self.name)

    def save_artifacts(self, artifact_path: str | None = None) -> None:
        """Copy the model into an exported repository (Merlin's interface)."""
        shutil.copytree(self._folder, Path(artifact_path or ".") / self.name, dirs_exist_ok=True)

    def compute_input_schema(self, *schemas: Any) -> Schema:
        """Return the columns that the model reads and the graph has (Merlin's interface)."""
        there = {name for schema in schemas if schema for name in schema.column_names}
        return Schema(
            [
                ColumnSchema(name, dtype=dtype)
                for name, dtype in self._model.inputs.items()
                if name in there
            ]
        )

    def compute_output_schema(self, *schemas: Any) -> Schema:
        """Return the model's one output (Merlin's interface)."""
        return Schema([ColumnSchema(self.output, dtype="float32", dims=(None, self._width))])

    def transform(self, col_selector: ColumnSelector, transformable: TensorTable) -> TensorTable:
        """Run the model (Merlin's interface)."""
        columns = {name: column.values for name, column in transformable.items()}
        shape = columns[next(iter(columns))].shape
        missing = dict.fromkeys(self._model.inputs, np.array(0))
        return TensorTable({self.output: self._model(missing | columns, shape)})

    @property
    def supported_formats(self) -> DataFormats:
        """Numpy columns."""
        return DataFormats.NUMPY_TENSOR_TABLE


@contextmanager
def without_output() -> Iterator[None]:
    """Keep the stock operators' progress bars and logged tracebacks out of a notebook."""
    log = logging.getLogger("merlin")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
