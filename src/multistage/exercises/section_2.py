"""Exercises of lab 2: target encoding, embedding sizes, pairs, and comparing two models."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from courseware.exercises.exercise import Exercise, Wrong
from courseware.exercises.expect import keeping, same_dtype, whole
from multistage.exercises.tensors import call_with_vectors, tf


def encoding_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Keys, targets, folds and smoothing: by hand, then random ones."""

    def rows(keys: Any, target: Any, fold: Any, index: Any = None) -> tuple[Any, ...]:
        series = (pd.Series(list(values), index=index) for values in (keys, target))
        return *series, np.array(fold)

    yield *rows("aaab", [1, 0, 1, 0], [0, 0, 1, 1]), 2.0
    yield *rows("a", [1], [0]), 1.0
    yield *rows("abab", [1, 0, 0, 0], [5, 5, 5, 5]), 0.5
    yield *rows([7, 3, 7, 3, 7], [1, 1, 0, 1, 1], [3, 7, 7, 3, 3], [4, 3, 2, 1, 0]), 1.5
    for smoothing in (0.25, 1.0, 5.0, 20.0):
        n = int(rng.integers(30, 60))
        keys, target = rng.integers(0, 9, n), rng.integers(0, 2, n)
        fold, index = rng.choice([-1, 2, 3, 11], n), rng.permutation(n) + 1_000
        yield *rows(keys, target, fold, index), smoothing
    n = 40
    keys, target = rng.choice(list("pqrs"), n), (rng.random(n) < 0.2).astype(int)
    yield *rows(keys, target, rng.integers(0, 3, n), rng.permutation(n)), 3.0


def _totals(target: pd.Series, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the target over the group of each row."""
    grouped = target.groupby(groups)
    return grouped.transform("sum").to_numpy(), grouped.transform("count").to_numpy()


def _encode(sums: Any, counts: Any, target: pd.Series, smoothing: float) -> np.ndarray:
    return np.asarray((sums + smoothing * target.mean()) / (counts + smoothing))


def _leave_one_out(
    keys: pd.Series, target: pd.Series, fold: np.ndarray, smoothing: float
) -> np.ndarray:
    sums, counts = _totals(target, keys)
    return _encode(sums - target.to_numpy(), counts - 1, target, smoothing)


def _unsmoothed(
    keys: pd.Series, target: pd.Series, fold: np.ndarray, smoothing: float
) -> np.ndarray:
    sums, counts = _totals(target, keys)
    own_sums, own_counts = _totals(target, [keys, fold])
    with np.errstate(invalid="ignore"):
        return (sums - own_sums) / (counts - own_counts)


def _folds_by_number(
    keys: pd.Series, target: pd.Series, fold: np.ndarray, smoothing: float
) -> np.ndarray:
    encoded = np.zeros(len(keys))
    for number in range(len(np.unique(fold))):
        others = target[fold != number].groupby(keys[fold != number])
        sums, counts = (keys.map(total).fillna(0) for total in (others.sum(), others.count()))
        values = _encode(sums, counts, target, smoothing)
        encoded[fold == number] = values[fold == number]
    return encoded


def size_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Numbers of values, some with a multiplier; none at the edge of the next multiple of 4."""
    yield from [(1_000,), (1,), (2,), (3,), (4, 40.0), (5, 40.0), (8, 40.0), (2, 0.25), (30, 0.5)]
    yield from [
        (10, 2.2),
        (11, 2.2),
        (7, 3.0),
        (50_000,),
        (100_000, 4.0),
        (3_000_000, 1.0),
        (2 * 10**9, 0.7),
    ]
    for _ in range(40):
        values, multiplier = int(np.exp(rng.uniform(0, 15))), float(rng.uniform(0.3, 9))
        wanted = multiplier * values**0.25 / 4
        if abs(wanted - round(wanted)) > 1e-6:  # or the last bit decides whether it is rounded up
            yield values, multiplier


def _round_up(wanted: float) -> int:
    return 4 * int(np.ceil(wanted / 4))


def pairs_cases(rng: np.random.Generator) -> Iterator[tuple[Any]]:
    """Vectors of halves, so that float32 is exact; batch, n and size down to 1."""
    yield (tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]),)
    shapes = [(1, 1, 3), (2, 2, 1), (1, 3, 3), (3, 3, 3), (2, 5, 2), (4, 4, 4), (7, 6, 3)]
    for shape in shapes:
        yield (tf.constant(rng.integers(-9, 10, shape) / 2, tf.float32),)


def _pairs(vectors: Any, axis: int = 1, factor: float = 0.5, squares: float = 1.0) -> Any:
    square_of_sum = tf.square(tf.reduce_sum(vectors, axis=axis))
    return factor * (square_of_sum - squares * tf.reduce_sum(tf.square(vectors), axis=axis))


def _pairs_added_up(vectors: Any) -> Any:
    return tf.reduce_sum(_pairs(vectors), axis=1)


