"""Checks of lab 3: DLRM's interaction, and the size of a hashed cross."""

from collections.abc import Callable
from typing import Any

import numpy as np

from multistage.exercises.engine import Exercise, Wrong
from multistage.exercises.expect import array, same_type


def check_pairwise_dots(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """A hand-computed case, then random vectors; each pair once, none with itself."""
    import tensorflow as tf

    vectors = np.array([[[1, 0], [2, 3], [0, 5]]], dtype="float32")
    got = answer(tf.constant(vectors))
    same_type(got, (tf.Tensor, np.ndarray), "The result")
    got = np.asarray(got)
    if got.shape == (1, 6):
        raise Wrong("A vector is no pair with itself: leave out the diagonal.", (1, 3), got.shape)
    if got.shape in ((1, 3, 3), (1, 9)):
        raise Wrong(
            "Each pair once: half of the products, without the diagonal.", (1, 3), got.shape
        )
    if got.shape == (3,):
        raise Wrong("The batch comes first.", (1, 3), got.shape)
    array(got, np.array([[2.0, 0.0, 15.0]]), "The products of (1, 0), (2, 3) and (0, 5)")
    for _ in range(5):
        batch, n, size = (int(x) for x in rng.integers(2, 7, 3))
        vectors = rng.normal(size=(batch, n, size)).astype("float32")
        right = (vectors @ vectors.transpose(0, 2, 1))[(slice(None), *np.triu_indices(n, 1))]
        array(
            np.asarray(answer(tf.constant(vectors))),
            right,
            f"The result for vectors of shape {vectors.shape}",
            rtol=1e-3,
        )


def check_bins_for(answer: Callable[..., int], rng: np.random.Generator) -> None:
    """The smallest number of bins: it holds the bound, and one bin fewer does not."""
    for n, colliding in [(2, 0.5), (10, 0.2), (1_000, 0.1)] + [
        (int(rng.integers(2, 100_000)), float(rng.uniform(0.01, 0.9))) for _ in range(20)
    ]:
        bins = answer(n, colliding)
        same_type(bins, (int, np.integer), "The result")
        case = f"{n} values, {colliding:.3g} colliding"
        if bins < 1:
            raise Wrong(f"There must be at least one bin ({case}).", "1 or more", bins)
        if _share(n, bins) > colliding * (1 + 1e-9):
            raise Wrong(
                f"Too few bins: more values collide than accepted ({case}).",
                f"at most {colliding:.3g}",
                f"{_share(n, bins):.3g}",
            )
        if bins > 1 and _share(n, bins - 1) < colliding * (1 - 1e-9):
            raise Wrong(f"Fewer bins are enough ({case}).", "the smallest number", bins)
    if answer(1, 0.1) != 1:
        raise Wrong("A single value never collides: one bin is enough.", 1, answer(1, 0.1))


def _share(n: int, bins: int) -> float:
    return 1 - (1 - 1 / bins) ** (n - 1)


EXERCISES = [
    Exercise(
        id="3.1",
        title="DLRM's interaction",
        hints=(
            "tf.matmul(vectors, vectors, transpose_b=True) holds all dot products: (batch, n, n).",
            "Keep the entries above the diagonal, row by row.",
        ),
        check=check_pairwise_dots,
    ),
    Exercise(
        id="3.2",
        title="bins enough",
        hints=(
            "Solve (1 - 1/m) ** (n - 1) = 1 - colliding for m, and round up.",
            "The root is of order n - 1, and a single value needs one bin.",
        ),
        check=check_bins_for,
    ),
]
