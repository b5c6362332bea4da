"""Checks of lab 2: target encoding, embedding sizes, pairs, and telling models apart."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises.engine import Exercise, Wrong
from courseware.exercises.expect import array, same_type


def check_out_of_fold(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """A hand-computed case, then the properties that make an encoding honest."""
    keys, target = pd.Series(list("aaab")), pd.Series([1, 0, 1, 0])
    fold = np.array([0, 0, 1, 1])
    got = answer(keys.copy(), target.copy(), fold.copy(), 2.0)
    same_type(got, (np.ndarray, pd.Series, list), "The result")
    if np.shape(got) != (4,):
        raise Wrong("One value a row is wanted.", (4,), np.shape(got))
    got = np.asarray(got, dtype=float)
    own = np.array([(2 + 2 * 0.5) / 5] * 3 + [(0 + 2 * 0.5) / 3])
    if np.allclose(got, own):
        raise Wrong(
            "The row's own fold is in its mean: leave out all rows of the fold, this one too.",
            "(1 + 2 * 0.5) / (1 + 2) for the first row",
            f"{got[0]:.4g}",
        )
    if np.allclose(got, [(1 + 1) / 4, (1 + 1) / 4, (1 + 1) / 3, (0 + 1) / 3]):
        raise Wrong(
            "This is the mean over the row's own fold: take the other folds.",
            "(1 + 2 * 0.5) / (1 + 2) for the first row",
            f"{got[0]:.4g}",
        )
    if np.allclose(got, [(1 + 1) / 4, (2 + 1) / 4, (1 + 1) / 4, (0 + 1) / 2]):
        raise Wrong(
            "Only the row itself is left out: another row of its fold still gives it away.",
            "(1 + 2 * 0.5) / (1 + 2) for the first row",
            f"{got[0]:.4g}",
        )
    right = np.array([(1 + 1) / 3, (1 + 1) / 3, (1 + 1) / 4, (0 + 1) / 2])
    others = np.array([1.0, 1.0, 0.5, np.nan])
    if np.allclose(got[:3], others[:3]):
        raise Wrong("The means are not smoothed.", right[0], got[0])
    if np.isnan(got).any():
        raise Wrong("A key that occurs in one fold only gets the overall mean.", "0.5", "NaN")
    array(got, right, "The encoding of keys a, a, a, b with target 1, 0, 1, 0")

    for _ in range(5):
        n = int(rng.integers(30, 80))
        index = rng.permutation(n) + 1_000
        keys = pd.Series(rng.integers(0, 6, n), index=index)
        target = pd.Series(rng.integers(0, 2, n), index=index)
        fold = rng.integers(0, 4, n)
        before = np.asarray(answer(keys.copy(), target.copy(), fold.copy(), 5.0), dtype=float)
        array(before, _encode(keys, target, fold, 5.0), "The encoding of random rows")


def _encode(keys: pd.Series, target: pd.Series, fold: np.ndarray, smoothing: float) -> np.ndarray:
    key, label = keys.to_numpy(), target.to_numpy()
    values = []
    for row in range(len(key)):
        others = label[(key == key[row]) & (fold != fold[row])]
        values.append((others.sum() + smoothing * label.mean()) / (len(others) + smoothing))
    return np.array(values)


def check_embedding_size(answer: Callable[..., int], rng: np.random.Generator) -> None:
    """Sizes by hand, the bound for small tables, and the multiplier."""
    got = answer(10_000)
    same_type(got, (int, np.integer), "The result")
    if got in (200, 44):
        raise Wrong("Take the fourth root, not the square root or the logarithm.", 20, got)
    _same_size(answer, 10_000, 2.0)
    if answer(1_000) == 12 and answer(50_000) % 4:
        raise Wrong("The size is no multiple of 4.", _size(50_000, 2.0), answer(50_000))
    if answer(3) > 4 or answer(2, 40.0) > 4:
        raise Wrong(
            "More numbers than values: the size never exceeds the values, rounded up to a "
            "multiple of 4.",
            4,
            max(answer(3), answer(2, 40.0)),
        )
    if answer(1) == 0:
        raise Wrong("Round up, not down: even one value has a vector.", 4, 0)
    if answer(100_000, 4.0) == answer(100_000, 2.0):
        raise Wrong("The multiplier is not used.", _size(100_000, 4.0), answer(100_000, 4.0))
    for _ in range(30):
        _same_size(answer, int(rng.integers(1, 2_000_000)), float(rng.uniform(1, 8)))


def _size(values: int, multiplier: float) -> int:
    return 4 * int(np.ceil(min(multiplier * values**0.25, values) / 4))


def _same_size(answer: Callable[..., int], values: int, multiplier: float) -> None:
    right, got = _size(values, multiplier), answer(values, multiplier)
    if got != right:
        raise Wrong(f"Wrong size for {values} values, multiplier {multiplier:.3g}.", right, got)


def check_all_pairs(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Three vectors by hand, then random ones against the sum over pairs."""
    import tensorflow as tf

    vectors = np.array([[[1, 2], [3, 4], [5, 6]]], dtype="float32")
    got = answer(tf.constant(vectors))
    same_type(got, (tf.Tensor, np.ndarray), "The result")
    got = np.asarray(got)
    if got.shape == (1, 3):
        raise Wrong("The sum runs over the vectors (axis 1), coordinates stay.", (1, 2), got.shape)
    if got.shape in ((1,), (1, 1), ()):
        raise Wrong("Coordinates are not added up.", (1, 2), got.shape)
    if got.shape == (1, 2):
        if np.allclose(got, [[46, 88]]):
            raise Wrong("Each pair counts once: half of it is missing.", [23, 44], got[0])
        if np.allclose(got, [[40.5, 72]]):
            raise Wrong("A vector is no pair with itself: take the squares away.", 23, got[0, 0])
    array(got, np.array([[23.0, 44.0]]), "The pairs of (1, 2), (3, 4) and (5, 6)")
    for _ in range(5):
        shape = tuple(int(x) for x in rng.integers(2, 7, 3))
        vectors = rng.normal(size=shape).astype("float32")
        first, second = np.triu_indices(shape[1], 1)
        right = (vectors[:, first].astype(float) * vectors[:, second]).sum(axis=1)
        got = np.asarray(answer(tf.constant(vectors)))
        # float32: the two squares nearly cancel, so what counts is the error beside the squares
        array(np.round(got, 3) + 0.0, np.round(right, 3) + 0.0, f"The pairs of {shape}", rtol=0.02)


