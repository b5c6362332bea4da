"""Measure FAISS indexes: recall, latency, memory and time to build, at three catalogue sizes.

``python benchmarks/index.py`` measures exact search, IVF, HNSW and PQ (inside of IVF), prints a
table, writes ``build/bench/index.json`` and draws ``notebooks/images/index-choice.png``. It takes
about five minutes of one core. Everything runs on one thread, and times are of that thread's own
clock, which other programs on the machine do not advance.

The vectors are simulated after lab 4's trained item vectors (1,470 products, 32 numbers): all share
a mean that holds two fifths of their squared length; of what is left, two fifths lie between
categories and the rest within them; and the variance of the principal directions falls by about a
quarter from one to the next. The number of categories grows with the root of the catalogue. A
query is the mean of three products of one category, with noise: a user with a few purchases.

Scores are inner products. Exact search takes them as they are; the others find *near* vectors, so
they get the vectors with one more coordinate, after which the nearest is the one of the largest
inner product (``as_distances``). Without it a graph misses long vectors however far it searches.
"""

import argparse
import json
from pathlib import Path
from time import thread_time
from typing import Any

import faiss
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
SIZES = (1_500, 100_000, 1_000_000)
DIMENSIONS = 32
QUERIES = 200
K = 100
COLOURS = {"exact": "#333333", "IVF": "#4c78a8", "HNSW": "#f58518", "PQ": "#54a24b"}
RULE = (
    "Exact search until it takes more of a request than you can spare. "
    "Then IVF: nearly as small, one number to tune.\n"
    "HNSW must first show on your vectors that it is worth twice the memory and the long build. "
    "PQ where memory is the limit, with recall to give away."
)


def main() -> None:
    """Run from the command line."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    faiss.omp_set_num_threads(1)
    measured: list[dict[str, Any]] = []
    for items in SIZES:
        measured += measure(*simulate(items, QUERIES))
    output = ROOT / "build" / "bench" / "index.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        json.dumps({"k": K, "dimensions": DIMENSIONS, "measured": measured}, indent=1)
    )
    draw(pd.DataFrame(measured), ROOT / "notebooks" / "images" / "index-choice.png")


def simulate(items: int, queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of products and of queries, as the module's docstring says.

    Returns:
        (items, 32) and (queries, 32) float32.
    """
    rng = np.random.default_rng(seed)
    scale = np.sqrt(0.75 ** np.arange(DIMENSIONS))
    scale /= np.linalg.norm(scale)  # the variance of a product around the mean is 1

    def normal(rows: int, share: float) -> np.ndarray:
        return np.sqrt(share) * scale * rng.normal(size=(rows, DIMENSIONS))

    centres = normal(int(np.sqrt(items) / 2) + 1, 0.4)
    category = rng.integers(len(centres), size=items)
    mean = scale[rng.permutation(DIMENSIONS)] * np.sqrt(0.4 / 0.6)
    products = mean + centres[category] + normal(items, 0.6)
    by_category = np.split(np.argsort(category, kind="stable"), np.bincount(category).cumsum()[:-1])
    bought = [rng.choice(by_category[c], 3) for c in rng.choice(category, queries)]
    vectors = products[np.array(bought)].mean(axis=1) + normal(queries, 0.2)
    # Any direction of the space may be a principal one: PQ cuts vectors along the coordinates.
    turn = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    return (products @ turn).astype("float32"), (vectors @ turn).astype("float32")


