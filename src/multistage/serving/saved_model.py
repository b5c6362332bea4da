"""A Keras SavedModel, called by its serving signature."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


class SavedModel:
    """The serving signature of a SavedModel, with columns in and one array out.

    The variables are folded into the graph as constants when it is loaded: a call then passes the
    inputs and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        model = tf.saved_model.load(str(folder))
        signature = model.signatures["serving_default"]
        self._keep = model  # tables and variables live as long as their model
        self._frozen = convert_variables_to_constants_v2(signature)
        _, specs = signature.structured_input_signature
        by_tensor = {spec.name: name for name, spec in specs.items()}
        self._inputs = []
        for tensor in self._frozen.inputs:
            name = by_tensor[tensor.name.split(":")[0].removeprefix("serving_default_")]
            spec = specs[name]
            self._inputs.append((name, spec.dtype.as_numpy_dtype, len(spec.shape)))

    @property
    def inputs(self) -> dict[str, type]:
        """Names of the columns that the model reads, and their numpy types."""
        return {name: dtype for name, dtype, _ in self._inputs}

    @property
    def output_width(self) -> int:
        """The second dimension of the output."""
        return self._frozen.outputs[0].shape[1]

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the model's output, float32 of shape (rows, width).

        Args:
            columns: one array of shape (rows,) for each of :attr:`inputs`; others are ignored.
        """
        import tensorflow as tf

        tensors = [
            tf.constant(columns[name].reshape((-1,) + (1,) * (rank - 1)), dtype)
            for name, dtype, rank in self._inputs
        ]
        return self._frozen(*tensors)[0].numpy()
