"""Preparation of event logs: seconds and peak memory, beside the 2022 recipe in pandas.

``python benchmarks/preparation.py`` simulates logs with REES46's own shares of views and carts
(kept in ``build/bench/logs`` for the next time), prepares each size in a process of its own, prints
a table and writes ``build/bench/preparation.json``. What the table has beyond that (processor time,
the raw reading) is in ``preparation-more.json``. Loading the libraries is not timed.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# REES46's mix: 97.8% views; a cart session a month.
SHOP = {"view_share": 0.978, "cart_sessions": 1.0, "products": 2_000}
EVENTS_PER_USER = 575  # in seven months of such a shop
LIBRARIES = ("pandas", "pyarrow.dataset", "pyarrow.parquet", "dask", "multistage.datasets.prepare")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=float, default=10e6, help="for the comparison")
    parser.add_argument("--points", type=float, nargs="*", default=[5e6, 20e6, 40e6])
    parser.add_argument("--part", choices=PARTS, help="(the benchmark calls itself with it)")
    parser.add_argument("--logs", type=Path)
    options = parser.parse_args()
    if options.part:
        _run_part(options.part, options.logs)
        return
    measured = {}
    for events in sorted({*options.points, options.events}):
        logs = simulate(int(events))
        measured[events] = {"raw": measure("raw", logs), "ours": measure("ours", logs)}
        _print(measured[events])
    logs = simulate(int(options.events))
    measured[options.events]["reference"] = reference = measure("reference", logs)
    ours, raw = measured[options.events]["ours"], measured[options.events]["raw"]
    result = {
        **_point(ours),
        "reference_seconds": reference["seconds"],
        "reference_peak_rss_mib": reference["peak_rss_mib"],
        "ratio": reference["seconds"] / ours["seconds"],
        "points": [_point(measured[events]["ours"]) for events in sorted(options.points)],
    }
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preparation.json").write_text(json.dumps(result, indent=1))
    (folder / "preparation-more.json").write_text(json.dumps([*measured.values()], indent=1))
    print(
        f"2022 recipe in pandas: {reference['seconds']:.1f} s ({reference['cpu_seconds']:.1f} s of "
        f"processor time), {reference['peak_rss_mib']:.0f} MiB. Ours is {result['ratio']:.1f} "
        f"times as fast, at {raw['seconds'] / ours['seconds']:.0%} of the raw reading speed."
    )
    if result["points"]:
        memory = [point["peak_rss_mib"] for point in result["points"]]
        pace = [point["seconds"] / point["events"] for point in result["points"]]
        print(
            f"Over the points peak memory differs by {max(memory) / min(memory) - 1:.0%}, time an "
            f"event by {max(pace) / min(pace) - 1:.0%}."
        )


def _point(measured: dict) -> dict:
    return {key: measured[key] for key in ("events", "seconds", "peak_rss_mib")}


def _print(measured: dict) -> None:
    ours, raw = measured["ours"], measured["raw"]
    print(
        f"{ours['events']:>12,} events  {ours['seconds']:6.1f} s ({ours['cpu_seconds']:.1f} s of "
        f"processor time)  {ours['peak_rss_mib']:4.0f} MiB  raw reading {raw['seconds']:.1f} s "
        f"({raw['cpu_seconds']:.1f})",
        flush=True,
    )


def simulate(events: int) -> Path:
    """Return a folder with monthly CSV files of about so many events, simulated once."""
    from multistage.datasets.store.files import write_events
    from multistage.datasets.store.world import StoreSettings

    settings = StoreSettings(users=events // EVENTS_PER_USER, **SHOP)
    folder = ROOT / "build" / "bench" / "logs" / f"{settings.edition}-{settings.users}"
    if not (folder / ".complete").exists():
        write_events(settings, folder, "csv")
        (folder / ".complete").touch()
    return folder


def measure(part: str, logs: Path) -> dict:
    """Run one part in a process of its own, and return what it measured."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--logs", str(logs)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _run_part(part: str, logs: Path) -> None:
    """Run one part alone in this process, and print its measures."""
    for library in LIBRARIES:
        importlib.import_module(library)
    files = sorted(logs.glob("*.csv"))
    with tempfile.TemporaryDirectory(dir=logs.parent) as aside:
        begin, cpu = time.perf_counter(), time.process_time()
        measured = PARTS[part](files, Path(aside))
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**measured, "seconds": seconds, "cpu_seconds": cpu, "peak_rss_mib": peak}))


def ours(files: list[Path], aside: Path) -> dict:
    """From files to the five tables on disk."""
    from multistage.datasets.prepare import split_logs, write_tables
    from multistage.datasets.rees46 import read_logs

    labelled = read_logs(files, aside)
    write_tables(aside, split_logs(labelled, 5, 5), labelled.report)
    return {"events": labelled.report["read"], "labelled": labelled.report["labelled"]}


def raw(files: list[Path], aside: Path) -> dict:
    """Read the same bytes with pyarrow on all cores, all columns, and drop them."""
    import pyarrow.dataset

    scanner = pyarrow.dataset.dataset(files, format="csv").scanner()
    return {"events": sum(len(batch) for batch in scanner.to_batches())}


def reference(files: list[Path], aside: Path) -> dict:
    """Prepare as the 2022 tutorial did, in pandas: in memory, de-duplicated before the split."""
    import pandas as pd

    kept = []
    for file in files:
        month = pd.read_csv(file)
        kept.append(month[month["event_type"].isin(["cart", "purchase"])])
    events = pd.concat(kept, ignore_index=True)
    events["event_time"] = pd.to_datetime(events["event_time"])
    keys = ["user_session", "product_id"]
    carts = events[events["event_type"] == "cart"].drop_duplicates(keys)
    bought = events[events["event_type"] == "purchase"]
    bought = bought.merge(carts[keys], on=keys).drop_duplicates(keys, keep="last")
    left = carts.merge(bought[keys], on=keys, how="left", indicator=True)
    left = left[left["_merge"] == "left_only"].drop(columns="_merge")
    rows = pd.concat([bought.assign(target=1), left.assign(target=0)])
    levels = rows["category_code"].str.split(".", expand=True)
    rows = rows.join(levels.rename(columns=lambda level: f"cat_{level}"))
    rows = rows.sort_values("event_time").drop_duplicates(["user_id", "product_id"], keep="last")
    train = rows[rows["event_time"] < "2020-04-01"]
    valid = rows[rows["event_time"] >= "2020-04-01"]
    train = train.groupby("user_id").tail(50)
    for _ in range(7):
        for key in ("user_id", "product_id"):
            size = train.groupby(key)[key].transform("size")
            train = train[size >= 5]
    valid = valid[
        valid["user_id"].isin(train["user_id"]) & valid["product_id"].isin(train["product_id"])
    ]
    train.to_parquet(aside / "train.parquet")
    valid.to_parquet(aside / "valid.parquet")
    return {"labelled": len(rows)}


PARTS = {"ours": ours, "raw": raw, "reference": reference}

if __name__ == "__main__":
    main()
