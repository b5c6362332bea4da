"""A Keras SavedModel, called by its serving signature."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

# A matrix product adds up in another order where rows are left over after its last full block of
# 8 or 16, three at a time. Without a rest a row's result does not depend on the rows beside it.
BLOCK = 48


class SavedModel:
    """The serving signature of a SavedModel, with columns in and one array out.

    A call is short, so it pays to do little around it. The variables are folded into the graph as
    constants; a session takes numpy arrays as they are, without a tensor for each; and every
    operation runs in the thread that calls, since waking another one takes longer than most of
    them.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf.config_pb2 import CallableOptions
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        model = tf.saved_model.load(str(folder))
        signature = model.signatures["serving_default"]
        frozen = convert_variables_to_constants_v2(signature)
        _, specs = signature.structured_input_signature
        by_tensor = {spec.name: name for name, spec in specs.items()}
        self._inputs = []
        for tensor in frozen.inputs:
            name = by_tensor[tensor.name.split(":")[0].removeprefix("serving_default_")]
            spec = specs[name]
            self._inputs.append((name, spec.dtype.as_numpy_dtype, len(spec.shape)))
        self.output_width: int = frozen.outputs[0].shape[1]

        # Below 0: in the caller's thread
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        session = tf.compat.v1.Session(graph=frozen.graph, config=config)
        # Private, and what Keras' own backend calls: the public one sorts out its feeds every time.
        self._call = session._make_callable_from_options(
            CallableOptions(
                feed=[tensor.name for tensor in frozen.inputs], fetch=[frozen.outputs[0].name]
            )
        )

    @property
    def inputs(self) -> dict[str, type]:
        """Names of the columns that the model reads, and their numpy types."""
        return {name: dtype for name, dtype, _ in self._inputs}

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the model's output, float32 of shape (rows, width).

        Args:
            columns: one array of shape (rows,) for each of :attr:`inputs`; others are ignored.
        """
        rows = len(columns[self._inputs[0][0]])
        padded = -(-rows // BLOCK) * BLOCK
        arrays = []
        for name, dtype, rank in self._inputs:
            array = np.zeros(padded, dtype)
            array[:rows] = columns[name]
            arrays.append(array.reshape((-1,) + (1,) * (rank - 1)))
        return self._call(*arrays)[0][:rows]
