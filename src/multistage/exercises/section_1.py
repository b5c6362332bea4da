"""Checks of lab 1: NDCG@k, and a filter that holds."""

from collections.abc import Callable

import numpy as np

from multistage.exercises.engine import Exercise, Wrong
from multistage.exercises.expect import number, same_type


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
        title="a filter that holds, and back-fills",
        hints=(
            "Go down the ranking once, keep what may be shown, and stop when there are n.",
            "Filter first, cut afterwards: ranked[:n] before filtering leaves too few.",
        ),
        check=check_filter,
    ),
]
