"""How much more workers speed up preparation, NVTabular and XGBoost on Dask.

``python benchmarks/scaling.py`` runs each at two sizes, on one and two local worker processes and
on two workers of a separately started scheduler (``dask scheduler``, ``dask worker``), all of one
thread. It prints a table and writes ``build/bench/scaling.json``: wall-clock seconds; seconds of
processor time (all workers and the client; other processes on the machine lengthen the first more
than the second); how far the peak memory of the largest worker is above its memory before; and the
bytes sent over the loopback device (other processes included).

It ends with a check of the formula for time in docs/scaling.md: ``a`` and ``b`` of
``a + b * size / workers`` are fitted to what one worker took, and two are predicted. Two workers
can only be that fast if they had two cores, so the number of cores that they had is printed too.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from preparation import ROOT, simulate

CLUSTERS = {"local, 1 worker": 1, "local, 2 workers": 2, "external, 2 workers": 2}
IDS = ["user_id", "product_id"]
TEXT = ["brand", "cat_0", "cat_1", "cat_2"]
FILES = 8  # of a table
WARM_UP = 10_000  # rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=float, nargs="+", default=[5e6, 10e6], help="to prepare")
    parser.add_argument(
        "--rows", type=float, nargs="+", default=[5e5, 2e6], help="for NVTabular and XGBoost"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="merlin")
    logs = [simulate(int(events)) for events in options.events]
    points = []
    with tempfile.TemporaryDirectory() as aside:
        sizes = [WARM_UP, *map(int, options.rows)]
        small, *tables = write_tables(logs[0], sizes, Path(aside))
        jobs = [(prepare, folder) for folder in logs]
        jobs += [(job, table) for table in tables for job in (nvtabular, xgboost)]
        for name, workers in CLUSTERS.items():
            with cluster(name, workers, Path(aside)) as client:
                for job in (nvtabular, xgboost):  # not measured: they load their libraries
                    job(small, client)
                for job, source in jobs:
                    point = {"cluster": name, "workers": workers, **measure(job, source, client)}
                    points.append(point)
                    print(
                        "{cluster:20} {what:10} {size:>11,} {seconds:7.1f} s ({cpu_seconds:.1f} s "
                        "of processor time)  {rest_mib:.0f} + {more_mib:.0f} MiB  {sent_mib:.1f} "
                        "MiB sent".format(**point),
                        flush=True,
                    )
    formulas = [check_formula(points, job.__name__) for job in (prepare, nvtabular, xgboost)]
    output = ROOT / "build" / "bench" / "scaling.json"
    output.write_text(json.dumps({"points": points, "formulas": formulas}, indent=1))
    for formula in formulas:
        print("{what}: {a:.2f} s + {b_per_million:.2f} s per million / workers".format(**formula))
        for line in formula["predictions"]:
            print(
                "  {cluster:20} {size:>11,} predicted {predicted:.1f} s, measured {measured:.1f} s "
                "on {cores:.1f} cores".format(**line)
            )


@contextmanager
def cluster(name: str, workers: int, folder: Path) -> Iterator[Client]:
    """Start workers of one thread, here or as separate processes, and stop them."""
    if name.startswith("local"):
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.ERROR,
            ) as local,
            Client(local) as client,
        ):
            yield client
        return
    address = folder / "scheduler.json"
    options = ["--scheduler-file", str(address), "--no-dashboard", "--host", "127.0.0.1"]
    commands = [["scheduler", "--port", "0"], *[["worker", "--nthreads", "1"]] * workers]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        for command in commands
    ]
    try:
        until = time.monotonic() + 60
        while not address.exists() and time.monotonic() < until:
            time.sleep(0.2)
        with Client(scheduler_file=str(address), timeout="60s") as client:
            client.wait_for_workers(workers, timeout=60)
            yield client
    finally:
        for process in reversed(started):  # workers first
            process.terminate()
            process.wait(20)


def measure(job: Callable[[Path, Client], int], source: Path, client: Client) -> dict:
    """Run a job, and return its size, what it took and the largest worker's memory."""
    rest = max(client.run(_reset_peak).values())
    sent, cpu = _loopback(), _cpu_seconds(client)
    begin = time.perf_counter()
    size = job(source, client)
    seconds = time.perf_counter() - begin
    return {
        "what": job.__name__,
        "size": size,
        "seconds": seconds,
        "cpu_seconds": _cpu_seconds(client) - cpu,
        "sent_mib": _loopback() - sent,
        "rest_mib": rest,
        "more_mib": max(client.run(_memory, "VmHWM").values()) - rest,
    }