def _refuse_loop_over_pairs(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    n = 40
    graph = tf.function(answer).get_concrete_function(tf.TensorSpec([None, n, 4])).graph
    if len(graph.get_operations()) > n * (n - 1) // 2:
        raise Wrong(
            "The values are right, but it loops over the pairs. The identity above needs only the "
            "sum of the vectors and the sum of their squares."
        )


def _auc(target: np.ndarray, score: np.ndarray) -> float:
    ones = target == 1
    positives, negatives = ones.sum(), (~ones).sum()
    ranks = rankdata(score)[ones].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def share_ahead(
    target: np.ndarray, first: np.ndarray, second: np.ndarray, draws: int = 500
) -> float:
    """Return the share of ``draws`` samples of the rows in which ``first`` has the larger AUC."""
    ones, zeros = target == 1, target == 0
    gain = np.sign(first[ones, None] - first[zeros]) - np.sign(second[ones, None] - second[zeros])
    n = len(target)
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    return float(np.mean(np.sum((times[:, ones] @ gain) * times[:, zeros], axis=1) > 0))


def scored_rows(
    rng: np.random.Generator, low: float, high: float, gain: float = 0.0, draws: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return targets and scores of two models, the first ahead in ``low`` to ``high`` of draws."""
    while True:
        target = (rng.random(120) < 0.4).astype(int)
        shared = target + 1.5 * rng.normal(size=120)
        first = shared + gain * target + 0.6 * rng.normal(size=120)
        second = shared + 0.6 * rng.normal(size=120)
        if not low <= share_ahead(target, first, second) <= high:
            continue
        if draws == 500 or low <= share_ahead(target, first, second, draws) <= high:
            return target, first, second


def comparison_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Targets, two scores and a seed. Whatever is drawn, every right bootstrap says the same."""
    target, order = np.arange(20) % 2, np.arange(20)
    yield target, target * 1.0, 1.0 - target, 0
    yield target, order, order, 1
    # A model ahead without doubt, on other scales, and the other way round.
    target, first, second = scored_rows(rng, 1, 1, gain=2.0)
    for seed, (one, two) in enumerate([(1e-3 * first - 5, 1e3 * second), (second, first)]):
        yield target, one, two, seed
    # Equal scores count half: one model knows two scores only.
    n = 500
    target = rng.permutation(np.arange(n) % 2)
    rank = rankdata(target + 0.6 * rng.normal(size=n))
    halves, worse = (rank > n / 2) * 1.0, rankdata(target + 2.0 * rng.normal(size=n))
    yield target, halves, worse, 2
    yield target, rank, halves, 3
    yield target, halves, halves * (np.cumsum(halves * target) > 15), 3
    # The same rows are hard for both: only a paired comparison sees the difference.
    shared = target + 1.5 * rng.normal(size=n)
    yield target, shared + 0.25 * target, shared, 4
    # The second model finds the best few, and knows nothing of the rest.
    target = rng.permutation(np.arange(n) % 6 == 0).astype(int)
    few = rng.normal(size=n) + 10 * (target & (rng.random(n) < 0.25))
    yield target, 1.5 * target + rng.normal(size=n), few, 5
    # A model ahead by luck only, or behind by luck.
    for seed in range(14):
        target, first, second = scored_rows(rng, 0.8, 0.87, draws=2_000)
        first = first * 10.0 ** (3 * (seed % 3 - 1))
        yield target, first, second, seed
        if seed < 4:
            yield target, second, first, seed


def _unpaired(target: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int) -> bool:
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(100):
        rows, others = rng.integers(len(target), size=(2, len(target)))
        one, other = _auc(target[rows], first[rows]), _auc(target[others], second[others])
        differences.append(one - other)
    return bool(np.quantile(differences, 0.025) > 0)


def _ahead(target: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    return share_ahead(target, first, second) >= 0.975


def _watch_seeds(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Where 97% of the draws are above 0, the seed decides. The same seed says the same."""
    case = scored_rows(rng, 0.967, 0.973, gain=0.4, draws=20_000)
    verdicts = [bool(answer(*copy.deepcopy(case), seed)) for seed in range(60)]
    if verdicts[:8] != [bool(answer(*copy.deepcopy(case), seed)) for seed in range(8)]:
        raise Wrong("The same seed gave another verdict. Take all random numbers from the seed.")
    if not 8 <= sum(verdicts) <= 46:
        raise Wrong(
            "Two models were compared of which 97% of the differences are above 0. The verdict is "
            "the same for nearly every seed. Does each seed draw other rows, and is the limit the "
            "2.5% quantile of 100 differences?",
            "True for 20 to 40 of 60 seeds",
            f"True for {sum(verdicts)}",
        )


EXERCISES = [
    Exercise(
        id="2.1",
        title="a target encoding that does not leak",
        hints=(
            "Two totals help: of each key, and of each key inside each fold. Their difference is "
            "the total over the other folds.",
            "target.groupby([keys.to_numpy(), fold]).transform('sum') gives the inner total of "
            "each row in place.",
        ),
        cases=encoding_cases,
        use=keeping(0, 1, 2),
        mistakes={
            "The row's own fold is in its mean. Leave out all rows of the fold, this one too.": (
                lambda keys, target, fold, smoothing: _encode(
                    *_totals(target, keys), target, smoothing
                )
            ),
            "This is the mean over the row's own fold. Take the other folds.": (
                lambda keys, target, fold, smoothing: _encode(
                    *_totals(target, [keys, fold]), target, smoothing
                )
            ),
            "Only the row itself is left out. Another row of its fold still gives it away.": (
                _leave_one_out
            ),
            "The means are not smoothed: smoothing * mean belongs to the sum, smoothing to the "
            "count.": _unsmoothed,
            "The result has one value per key. One value per row is wanted.": (
                lambda keys, target, fold, smoothing: target.groupby(keys).mean().to_numpy()
            ),
            "Folds need not be numbered 0, 1, 2. Loop over np.unique(fold).": _folds_by_number,
        },
    ),
    Exercise(
        id="2.2",
        title="a size for each embedding",
        hints=(
            "wanted = multiplier * values ** 0.25, but never more than values.",
            "Rounded up to a multiple of 4: 4 * ceil(wanted / 4), as an int.",
        ),
        cases=size_cases,
        same=whole,
        mistakes={
            "The size is no multiple of 4. Round up to one.": (
                lambda values, multiplier=2.0: int(np.ceil(min(multiplier * values**0.25, values)))
            ),
            "This is the square root. Take the fourth root.": (
                lambda values, multiplier=2.0: _round_up(min(multiplier * values**0.5, values))
            ),
            "A small category got more numbers than it has values. The size never exceeds the "
            "number of values, rounded up to a multiple of 4.": (
                lambda values, multiplier=2.0: _round_up(multiplier * values**0.25)
            ),
            "The bound is not rounded up. With 5 values it is 8.": (
                lambda values, multiplier=2.0: min(_round_up(multiplier * values**0.25), values)
            ),
            "Round up, not down. Even one value has a vector.": (
                lambda values, multiplier=2.0: 4 * int(min(multiplier * values**0.25, values) // 4)
            ),
            "A multiple of 4 stays as it is. Only other numbers are rounded up.": (
                lambda values, multiplier=2.0: (
                    4 * int(min(multiplier * values**0.25, values) // 4) + 4
                )
            ),
            "The multiplier is not used.": (
                lambda values, multiplier=2.0: _round_up(min(2.0 * values**0.25, values))
            ),
            "The result is a float. A size is an int.": (
                lambda values, multiplier=2.0: (
                    4 * np.ceil(min(multiplier * values**0.25, values) / 4)
                )
            ),
        },
    ),
    Exercise(
        id="2.3",
        title="the pairs of a factorisation machine",
        hints=(
            "(a + b + c)² holds each pair twice, and the squares of a, b and c.",
            "0.5 * (square of the sum - sum of the squares), both over axis 1.",
        ),
        cases=pairs_cases,
        use=call_with_vectors,
        same=same_dtype,
        judge=_refuse_loop_over_pairs,
        traced=True,
        mistakes={
            "Each pair is counted twice. Take half of it.": (
                lambda vectors: _pairs(vectors, factor=1.0)
            ),
            "A vector is no pair with itself. Take the squares away.": (
                lambda vectors: _pairs(vectors, squares=0.0)
            ),
            "The sum runs over the coordinates. It runs over the vectors (axis 1), and the "
            "coordinates stay.": lambda vectors: _pairs(vectors, axis=2),
            "The sum runs over the batch. It runs over the vectors of each row (axis 1).": (
                lambda vectors: _pairs(vectors, axis=0)
            ),
            "The coordinates are added up. Keep one sum per coordinate.": _pairs_added_up,
        },
    ),
    Exercise(
        id="2.4",
        title="a significance test for two AUCs",
        hints=(
            "Draw rows with replacement, compute both AUCs on the same rows, keep the difference.",
            "Better means that the 2.5% quantile of the differences is above 0.",
        ),
        cases=comparison_cases,
        use=keeping(0, 1, 2),
        judge=_watch_seeds,
        seconds=60.0,
        mistakes={
            "It is better in one comparison, or in most, but that may be luck. 97.5% of the "
            "differences must be above 0.": (
                lambda target, first, second, seed: _auc(target, first) > _auc(target, second)
            ),
            "Equal models count as better, and so do those ahead by luck. 97.5% of the differences "
            "must be above 0.": (
                lambda target, first, second, seed: _auc(target, first) >= _auc(target, second)
            ),
            "Equal models are no improvement. The differences must be above 0.": (
                lambda target, first, second, seed: (
                    np.array_equal(first, second) or _ahead(target, first, second)
                )
            ),
            "A worse model is called better too. Keep the sign of the difference.": (
                lambda target, first, second, seed: (
                    abs(_auc(target, first) - _auc(target, second)) > 1e-3
                )
            ),
            "The verdict is the wrong way round. The difference is first less second.": (
                lambda target, first, second, seed: _ahead(target, second, first)
            ),
            "The two models were not drawn the same rows. Their luck is shared: compare them on "
            "the same rows, and it cancels.": _unpaired,
            "The result is a number. Return True or False.": (
                lambda target, first, second, seed: _auc(target, first) - _auc(target, second)
            ),
        },
    ),
]
