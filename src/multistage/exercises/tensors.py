"""What exercises need whose answers run inside TensorFlow."""

from collections.abc import Callable
from typing import Any


class _TensorFlow:
    """TensorFlow, imported at its first use: listing the exercises does not wait for it."""

    def __getattr__(self, name: str) -> Any:
        import tensorflow

        return getattr(tensorflow, name)


tf = _TensorFlow()


def any_batch(tensor: Any) -> Any:
    """Return ``tensor``, whose first axis has an unknown size where it is traced, as in ``fit``."""
    return tf.compat.v1.placeholder_with_default(tensor, [None, *tensor.shape[1:]])


def call_with_vectors(answer: Callable[..., Any], vectors: Any) -> Any:
    """Return ``answer(vectors)``, traced for batches of any size where it is traced."""
    return answer(any_batch(vectors))