def prepare(logs: Path, client: Client) -> int:
    """From files to labelled rows; return how many events were read."""
    from multistage.datasets.rees46 import read_logs

    address = client.scheduler.address
    return read_logs(sorted(logs.glob("*.csv")), logs, scheduler=address).report["read"]


def nvtabular(table: Path, client: Client) -> int:
    """Fit a workflow and write what it makes of the rows."""
    import nvtabular as nvt
    from merlin.core.utils import Distributed
    from merlin.io import Dataset

    for folder in ("categories", "transformed"):
        shutil.rmtree(table / folder, ignore_errors=True)
    features = [*IDS, *TEXT] >> nvt.ops.Categorify(out_path=str(table / "categories"))
    workflow = nvt.Workflow(features + (["price"] >> nvt.ops.Normalize()) + ["target"])
    with Distributed(client=client):
        rows = Dataset(sorted(map(str, table.glob("*.parquet"))), engine="parquet")
        workflow.fit(rows)
        workflow.transform(rows).to_parquet(str(table / "transformed"))
    return int(table.name)


def xgboost(table: Path, client: Client) -> int:
    """Train 50 trees on what :func:`nvtabular` wrote."""
    import dask.dataframe as dd
    from xgboost import dask as xgb

    rows = dd.read_parquet(str(table / "transformed" / "*.parquet"))
    data = xgb.DaskDMatrix(client, rows[[*IDS, *TEXT, "price"]], rows["target"])
    xgb.train(client, {"tree_method": "hist", "max_depth": 6}, data, num_boost_round=50)
    return int(table.name)


def check_formula(points: list[dict], what: str) -> dict:
    """Fit ``a + b * size / workers`` to one worker's points, and predict the others."""
    measured = [point for point in points if point["what"] == what]
    known = [point for point in measured if point["workers"] == 1]
    b, a = np.polyfit([p["size"] for p in known], [p["seconds"] for p in known], 1)
    predictions = [
        {
            "cluster": point["cluster"],
            "size": point["size"],
            "predicted": a + b * point["size"] / point["workers"],
            "measured": point["seconds"],
            "cores": point["cpu_seconds"] / point["seconds"],
        }
        for point in measured
        if point["workers"] > 1
    ]
    return {"what": what, "a": a, "b_per_million": b * 1e6, "predictions": predictions}


def write_tables(logs: Path, sizes: list[int], aside: Path) -> list[Path]:
    """Write labelled rows, repeated as often as it takes, as a folder of Parquet for each size."""
    from multistage.datasets.rees46 import read_logs, split_category

    rows = split_category(read_logs(sorted(logs.glob("*.csv")), aside).rows)
    rows = rows.drop(columns="timestamp").astype(dict.fromkeys(IDS, "int64"))
    rows = rows.astype(dict.fromkeys(TEXT, "object"))
    folders = []
    for size in sizes:
        folders.append(aside / str(size))
        folders[-1].mkdir()
        for i, part in enumerate(np.array_split(np.arange(size) % len(rows), FILES)):
            rows.iloc[part].to_parquet(folders[-1] / f"{i}.parquet", index=False)
    return folders


def _cpu_seconds(client: Client) -> float:
    return time.process_time() + sum(client.run(time.process_time).values())


def _reset_peak() -> float:
    """Let the peak of this process's memory count from now on; return what it holds, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _loopback() -> float:
    """What has been sent over the loopback device, in MiB."""
    return int(Path("/sys/class/net/lo/statistics/tx_bytes").read_text()) / 2**20


def _memory(what: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
