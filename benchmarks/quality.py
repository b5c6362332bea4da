"""Quality of models and of the pipeline: the figures of labs 2 and 4, with their intervals.

``python benchmarks/quality.py`` runs the cells of both labs as they stand in ``labs_solutions/``,
each in a process of its own, prints what they left in ``results``, and writes
``build/bench/quality.json``. Nothing is computed here that a lab does not compute.
"""

import argparse
import json
import linecache
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ("store", "movielens")
LABS = {"architectures": "02-architectures", "pipeline": "04-retrieval-and-ranking"}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="*", default=DATASETS, choices=DATASETS)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--cells", choices=LABS, help="(the benchmark calls itself with it)")
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    if options.cells:
        results = _results(LABS[options.cells], options.datasets[0], options.profile)
        options.into.write_text(json.dumps(results))
        return
    quality: dict[str, Any] = {}
    for dataset in options.datasets:
        for part in LABS:
            print(f"{dataset}, {part} …", flush=True)
            found = run_cells(part, dataset, options.profile)
            quality.setdefault(dataset, {})[part] = PARTS[part](found)
            print_table(quality[dataset][part])
    target = ROOT / "build" / "bench" / "quality.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(quality, indent=1))
    print(f"written: {target.relative_to(ROOT)}")


def run_cells(
    part: str, dataset: str, profile: str, environment: dict[str, str] | None = None
) -> dict[str, dict[str, float]]:
    """Run the cells of the lab of ``part`` in a process of its own; return its ``results``.

    Args:
        part: one of ``LABS``.
        dataset: the data set of the lab's workspace.
        profile: its sizes.
        environment: variables that the process gets beside those of this one.
    """
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "results.json"
        command = [sys.executable, __file__, "--cells", part, "--datasets", dataset]
        subprocess.run(
            [*command, "--profile", profile, "--into", into],
            check=True,
            cwd=ROOT / "labs_solutions",
            env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL,
        )
        return json.loads(into.read_text())


def _results(lab: str, dataset: str, profile: str) -> dict[str, dict[str, float]]:
    import jupytext
    import matplotlib

    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(jupytext.read(ROOT / "labs_solutions" / f"{lab}.py").cells):
        if cell.cell_type == "code":
            place, source = f"<{lab}, cell {number}>", cell.source
            # where AutoGraph looks up the source of what it traces; it would take this file's
            linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)
            exec(compile(source, place, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(dataset=dataset, profile=profile)
    return {
        name: {key: float(value) for key, value in row.items()}
        for name, row in names["results"].items()
    }


def _architectures(results: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    oracle = results.get("oracle", {}).get("AUC")
    return {
        _key(name): {
            "auc": row["AUC"],
            "interval": [row["low"], row["high"]],
            "skill": (row["AUC"] - 0.5) / (oracle - 0.5) if oracle else None,
            "log_loss": row["log-loss"],
            "seconds": row["seconds"],
        }
        for name, row in results.items()
    }


def _key(name: str) -> str:
    """``"Wide & Deep"`` -> ``"wide_and_deep"``."""
    return re.sub(r"\W+", "_", name.lower().replace("&", "and"))


def _pipeline(results: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "ndcg_at_10": row["NDCG@10"],
            "interval": [row["low"], row["high"]],
            "recall_at_10": row["recall@10"],
            "recall_at_100": row["recall@100"],
        }
        for name, row in results.items()
    }


PARTS = {"architectures": _architectures, "pipeline": _pipeline}


def print_table(table: dict[str, dict[str, Any]]) -> None:
    """Print a row for each name, an interval as ``0.1234 to 0.2345``."""
    import pandas as pd

    frame = pd.DataFrame(table).T
    if "interval" in frame:
        frame["interval"] = ["{:.4f} to {:.4f}".format(*bounds) for bounds in frame["interval"]]
    print(frame.to_string(float_format="{:.4f}".format), flush=True)


if __name__ == "__main__":
    main()
