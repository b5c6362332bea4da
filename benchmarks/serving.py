"""Measure serving: Merlin's stock graph and ours, each on a real Triton, over gRPC on loopback.

Usage: ``python benchmarks/serving.py [--dataset store] [--profile laptop] [--requests 10000]``.
It needs what labs 4 and 5 made, prints a table, and writes ``build/bench/serving.json``.
``models_alone_p50_ms`` is the median time of query tower, search and ranker on 100 candidates,
called directly, without graph or server. ``python_loop_ms`` shows how fast the machine was during
the run. A virtual machine that answers one user after the other sleeps a thousand times per second,
and its host takes time to give the cores back: ``p50_awake_ms`` is the median while a process of
the lowest priority keeps the cores busy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from scipy import sparse

from courseware.authoring.read import definitions
from courseware.course import Course
from multistage.serving.feature_store import open_store
from multistage.serving.load import Load, run_load
from multistage.serving.triton import TritonServer
from multistage.tensorflow_setup import quiet
from multistage.workspace import Workspace

BATCH = 32
CLIENTS = 4
WARM_UP = 50
NOON = 1_583_064_000.0
LARGE = 100_000  # products


def main() -> None:
    """Run everything and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="store")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--root", default=None)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    quiet()
    workspace = Workspace.open(options.dataset, options.profile, root=options.root)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(workspace, Path(folder), options.requests)
    target = workspace.course / "build" / "bench" / "serving.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=1))
    for name, value in figures.items():
        print(f"{name:>24}  {value:,.2f}")


def measure(workspace: Workspace, folder: Path, requests: int) -> dict[str, float]:
    """Return the figures that the module's docstring promises."""
    from multistage.serving.operators import OrderByScore
    from multistage.serving.runtime import ServingRuntime
    from multistage.serving.stock import without_output

    lab = Course.read(workspace.course).find([5])[0]
    four_stages, stock_graph = definitions(lab, "four_stages", "stock_graph")
    names = ("query_tower", "index", "ranker", "user_features")
    exported = {name: workspace.read(f"export/{name}") for name in names}
    users = pd.read_parquet(exported["user_features"] / "user_features.parquet")
    all_users = users["user_id"].sample(frac=1, random_state=0).to_numpy()
    columns = [c for c in users if c not in ("user_id", "event_timestamp", "seen", "bought")]
    store = open_store(workspace.folder / "serving" / "feature_repository")
    with without_output():
        stock = stock_graph(store, exported, columns, workspace.profile.candidates)
    stock.export(str(folder / "stock"))
    with TritonServer(folder / "stock") as server:
        stock_p50 = float(np.median(ask_stock(server, all_users[:300])[WARM_UP:]) * 1_000)

    exports = workspace.read("serving/inputs")
    ours = workspace.read("serving/model_repository")
    single = list(all_users.reshape(-1, 1))
    batches = [np.resize(all_users[i:], BATCH) for i in range(0, len(all_users), BATCH)]
    large = grown(exports, folder / "large", LARGE)
    many = four_stages(large, workspace.profile.candidates, OrderByScore())
    many.export(str(folder / "many"), runtime=ServingRuntime())
    loop = [python_loop()]
    with TritonServer(ours) as server, TritonServer(folder / "many") as wide_server:
        ready = server.seconds_to_ready
        both = [server, wide_server]
        medians(both, single)
        alone, wide = medians(both, single)
        loop.append(python_loop())
        with awake():
            medians(both, single)
            alone_awake, wide_awake = medians(both, single)
        batched = run_load(server.grpc_url, batches, 300, time=NOON)
        before = resident_megabytes(server)
        load = run_load(server.grpc_url, single, requests, clients=CLIENTS, time=NOON)
        after = resident_megabytes(server)
    loop.append(python_loop())
    return {
        "stock_p50_ms": stock_p50,
        "p50_ms": alone,
        "p50_awake_ms": alone_awake,
        "p99_ms": load.percentile(99),
        "ratio": stock_p50 / alone,
        "batch": BATCH,
        "users_per_second": batched.users_per_second,
        "requests": len(load.latencies),
        "errors": len(load.errors) + len(batched.errors),
        "models_alone_p50_ms": models_alone(exports, workspace.profile.candidates),
        "p50_ms_at_100k_products": wide,
        "p50_awake_ms_at_100k_products": wide_awake,
        "clients": CLIENTS,
        "requests_per_second": rate(load),
        "ready_seconds": ready,
        "python_loop_ms": float(np.median(loop)),
        "memory_mb": after,
        "memory_growth_mb": after - before,
    }


def medians(servers: Sequence[TritonServer], users: Sequence[np.ndarray]) -> list[float]:
    """Return the median milliseconds of one user's request of each server.

    They are asked in turn, so that a slow minute of the machine affects all of them.
    """
    latencies: list[list[float]] = [[] for _ in servers]
    for begin in range(0, 2_000, 200):
        for server, seconds in zip(servers, latencies, strict=True):
            load = run_load(server.grpc_url, users[begin:], 200, time=NOON)
            if load.errors:
                raise RuntimeError(load.errors[0])
            seconds += load.latencies
    return [float(np.median(seconds) * 1_000) for seconds in latencies]