def measure(products: np.ndarray, queries: np.ndarray) -> list[dict[str, Any]]:
    """Return a row for each index and each setting of its search."""
    # FAISS asks for 39 vectors for every centroid that it learns
    most = len(products) // 39
    lists = min(most, 2 * int(np.sqrt(len(products))))
    bits = min(8, int(np.log2(most)))
    probes = [f"nprobe={n}" for n in (1, 2, 4, 8, 16, 32, 64) if n <= lists]
    # np: without polysemous codes, slow to learn and of no use to this search
    kinds = {
        "exact": ("Flat", [""]),
        "IVF": (f"IVF{lists},Flat", probes),
        "HNSW": ("HNSW16,Flat", [f"efSearch={n}" for n in (100, 200, 400, 800)]),
        "PQ": (f"IVF{lists},PQ17x{bits}np", probes),
    }
    rows: list[dict[str, Any]] = []
    exact = np.empty(0)
    for kind, (factory, settings) in kinds.items():
        inner = kind == "exact"
        items, asked = (products, queries) if inner else as_distances(products, queries)
        metric = faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2
        index, seconds = build(factory, metric, items, 100 * max(lists, 2**bits))
        for setting in settings:
            faiss.ParameterSpace().set_index_parameters(index, setting)
            found, milliseconds = search(index, asked)
            exact = found if kind == "exact" else exact
            rows.append(
                {
                    "items": len(products),
                    "kind": kind,
                    "index": factory,
                    "setting": setting,
                    "recall": share_found(found, exact),
                    "ms": milliseconds,
                    "mib": faiss.serialize_index(index).nbytes / 2**20,
                    "build_seconds": seconds,
                }
            )
            print(
                "{items:>9,}  {index:14} {setting:13} recall {recall:.3f}  {ms:8.3f} ms  "
                "{mib:7.1f} MiB  built in {build_seconds:6.1f} s".format(**rows[-1]),
                flush=True,
            )
    return rows


def as_distances(products: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors whose nearest neighbours are those of the largest inner product.

    The new coordinate gives all products one length, so that |q - x|^2 = constant - 2 q.x
    (Bachrach et al. 2014). A coordinate of zeros after it lets PQ cut the vectors into pairs.

    Returns:
        (items, 34) and (queries, 34) float32.
    """
    squares = np.square(products).sum(axis=1)
    length = np.sqrt(squares.max() - squares)
    zeros = np.zeros((len(queries), 2), "float32")
    return np.c_[products, length, np.zeros_like(length)], np.c_[queries, zeros]


def build(
    factory: str, metric: int, products: np.ndarray, training: int
) -> tuple[faiss.Index, float]:
    """Return the index over all products, learnt from ``training`` of them, and its seconds."""
    start = thread_time()
    index = faiss.index_factory(products.shape[1], factory, metric)
    index.train(products[:training])  # in no order
    index.add(products)
    return index, thread_time() - start


def search(index: faiss.Index, queries: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the K nearest of each query, asked one at a time, and the median milliseconds."""
    index.search(queries[:20], K)
    found, milliseconds = [], []
    for query in queries:
        start = thread_time()
        found.append(index.search(query[np.newaxis], K)[1][0])
        milliseconds.append(1_000 * (thread_time() - start))
    return np.array(found), float(np.median(milliseconds))


def share_found(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the mean share of each query's exact neighbours that were found."""
    pairs = zip(found, exact, strict=True)
    return float(np.mean([np.isin(right, row).mean() for row, right in pairs]))


def draw(measured: pd.DataFrame, file: Path) -> None:
    """Draw recall against latency, one panel per size, area for memory, and the rule."""
    figure, axes = plt.subplots(1, len(SIZES), figsize=(12, 4.6), sharex=True, sharey=True)
    for axis, (items, panel) in zip(axes, measured.groupby("items"), strict=True):
        exact = panel.loc[panel["kind"] == "exact", "mib"].item()
        axis.axhspan(0.95, 1.04, color="#eeeeee", zorder=0)
        for kind, rows in panel.groupby("kind", sort=False):
            axis.plot(rows["ms"], rows["recall"], color=COLOURS[kind], lw=1, zorder=1)
            axis.scatter(
                rows["ms"],
                rows["recall"],
                s=90 * rows["mib"] / exact,
                color=COLOURS[kind],
                marker="D" if kind == "exact" else "o",
                zorder=3 if kind == "exact" else 2,
                alpha=0.85,
                label=f"{kind}: {rows['mib'].iloc[0]:.3g} MiB",
            )
        axis.set(xscale="log", xlabel="ms per query, one core", title=f"{items:,} products")
        axis.set(ylim=(0, 1.04))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.legend(fontsize=8, loc="lower right", markerscale=0.7, framealpha=0.9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].text(
        0.98, 0.98, "0.95 or more", transform=axes[0].get_yaxis_transform(), size=8, ha="right"
    )
    axes[0].set_ylabel("recall@100 against exact search")
    figure.text(0.5, 0.02, RULE, ha="center", va="bottom", fontsize=9)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(file, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
