"""A Keras SavedModel, called by its serving signature."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# A matrix product adds up in another order in an incomplete last block of 8 or 16 rows. With
# complete blocks only, a row's result does not depend on the other rows.
BLOCK = 16


class SavedModel:
    """The serving signature of a SavedModel, with columns in and one array out.

    TensorFlow's own runtime is made for large batches: in a call for one user it needs more time to
    schedule operations than to run them. So the signature is converted, when it is loaded, for
    TensorFlow Lite, which runs the operations in sequence in the calling thread. All columns of a
    type are fed as one array. Not thread-safe.

    Attributes:
        inputs: names of the columns that the model reads, and their numpy types.
        output_width: how many numbers it returns per row.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        model = tf.saved_model.load(str(folder))
        signature = model.signatures["serving_default"]
        _, specs = signature.structured_input_signature
        names: dict[type, list[str]] = {}  # by type, in the order of the arrays that are fed
        for name, spec in specs.items():
            names.setdefault(spec.dtype.as_numpy_dtype, []).append(name)

        def of_stacks(*stacks: tf.Tensor) -> dict[str, tf.Tensor]:
            columns = {}
            for group, stack in zip(names.values(), stacks, strict=True):
                for place, name in enumerate(group):
                    shape = [-1] + [1] * (specs[name].shape.rank - 1)
                    columns[name] = tf.reshape(stack[place], shape)
            return signature(**columns)

        stacks = [tf.TensorSpec((len(group), None), dtype) for dtype, group in names.items()]
        traced = tf.function(of_stacks, autograph=False).get_concrete_function(*stacks)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], model)
        # Operations that are missing in TensorFlow Lite, such as hashing, run in TensorFlow.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]
        self._lite = tf.lite.Interpreter(
            model_content=converter.convert(),
            num_threads=1,
            # The default delegate logs a message at each start, and is not faster.
            experimental_op_resolver_type=(
                tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
        self._stacks = [
            (place["index"], place["dtype"], names[place["dtype"]])
            for place in self._lite.get_input_details()
        ]
        self.inputs = {name: dtype for _, dtype, group in self._stacks for name in group}
        (output,) = self._lite.get_output_details()
        self._output, self.output_width = output["index"], int(output["shape"][-1])
        self._rows = -1  # for which memory is allocated

    def __call__(
        self, columns: Mapping[str, np.ndarray], shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return the model's output, float32 of shape (*shape, width).

        Args:
            columns: for each of ``inputs`` an array of ``shape``, or one that numpy broadcasts
                to it; others are ignored.
            shape: of the rows, such as (users, candidates); by default the first input's.
        """
        shape = shape or columns[next(iter(self.inputs))].shape
        rows = math.prod(shape)
        self._allocate(max(1, -(-rows // BLOCK)) * BLOCK)
        for index, dtype, names in self._stacks:
            stack = np.zeros((len(names), self._rows), dtype)
            places = stack[:, :rows].reshape(len(names), *shape)
            for place, name in zip(places, names, strict=True):
                place[...] = columns[name]
            self._lite.set_tensor(index, stack)
        self._lite.invoke()
        return self._lite.get_tensor(self._output)[:rows].reshape(*shape, self.output_width)

    def _allocate(self, rows: int) -> None:
        if rows != self._rows:
            for index, _, names in self._stacks:
                self._lite.resize_tensor_input(index, (len(names), rows))
            self._lite.allocate_tensors()
            self._rows = rows