def check_is_better(answer: Callable[..., bool], rng: np.random.Generator) -> None:
    """Planted truth: a model that is better, one that is not, one that is worse."""
    n = 1_000
    target = rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    weak = target + 1.5 * shared
    cases = {
        "clearly better": (target + 0.8 * rng.normal(size=n), weak, True),
        "clearly worse": (weak, target + 0.8 * rng.normal(size=n), False),
        "the same": (weak.copy(), weak, False),
        # Nearly all of the noise is shared: only a paired comparison can see the difference.
        "better by little, but on the same rows": (weak + 0.25 * target, weak, True),
    }
    for name, (first, second, right) in cases.items():
        got = answer(target.copy(), first.copy(), second.copy(), int(rng.integers(1_000)))
        same_type(got, (bool, np.bool_), "The result")
        if bool(got) != right:
            advice = {
                "the same": "Equal scores are no improvement: ask that the whole interval of the "
                "difference lies above 0.",
                "better by little, but on the same rows": "Draw the same rows for both models and "
                "look at the difference: their noise is shared and cancels.",
            }.get(name, "Is the difference first minus second, and its sign kept?")
            raise Wrong(f"Wrong verdict where the first model is {name}. {advice}", right, got)


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
        check=check_out_of_fold,
    ),
    Exercise(
        id="2.2",
        title="a size for each embedding",
        hints=(
            "wanted = multiplier * values ** 0.25, but never more than values.",
            "Rounded up to a multiple of 4: 4 * ceil(wanted / 4), as an int.",
        ),
        check=check_embedding_size,
    ),
    Exercise(
        id="2.3",
        title="the pairs of a factorisation machine",
        hints=(
            "(a + b + c)² holds each pair twice, and the squares of a, b and c.",
            "0.5 * (square of the sum - sum of the squares), both over axis 1.",
        ),
        check=check_all_pairs,
    ),
    Exercise(
        id="2.4",
        title="better or just luckier",
        hints=(
            "Draw rows with replacement, compute both AUCs on the same rows, keep the difference.",
            "Better means that the 2.5% quantile of the differences is above 0.",
        ),
        check=check_is_better,
    ),
]
