"""Checks of lab 3: an interaction, a hashed cross, an off-policy weight, a sampler, a metric."""

from collections.abc import Callable
from typing import Any

import numpy as np

from courseware.exercises.engine import Exercise, Wrong
from courseware.exercises.expect import array, number, same_type


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
    if got.shape == (1, 3, 2):
        raise Wrong("A dot product is one number: add up its coordinates.", (1, 3), got.shape)
    if np.array_equal(got, [[15.0, 0.0, 2.0]]):
        raise Wrong("The pairs come in another order than 01, 02, 12.", [2, 0, 15], got[0])
    array(got, np.array([[2.0, 0.0, 15.0]]), "The products of (1, 0), (2, 3) and (0, 5)")
    for _ in range(5):
        batch, n, size = (int(x) for x in rng.integers(2, 7, 3))
        vectors = rng.integers(-9, 10, (batch, n, size)).astype("float32")  # sums are exact
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


def check_off_policy_weight(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Ratios worked out by hand, far tails, the cap; last, that no gradient goes through."""
    import tensorflow as tf

    new = np.array([0.02, 0.5, 0.1, 0.3], dtype="float32")
    old = np.array([0.01, 0.5, 0.4, 0.003], dtype="float32")
    got = answer(tf.constant(np.log(new)), tf.constant(np.log(old)), 3.0)
    same_type(got, (tf.Tensor, np.ndarray), "The result")
    got = np.asarray(got)
    ratio = new / old
    if got.shape == ratio.shape:
        if np.allclose(got, np.minimum(old / new, 3), rtol=1e-4):
            raise Wrong("Upside down: the new policy's probability goes above the line.", 2.0, 0.5)
        if np.allclose(got, ratio, rtol=1e-4):
            raise Wrong("The weight is not capped: one row of 100 outweighs the rest.", 3.0, 100.0)
        if np.allclose(got, np.minimum(np.log(ratio), 3), rtol=1e-3, atol=1e-4):
            raise Wrong(
                "This is the logarithm of the weight: leave the logarithm with tf.exp.", 2.0, got[0]
            )
        if np.allclose(got, np.exp(np.minimum(np.log(ratio), 3)), rtol=1e-4):
            raise Wrong("The cap is for the weight, not for its logarithm.", 3.0, got[3])
        if np.allclose(got, np.minimum(np.log(new) / np.log(old), 3), rtol=1e-3):
            raise Wrong(
                "Logarithms are subtracted, not divided: log(a / b) = log(a) - log(b).", 2.0, got[0]
            )
        if np.allclose(got, np.maximum(ratio, 3), rtol=1e-4):
            raise Wrong("The cap is the largest weight, not the smallest.", 2.0, got[0])
    array(got, np.minimum(ratio, 3), "The weight of (0.02, 0.5, 0.1, 0.3) to old", rtol=1e-4)
    far = answer(tf.constant([-300.0, -200.0]), tf.constant([-300.0, -203.0]), 50.0)
    if not np.all(np.isfinite(np.asarray(far))):
        raise Wrong(
            "Very small probabilities became 0 / 0: subtract first, and take tf.exp of the "
            "difference.",
            [1.0, float(np.exp(3.0))],
            np.asarray(far),
        )
    for _ in range(5):
        new, old = (rng.uniform(0.001, 1, 7).astype("float32") for _ in range(2))
        cap = float(rng.uniform(0.5, 3))
        array(
            np.asarray(answer(tf.constant(np.log(new)), tf.constant(np.log(old)), cap)),
            np.minimum(new / old, cap),
            f"The result for cap {cap:.3g}",
            rtol=1e-3,
        )
    log_new = tf.Variable([-1.0, -2.0])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(answer(log_new, tf.constant([-1.5, -1.5]), 10.0))
    if (slope := tape.gradient(total, log_new)) is not None and np.any(np.asarray(slope) != 0):
        raise Wrong(
            "A gradient goes through the weight, so training would change it. "
            "tf.stop_gradient makes it a constant.",
            [0.0, 0.0],
            np.asarray(slope),
        )


def check_draw_negatives(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Shape and type, never the row's own positive, right shares, other draws for another seed."""
    import tensorflow as tf

    products = int(rng.integers(6, 9))
    weights = rng.uniform(1, 4, products).astype("float32")
    weights[0] = 0.0  # padding
    weights[1] = 8.0  # popular, and often bought
    positives = np.where(rng.random(400) < 0.5, 1, rng.integers(1, products, 400)).astype("int64")
    n = 60

    def draw(seed: int) -> np.ndarray:
        drawn = answer(tf.constant(positives), tf.constant(weights), n, seed)
        same_type(drawn, (tf.Tensor, np.ndarray), "The result")
        return np.asarray(drawn)

    drawn = draw(1)
    if drawn.shape != (400, n):
        raise Wrong(
            "Each row has its own negatives: one row of n a positive.", (400, n), drawn.shape
        )
    if not np.issubdtype(drawn.dtype, np.integer):
        raise Wrong("Products are integers.", "int64", drawn.dtype)
    if np.any(drawn == positives[:, None]):
        raise Wrong(
            "A bought product came as its own negative: give the row's positive the weight 0.",
            0,
            f"{np.mean(drawn == positives[:, None]):.1%} of the draws",
        )
    if np.any((drawn < 0) | (drawn >= products)) or np.any(drawn == 0):
        raise Wrong(
            "A product of weight 0, or none of the catalogue, was drawn.",
            f"1 to {products - 1}",
            f"{drawn.min()} to {drawn.max()}",
        )
    everywhere = np.bincount(drawn.ravel(), minlength=products)
    if not everywhere[1:].all():
        raise Wrong(
            "A product that is the positive of one row may be the negative of another: leave out "
            "each row's own only.",
            f"{products - 1} different products",
            f"{np.sum(everywhere > 0)}",
        )
    if np.all(drawn == drawn[:, :1]):
        raise Wrong("All n draws of a row are the same product.", f"{n} draws", "1 draw, repeated")
    for positive in range(1, products):
        rows = positives == positive
        expected = np.where(np.arange(products) == positive, 0, weights)
        expected /= expected.sum()
        share = np.bincount(drawn[rows].ravel(), minlength=products) / drawn[rows].size
        far = _far(share, expected, drawn[rows].size)
        if far.any():
            product = int(np.argmax(far))
            allowed, moved = expected > 0, weights / weights.sum()
            evenly, as_logits = allowed / allowed.sum(), allowed * np.exp(weights)
            as_logits /= as_logits.sum()
            said = "Products do not come in proportion to their weights"
            if not _far(share, evenly, drawn[rows].size).any():
                said = "All products are drawn equally often: the weights are not used"
            elif not _far(share, as_logits, drawn[rows].size).any():
                said = "The weights are taken for logits: give their logarithm"
            elif _far(share, moved, drawn[rows].size).sum() == 2:  # the positive, and one more
                said = "One product stands in for the positive: its chance belongs to all others"
            raise Wrong(
                f"{said} (rows that bought {positive}, product {product}).",
                f"{expected[product]:.3f} of the draws",
                f"{share[product]:.3f}",
            )
    if not np.array_equal(drawn, draw(1)):
        raise Wrong("The same seed gave other draws.", "the same draws", "others")
    if np.array_equal(drawn, draw(2)):
        raise Wrong("Another seed gave the same draws.", "other draws", "the same")


def _far(share: np.ndarray, expected: np.ndarray, draws: int) -> np.ndarray:
    """Which shares are off by six standard errors: a right one once in a hundred million."""
    return np.abs(share - expected) > 6 * np.sqrt(expected * (1 - expected) / draws) + 1e-9


def check_coverage(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Coverage by hand, over batches of any cut, within a graph, and after a reset."""
    import tensorflow as tf

    scores = np.array([[9, 8, 1, 2, 0], [8, 9, 2, 1, 0]], dtype="float32")
    metric = answer(2, 5)
    same_type(metric, (tf.keras.metrics.Metric,), "The metric")
    metric.update_state(None, tf.constant(scores))
    got = float(metric.result())
    if np.isclose(got, 4 / 5):
        raise Wrong("A product shown twice is one product: mark it, do not count it.", 0.4, got)
    number(got, 2 / 5, "The coverage of two rows that show the same two of five products")
    metric.update_state(None, tf.constant(scores))
    if not np.isclose(float(metric.result()), 2 / 5):
        raise Wrong("The same rows a second time show nothing new.", 0.4, float(metric.result()))

    for _ in range(3):
        k, products = int(rng.integers(1, 4)), int(rng.integers(20, 40))
        scores = rng.normal(size=(17, products)).astype("float32")
        best = np.argsort(-scores, axis=1)[:, :k]
        right = len(np.unique(best)) / products
        batches = [scores[:5], scores[5:6], scores[6:]]
        per_batch = [len(np.unique(np.argsort(-b, axis=1)[:, :k])) / products for b in batches]
        metric = answer(k, products)
        for batch in batches:
            metric.update_state(None, tf.constant(batch))
        got = float(metric.result())
        if np.isclose(got, np.mean(per_batch)) and not np.isclose(got, right):
            raise Wrong(
                "This is the mean over batches: a product that any batch shows is covered.",
                f"{right:.3f}",
                f"{got:.3f}",
            )
        if np.isclose(got, per_batch[-1]) and not np.isclose(got, right):
            raise Wrong(
                "Only the last batch counts: add to the state, do not replace it.",
                f"{right:.3f}",
                f"{got:.3f}",
            )
        number(got, right, f"The coverage of three batches, top {k} of {products}", rtol=1e-4)
        try:
            metric.reset_state()
        except ValueError:
            raise Wrong(
                "reset_state fails: the one that Keras brings sets single numbers back. A vector "
                "needs its own: self.seen.assign(tf.zeros_like(self.seen))."
            ) from None
        if (left := float(metric.result())) != 0:
            raise Wrong(
                "After reset_state something is left: keep all state in self.seen, which Keras "
                "sets back.",
                0.0,
                left,
            )
        metric.update_state(None, tf.constant(batches[0]))
        if not np.isclose(float(metric.result()), per_batch[0]):
            raise Wrong(
                "After reset_state the batches of before still count: keep all state in self.seen.",
                f"{per_batch[0]:.3f}",
                f"{float(metric.result()):.3f}",
            )


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
    Exercise(
        id="3.3",
        title="the off-policy weight",
        hints=(
            "new / old is exp(log new - log old).",
            "tf.minimum cuts off what is above the cap.",
            "tf.stop_gradient hands a tensor on as a constant.",
        ),
        check=check_off_policy_weight,
    ),
    Exercise(
        id="3.4",
        title="a sampler that never draws the positive",
        hints=(
            "Give each row weights of its own: those of the catalogue, with 0 at the positive.",
            "tf.one_hot(positives, len(weights), on_value=True, off_value=False) is True there.",
            "tf.random.stateless_categorical(logits, n, seed=(seed, 0)) draws from logarithms of "
            "weights; the logarithm of 0 is minus infinity, and is never drawn.",
        ),
        check=check_draw_negatives,
    ),
    Exercise(
        id="3.5",
        title="a metric whose state resets",
        hints=(
            "tf.math.top_k(y_pred, self.k).indices has the shape (batch, k).",
            "tf.tensor_scatter_nd_update(self.seen, positions, ones) takes positions of shape "
            "(many, 1) and returns a new tensor; self.seen.assign keeps it.",
        ),
        check=check_coverage,
    ),
]
