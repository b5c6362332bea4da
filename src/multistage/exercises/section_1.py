"""Checks of lab 1: NDCG@k, a split in time, a filter that holds, and reading a waterfall."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises.engine import Exercise, Wrong
from courseware.exercises.expect import array, number, same_type


def check_ndcg_at_k(answer: Callable[..., float], rng: np.random.Generator) -> None:
    """Hand-computed lists first, then random ones against scikit-learn's definition."""
    products = [int(p) for p in rng.permutation(1_000)[:30]]
    perfect = products[:3]
    number(answer(perfect + products[5:12], set(perfect), 10), 1.0, "NDCG of a perfect list")
    number(answer(products[:5], {products[20]}, 5), 0.0, "NDCG of a list without hits")
    number(answer(perfect, set(perfect), 10), 1.0, "NDCG@10 of three products, all relevant,")
    many = set(products[:20])
    got = answer(products[:10], many, 10)
    if not np.isclose(got, 1.0):
        raise Wrong(
            "A list of 10 hits is perfect, even if 20 products are relevant: "
            "the ideal list has min(k, len(relevant)) hits.",
            "1.0",
            f"{got:.4g}",
        )
    late = answer([products[0], products[1]], {products[1]}, 2)
    if np.isclose(late, 1.0):
        raise Wrong("A hit on the second place must count less than one on the first.")
    number(late, 1 / np.log2(3), "NDCG@2 with the one hit on the second place")
    below = answer(products[:10], {products[9]}, 5)
    if not np.isclose(below, 0.0):
        raise Wrong(
            "Only the first k places count: a hit on place 10 is none at k = 5.", "0", below
        )
    for _ in range(20):
        relevant = {int(p) for p in rng.choice(products, size=int(rng.integers(1, 9)))}
        k = int(rng.integers(1, 15))
        shown = [int(p) for p in rng.permutation(products)[: int(rng.integers(1, 25))]]
        number(answer(list(shown), set(relevant), k), _ndcg(shown, relevant, k), f"NDCG@{k}")


def _ndcg(shown: list[int], relevant: set[int], k: int) -> float:
    hits = np.isin(shown[:k], list(relevant))
    discount = 1 / np.log2(np.arange(2, k + 2))
    return float(hits @ discount[: len(hits)] / discount[: min(k, len(relevant))].sum())


def check_split_in_time(
    answer: Callable[..., dict[str, pd.DataFrame]], rng: np.random.Generator
) -> None:
    """Rules one by one on small tables, then random logs against the definition."""
    valid, test = _day(10), _day(20)
    rows = _log([(1, 7, 1, 0), (2, 8, 5, 1), (1, 9, 12, 0), (3, 7, 25, 1)])
    got = answer(rows.copy(), valid, test)
    same_type(got, dict, "The result")
    if set(got) != {"train", "valid", "test"}:
        raise Wrong("The parts have other names.", ["train", "valid", "test"], list(got))
    for name, part in got.items():
        same_type(part, pd.DataFrame, f"The part {name!r}")
    if len(got["test"]) == 0:
        raise Wrong("A user or product that training never saw must stay.", "1 row in test", 0)
    _same_rows(got, {"train": rows[:2], "valid": rows[2:3], "test": rows[3:]}, "four rows")

    border = _log([(1, 7, 9, 0), (1, 8, 10, 0), (1, 9, 20, 1)])
    got = answer(border.copy(), valid, test)
    if [len(got[name]) for name in ("train", "valid", "test")] != [1, 1, 1]:
        raise Wrong(
            "A row at the very first moment of a part belongs to that part.",
            "1, 1 and 1 rows",
            ", ".join(str(len(got[name])) for name in ("train", "valid", "test")),
        )
    again = _log([(1, 7, 3, 0), (1, 7, 22, 1)])
    got = answer(again.copy(), valid, test)
    if len(got["train"]) == 0:
        raise Wrong(
            "A purchase in test deleted a row of training: cut first, remove repeats inside each "
            "part.",
            "1 row in train",
            0,
        )
    if len(got["test"]) == 0:
        raise Wrong("A row of training deleted one of test: remove repeats inside each part.")
    twice = _log([(1, 7, 6, 1), (1, 7, 3, 0), (1, 8, 4, 0)])
    got = answer(twice.copy(), valid, test)
    if len(got["train"]) == 3:
        raise Wrong("A user and product occur twice in one part.", "2 rows", "3 rows")
    if 0 in got["train"].loc[got["train"]["product_id"] == 7, "target"].to_numpy():
        raise Wrong("Of repeated rows the latest stays, whatever the order of the table.")
    for _ in range(10):
        n = int(rng.integers(20, 80))
        random = _log(
            zip(
                rng.integers(0, 5, n),
                rng.integers(0, 5, n),
                rng.permutation(200)[:n] / 7,
                rng.integers(0, 2, n),
                strict=True,
            )
        )
        random.index = rng.permutation(n)
        part = (random["timestamp"] >= valid).astype(int) + (random["timestamp"] >= test)
        right = {
            name: random[part == i].sort_values("timestamp").groupby(["user_id", "product_id"])
            for i, name in enumerate(["train", "valid", "test"])
        }
        right = {name: groups.tail(1) for name, groups in right.items()}
        _same_rows(answer(random.copy(), valid, test), right, "random rows")


