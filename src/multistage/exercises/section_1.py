"""Exercises of lab 1: NDCG@k, a split in time, a filter, and the stage that loses most."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises import Exercise
from courseware.exercises.expect import same

# 1.1


def ndcg_cases(rng: np.random.Generator) -> Iterator[tuple[list[int], set[int], int]]:
    """Lists by hand: late hits, short lists, k of 1, more relevant products than k; random ones."""
    yield [7, 8], {8}, 2
    yield [7, 8], {7}, 2
    yield [7, 8], {5}, 2
    yield [7, 8], {8}, 1
    yield [7, 0], {0}, 2
    yield [7], {7, 8, 9}, 3
    yield [], {7}, 3
    yield [1, 2, 3], {1, 2, 3}, 10
    yield [4, 1, 5, 6, 2], {1, 2, 3}, 5
    yield [1, 2, 3, 4, 5], {4, 5}, 3
    yield list(range(10)), set(range(20)), 10
    for _ in range(20):
        shown, bought = (rng.permutation(40).tolist() for _ in range(2))
        k = int(rng.integers(1, 30))
        yield shown[: rng.integers(1, 41)], set(bought[: rng.integers(1, 30)]), k


def _dcg(places: Iterable[int]) -> float:
    return float(sum(1 / np.log2(place + 1) for place in places))


def _hits(recommended: list[int], relevant: set[int]) -> list[int]:
    return [place for place, p in enumerate(recommended, start=1) if p in relevant]


def _ndcg(hits: list[int], best: int) -> float:
    return _dcg(hits) / _dcg(range(1, best + 1))


# 1.2

PAIR = ["user_id", "product_id"]
COLUMNS = [*PAIR, "timestamp", "target"]


def split_cases(
    rng: np.random.Generator,
) -> Iterator[tuple[pd.DataFrame, pd.Timestamp, pd.Timestamp]]:
    """Few rows by hand, one rule at a time; then random rows in any order."""
    valid, test = _day(10), _day(20)
    for rows in (
        [(1, 7, 1, 0), (2, 8, 12, 1), (3, 9, 25, 1)],  # everybody is new in each part
        [(1, 7, 9, 0), (1, 8, 10, 0), (1, 9, 20, 1)],  # at the first moment of a part
        [(1, 7, 3, 0), (1, 7, 22, 1)],  # a pair in two parts
        [(1, 7, 3, 0), (1, 7, 6, 1), (1, 8, 4, 0), (2, 7, 5, 0)],  # a pair twice in one
        [(1, 7, 6, 1), (1, 7, 3, 0)],  # the latest stands first
        [(1, 7, 3, 1), (1, 7, 6, 0)],  # the latest was not bought
    ):
        yield _log(rows), valid, test
    yield _log([(1, 7, 3, 0), (1, 8, 12, 0)]), valid, valid  # no moment belongs to "valid"
    for _ in range(10):
        n = int(rng.integers(20, 60))
        users, products = rng.integers(0, 5, (2, n))
        days = rng.permutation(210)[:n] / 7
        rows = _log(zip(users, products, days, rng.integers(0, 2, n), strict=True))
        rows.index = rng.permutation(n)
        yield rows, valid, test


def _day(day: float) -> pd.Timestamp:
    return pd.Timestamp("2024-03-01", tz="UTC") + pd.Timedelta(days=float(day))


def _log(rows: Iterable[tuple[int, int, float, int]]) -> pd.DataFrame:
    log = pd.DataFrame(rows, columns=COLUMNS)
    return log.assign(timestamp=[_day(day) for day in log["timestamp"]])


def same_parts(got: Any, expected: dict[str, pd.DataFrame], *_arguments: Any) -> str:
    """Compare three tables whose rows may stand in any order, with columns to spare."""
    tables = isinstance(got, dict) and all(isinstance(p, pd.DataFrame) for p in got.values())
    if not tables or set(got) != set(expected):
        return same(got, expected)
    for name, right in expected.items():
        part = got[name]
        if set(COLUMNS) <= set(part.columns):
            part = part[COLUMNS].sort_values(COLUMNS)
        if said := same(part, right.sort_values(COLUMNS), what=f"The part {name!r}"):
            return said
    return ""


def _parts(rows: pd.DataFrame, valid: Any, test: Any) -> dict[str, pd.DataFrame]:
    time = rows["timestamp"]
    return {
        "train": rows[time < valid],
        "valid": rows[(time >= valid) & (time < test)],
        "test": rows[time >= test],
    }


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("timestamp").drop_duplicates(PAIR, keep="last")


def _last_of(parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {name: _last(part) for name, part in parts.items()}


def _without_new_users(rows: pd.DataFrame, valid: Any, test: Any) -> dict[str, pd.DataFrame]:
    parts = _last_of(_parts(rows, valid, test))
    known = parts["train"]["user_id"]
    return {name: part[part["user_id"].isin(known)] for name, part in parts.items()}


# 1.3


def filter_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, set[int], set[int], int]]:
    """One rule at a time by hand, repeats near and far; random rankings with repeats."""
    shop = set(range(10))
    yield np.array([3, 1, 2]), set(), shop, 2
    yield np.array([3, 1, 2]), {3}, shop, 2
    yield np.array([3, 1, 2]), set(), {1, 2}, 2
    yield np.array([3, 1, 3, 2]), set(), shop, 3
    yield np.array([1, 1, 2, 3, 1, 4, 2, 5]), set(), shop, 4
    yield np.array([3, 0, 2]), {3}, shop, 1
    yield np.array([3, 1, 2]), {1, 2, 3}, shop, 5
    yield np.array([3, 1, 2]), set(), {3, 9}, 5
    yield np.array([3, 1, 2]), {5}, shop, 3
    yield np.array([], dtype=int), {5}, shop, 3
    yield np.array([3, 1, 2]), set(), set(), 2
    for _ in range(20):
        ranked = rng.integers(0, 30, 25)
        seen, available = set(rng.choice(30, 8).tolist()), set(rng.choice(40, 40).tolist())
        yield ranked, seen, available, int(rng.integers(1, 15))


def _allowed(ranked: Iterable[int], seen: Iterable[int], available: Iterable[int]) -> list[int]:
    return [int(p) for p in ranked if p in available and p not in seen]


def _different(products: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(int(p) for p in products))


# 1.4

Stages = dict[str, list[list[int]]]
Users = list[set[int]]


def loss_cases(rng: np.random.Generator) -> Iterator[tuple[Stages, Users]]:
    """By hand: each stage can be the worst, gains, ties, no loss at all; then random pipelines."""
    yield {"retrieve": [[1]], "score": [[]]}, [{1, 2, 3, 4}]
    yield {"retrieve": [[1, 2, 9]], "score": [[1]]}, [{1, 2}]
    yield {"retrieve": [[1, 2]]}, [{1, 2}]
    yield {"retrieve": [[1, 2], [3]], "filter": [[2, 1], [3]]}, [{1, 2}, {3}]
    yield {"score": [[1, 2, 3]], "order": [[1, 2]], "again": [[1]]}, [{1, 2, 3, 4}]
    yield {"z": [[1, 2, 3], [5]], "y": [[1, 2], [5]], "x": [[1, 2], []]}, [{1, 2, 3}, {5}]
    yield {"retrieve": [[1, 2, 3]], "filter": [[1]], "score": [[1, 2, 3, 4]]}, [{1, 2, 3, 4}]
    yield {"retrieve": [[1, -1], [8, 9]], "score": [[1, 7], [-1, -1]]}, [set(), {1, 8}]
    yield (
        {
            "retrieve": [[1, 2, 3, 4, 9], [7, 8, 9]],
            "filter": [[1, 2, 3, 4], [7, 8]],
            "score": [[1], [7, 8]],
        },
        [{1, 2, 3, 4, 5, 6}, {7, 8}],
    )
    for _ in range(20):
        users = int(rng.integers(1, 8))
        relevant = [set(rng.permutation(40)[: rng.integers(1, 12)].tolist()) for _ in range(users)]
        stages = {
            name: [rng.permutation(40)[:width].tolist() for _ in range(users)]
            for name, width in (("retrieve", 30), ("filter", 25), ("score", 9), ("order", 12))
        }
        lost = sorted(-np.diff(_alive(stages, relevant)))
        if lost[-1] > lost[-2]:  # of shares as floats, rounding would choose between equal ones
            yield stages, relevant


def _alive(stages: Stages, relevant: Users) -> list[int]:
    survivors = [
        sum(len(set(products) & bought) for products, bought in zip(lists, relevant, strict=True))
        for lists in stages.values()
    ]
    return [sum(map(len, relevant)), *survivors]


def _by_stage(stages: Stages, losses: Iterable[float]) -> tuple[str, float]:
    named = dict(zip(stages, losses, strict=True))
    worst = max(named, key=lambda name: named[name])
    return worst, float(named[worst])


def _lost(stages: Stages, relevant: Users) -> np.ndarray:
    return -np.diff(_alive(stages, relevant)) / sum(map(len, relevant))


def _of_what_entered(stages: Stages, relevant: Users) -> tuple[str, float]:
    alive = pairwise(_alive(stages, relevant))
    return _by_stage(stages, [(before - now) / max(before, 1) for before, now in alive])


def _of_candidates(stages: Stages, relevant: Users) -> tuple[str, float]:
    sizes = [sum(map(len, lists)) for lists in stages.values()]
    return _by_stage(stages, -np.diff([sizes[0], *sizes]) / sum(map(len, relevant)))


def _averaged_over_users(stages: Stages, relevant: Users) -> tuple[str, float]:
    losses = [
        _lost({name: [lists[user]] for name, lists in stages.items()}, [bought])
        for user, bought in enumerate(relevant)
        if bought
    ]
    return _by_stage(stages, np.mean(losses, axis=0))


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
        cases=ndcg_cases,
        mistakes={
            "It divides by a list with a hit for each relevant product. The perfect list has only "
            "k places: min(k, len(relevant)) hits.": (
                lambda shown, relevant, k: _ndcg(_hits(shown[:k], relevant), len(relevant))
            ),
            "It divides by a list of k hits. There may be fewer relevant products: the perfect "
            "list has min(k, len(relevant)) hits.": (
                lambda shown, relevant, k: _ndcg(_hits(shown[:k], relevant), k)
            ),
            "It divides by the hits that this list has, moved to the top. The perfect list has "
            "min(k, len(relevant)) hits, found or not.": (
                lambda shown, relevant, k: _ndcg(
                    _hits(shown[:k], relevant), max(1, len(_hits(shown[:k], relevant)))
                )
            ),
            "This is DCG@k. Divide it by that of a perfect list.": (
                lambda shown, relevant, k: _dcg(_hits(shown[:k], relevant))
            ),
            "A hit counts the same on every place. On place r it counts 1 / log2(r + 1).": (
                lambda shown, relevant, k: len(_hits(shown[:k], relevant)) / min(k, len(relevant))
            ),
            "Hits below place k are counted. Cut the list at k first.": (
                lambda shown, relevant, k: _ndcg(_hits(shown, relevant), min(k, len(relevant)))
            ),
            "The list and the perfect list use different logarithms. Use the same for both.": (
                lambda shown, relevant, k: (
                    _ndcg(_hits(shown[:k], relevant), min(k, len(relevant))) / np.log(2)
                )
            ),
            "The first place counts 1 / log2(3) here. Counted from 1, place r counts "
            "1 / log2(r + 1); counted from 0, 1 / log2(i + 2).": (
                lambda shown, relevant, k: (
                    _dcg(place + 1 for place in _hits(shown[:k], relevant))
                    / _dcg(range(2, min(k, len(relevant)) + 2))
                )
            ),
        },
    ),
    Exercise(
        id="1.2",
        title="a split without a leak",
        hints=(
            "Cut with two comparisons: train is before `valid`, test is from `test` on.",
            "Sort by time, cut, and only then part.drop_duplicates([...], keep='last').",
        ),
        cases=split_cases,
        same=same_parts,
        mistakes={
            "A row of a later part deleted one of training. Cut first, then remove repeated rows "
            "inside each part.": lambda rows, valid, test: _parts(_last(rows), valid, test),
            "A row of training deleted one of a later part. Remove repeated rows inside each part "
            "only.": lambda rows, valid, test: _parts(
                pd.concat(_last_of(_parts(rows, valid, test)).values()).drop_duplicates(PAIR),
                valid,
                test,
            ),
            "Rows of users that training never saw are gone. They stay.": _without_new_users,
            "A row at the very first moment of a part is in the part before it. Compare with >= "
            "there.": lambda rows, valid, test: _last_of(
                _parts(rows, valid + pd.Timedelta(1, "ns"), test + pd.Timedelta(1, "ns"))
            ),
            'The rows of "test" are in "valid" as well. "valid" ends where "test" begins.': (
                lambda rows, valid, test: (
                    _last_of(_parts(rows, valid, test))
                    | {"valid": _last(rows[rows["timestamp"] >= valid])}
                )
            ),
            "A user and a product occur twice in one part. Keep the latest row only.": _parts,
            "Of repeated rows the last in the table stays, not the latest. Sort by time first.": (
                lambda rows, valid, test: {
                    name: part.drop_duplicates(PAIR, keep="last")
                    for name, part in _parts(rows, valid, test).items()
                }
            ),
            "Of repeated rows the earliest stays. Keep the latest.": (
                lambda rows, valid, test: {
                    name: part.sort_values("timestamp").drop_duplicates(PAIR)
                    for name, part in _parts(rows, valid, test).items()
                }
            ),
        },
    ),
    Exercise(
        id="1.3",
        title="exclude seen items, then backfill",
        hints=(
            "Go down the ranking once, keep what may be shown, and stop when there are n.",
            "Filter first, cut afterwards: ranked[:n] before filtering leaves too few.",
        ),
        cases=filter_cases,
        mistakes={
            "The ranking was cut at n before it was filtered, so too few are left. Go on down the "
            "ranking until n products are found.": (
                lambda ranked, seen, available, n: _different(_allowed(ranked[:n], seen, available))
            ),
            "The list was cut at n before repeated products were removed, so too few are left. "
            "Remove repeats first.": (
                lambda ranked, seen, available, n: _different(_allowed(ranked, seen, available)[:n])
            ),
            "A product that the user already had came out.": (
                lambda ranked, _seen, available, n: _different(_allowed(ranked, (), available))[:n]
            ),
            "A product that is not for sale came out.": (
                lambda ranked, seen, _available, n: _different(_allowed(ranked, seen, ranked))[:n]
            ),
            "A product came out twice.": (
                lambda ranked, seen, available, n: _allowed(ranked, seen, available)[:n]
            ),
            "Of a repeated product the last place counts here. The first one counts.": (
                lambda ranked, seen, available, n: _different(
                    _allowed(ranked[::-1], seen, available)
                )[::-1][:n]
            ),
            "The products are not in the order of the ranking.": (
                lambda ranked, seen, available, n: sorted(set(_allowed(ranked, seen, available)))[
                    :n
                ]
            ),
        },
    ),
    Exercise(
        id="1.4",
        title="which stage to improve first",
        hints=(
            "Count the purchases that survive each stage: the relevant products that are in the "
            "user's list.",
            "Loss of a stage = (surviving before it - surviving after it) / all purchases; before "
            "the first stage all survive.",
        ),
        cases=loss_cases,
        mistakes={
            "The loss is divided by the purchases that entered the stage. Divide by all "
            "purchases.": _of_what_entered,
            "The first stage can lose as well. Before it, all purchases survive.": (
                lambda stages, relevant: _by_stage(stages, [0, *_lost(stages, relevant)[1:]])
            ),
            "It counts the candidates that a stage removes. Only relevant products count.": (
                _of_candidates
            ),
            "It averages over users. Count purchases: who bought more counts more.": (
                _averaged_over_users
            ),
            "It adds up the losses of all stages so far. Compare each stage with the one before "
            "it.": lambda stages, relevant: _by_stage(stages, np.cumsum(_lost(stages, relevant))),
            "A stage that gains is taken for one that loses. A gain is a loss below 0.": (
                lambda stages, relevant: _by_stage(stages, np.abs(_lost(stages, relevant)))
            ),
            "Of equal losses the later stage is named. Name the earlier one.": (
                lambda stages, relevant: _by_stage(
                    dict(reversed(stages.items())), _lost(stages, relevant)[::-1]
                )
            ),
            "The second value is a number of purchases. Divide it by all purchases.": (
                lambda stages, relevant: _by_stage(stages, -np.diff(_alive(stages, relevant)))
            ),
        },
    ),
]