@contextmanager
def awake() -> Iterator[None]:
    """Keep every core busy with a process of the lowest priority."""
    idle = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", idle]) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def python_loop() -> float:
    """Return the milliseconds of a fixed loop in pure Python: how fast the machine is now.

    On a shared machine the same request takes 1.7 times as long in one minute as in another, and
    so does this loop. It does not sleep, so it may find the machine faster than a request does.
    """
    seconds = []
    for _ in range(1_000):
        begin, total = perf_counter(), 0
        for number in range(3_000):
            total += number * number
        seconds.append(perf_counter() - begin)
    return float(np.median(seconds) * 1_000)


def grown(exports: Path, folder: Path, products: int) -> Path:
    """Return a copy of the exports whose catalogue has ``products`` products.

    The new products are copies of the old ones: vectors moved a little, and the old EASE weights
    within each copy of the catalogue. The index is IVF with 256 lists of which 16 are searched.
    """
    import faiss

    shutil.copytree(exports, folder)
    rng = np.random.default_rng(0)
    items = pd.read_parquet(folder / "item_features" / "item_features.parquet")
    old = faiss.read_index(str(folder / "index" / "index.faiss"))
    ids = faiss.vector_to_array(old.id_map)
    flat = faiss.downcast_index(old.index)
    vectors = np.stack([flat.reconstruct(row) for row in range(len(ids))])
    rows = np.resize(np.arange(len(ids)), products)
    moved = vectors[rows] + rng.normal(scale=0.1 * vectors.std(), size=(products, vectors.shape[1]))
    moved = moved.astype("float32")
    new_ids = np.concatenate([ids, 1_000_000_000 + np.arange(products - len(ids))])

    index = faiss.index_factory(vectors.shape[1], "IVF256,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(moved[rng.permutation(products)[:20_000]])
    index.add_with_ids(moved, new_ids)
    index.nprobe = 16
    faiss.write_index(index, str(folder / "index" / "index.faiss"))
    items = items.set_index("product_id").loc[ids[rows]].reset_index(drop=True)
    items.assign(product_id=new_ids, available=True).to_parquet(
        folder / "item_features" / "item_features.parquet", index=False
    )
    pd.DataFrame({"product_id": new_ids, "purchases": np.arange(products)[::-1]}).to_parquet(
        folder / "popularity" / "popularity.parquet", index=False
    )
    pd.DataFrame({"product_id": new_ids, "embedding": list(moved)}).to_parquet(
        folder / "item_embeddings" / "item_embeddings.parquet", index=False
    )
    copies = sparse.identity(-(-products // len(ids)), dtype="float32", format="csr")
    for file in (folder / "ease").glob("*.npz"):
        weights = sparse.kron(copies, sparse.load_npz(file), format="csr")
        sparse.save_npz(file, weights[:products, :products], compressed=False)
    return folder


def ask_stock(server: TritonServer, users: np.ndarray) -> np.ndarray:
    """Return the seconds that each user's request took."""
    import tritonclient.grpc as grpc

    seconds = []
    with grpc.InferenceServerClient(server.grpc_url) as client:
        for user in users:
            values = {"user_id": user, "hour": 15, "weekday": 5}
            inputs = []
            begin = perf_counter()
            for name, value in values.items():
                tensor = grpc.InferInput(name, [1], "INT64")
                tensor.set_data_from_numpy(np.array([value], "int64"))
                inputs.append(tensor)
            client.infer("executor_model", inputs)
            seconds.append(perf_counter() - begin)
    return np.array(seconds)


def models_alone(exports: Path, candidates: int, repeats: int = 500) -> float:
    """Return the median milliseconds of query tower, search and ranker for one user.

    As in the graph, the search returns twice as many products as the ranker scores.
    """
    import faiss

    from multistage.serving.saved_model import SavedModel

    faiss.omp_set_num_threads(1)
    tower, ranker = SavedModel(exports / "query_tower"), SavedModel(exports / "ranker")
    index = faiss.read_index(str(exports / "index" / "index.faiss"))
    one = {name: np.full(1, 3).astype(dtype) for name, dtype in tower.inputs.items()}
    many = {name: np.full(candidates, 3).astype(dtype) for name, dtype in ranker.inputs.items()}
    seconds = []
    for _ in range(repeats):
        begin = perf_counter()
        index.search(tower(one), 2 * candidates)
        ranker(many)
        seconds.append(perf_counter() - begin)
    return float(np.median(seconds[WARM_UP:]) * 1_000)


def rate(load: Load) -> float:
    """Return the requests answered per second."""
    return len(load.latencies) / load.seconds


def resident_megabytes(server: TritonServer) -> float:
    """Return the resident memory of the server and of all processes below it."""

    def below(pid: int) -> list[int]:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for file in tasks for child in file.read_text().split()]
        return [pid, *chain.from_iterable(below(child) for child in children)]

    lines = chain.from_iterable(
        Path(f"/proc/{pid}/status").read_text().splitlines() for pid in below(server.pid)
    )
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1_024


if __name__ == "__main__":
    main()