def _day(day: float) -> pd.Timestamp:
    return pd.Timestamp("2024-03-01", tz="UTC") + pd.Timedelta(days=float(day))


def _log(rows: Iterable[tuple[int, int, float, int]]) -> pd.DataFrame:
    log = pd.DataFrame(rows, columns=["user_id", "product_id", "timestamp", "target"])
    return log.assign(timestamp=log["timestamp"].map(_day))


def _same_rows(got: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame], what: str) -> None:
    for name, part in right.items():
        missing = set(part.columns) - set(got[name].columns)
        if missing:
            raise Wrong(f"The part {name!r} lacks columns.", sorted(part.columns), sorted(missing))
        ours, theirs = (
            table[["timestamp", "user_id", "product_id", "target"]]
            .sort_values("timestamp")
            .assign(timestamp=lambda rows: rows["timestamp"].astype("int64"))
            .to_numpy()
            for table in (got[name], part)
        )
        array(ours, theirs, f"The part {name!r} of {what} (time, user, product, target)")


def check_filter(answer: Callable[..., list[int]], rng: np.random.Generator) -> None:
    """Rules one by one, each on inputs that tell it from the others, then all at once."""
    ranked = rng.permutation(1_000)[:40]
    everything = {int(p) for p in ranked}
    got = answer(ranked.copy(), set(), set(everything), 10)
    same_type(got, (list, tuple, np.ndarray), "The result")
    if [int(p) for p in got] != [int(p) for p in ranked[:10]]:
        raise Wrong(
            "With nothing to filter, the first n products come out in their order.",
            ranked[:4].tolist(),
            list(got)[:4],
        )
    seen = {int(p) for p in ranked[:6]}
    got = [int(p) for p in answer(ranked.copy(), set(seen), set(everything), 10)]
    if seen & set(got):
        raise Wrong("A product that the person already had came out.", "none", len(seen & set(got)))
    if len(got) < 10:
        raise Wrong(
            "Not back-filled: go on down the ranking until n products are found.", 10, len(got)
        )
    gone = {int(p) for p in ranked[3:9]}
    got = [int(p) for p in answer(ranked.copy(), set(), everything - gone, 10)]
    if gone & set(got):
        raise Wrong("A product that is not for sale came out.", "none", len(gone & set(got)))
    twice = np.repeat(ranked[:12], 2)
    got = [int(p) for p in answer(twice.copy(), set(), set(everything), 8)]
    if len(set(got)) < len(got):
        raise Wrong("A product came out twice.", "8 different", f"{len(set(got))} different")
    got = [int(p) for p in answer(ranked[:5].copy(), set(seen), set(everything), 10)]
    if got:
        raise Wrong("All five ranked products were seen: nothing may come out.", [], got)
    for _ in range(20):
        seen = {int(p) for p in rng.choice(ranked, 12)}
        available = {int(p) for p in rng.choice(ranked, 30)}
        n = int(rng.integers(1, 20))
        right = [int(p) for p in ranked if int(p) in available and int(p) not in seen][:n]
        got = [int(p) for p in answer(ranked.copy(), set(seen), set(available), n)]
        if got != right:
            raise Wrong(f"Wrong products for n = {n}.", right[:5], got[:5])


