"""Set up TensorFlow and Merlin for notebooks: no notices, the GPU, and shorter waiting times."""

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from multistage.device import set_up_device
from multistage.loopback import bypass_proxies

# Loggers of notices about which the user can do nothing.
_LOGGERS = ("absl", "tensorflow", "merlin", "distributed", "feast", "matplotlib.font_manager")


def quiet() -> None:
    """Keep third-party start-up noise out of a notebook's stored output.

    TensorFlow 2.12 and Merlin 23 greet each import with notices about CUDA libraries, optional
    packages and deprecated names. Call this before importing them. It also sets up the GPU, where
    there is one (:func:`multistage.device.set_up_device`), and keeps proxies away from the servers
    that a lab starts (:func:`multistage.loopback.bypass_proxies`).
    """
    set_up_device()
    bypass_proxies()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that a lab starts
    warnings.filterwarnings("ignore")
    for name in _LOGGERS:
        # a filter, not a level: TensorFlow sets its own level when it is imported in a notebook
        logging.getLogger(name).addFilter(_is_error)
    _compiled_protobuf()
    # TensorFlow and Merlin leave a million objects that stay. With Python's own thresholds (700,
    # 10, 10), looking through them again and again took 6 to 12 s of labs 2 and 4; so, 3 s.
    gc.set_threshold(10_000, 20, 10)


def _compiled_protobuf() -> None:
    """Import protobuf's compiled implementation before Merlin asks for the one in pure Python.

    Merlin does so in the environment, where every process started later finds it, the server and
    its models included. Features of 32 users then take 8 ms to read instead of 3.
    """
    os.environ.pop("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", None)
    import google.protobuf.internal.api_implementation  # noqa: F401


def _is_error(entry: logging.LogRecord) -> bool:
    return entry.levelno >= logging.ERROR


def lean_tensorflow() -> None:
    """Switch off two optimisations of TensorFlow that take longer than they save for small models.

    **AutoGraph, on Merlin's code.** It rewrites all Python that a traced function calls, in search
    of branches and loops over tensors. Merlin's models have none, and the rewriting takes longer
    than many a training in the labs: 6.4 s of 8 for the first small network. A layer of your own
    is still rewritten.

    **The tuning of input pipelines.** A thread watches each pipeline and sleeps 10 ms, then 20 ms,
    40 ms and so on. When training ends, TensorFlow 2.12 often fails to wake it and waits for it,
    doing nothing: 1.2 s after most trainings of 2 s, 4 s after some of 7 s.
    """
    _trace_merlin_as_written()
    _leave_pipelines_untuned()


def _trace_merlin_as_written() -> None:
    # TensorFlow's own list of modules to leave alone, Keras among them. It has no public name.
    from tensorflow.python.autograph.core import config

    merlin = config.DoNotConvert("merlin")
    if str(merlin) not in map(str, config.CONVERSION_RULES):
        config.CONVERSION_RULES = (merlin, *config.CONVERSION_RULES)


def _leave_pipelines_untuned() -> None:
    # Keras builds the pipelines of ``fit``, so their options are out of a caller's reach: they are
    # set where every training begins, when the pipeline is asked for its first batch.
    import tensorflow as tf

    iterate = tf.data.Dataset.__iter__
    if iterate.__module__ == __name__:  # called again
        return
    untuned = tf.data.Options()
    untuned.autotune.enabled = False

    def iterate_untuned(dataset: tf.data.Dataset) -> Iterator[Any]:
        return iterate(dataset.with_options(untuned))

    tf.data.Dataset.__iter__ = iterate_untuned


def create_weights(model: Any, features: dict[str, Any]) -> None:
    """Create the weights of a compiled model and of its optimizer from a batch, before ``fit``.

    Keras otherwise creates the optimizer's while it traces the training step, and TensorFlow traces
    a function that created variables a second time. That is a matter of seconds for each model, and
    a lab trains a dozen.

    Args:
        model: a Merlin model, compiled with one of Keras's ``legacy`` optimizers.
        features: its inputs by name, of which two rows are looked at. A model that is saved
            expects these names.
    """
    model({name: column[:2] for name, column in features.items()}, training=False)
    model.optimizer._create_all_weights(model.trainable_variables)  # there is no public way
