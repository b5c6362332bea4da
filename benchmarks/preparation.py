"""Preparation of event logs: seconds and peak memory, beside two plain recipes.

One is the 2022 tutorial's in pandas. The other is a short script in Polars, which checks no field
and keeps no quarantine. Polars is no part of the course's environment: where it is not installed
(``pip install polars``), its recipe is left out.

``python benchmarks/preparation.py`` simulates logs with REES46's own shares of views and carts
(kept in ``build/bench/logs`` for the next time), prepares each size in a process of its own, prints
a table and writes ``build/bench/preparation.json``; processor time is in
``preparation-more.json``. Loading the libraries is not timed.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# REES46's mix: 97.8% views; one session with a cart per month.
SHOP = {"view_share": 0.978, "cart_sessions": 1.0, "products": 2_000}
EVENTS_PER_USER = 575  # in seven months of such a shop
LIBRARIES = ("pandas", "pyarrow.parquet", "dask", "multistage.datasets.prepare")
CATEGORIES = ["cat_0", "cat_1", "cat_2"]
PAIR = ["user_id", "product_id"]


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
        measured[events] = {"ours": measure("ours", simulate(int(events)))}
        _print("the course's", events, measured[events]["ours"])
    logs = simulate(int(options.events))
    ours = measured[options.events]["ours"]
    measured[options.events]["reference"] = reference = measure("reference", logs)
    _print("2022 recipe, pandas", options.events, reference)
    plain = measure("plain", logs) if find_spec("polars") else {}
    if plain:
        measured[options.events]["plain"] = plain
        _print("plain recipe, Polars", options.events, plain)
    else:
        print("Polars is not installed, so its recipe is left out (pip install polars).")
    result = {
        **_point(ours),
        "reference_seconds": reference["seconds"],
        "reference_peak_rss_mib": reference["peak_rss_mib"],
        "ratio": reference["seconds"] / ours["seconds"],
        **{f"polars_{key}": plain[key] for key in ("seconds", "peak_rss_mib") if plain},
        "points": [_point(measured[events]["ours"]) for events in sorted(options.points)],
    }
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preparation.json").write_text(json.dumps(result, indent=1))
    (folder / "preparation-more.json").write_text(json.dumps([*measured.values()], indent=1))
    print(f"The course's preparation is {result['ratio']:.1f} times as fast as the 2022 recipe.")
    if result["points"]:
        memory = [point["peak_rss_mib"] for point in result["points"]]
        pace = [point["seconds"] / point["events"] for point in result["points"]]
        print(
            f"Over the points peak memory differs by {max(memory) / min(memory) - 1:.0%}, time "
            f"per event by {max(pace) / min(pace) - 1:.0%}."
        )


def _point(measured: dict) -> dict:
    return {key: measured[key] for key in ("events", "seconds", "peak_rss_mib")}


def _print(name: str, events: float, measured: dict) -> None:
    print(
        f"{name:21} {events:>12,.0f} events  {measured['seconds']:6.1f} s "
        f"({measured['cpu_seconds']:.1f} s of processor time)  {measured['peak_rss_mib']:5.0f} MiB",
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
    for library in (*LIBRARIES, *(["polars"] if part == "plain" else [])):
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
    split = split_logs(labelled, 5, 5)
    write_tables(aside, split, labelled.report)
    counts = {name: len(positions) for name, positions in split.positions.items()}
    report = labelled.report
    return {"events": report["read"], "labelled": report["labelled"], "rows": counts}


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


def plain(files: list[Path], aside: Path) -> dict:
    """Prepare with a short script in Polars: the course's rows, as long as every line is good."""
    import polars as pl

    bought = pl.col("event_type") == "purchase"
    rows = (
        pl.scan_csv(files)
        .filter(pl.col("event_type").is_in(["cart", "purchase"]))
        .with_columns(pl.col("event_time").str.to_datetime("%Y-%m-%d %H:%M:%S UTC"))
        .sort("event_time", "event_type", "price")
        .group_by("user_id", "user_session", "product_id")
        .agg(
            pl.col("event_time", "category_code", "brand", "price").last(),
            target=bought.any().cast(pl.Int8),
            carted=bought.not_().any(),
        )
        .filter("carted")
        .with_columns(pl.col("category_code").str.splitn(".", 3).struct.rename_fields(CATEGORIES))
        .unnest("category_code")
        .sort("event_time", "user_session")
        .collect()
    )
    time = pl.col("event_time")
    test = time.max().dt.truncate("1mo")
    valid = test.dt.offset_by("-1mo")
    train = rows.filter(time < valid).unique(PAIR, keep="last")
    while True:
        rare = pl.any_horizontal(pl.len().over(key) < 5 for key in PAIR)
        if not train.select(rare.any()).item():
            break
        train = train.filter(~rare)
    parts = {
        "train": train,
        "valid": rows.filter((time >= valid) & (time < test)).unique(PAIR, keep="last"),
        "test": rows.filter(time >= test).unique(PAIR, keep="last"),
    }
    for name, part in parts.items():
        part.write_parquet(aside / f"{name}.parquet")
    counts = {name: len(part) for name, part in parts.items()}
    return {"labelled": len(rows), "rows": counts}


PARTS = {"ours": ours, "reference": reference, "plain": plain}

if __name__ == "__main__":
    main()
