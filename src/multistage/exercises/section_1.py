"""Exercises of lab 1: NDCG@k, a split in time, a filter, and the stage that loses most."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises import Exercise
from courseware.exercises.expect import same
from courseware.exercises.source import changed

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


# 1.2

COLUMNS = ["user_id", "product_id", "timestamp", "target"]


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
    yield _log([(1, 7, 10.2, 0), (1, 8, 10.8, 1), (1, 9, 20.2, 0)]), _day(10.5), _day(20.5)
    for cut in (10, 10.5) * 5:
        n = int(rng.integers(20, 60))
        users, products = rng.integers(0, 5, (2, n))
        days = rng.permutation(210)[:n] / 7
        rows = _log(zip(users, products, days, rng.integers(0, 2, n), strict=True))
        rows.index = rng.integers(0, n, n)  # labels repeat, as after pd.concat
        yield rows, _day(cut), _day(cut + 10)


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
    yield np.arange(60), set(range(1, 59)), set(range(60)), 2  # the next allowed one is far down
    for _ in range(20):
        ranked = rng.integers(0, 30, 25)
        seen, available = set(rng.choice(30, 8).tolist()), set(rng.choice(40, 40).tolist())
        yield ranked, seen, available, int(rng.integers(1, 15))


# 1.4

Stages = dict[str, list[list[int]]]
Users = list[set[int]]


def loss_cases(rng: np.random.Generator) -> Iterator[tuple[Stages, Users]]:
    """By hand: each stage can be the worst, gains, ties, no loss at all; then random pipelines."""
    yield {"retrieve": [[1]], "score": [[]]}, [{1, 2, 3, 4}]
    yield {"retrieve": [[1, 2, 9]], "score": [[1]]}, [{1, 2}]
    yield {"retrieve": [[1, 2], [3]], "filter": [[2, 1], [3]]}, [{1, 2}, {3}]
    yield {"score": [[1, 2, 3]], "order": [[1, 2]], "again": [[1]]}, [{1, 2, 3, 4}]
    yield {"z": [[1, 2, 3], [5]], "y": [[1, 2], [5]], "x": [[1, 2], []]}, [{1, 2, 3}, {5}]
    yield {"retrieve": [[1, 2, 3]], "filter": [[1]], "score": [[1, 2, 3, 4]]}, [{1, 2, 3, 4}]
    yield {"fill": [[1, 2]], "score": [[1, 2, 3, 4]], "order": [[1]]}, [{1, 2, 3, 4}]
    yield {"retrieve": [[2, -1], [8, 9]], "score": [[1, 7], [-1, -1]]}, [set(), {1, 8}]
    yield {"a": [[1, 2, 3, 4]], "b": [[1, 2, 3]]}, [{1, 2, 3, 4, 5}]  # 1 - 0.8 < 0.8 - 0.6
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
        yield stages, relevant


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
            "k places: min(k, len(relevant)) hits.": changed(
                "1.1", {"min(k, len(relevant))": "len(relevant)"}
            ),
            "It divides by a list of k hits. There may be fewer relevant products: the perfect "
            "list has min(k, len(relevant)) hits.": changed("1.1", {"min(k, len(relevant))": "k"}),
            "It divides by the hits that this list has, moved to the top. The perfect list has "
            "min(k, len(relevant)) hits, found or not.": changed(
                "1.1",
                {
                    "min(k, len(relevant))": "len(relevant & set(recommended[:k]))",
                    "gained / best": "gained / best if gained else 0.0",
                },
            ),
            "This is DCG@k. Divide it by that of a perfect list.": changed(
                "1.1", {"gained / best": "gained"}
            ),
            "A hit counts the same on every place. On place r it counts 1 / log2(r + 1).": changed(
                "1.1", {"1 / np.log2(place + 1)": "1"}
            ),
            "Hits below place k are counted. Cut the list at k first.": changed(
                "1.1", {"recommended[:k]": "recommended"}
            ),
            "A short list is compared with a perfect list that is as short. The perfect list has "
            "min(k, len(relevant)) hits, however short this one is.": changed(
                "1.1",
                {
                    "min(k, len(relevant))": "min(k, len(relevant), len(recommended))",
                    "gained / best": "gained / best if best else 0.0",
                },
            ),
            "Place r counts 1 / r here. It counts 1 / log2(r + 1).": changed(
                "1.1", {"1 / np.log2(place + 1)": "1 / place"}
            ),
            "Only the first hit counts here. Add up all hits among the first k places.": changed(
                "1.1",
                {"gained = sum(": "gained = next((", "in relevant\n    )": "in relevant), 0)"},
            ),
            "The list and the perfect list use different logarithms. Use the same for both.": (
                changed("1.1", {"gained / best": "gained / np.log(2) / best"})
            ),
            "The first place counts 1 / log2(3) here. Counted from 1, place r counts "
            "1 / log2(r + 1); counted from 0, 1 / log2(i + 2).": changed(
                "1.1", {"log2(place + 1)": "log2(place + 2)"}
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
            "inside each part.": changed(
                "1.2",
                {
                    'sort_values("timestamp")': 'sort_values("timestamp").drop_duplicates('
                    '["user_id", "product_id"], keep="last")'
                },
            ),
            "Rows of users that training never saw are gone. They stay.": changed(
                "1.2", {"part.drop": 'part[part["user_id"].isin(parts["train"]["user_id"])].drop'}
            ),
            "A row at the very first moment of a part is in the part before it. Compare with >= "
            "there.": changed("1.2", {"< ": "<= ", ">= ": "> "}),
            "It cuts by calendar day. `valid` and `test` are moments: compare the timestamps as "
            "they are.": changed(
                "1.2",
                {"rows = rows": "valid, test = valid.normalize(), test.normalize(); rows = rows"},
            ),
            'The rows of "test" are in "valid" as well. "valid" ends where "test" begins.': (
                changed("1.2", {' & (rows["timestamp"] < test)': ""})
            ),
            "A user and a product occur twice in one part. Keep the latest row only.": changed(
                "1.2", {'.drop_duplicates(["user_id", "product_id"], keep="last")': ""}
            ),
            "Of repeated rows the last in the table stays, not the latest. Sort by time first.": (
                changed("1.2", {'rows.sort_values("timestamp")': "rows"})
            ),
            "Of repeated rows the earliest stays. Keep the latest.": changed(
                "1.2", {', keep="last"': ""}
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
            "ranking until n products are found.": changed("1.3", {"in ranked:": "in ranked[:n]:"}),
            "The ranking was cut at n before it was filtered, and a repeated product was kept.": (
                changed("1.3", {"in ranked:": "in ranked[:n]:", " and product not in allowed": ""})
            ),
            "The list was cut at n before repeated products were removed, so too few are left. "
            "Remove repeats first.": changed(
                "1.3",
                {
                    " and product not in allowed": "",
                    "return allowed": "return list(dict.fromkeys(allowed))",
                },
            ),
            "A product that the user already had came out.": changed(
                "1.3", {" and product not in seen": ""}
            ),
            "A product that is not for sale came out.": changed(
                "1.3", {"product in available and ": ""}
            ),
            "A product came out twice.": changed("1.3", {" and product not in allowed": ""}),
            "A product came out twice. It is compared with the one before it only: compare with "
            "all that were kept.": changed("1.3", {"not in allowed": "not in allowed[-1:]"}),
            "Of a repeated product the last place counts here. The first one counts.": changed(
                "1.3", {"in ranked:": "in reversed(list(dict.fromkeys(reversed(ranked)))):"}
            ),
            "The products are not in the order of the ranking.": changed(
                "1.3", {"in ranked:": "in sorted(ranked):"}
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
            "purchases.": changed("1.4", {"/ everything": "/ max(before, 1)"}),
            "The first stage is left out. It can lose as well: before it, all purchases "
            "survive.": changed("1.4", {"worst = ": "del losses[next(iter(stages))]; worst = "}),
            "The first stage never loses here. It can: before it, all purchases survive.": changed(
                "1.4", {"before - surviving": "before - surviving if losses else 0"}
            ),
            "It counts the candidates that a stage removes. Only relevant products count.": changed(
                "1.4",
                {
                    "bought & set(products)": "products",
                    "before - surviving": "before - surviving if losses else 0",
                },
            ),
            "It averages over users. Count purchases: who bought more counts more.": changed(
                "1.4",
                {
                    "set(products))": "set(products)) / max(len(bought), 1)",
                    "len(bought) for bought": "bool(bought) for bought",
                },
            ),
            "It adds up the losses of all stages so far. Compare each stage with the one before "
            "it.": changed("1.4", {"before = surviving": "pass"}),
            "After a gain, a stage is compared with the lowest number so far. Compare it with the "
            "stage before it.": changed(
                "1.4", {"before = surviving": "before = min(before, surviving)"}
            ),
            "It counts what a stage removes and leaves out what the stage adds. The loss is the "
            "number of purchases before it less the number after it.": changed(
                "1.4",
                {
                    "= everything, {}": "= relevant, {}",
                    "surviving = sum(": "surviving = list(",
                    "len(bought & set(products))": "bought & set(products)",
                    "(before - surviving)": "sum(map(len, map(set.difference, before, surviving)))",
                },
            ),
            "Shares were subtracted, and rounding chose between equal losses. Compare numbers of "
            "purchases, not rounded shares.": changed(
                "1.4",
                {
                    "= everything, {}": "= 1.0, {}",
                    "(before - surviving) / everything": "before - surviving / everything",
                    "before = surviving": "before = surviving / everything",
                },
            ),
            "A stage that gains is taken for one that loses. A gain is a loss below 0.": changed(
                "1.4", {"(before - surviving)": "abs(before - surviving)"}
            ),
            "Nothing is lost, and no stage is named. Name the first one then.": changed(
                "1.4", {"return worst,": 'return worst if losses[worst] > 0 else "",'}
            ),
            "Of equal losses the later stage is named. Name the earlier one.": changed(
                "1.4", {"max(losses,": "max(reversed(losses),"}
            ),
            "The second value is a number of purchases. Divide it by all purchases.": changed(
                "1.4", {" / everything": ""}
            ),
            "The second value is divided by the number of users. Divide by all purchases.": (
                changed("1.4", {"/ everything": "/ len(relevant)"})
            ),
        },
    ),
]
