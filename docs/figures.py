"""Write the figures in README.md and docs from what the benchmarks and labs measured.

``python docs/figures.py`` writes every block of figures anew from ``benchmarks/results/*.json``.
With ``--collect`` it first takes over what benchmarks (``build/bench``) and ``lab run`` in profile
laptop (``build/run``) wrote; what they did not measure this time stays. A block is a comment with a
template, and below it what the template gives::

    <!-- figures
    One request takes {serving.p50_ms:.1f} ms.
    -->
    One request takes 4.7 ms.
    <!-- /figures -->

Between braces stand a Python expression and, after a colon, its format. The names in it are the
files in ``benchmarks/results`` and those that ``names`` adds. Edit the template only.
"""

import argparse
import json
import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WHOLE = ("index", "preparation", "scaling", "serving", "shop")  # benchmarks of one data set
PROFILE = "laptop"

BLOCK = re.compile(
    r"(<!-- figures\n(?P<template>.*?)\n-->\n).*?(?=^<!-- /figures -->$)", re.DOTALL | re.MULTILINE
)
FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
FUNCTIONS = {
    "between": lambda values, digits=1: f"{min(values):.{digits}f} to {max(values):.{digits}f}",
    "ceil": math.ceil,
    "interval": lambda row: "[{:.3f}, {:.3f}]".format(*row.interval),
    "spent": lambda point: f"{point.seconds:.1f} ({point.cpu_seconds:.1f})",
}
CORES = 2  # of the machine that docs/scaling.md speaks of


class Figures(dict):
    """A dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no figure {name!r}, but {', '.join(self)}") from None


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--collect", action="store_true", help="first take over what build/ has")
    if parser.parse_args().collect:
        collect(ROOT / "build", RESULTS)
    known = names(RESULTS)
    for page in pages():
        text = page.read_text()
        written = write(text, known, page.name)
        if written != text:
            page.write_text(written)
            print(f"written: {page.relative_to(ROOT)}")


def pages() -> list[Path]:
    """Return the pages that may have figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def write(text: str, known: dict[str, Any], page: str) -> str:
    """Return the page's text with all blocks of figures as their templates give them.

    Args:
        text: of the page.
        known: the names that templates use.
        page: its name, for errors.

    Raises:
        SystemExit: if a template names a figure that is not there.
    """

    def value(field: re.Match[str]) -> str:
        try:
            found = eval(field[1], {"__builtins__": FUNCTIONS}, known)
            shown = format(found, field[2] or "")
            return shown if isinstance(found, str) else shown.replace("-", "\N{MINUS SIGN}")
        except Exception as error:
            raise SystemExit(f"{page}: {field[0]}: {error}") from None

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{FIELD.sub(value, found['template'])}\n"

    return BLOCK.sub(block, text)


def names(folder: Path) -> dict[str, Any]:
    """Return what templates may name: each file of results, and what is computed of them here."""
    known = {
        file.stem: json.loads(file.read_text(), object_hook=Figures)
        for file in sorted(folder.glob("*.json"))
    }
    quality, labs = known["quality"], known["labs"]
    for dataset, runs in labs.items():
        models, pipeline = quality[dataset].architectures, quality[dataset].pipeline
        known[dataset] = Figures(models=models, pipeline=pipeline, **runs)
    known |= known["store"]  # the default: lab4 is store.lab4

    # docs/scaling.md: a run for n users takes a + b * n milliseconds
    serving = known["serving"]
    batch_ms = 1_000 * serving.batch / serving.users_per_second
    b = (batch_ms - serving.p50_ms) / (serving.batch - 1)
    known["run"] = Figures(a=serving.p50_ms - b, b=b, batch_ms=batch_ms)
    known["dask"] = dask(known["scaling"])
    preparation = known["preparation"]
    known["core_seconds"] = [  # per million events
        CORES * point.seconds / (point.events / 1e6) for point in (preparation, *preparation.points)
    ]
    known["per_million"] = statistics.median(known["core_seconds"])
    # the fastest index of each kind that finds 95 of the 100 nearest among a million products
    good = [row for row in known["index"].measured if row.recall >= 0.95]
    known["million"] = Figures(
        (kind, min(rows, key=lambda row: row.ms))
        for kind, rows in _by(good, "kind", items=1_000_000).items()
    )
    return known


def dask(scaling: Figures) -> Figures:
    """Return for each job the points of its two sizes, and what a second worker changes.

    ``dask.prepare.points[0].one`` is the smaller size on one local worker, ``two`` on two, and
    ``external`` on two of an external scheduler. ``faster`` are the times of one worker through
    those of two; ``work`` the same of processor time, the other way round; ``cores`` how many cores
    two workers had; ``late`` the times of two through those that the formula predicts.
    """
    short = dict(zip(("local, 1 worker", "local, 2 workers"), ("one", "two"), strict=True))
    jobs = Figures()
    for what, rows in _by(scaling.points, "what").items():
        points = [
            Figures({short.get(row.cluster, "external"): row for row in of_size})
            for _, of_size in sorted(_by(rows, "size").items())
        ]
        pairs = [(p.one, two) for p in points for two in (p.two, p.external)]
        formula = next(one for one in scaling.formulas if one.what == what)
        jobs[what] = Figures(
            points=points,
            formula=formula,
            faster=[one.seconds / two.seconds for one, two in pairs],
            work=[two.cpu_seconds / one.cpu_seconds for one, two in pairs],
            cores=[line.cores for line in formula.predictions],
            late=[line.measured / line.predicted for line in formula.predictions],
        )
    work = [ratio for job in jobs.values() for ratio in job.work]
    cores = [number for job in jobs.values() for number in job.cores]
    return Figures(**jobs, work=work, cores=cores)


def _by(rows: Iterable[Figures], key: str, **equal: Any) -> dict[Any, list[Figures]]:
    """The rows that have these values, by the value of ``key``."""
    groups: dict[Any, list[Figures]] = {}
    for row in rows:
        if all(row[name] == value for name, value in equal.items()):
            groups.setdefault(row[key], []).append(row)
    return groups


def collect(build: Path, folder: Path) -> None:
    """Take over what benchmarks and labs wrote below ``build``; what was not measured stays.

    A benchmark's file replaces the one that is kept. Of those that hold several data sets, and of
    the labs, only the parts that were measured are replaced.
    """
    folder.mkdir(exist_ok=True)
    for name in WHOLE:
        file = build / "bench" / f"{name}.json"
        if file.exists():
            _write(folder / file.name, json.loads(file.read_text()))
    quality = build / "bench" / "quality.json"
    if quality.exists():
        _update(folder / quality.name, json.loads(quality.read_text()))
    for summary in sorted(build.glob(f"run/*-{PROFILE}/summary.json")):
        run = json.loads(summary.read_text())
        labs = {
            f"lab{int(one['section'][:2])}": {"seconds": one["seconds"], **one["metrics"]}
            for one in run["sections"]
            if one["status"] == "passed"
        }
        _update(folder / "labs.json", {run["dataset"]: labs})


def _update(file: Path, measured: dict[str, dict[str, Any]]) -> None:
    kept = json.loads(file.read_text()) if file.exists() else {}
    for dataset, parts in measured.items():
        kept.setdefault(dataset, {}).update(parts)
    _write(file, kept)


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
