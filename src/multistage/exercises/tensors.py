"""What exercises need whose answers run inside TensorFlow."""

from collections.abc import Callable
from typing import Any


def any_batch(tensor: Any) -> Any:
    """Return ``tensor``, whose first axis has an unknown size where it is traced, as in ``fit``."""
    import tensorflow as tf

    return tf.compat.v1.placeholder_with_default(tensor, [None, *tensor.shape[1:]])


def call_with_vectors(answer: Callable[..., Any], vectors: Any) -> Any:
    """Return ``answer(vectors)``, traced for batches of any size where it is traced."""
    return answer(any_batch(vectors))
