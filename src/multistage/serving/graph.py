"""What answers requests with a four-stage graph, such as lab 5 builds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from merlin.dag import Graph
from merlin.schema import ColumnSchema, Schema
from merlin.table import NumpyColumn, TensorTable

from multistage.serving.operators import NO_PRODUCT
from multistage.serving.request import Request, check_request
from multistage.serving.runtime import ServingRuntime, load_graph

REQUEST_SCHEMA = Schema(
    [
        ColumnSchema("user_id", dtype="int64"),
        ColumnSchema("time", dtype="float64"),
        ColumnSchema("k", dtype="int32"),
    ]
)
AT_ONCE = 1_000  # users
REPLY = ("user_id", "ordered_ids", "ordered_scores", "fallback_status")


class Recommender:
    """Answers requests with a graph, in process; Triton's model runs this very class."""

    def __init__(self, graph: Graph, default_k: int = 10) -> None:
        """Answer with ``graph``, and with ``default_k`` products where a request names no k."""
        self.graph, self.default_k = graph, default_k
        self._most = _width(graph)
        self.runtime = ServingRuntime()

    @classmethod
    def load(cls, folder: Path) -> "Recommender":
        """Load an exported graph from a version folder of a model repository."""
        return cls(load_graph(folder))

    def run(self, user_id: np.ndarray, time: np.ndarray, k: np.ndarray) -> dict[str, np.ndarray]:
        """Return the reply's columns; see :func:`multistage.serving.request.check_request`."""
        return self.run_together([self.check(user_id, time, k)])[0]

    def check(self, user_id: np.ndarray, time: np.ndarray, k: np.ndarray) -> Request:
        """Return a request as :meth:`run_together` takes it, or raise ``RequestError``."""
        return check_request(user_id, time, k, self._most)

    def run_together(self, requests: Sequence[Request]) -> list[dict[str, np.ndarray]]:
        """Return the reply's columns of each of several checked requests.

        The graph runs once for all users, since many take little longer than one; no user's answer
        depends on the other users. More than a thousand users are answered in parts, to limit
        memory. The runtime's steps are then those of the last part.
        """
        together = [np.concatenate(columns) for columns in zip(*requests, strict=True)]
        parts = []
        for begin in range(0, len(together[0]), AT_ONCE):
            columns = [NumpyColumn(column[begin : begin + AT_ONCE]) for column in together]
            table = TensorTable(dict(zip(REQUEST_SCHEMA.column_names, columns, strict=True)))
            parts.append(self.runtime.transform(self.graph, table))
        width = int(together[2].max())
        reply = {
            name: np.concatenate([_widened(part[name].values, width) for part in parts])
            for name in REPLY
        }
        ends = np.cumsum([len(user_id) for user_id, _, _ in requests])
        return [
            {name: _narrowed(column[end - len(k) : end], k) for name, column in reply.items()}
            for end, (_, _, k) in zip(ends, requests, strict=True)
        ]


def _narrowed(column: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return a column as wide as its own request: others may ask for more products."""
    return column if column.ndim == 1 else column[:, : k.max()]


def _widened(column: np.ndarray, width: int) -> np.ndarray:
    """Return a column as wide as the whole request's: a part's users may ask for fewer products."""
    if column.ndim == 1 or column.shape[1] == width:
        return column
    nothing = np.nan if column.dtype.kind == "f" else NO_PRODUCT
    return np.pad(column, ((0, 0), (0, width - column.shape[1])), constant_values=nothing)


def _width(graph: Graph) -> int:
    """Return how many candidates per user the last stage orders."""
    node: Any = graph.output_node
    while "candidate_scores" not in node.output_schema.column_names or node.op is None:
        node = node.parents[0]
    return node.output_schema["candidate_scores"].shape.as_tuple[1]
