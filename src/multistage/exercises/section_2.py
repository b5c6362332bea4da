"""Exercises of lab 2: target encoding, embedding sizes, pairs, and comparing two models."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from courseware.exercises.exercise import Exercise, Wrong
from courseware.exercises.expect import keeping, same_dtype, whole
from courseware.exercises.source import changed
from multistage.exercises.tensors import call_with_vectors, tf


def encoding_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Keys, targets, folds and smoothing: by hand, then random ones."""

    def rows(keys: Any, target: Any, fold: Any, index: Any = None) -> tuple[Any, ...]:
        series = (pd.Series(list(values), index=index) for values in (keys, target))
        return *series, np.array(fold)

    yield *rows("aaab", [1, 0, 1, 0], [0, 0, 1, 1]), 2.0
    yield *rows("a", [1], [0]), 1.0
    yield *rows("abab", [1, 0, 0, 0], [5, 5, 5, 5]), 0.5
    yield *rows("aabb", [1, 0, 1, 1], [2, 1, 1, 2], [0, 1, 0, 1]), 1.0
    yield *rows([7, 3, 7, 3, 7], [1, 1, 0, 1, 1], [3, 7, 7, 3, 3], [4, 3, 2, 1, 0]), 1.5
    for smoothing in (0.25, 1.0, 5.0, 20.0):
        n = int(rng.integers(30, 60))
        keys, target = rng.integers(0, 9, n), rng.integers(0, 2, n)
        fold, index = rng.choice([-1, 2, 3, 11], n), rng.permutation(n) + 1_000
        yield *rows(keys, target, fold, index), smoothing
    n = 40
    keys, target = rng.choice(list("pqrs"), n), (rng.random(n) < 0.2).astype(int)
    yield *rows(keys, target, rng.integers(0, 3, n), rng.permutation(n)), 3.0


MEANS = "pd.Series([target[fold != own].mean() for own in fold])"


def size_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Numbers of values, some with a multiplier; none at the edge of the next multiple of 4."""
    yield from [(1_000,), (1,), (2,), (3,), (16,), (4, 40.0), (5, 40.0), (8, 40.0), (2, 0.25)]
    yield from [(30, 0.5), (10, 2.2), (11, 2.2), (7, 3.0), (50_000,), (100_000, 4.0)]
    yield from [(3_000_000, 1.0), (2 * 10**9, 0.7)]
    for _ in range(40):
        values, multiplier = int(np.exp(rng.uniform(0, 15))), float(rng.uniform(0.3, 9))
        wanted = multiplier * values**0.25 / 4
        if abs(wanted - round(wanted)) > 1e-6:  # or the last bit decides whether it is rounded up
            yield values, multiplier


ROOT = "multiplier * values**0.25"  # pieces of the solution
ROUNDED = "4 * int(np.ceil(wanted / 4))"


def pairs_cases(rng: np.random.Generator) -> Iterator[tuple[Any]]:
    """Vectors of halves, so that float32 is exact; batch, n and size down to 1."""
    yield (tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]),)
    shapes = [(1, 1, 3), (2, 2, 1), (1, 3, 3), (3, 3, 3), (2, 5, 2), (4, 4, 4), (7, 6, 3)]
    for shape in shapes:
        yield (tf.constant(rng.integers(-9, 10, shape) / 2, tf.float32),)


def _differentiate(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    n = 40
    graph = tf.function(answer).get_concrete_function(tf.TensorSpec([None, n, 4])).graph
    if len(graph.get_operations()) > n * (n - 1) // 2:
        raise Wrong(
            "The values are right, but it loops over the pairs. The identity above needs only the "
            "sum of the vectors and the sum of their squares."
        )
    vectors = tf.ones((2, 3, 4))
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        pairs = answer(vectors)
    if tape.gradient(pairs, vectors) is None:
        raise Wrong(
            "The values are right, but they have no gradient, so nothing below them would learn. "
            "Use TensorFlow's functions only."
        )


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
    few = (np.arange(80) < 8) * 1.0
    yield (np.arange(80) < 40) * 1, few, np.zeros(80), 3
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


def _watch_seeds(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Where 97% of the draws are above 0, the seed decides. The same seed says the same."""
    near = scored_rows(rng, 0.967, 0.973, gain=0.4, draws=20_000)
    below = scored_rows(rng, 0.917, 0.923, gain=0.3, draws=20_000)
    verdicts = [bool(answer(*copy.deepcopy(near), seed)) for seed in range(60)]
    if verdicts[:8] != [bool(answer(*copy.deepcopy(near), seed)) for seed in range(8)]:
        raise Wrong("The same seed gave another verdict. Take all random numbers from the seed.")
    better = sum(verdicts)
    lenient = sum(bool(answer(*copy.deepcopy(below), seed)) for seed in range(60))
    if better in (0, 60) and lenient in (0, 60):
        raise Wrong(
            "Two models were compared with 60 seeds, and each seed gave the same verdict, although "
            "luck decides between them. Does each seed draw other rows?"
        )
    if better > 50 or lenient > 10:
        raise Wrong(TOO_LOW)
    if better < 8:
        raise Wrong(
            "It asks for too much. Not every difference must be above 0: 97.5% are enough.",
            "True for 20 to 40 of 60 seeds, where 97% of the differences are above 0",
            f"True for {better}",
        )


