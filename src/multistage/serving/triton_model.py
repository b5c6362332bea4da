"""The Triton side of an exported graph: copied into the model repository as ``model.py``.

Triton passes all requests that arrived while the last ones were answered, each a row of users. A
request that cannot be answered gets an error of its own; the others and the next ones are served.
"""

import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils  # exists inside of Triton only

from multistage.serving.request import RequestError
from multistage.tensorflow_setup import quiet


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph from this folder, and answer one request to warm up."""
        quiet()
        folder = Path(args["model_repository"])
        if folder.is_file():  # some releases pass the path of this file
            folder = folder.parent.parent
        from multistage.serving.graph import Recommender

        self._recommender = Recommender.load(folder / args["model_version"])
        for users in (1, 2, 32):
            self._recommender.run(np.arange(users), np.array([0.0]), np.array([1], "int32"))

    def execute(self, requests: list) -> list:
        """Answer the requests that were waiting, together, or say what is wrong with one."""
        responses, questions = {}, {}
        for place, request in enumerate(requests):
            try:
                questions[place] = self._recommender.check(*self._columns(request))
            except RequestError as error:
                responses[place] = _error(str(error))
        responses.update(zip(questions, self._answer(list(questions.values())), strict=True))
        return [responses[place] for place in range(len(requests))]

    def _columns(self, request: "pb_utils.InferenceRequest") -> tuple[np.ndarray, ...]:
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if "user_id" not in inputs:
            raise RequestError("input user_id is missing: name at least one user.")
        if len(inputs["user_id"]) != 1:
            shape = inputs["user_id"].shape
            raise RequestError(f"user_id has the shape {shape}: send users as one row.")
        when = inputs.get("time", np.array([time.time()]))
        k = inputs.get("k", np.array([self._recommender.default_k], "int32"))
        return inputs["user_id"], when, k

    def _answer(self, questions: list) -> list:
        if not questions:
            return []
        try:
            answers = self._recommender.run_together(questions)
        except Exception:
            if len(questions) == 1:
                return [_error(traceback.format_exc())]
            return [self._answer([question])[0] for question in questions]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, column[None]) for name, column in answer.items()]
            )
            for answer in answers
        ]


def _error(text: str) -> "pb_utils.InferenceResponse":
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))
