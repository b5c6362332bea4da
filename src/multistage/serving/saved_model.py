"""A Keras SavedModel, called by its serving signature."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# A matrix product adds up in another order where rows are left over after its last full block of
# 8 or 16. Without a rest a row's result does not depend on the rows beside it.
BLOCK = 16


class SavedModel:
    """The serving signature of a SavedModel, with columns in and one array out.

    TensorFlow's own runtime is made for large batches: of a call for one user it spends more time
    on looking which operation is ready than on operations. So the signature is converted, when it
    is loaded, for TensorFlow Lite, which runs them one after the other in the thread that calls.
    All columns of a type are fed as one array. Not for several threads at once.

    Attributes:
        inputs: names of the columns that the model reads, and their numpy types.
        output_width: how many numbers it answers a row.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        model = tf.saved_model.load(str(folder))
        signature = model.signatures["serving_default"]
        _, specs = signature.structured_input_signature
        names: dict[type, list[str]] = {}  # by type, as they lie in the arrays that are fed
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
        # What TensorFlow Lite lacks, such as hashing, TensorFlow does.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]
        self._lite = tf.lite.Interpreter(
            model_content=converter.convert(),
            num_threads=1,
            # The default one tells everybody that it is there, and does no better.
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
        self._rows = -1  # that it is ready for

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
        self._make_ready(max(1, -(-rows // BLOCK)) * BLOCK)
        for index, dtype, names in self._stacks:
            stack = np.zeros((len(names), self._rows), dtype)
            places = stack[:, :rows].reshape(len(names), *shape)
            for place, name in zip(places, names, strict=True):
                place[...] = columns[name]
            self._lite.set_tensor(index, stack)
        self._lite.invoke()
        return self._lite.get_tensor(self._output)[:rows].reshape(*shape, self.output_width)

    def _make_ready(self, rows: int) -> None:
        if rows != self._rows:
            for index, _, names in self._stacks:
                self._lite.resize_tensor_input(index, (len(names), rows))
            self._lite.allocate_tensors()
            self._rows = rows
