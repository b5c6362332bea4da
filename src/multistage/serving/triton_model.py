"""The Triton side of an exported graph: copied into the model repository as ``model.py``.

A request that cannot be answered gets an error of its own; the next one is served.
"""

import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils  # exists inside of Triton only

from multistage.notebook import quiet


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph from this folder, and answer one request to warm up."""
        quiet()
        _one_thread()
        folder = Path(args["model_repository"])
        if folder.is_file():  # some releases pass the path of this file
            folder = folder.parent.parent
        from multistage.serving.graph import Recommender

        self._recommender = Recommender.load(folder / args["model_version"])
        for users in (1, 2, 32):
            self._recommender.run(np.arange(users), np.array([0.0]), np.array([1], "int32"))

    def execute(self, requests: list) -> list:
        """Answer each request, or say what is wrong with it."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        from multistage.serving.request import RequestError

        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        when = inputs.get("time", np.array([time.time()]))
        k = inputs.get("k", np.array([self._recommender.default_k], "int32"))
        try:
            answer = self._recommender.run(inputs["user_id"], when, k)
        except RequestError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        except Exception:
            text = traceback.format_exc()
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, column) for name, column in answer.items()]
        )


def _one_thread() -> None:
    """A request is too short to be worth dividing, and the cores have other requests to serve."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