DRAW = "rng.integers(len(target), size=len(target))"
ALL_ROWS = "np.arange(len(target))"
TOO_LOW = (
    "The limit is too low. At least 97.5% of the differences must be above 0, so their 2.5% "
    "quantile is."
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
                changed("2.1", {" - own.to_numpy()": ""})
            ),
            "This is the mean over the row's own fold. Take the other folds.": changed(
                "2.1", {"by_key.to_numpy() - own.to_numpy()": "own.to_numpy()"}
            ),
            "Only the row itself is left out. Another row of its fold still gives it away.": (
                changed(
                    "2.1", {"own.to_numpy()": "np.column_stack([target, np.ones(len(target))])"}
                )
            ),
            "The means are not smoothed: smoothing * mean belongs to the sum, smoothing to the "
            "count.": changed("2.1", {" + smoothing * mean": "", " + smoothing)": ")"}),
            "Only keys without other rows get the overall mean. Smooth the others too: smoothing * "
            "mean belongs to the sum, smoothing to the count.": changed(
                "2.1",
                {
                    "smoothing * mean": "(others[:, 1] == 0) * mean",
                    "+ smoothing)": "+ (others[:, 1] == 0))",
                },
            ),
            "The overall mean is that of the other folds here. Take the mean over all rows.": (
                changed("2.1", {"= target.mean()": f"= {MEANS}.fillna(target.mean()).to_numpy()"})
            ),
            "The overall mean is that of the other folds here, and where there are none it is nan. "
            "Take the mean over all rows.": changed("2.1", {"= target.mean()": f"= {MEANS}.array"}),
            "The values are right, but they stand fold by fold. Return them in the order of the "
            "rows.": changed(
                "2.1",
                {
                    "return (": "return ((",
                    "+ smoothing)": "+ smoothing))[np.argsort(fold, kind='stable')]",
                },
            ),
            "The result has one value per key. One value per row is wanted.": (
                lambda keys, target, fold, smoothing: target.groupby(keys.array).mean().to_numpy()
            ),
            "Folds need not be numbered 0, 1, 2. Loop over np.unique(fold).": changed(
                "2.1", {"+ smoothing)": "+ smoothing) * np.isin(fold, range(len(np.unique(fold))))"}
            ),
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
            "The size is no multiple of 4. Round up to one.": changed(
                "2.2", {ROUNDED: "int(np.ceil(wanted))"}
            ),
            "This is the square root. Take the fourth root.": changed("2.2", {"0.25": "0.5"}),
            "A small category got more numbers than it has values. The size never exceeds the "
            "number of values, rounded up to a multiple of 4.": changed(
                "2.2", {f"min({ROOT}, values)": ROOT}
            ),
            "The bound is not rounded up. With 5 values it is 8.": changed(
                "2.2",
                {ROUNDED: f"min({ROUNDED}, values)"},
            ),
            "Round up, not down. Even one value has a vector.": changed(
                "2.2", {"np.ceil(wanted / 4)": "wanted // 4"}
            ),
            "Round up, not to the nearest multiple of 4.": changed(
                "2.2",
                {ROOT: f"max(4, 4 * round({ROOT} / 4))"},
            ),
            "A multiple of 4 stays as it is. Only other numbers are rounded up.": changed(
                "2.2", {ROOT: f"4 * ({ROOT} // 4 + 1)"}
            ),
            "The fraction was cut off before rounding up. Even 12.1 is rounded up to 16.": changed(
                "2.2", {ROOT: f"int({ROOT})"}
            ),
            "The root was rounded up before it was multiplied. Round the product only.": changed(
                "2.2", {"values**0.25": "np.ceil(values**0.25)"}
            ),
            "The multiplier is not used.": changed("2.2", {"multiplier *": "2.0 *"}),
            "The result is a float. A size is an int.": changed(
                "2.2", {"int(np.ceil(wanted / 4))": "np.ceil(wanted / 4)"}
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
        judge=_differentiate,
        traced=True,
        mistakes={
            "Each pair is counted twice. Take half of it.": changed("2.3", {"0.5 * ": ""}),
            "A vector is no pair with itself. Take the squares away.": changed(
                "2.3", {" - sum_of_squares": ""}
            ),
            "The sum runs over the coordinates. It runs over the vectors (axis 1), and the "
            "coordinates stay.": changed("2.3", {"axis=1": "axis=2"}),
            "The sum runs over the batch. It runs over the vectors of each row (axis 1).": changed(
                "2.3", {"axis=1": "axis=0"}
            ),
            "The coordinates are added up. Keep one sum per coordinate.": changed(
                "2.3", {"0.5 * (": "0.5 * tf.reduce_sum(axis=1, input_tensor="}
            ),
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
            "A model that is ahead by luck counts as better. Is it one comparison, are rows drawn "
            "without replacement, or does it ask only for most differences or for their mean? At "
            "least 97.5% of the differences must be above 0.": changed("2.4", {DRAW: ALL_ROWS}),
            "Equal models count as better, and so do those ahead by luck. At least 97.5% of the "
            "differences must be above 0.": changed("2.4", {DRAW: ALL_ROWS, "> 0)": ">= 0)"}),
            "Equal models are no improvement. The differences must be above 0.": changed(
                "2.4", {"> 0)": ">= 0)"}
            ),
            "A worse model is called better too. Keep the sign of the difference.": changed(
                "2.4",
                {
                    "differences.append(": "differences.append(abs(",
                    "second[rows]))": "second[rows])))",
                },
            ),
            "The verdict is the wrong way round. The difference is first less second.": changed(
                "2.4",
                {"first[rows]": "other", "second[rows]": "first[rows]", "other": "second[rows]"},
            ),
            "The luck that both models share does not cancel. Compute both AUCs on the same drawn "
            "rows, and take the quantile of their differences, not of each model's AUC.": changed(
                "2.4",
                {
                    "rows = ": "rows, others = ",
                    "size=len(target)": "size=(2, len(target))",
                    "auc_of(drawn, second[rows])": "auc_of(target[others], second[others])",
                },
            ),
            "No model is ever better. Are the targets drawn with the scores? target[rows] belongs "
            "to first[rows].": changed("2.4", {"= target[rows]": "= target"}),
            "All 100 draws are the same. Make one generator from the seed, before the loop.": (
                changed("2.4", {DRAW: f"np.random.default_rng(seed).{DRAW[4:]}"})
            ),
            "Each draw has 100 rows. Draw 100 times, and each time as many rows as there are.": (
                changed("2.4", {"size=len(target)": "size=100"})
            ),
            TOO_LOW: changed("2.4", {"0.025": "0.1"}),
        },
    ),
]
