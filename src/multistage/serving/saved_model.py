"""A Keras SavedModel, called by its serving signature."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# A matrix product adds up in another order where rows are left over after its last full block of
# 8 or 16, three at a time. Without a rest a row's result does not depend on the rows beside it.
BLOCK = 48


class SavedModel:
    """The serving signature of a SavedModel, with columns in and one array out.

    A call is short, so it pays to do little around it. The variables are folded into the graph as
    constants; a session takes numpy arrays as they are, all columns of a type as one; and every
    operation runs in the thread that calls, in an order fixed before, since waking another one or
    looking which operation is ready takes longer than most of them.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf.config_pb2 import CallableOptions
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        model = tf.saved_model.load(str(folder))
        signature = model.signatures["serving_default"]
        _, specs = signature.structured_input_signature
        self._names: dict[Any, list[str]] = {}  # by type, as they lie in the arrays that are fed
        for name, spec in specs.items():
            self._names.setdefault(spec.dtype.as_numpy_dtype, []).append(name)

        def of_stacks(*stacks: tf.Tensor) -> dict[str, tf.Tensor]:
            columns = {}
            for names, stack in zip(self._names.values(), stacks, strict=True):
                for name, column in zip(names, tf.unstack(stack), strict=True):
                    columns[name] = tf.reshape(column, [-1] + [1] * (specs[name].shape.rank - 1))
            return signature(**columns)

        stacks = [tf.TensorSpec((len(n), None), dtype) for dtype, n in self._names.items()]
        frozen = convert_variables_to_constants_v2(
            tf.function(of_stacks, autograph=False).get_concrete_function(*stacks)
        )
        self.output_width: int = frozen.outputs[0].shape[1]

        # Below 0: in the caller's thread
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        config.experimental.executor_type = "SINGLE_THREADED_EXECUTOR"
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
        return {name: dtype for dtype, names in self._names.items() for name in names}

    def __call__(
        self, columns: Mapping[str, np.ndarray], shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return the model's output, float32 of shape (*shape, width).

        Args:
            columns: for each of :attr:`inputs` an array of ``shape``, or one that numpy broadcasts
                to it; others are ignored.
            shape: of the rows, such as (users, candidates); by default the first input's.
        """
        shape = shape or columns[next(iter(self.inputs))].shape
        rows = math.prod(shape)
        stacks = []
        for dtype, names in self._names.items():
            stack = np.zeros((len(names), -(-rows // BLOCK) * BLOCK), dtype)
            places = stack[:, :rows].reshape(len(names), *shape)
            for place, name in zip(places, names, strict=True):
                place[...] = columns[name]
            stacks.append(stack)
        return self._call(*stacks)[0][:rows].reshape(*shape, self.output_width)
