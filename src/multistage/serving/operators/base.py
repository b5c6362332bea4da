"""What the operators share: they add columns, and artifacts are part of the model repository."""

import shutil
from pathlib import Path
from typing import Any

from merlin.dag import BaseOperator, ColumnSelector, DataFormats
from merlin.schema import Schema
from merlin.table import NumpyColumn, TensorTable

NO_PRODUCT = -1


class ServingOperator(BaseOperator):
    """A stage: reads columns of the table, adds or replaces some, passes the others on.

    A subclass names the artifacts that it reads, says in :meth:`load` how, in :meth:`adds` which
    columns it makes, and makes them in :meth:`run`. Attributes that begin with an underscore hold
    what was loaded and are not pickled; :meth:`save_artifacts` copies the artifacts beside the
    pickle, and :meth:`load_artifacts` reads them there, wherever the repository has been moved to.
    """

    artifacts: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()

    def __init__(self, exports: Path | None = None) -> None:
        """Load the operator's artifacts from ``exports``, a folder that has them by name."""
        super().__init__()
        if exports is not None:
            self._exports = Path(exports)
            self.load(self._exports)

    def load(self, exports: Path) -> None:
        """Read this operator's artifacts, which are folders in ``exports``."""

    def adds(self) -> Schema:
        """Return the schema of the columns that :meth:`run` makes."""
        raise NotImplementedError

    def run(self, table: TensorTable) -> dict[str, Any]:
        """Return the new columns: arrays with one row per user, or (values, offsets) if ragged."""
        raise NotImplementedError

    def transform(self, col_selector: ColumnSelector, transformable: TensorTable) -> TensorTable:
        """Run the stage on a table (Merlin's interface)."""
        # Made empty and then filled: a table made from columns checks each of them.
        table = TensorTable()
        table.update(transformable)
        for name in self.drops:
            del table[name]
        for name, values in self.run(transformable).items():
            values, offsets = values if isinstance(values, tuple) else (values, None)
            table[name] = NumpyColumn(
                values, offsets, _unsafe=True
            )  # without it, Merlin loops over the offsets
        return table

    def compute_output_schema(
        self, input_schema: Schema, col_selector: ColumnSelector, prev_output_schema: Any = None
    ) -> Schema:
        """Return the schema after this stage (Merlin's interface)."""
        added = self.adds()
        gone = [*self.drops, *added.column_names]
        return input_schema.excluding_by_name(gone) + added

    def load_artifacts(self, artifact_path: str | None = None) -> None:
        """Load from an exported repository; Merlin calls this without one for a new graph."""
        if artifact_path:
            self.load(Path(artifact_path))

    def save_artifacts(self, artifact_path: str | None = None) -> None:
        """Copy the artifacts into an exported repository."""
        for name in self.artifacts:
            shutil.copytree(
                self._exports / name, Path(artifact_path or ".") / name, dirs_exist_ok=True
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name[0] != "_"}

    @property
    def supported_formats(self) -> DataFormats:
        """Numpy columns: the stages run on the CPU around the models."""
        return DataFormats.NUMPY_TENSOR_TABLE
