"""A small model that real servers serve, in seconds: here the surroundings are the point."""

from pathlib import Path

import pytest

from multistage.workspace import Workspace
from tests.small_course import write_map

CONFIG = """
name: "recommender"
backend: "python"
input [
  { name: "user_id" data_type: TYPE_INT64 dims: [ 1, -1 ] },
  { name: "time" data_type: TYPE_FP64 dims: [ 1, -1 ] optional: true },
  { name: "k" data_type: TYPE_INT32 dims: [ 1, -1 ] optional: true }
]
output [
  { name: "user_id" data_type: TYPE_INT64 dims: [ 1, -1 ] },
  { name: "ordered_ids" data_type: TYPE_INT64 dims: [ 1, -1, -1 ] },
  { name: "ordered_scores" data_type: TYPE_FP32 dims: [ 1, -1, -1 ] },
  { name: "fallback_status" data_type: TYPE_INT8 dims: [ 1, -1 ] }
]
"""
MODEL = '''
import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """Offers the same 40 products to everybody, in tensors as large as those of the real graph."""

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        users = triton.get_input_tensor_by_name(request, "user_id").as_numpy()
        products = np.arange(40) + np.zeros((1, users.size, 1), "int64")
        columns = {
            "user_id": users,
            "ordered_ids": products,
            "ordered_scores": -products.astype("float32"),
            "fallback_status": np.zeros(users.shape, "int8"),
        }
        return triton.InferenceResponse([triton.Tensor(*column) for column in columns.items()])
'''


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Workspace:
    """A course with one lab, and with an export that ``lab serve`` serves."""
    root = tmp_path_factory.mktemp("course")
    write_map(root, **{"01-one": {}})
    (root / "labs_solutions" / "01-one.py").write_text("# %% [markdown]\n# # One\n\n# %%\n1 + 1\n")
    workspace = Workspace.open("store", "ci", root)
    with workspace.write("serving/model_repository", producer="05-deployment") as folder:
        (folder / "recommender" / "1").mkdir(parents=True)
        (folder / "recommender" / "config.pbtxt").write_text(CONFIG)
        (folder / "recommender" / "1" / "model.py").write_text(MODEL)
    return workspace


@pytest.fixture(scope="session")
def models(served) -> Path:
    """The model repository of that export."""
    return served.read("serving/model_repository")
