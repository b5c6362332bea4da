"""The same work on a GPU and on the processor beside it: an index, trees, and labs 2 and 4.

``python benchmarks/gpu.py``, on a machine whose GPU TensorFlow sees, prints what the machine is,
runs each part on both, and writes ``build/bench/gpu.json``. Labs 2 and 4 are run cell by cell as
``benchmarks/quality.py`` runs them; for the run on the processor the GPU is hidden from CUDA. On a
new card the first run also compiles TensorFlow's kernels, if its wheel has none for that card. CUDA
keeps them, so a second run shows the time of the training alone.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
from quality import LABS, PARTS, ROOT, print_table, run_cells

from multistage.device import require_gpu
from multistage.errors import CourseError

HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}  # what a process without a GPU sees
PRODUCTS, QUESTIONS, DIM, NEIGHBOURS = 1_000_000, 2_000, 64, 100
TREES = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.3, "tree_method": "hist"}
ROUNDS = 100
PACKAGES = ("tensorflow", "xgboost", "faiss-gpu-cu11", "merlin-models", "nvtabular")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="store")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--parts", nargs="*", choices=["index", "trees", *LABS])
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": describe()}
    print(json.dumps(found["machine"], indent=1), flush=True)
    for part in options.parts or ["index", *LABS, "trees"]:
        print(f"{part} …", flush=True)
        if part == "index":
            found[part] = search()
            print_table(found[part])
        elif part == "trees":
            found[part] = boost(options.dataset, options.profile)
            print_table(found[part])
        else:
            found[part] = {
                device: PARTS[part](run_cells(part, options.dataset, options.profile, environment))
                for device, environment in {"gpu": {}, "cpu": HIDDEN}.items()
            }
            for device, table in found[part].items():
                print(f"on the {device}")
                print_table(table)
    target = ROOT / "build" / "bench" / "gpu.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1))
    print(f"written: {target.relative_to(ROOT)}")


def describe() -> dict[str, Any]:
    """Return the names and versions of what the figures depend on.

    Raises:
        CourseError: if TensorFlow sees no GPU.
    """
    gpus = require_gpu()
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"],
        check=True,
        capture_output=True,
        text=True,
    )
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "gpus": gpus,
        "driver, memory": driver.stdout.split("\n")[0],
        "cores": os.cpu_count(),
        **versions,
    }


def search() -> dict[str, dict[str, float]]:
    """Search a million simulated products exactly: seconds, and the share of the same answers."""
    import faiss

    rng = np.random.default_rng(0)
    products = rng.normal(size=(PRODUCTS, DIM)).astype("float32")
    questions = rng.normal(size=(QUESTIONS, DIM)).astype("float32")
    on_cpu = faiss.IndexFlatIP(DIM)
    on_cpu.add(products)
    on_gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, on_cpu)
    (_, exact), cpu_seconds = _timed(lambda: on_cpu.search(questions, NEIGHBOURS))
    (_, found), gpu_seconds = _timed(lambda: on_gpu.search(questions, NEIGHBOURS))
    same = np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)])
    return {
        "gpu": {"seconds": gpu_seconds, "same_answers": float(same)},
        "cpu": {"seconds": cpu_seconds, "same_answers": 1.0},
    }


def boost(dataset: str, profile: str) -> dict[str, dict[str, float]]:
    """Train XGBoost on lab 2's table: seconds, and the AUC on the test month."""
    import pandas as pd
    import xgboost
    from sklearn.metrics import roc_auc_score

    from multistage.workspace import Workspace

    tables = Workspace.open(dataset, profile).read("features/tables")
    train, test = (
        pd.concat(map(pd.read_parquet, sorted((tables / name).glob("*.parquet"))))
        for name in ("train", "test")
    )
    inputs = train.columns.drop("target")
    results = {}
    for name, device in {"gpu": "cuda", "cpu": "cpu"}.items():

        def learn(device: str = device) -> xgboost.Booster:
            rows = xgboost.QuantileDMatrix(train[inputs], train["target"])
            return xgboost.train({**TREES, "device": device, "seed": 0}, rows, ROUNDS)

        trees, seconds = _timed(learn)
        scores = trees.predict(xgboost.DMatrix(test[inputs]))
        auc = roc_auc_score(test["target"], scores)
        results[name] = {"rows": len(train), "seconds": seconds, "auc": float(auc)}
    return results


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Do it once to warm up, and once by the clock."""
    work()
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    try:
        main()
    except CourseError as error:
        raise SystemExit(str(error)) from None