def check_largest_loss(answer: Callable[..., tuple[str, float]], rng: np.random.Generator) -> None:
    """Two people by hand, each rule on inputs that tell it from the others, then random ones."""
    relevant = [{1, 2, 3, 4, 5, 6}, {7, 8}]
    stages = {
        "retrieve": [[1, 2, 3, 4, 9], [7, 8, 9]],
        "filter": [[1, 2, 3, 4], [7, 8]],
        "score": [[1], [7, 8]],
    }
    got = answer(_copy(stages), _copy(relevant))
    same_type(got, (tuple, list), "The result")
    if len(got) != 2:
        raise Wrong("A name and a share are wanted.", ("score", 0.375), got)
    same_type(got[0], str, "The first part of the result")
    same_type(got[1], (float, int, np.number), "The second part of the result")
    if got[0] == "score" and np.isclose(got[1], 0.5):
        raise Wrong(
            "The share is of all purchases, not of those that entered the stage.", 3 / 8, got[1]
        )
    if got[0] == "score" and np.isclose(got[1], 0.25):
        raise Wrong("Count purchases, not people: who bought more counts more.", 3 / 8, got[1])
    if got[0] == "filter":
        raise Wrong("Losing candidates is no loss, only losing purchases is.", "score", got[0])
    _same_loss(got, ("score", 3 / 8), "the first case")
    first = {"retrieve": [[1, 9], [9]], "score": [[1], []]}
    got = answer(first, _copy(relevant))
    if got[0] != "retrieve":
        raise Wrong(
            "The first stage can lose as well: before it, nothing is lost.", "retrieve", got[0]
        )
    _same_loss(got, ("retrieve", 7 / 8), "a poor first stage")
    gain = {"retrieve": [[1, 2, 3, 4, 5], [7, 8]], "filter": [[1, 2, 3, 4, 5, 6], [7, 8]]}
    _same_loss(answer(gain, _copy(relevant)), ("retrieve", 1 / 8), "a filter that gains")
    for _ in range(10):
        people = int(rng.integers(2, 8))
        relevant = [
            {int(p) for p in rng.choice(40, int(rng.integers(1, 12)), replace=False)}
            for _ in range(people)
        ]
        stages = {
            name: [[int(p) for p in rng.choice(40, n, replace=False)] for _ in range(people)]
            for name, n in (("retrieve", 30), ("filter", 25), ("score", 12), ("order", 9))
        }
        right = _largest_loss(stages, relevant)
        _same_loss(answer(_copy(stages), _copy(relevant)), right, "random stages")


def _copy(nested: Any) -> Any:
    return copy.deepcopy(nested)


def _largest_loss(
    stages: dict[str, list[list[int]]], relevant: list[set[int]]
) -> tuple[str, float]:
    total = sum(map(len, relevant))
    alive = [total] + [
        sum(len(r & set(p)) for r, p in zip(relevant, lists, strict=True))
        for lists in stages.values()
    ]
    lost = -np.diff(alive) / total
    return list(stages)[int(lost.argmax())], float(lost.max())


def _same_loss(got: tuple[str, float], right: tuple[str, float], what: str) -> None:
    if got[0] != right[0]:
        raise Wrong(f"The wrong stage of {what}.", right[0], got[0])
    number(got[1], right[1], f"The share lost in {what}")


EXERCISES = [
    Exercise(
        id="1.1",
        title="NDCG@k",
        hints=(
            "Two sums of 1 / log2(place + 1): one over the hits of the list, one over the hits of "
            "a perfect list.",
            "enumerate(recommended[:k], start=1) gives the places. The perfect list has "
            "min(k, len(relevant)) hits.",
        ),
        check=check_ndcg_at_k,
    ),
    Exercise(
        id="1.2",
        title="a split without a leak",
        hints=(
            "Cut with two comparisons: train is before `valid`, test is from `test` on.",
            "Sort by time, cut, and only then part.drop_duplicates([...], keep='last').",
        ),
        check=check_split_in_time,
    ),
    Exercise(
        id="1.3",
        title="a filter that holds, and back-fills",
        hints=(
            "Go down the ranking once, keep what may be shown, and stop when there are n.",
            "Filter first, cut afterwards: ranked[:n] before filtering leaves too few.",
        ),
        check=check_filter,
    ),
    Exercise(
        id="1.4",
        title="which stage to mend first",
        hints=(
            "Count the purchases that survive each stage: the relevant products that are in the "
            "person's list.",
            "Loss of a stage = (surviving before it - surviving after it) / all purchases; before "
            "the first stage all are alive.",
        ),
        check=check_largest_loss,
    ),
]
