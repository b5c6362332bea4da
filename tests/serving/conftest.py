"""One stand-in shop, one graph and one server for all tests of serving."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multistage.tensorflow_setup import quiet
from multistage.workspace import Workspace
from tests.small_course import write_map

sys.path.insert(0, str(Path(__file__).parent))

from lab_5 import create_repository, four_stages

USERS, PRODUCTS, CANDIDATES = 1_000, 300, 40
NOON = 1_583_064_000.0  # 2020-03-01 12:00 UTC, a Sunday


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    """A workspace with everything that section 4 exports, on toy data."""
    quiet()
    from standin import write_exports

    root = tmp_path_factory.mktemp("course")
    write_map(root)
    workspace = Workspace.open("store", "ci", root=root)
    write_exports(workspace, users=USERS, products=PRODUCTS)
    return workspace


@pytest.fixture(scope="session")
def user_features(workspace) -> pd.DataFrame:
    return pd.read_parquet(workspace.read("export/user_features") / "user_features.parquet")


@pytest.fixture(scope="session")
def repository(user_features, tmp_path_factory) -> Path:
    """A filled Feast repository; tests that push use one of their own."""
    folder = tmp_path_factory.mktemp("feast") / "repository"
    create_repository(folder, user_features)
    return folder


@pytest.fixture(scope="session")
def exports(workspace, repository) -> Path:
    from multistage.serving.exports import gather_exports

    return gather_exports(workspace, repository)


@pytest.fixture(scope="session")
def graph(exports):
    return four_stages(exports, CANDIDATES)


@pytest.fixture(scope="session")
def model_repository(graph, tmp_path_factory) -> Path:
    """The exported graph."""
    from multistage.serving.runtime import ServingRuntime

    folder = tmp_path_factory.mktemp("exported") / "repository"
    graph.export(folder, runtime=ServingRuntime())
    return folder


@pytest.fixture(scope="session")
def recommender(graph):
    from multistage.serving.graph import Recommender

    return Recommender(graph.graph)


@pytest.fixture(scope="session")
def ask(recommender):
    """Ask the graph in this process: ``ask(users, k=10, time=NOON)``."""

    def asked(users, k=10, time=NOON):
        return recommender.run(
            np.asarray(users, "int64"), np.atleast_1d(time), np.atleast_1d(np.int32(k))
        )

    return asked


@pytest.fixture(scope="session")
def server(model_repository):
    """A running server; stopped at the end."""
    from multistage.serving.triton import TritonServer

    with TritonServer(model_repository) as server:
        yield server
