"""Checks of lab 2: target encoding, and telling models apart."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from multistage.exercises.engine import Exercise, Wrong
from multistage.exercises.expect import array, same_type


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


def check_is_better(answer: Callable[..., bool], rng: np.random.Generator) -> None:
    """Planted truth: a model that is better, one that is not, one that is worse."""
    n = 4_000
    target = rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    weak = target + 1.5 * shared
    cases = {
        "clearly better": (target + 0.8 * rng.normal(size=n), weak, True),
        "clearly worse": (weak, target + 0.8 * rng.normal(size=n), False),
        "the same": (weak.copy(), weak, False),
        # Nearly all of the noise is shared: only a paired comparison can see the difference.
        "better by little, but on the same rows": (weak + 0.12 * target, weak, True),
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
        title="better, or luckier?",
        hints=(
            "Draw rows with replacement, compute both AUCs on the same rows, keep the difference.",
            "Better means that the 2.5% quantile of the differences is above 0.",
        ),
        check=check_is_better,
    ),
]
