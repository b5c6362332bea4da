"""Run a Merlin graph so that every node is evaluated once, in process or on Triton.

``merlin.dag``'s executor evaluates a node again for every path that leads to it, and looks up
columns and formats again each time. ``OnceExecutor`` keeps what a node returned for as long as one
request lasts. ``ServingRuntime`` exports a graph to Triton's Python backend with a small model file
of our own instead of Merlin's, which would import every framework that Merlin supports before the
server is ready.
"""

import json
import shutil
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from merlin.dag import Graph, Node, postorder_iter_nodes
from merlin.dag.runtime import Runtime
from merlin.schema import Schema
from merlin.table import TensorTable

from multistage.serving.request import MODEL
from multistage.workspace import checksums

GRAPH = "graph.pkl"
CHECKSUMS = "checksums.json"


class Step(NamedTuple):
    """The result of one node in one request."""

    operator: str
    seconds: float
    table: TensorTable


class OnceExecutor:
    """Evaluates every node of a graph once per request, parents before their children.

    Which columns a node selects is looked up when the executor is made, because the graph does
    not change. Tables are not converted: every operator must take numpy columns.
    """

    def __init__(self, graph: Graph) -> None:
        """Prepare to run ``graph``, whose schemas are known."""
        self._nodes = list(postorder_iter_nodes(graph.output_node))
        self._parents = [node.parents_with_dependencies for node in self._nodes]
        self._selections = [node.input_columns.resolve(node.input_schema) for node in self._nodes]
        self.steps: list[Step] = []

    def transform(self, request: TensorTable) -> TensorTable:
        """Return the last node's table; what each node did is then in :attr:`steps`."""
        self.steps = []
        tables: dict[Node, TensorTable] = {}
        for node, parents, selection in zip(
            self._nodes, self._parents, self._selections, strict=True
        ):
            start = perf_counter()
            before = [tables[parent] for parent in parents]
            table = tables[node] = node.op.transform(selection, _join(node, before, request))
            self.steps.append(Step(type(node.op).__name__, perf_counter() - start, table))
        return table


def _join(node: Node, parents: list[TensorTable], request: TensorTable) -> TensorTable:
    """Return the node's input: its parents' columns; those missing there from the request."""
    first = parents[0] if parents else request
    if len(parents) <= 1 and len(first) >= len(node.input_schema):
        return first
    columns: dict[str, Any] = {}
    for table in (request, *parents):
        columns.update(table.items())
    return TensorTable({name: columns[name] for name in node.input_schema.column_names})


class ServingRuntime(Runtime):
    """Runs a graph, and exports it: ``ensemble.export(folder, runtime=ServingRuntime())``."""

    def __init__(self) -> None:
        super().__init__()
        self._graph: Graph | None = None

    def transform(self, graph: Graph, transformable: TensorTable) -> TensorTable:
        """Run one request; what each node did is then in :attr:`steps`."""
        if graph is not self._graph:
            self._graph, self.executor = graph, OnceExecutor(graph)
        return self.executor.transform(transformable)

    @property
    def steps(self) -> list[Step]:
        """What each node did in the last request, in the order in which they ran."""
        return self.executor.steps

    def export(self, ensemble: Any, path: str) -> None:
        """Write a Triton model repository with one model, ``recommender``.

        Args:
            ensemble: a ``merlin.systems.dag.Ensemble`` of operators that run in Python.
            path: an empty or missing folder. Everything that the model needs is copied into it.
        """
        import cloudpickle

        model = Path(path) / MODEL
        version = model / "1"
        version.mkdir(parents=True)
        graph = ensemble.graph
        for node in postorder_iter_nodes(graph.output_node, flatten_subgraphs=True):
            node.op.save_artifacts(str(version))
        (version / GRAPH).write_bytes(cloudpickle.dumps(graph))
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), version / "model.py")
        (model / "config.pbtxt").write_text(_config(graph.input_schema, graph.output_schema))
        write_checksums(version)


def load_graph(folder: Path) -> Graph:
    """Load an exported graph, after checking that no file differs from what was exported.

    Args:
        folder: the version folder of the model, ``<repository>/recommender/1``.

    Raises:
        ValueError: if a file was changed, added or removed; nothing is unpickled then.
    """
    import pickle

    verify_checksums(folder)
    with (folder / GRAPH).open("rb") as stream:
        graph = pickle.load(stream)  # written by this machine's export, as the checksums say
    for node in postorder_iter_nodes(graph.output_node, flatten_subgraphs=True):
        node.op.load_artifacts(str(folder))
    return graph


def write_checksums(folder: Path) -> None:
    """Write the sha256 of every file in ``folder`` into it."""
    sums = checksums(folder, besides=CHECKSUMS)
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1, sort_keys=True))


def verify_checksums(folder: Path) -> None:
    """Raise ``ValueError``, naming the file, unless ``folder`` is what was exported."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{CHECKSUMS} cannot be read: export the graph again.") from error
    found = checksums(folder, besides=CHECKSUMS)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(f"{name} is not as it was exported: export the graph again.")


# Requests may leave these out: the model file fills them in.
OPTIONAL = ("time", "k")
MOST_TOGETHER = 32  # requests in one run of the graph


def _config(inputs: Schema, outputs: Schema) -> str:
    import tritonclient.grpc.model_config_pb2 as model_config
    from google.protobuf import text_format
    from merlin.systems.triton.export import _convert_dtype

    config = model_config.ModelConfig(name=MODEL, backend="python", max_batch_size=MOST_TOGETHER)
    config.dynamic_batching.SetInParent()  # answer waiting requests together, at once
    config.instance_group.add(kind=model_config.ModelInstanceGroup.KIND_CPU, count=1)
    for column in inputs:
        config.input.add(
            name=column.name,
            data_type=_convert_dtype(column.dtype),
            dims=[-1],
            allow_ragged_batch=True,  # requests may have different numbers of users
            optional=column.name in OPTIONAL,
        )
    for column in outputs:
        dims = [-1] * len(column.shape.dims) if column.shape.dims else [-1]
        config.output.add(name=column.name, data_type=_convert_dtype(column.dtype), dims=dims)
    return text_format.MessageToString(config)
