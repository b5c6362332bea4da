"""Exercises of lab 3: an interaction, hashed bins, an off-policy weight, a sampler, a metric."""

from collections.abc import Callable, Iterator
from numbers import Number
from typing import Any

import numpy as np

from courseware.exercises.exercise import Exercise, Wrong
from courseware.exercises.expect import same, same_dtype, whole
from courseware.exercises.source import changed
from multistage.exercises.tensors import any_batch, call_with_vectors, tf

NUMPY = "NumPy fails once TensorFlow traces the function, as it does in fit. Use TensorFlow's."


def dots_cases(rng: np.random.Generator) -> Iterator[tuple[Any]]:
    """Vectors of halves, so that float32 is exact. From n = 4 on the order of the pairs shows."""
    yield (tf.constant([[[1.0, 0.0], [2.0, 3.0], [0.0, 5.0]]]),)
    for shape in [(1, 2, 1), (2, 2, 3), (3, 4, 2), (1, 4, 4), (5, 5, 3), (2, 7, 4), (6, 3, 1)]:
        yield (tf.constant(rng.integers(-9, 10, shape) / 2, tf.float32),)


def bins_cases(rng: np.random.Generator) -> Iterator[tuple[int, float]]:
    """Values and shares. At (2, 0.5) and (3, 0.75) the bound is met exactly, in floats too."""
    yield from [(2, 0.5), (10, 0.2), (1, 0.1), (2, 0.99), (3, 0.75), (1, 0.999), (1_000, 0.1)]
    yield 2_000, 0.001  # nearly two million bins
    for _ in range(40):
        n, colliding = int(np.exp(rng.uniform(0.7, 8.5))), float(rng.uniform(0.02, 0.98))
        if 0.01 < _bins(n, colliding) % 1 < 0.99:  # or rounding errors decide
            yield n, colliding


def _bins(n_values: int, colliding: float) -> float:
    """The number of bins before it is rounded up."""
    return 1 / (1 - (1 - colliding) ** (1 / max(1, n_values - 1)))


def _same_bins(got: Any, expected: int, n_values: int, colliding: float) -> str:
    said = whole(got, expected)
    if not said or not isinstance(got, Number) or got == expected:
        return said
    if got < 1:
        return "There is at least one bin, also for a single value."
    if got < expected:
        return "Too few bins. A larger share of the values collides than is accepted."
    return "Fewer bins are enough. The smallest number is asked for."


def weight_cases(rng: np.random.Generator) -> Iterator[tuple[Any, Any, float]]:
    """Logarithms by hand, of probabilities that are 0 in float32, then random ones."""

    def rows(new: Any, old: Any, cap: float) -> tuple[Any, Any, float]:
        return tf.constant(new, tf.float32), tf.constant(old, tf.float32), cap

    yield rows(np.log([0.02, 0.5, 0.1, 0.3]), np.log([0.01, 0.5, 0.4, 0.003]), 3.0)
    yield rows([-1.0], [-1.5], 10.0)
    yield rows([-200.0, -300.0, -90.0], [-200.0, -303.0, -91.5], 50.0)
    yield rows([-18.0, -25.0], [-17.5, -26.0], 5.0)
    yield rows([-2000.0, -1.0, -2000.0], [-2001.5, -2000.0, -1.0], 20.0)
    for cap in (0.5, 1.0, 2.5, 40.0):
        yield rows(np.log(rng.uniform(0.001, 1, 7)), np.log(rng.uniform(0.001, 1, 7)), cap)


def weight_and_gradients(
    answer: Callable[..., Any], log_new: Any, log_old: Any, cap: float
) -> dict[str, Any] | None:
    """Return the weights, and the gradient of their sum for both logarithms."""
    log_new, log_old = any_batch(log_new), any_batch(log_old)
    with tf.GradientTape() as tape:
        tape.watch([log_new, log_old])
        weight = answer(log_new, log_old, cap)
        if weight is None:
            return None
        total = tf.reduce_sum(weight)
    slopes = tape.gradient(total, [log_new, log_old], unconnected_gradients="zero")
    return {"weight": weight, "gradient to log_new": slopes[0], "gradient to log_old": slopes[1]}


def _same_weight(got: Any, expected: Any, *arguments: Any) -> str:
    if isinstance(got, dict) and (said := same_dtype(got["weight"], expected["weight"])):
        return said
    return same(got, expected)


def negatives_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Rows with one product left to draw, so that every right sampler draws the same."""

    def rows(positives: list[int], weights: list[float], n: int, seed: Any) -> tuple[Any, ...]:
        return tf.constant(positives, tf.int64), tf.constant(weights, tf.float32), n, seed

    yield rows([1, 2], [0.0, 3.0, 5.0], 4, 0)
    yield rows([2], [0.5, 0.0, 2.0], 1, 7)
    yield rows([0, 2, 2, 0, 0], [2.0, 0.0, 0.25], 6, 3)
    yield rows([1, 1, 3], [0.0, 20.0, 0.0, 1.0, 0.0], 9, 2**30)
    yield rows([4, 1], [0.0, 1e-12, 0.0, 0.0, 2e-12, 0.0], 500, 11)
    yield rows([1, 2], [0.0, 3e9, 1e9], 5, tf.constant(5))
    yield rows([3] * 40, [0.0, 0.0, 1e-3, 6.0], 3, tf.constant(2_000_006))


def draw_for_any_batch(
    answer: Callable[..., Any], positives: Any, weights: Any, n: int, seed: Any
) -> Any:
    """Return what ``answer`` draws, traced for batches of any size where it is traced."""
    return answer(any_batch(positives), weights, n, seed)


POSITIVE = "A bought product came as its own negative. Give the row's positive the weight 0."
OTHERS = "The positive of one row may be the negative of another. Leave out each row's own only."
EVENLY = "All products are drawn equally often. The weights are not used."
LOGITS = "The weights are taken for logits. Give their logarithms."
STANDS_IN = "One product stands in for the positive. Its share belongs to all others."
REPEATED = "The n negatives of a row are one product, repeated. Each is drawn anew."
ROWS = "Rows of one positive share their draws. Each negative of each row is drawn anew."
SORTED = "The draws of each row come sorted. Leave them in the order drawn."
RANGE = (
    "Weights of about 1e-12, or of about 1e38, are not drawn in proportion. Sums and products of "
    "weights may leave the range of float32: take their logarithms, without bounds."
)
SAME_SEED = "Another seed gave the same draws. Draw from the seed that is given."


def _same_draws(got: Any, expected: Any, positives: Any, *_others: Any) -> str:
    said = same_dtype(got, expected)
    if (
        said
        and np.shape(got) == np.shape(expected)
        and np.any(np.asarray(got) == np.asarray(positives)[:, None])
    ):
        return POSITIVE
    return said


def _watch_draws(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Look at the shares of many draws per positive, at rows and columns, and at seeds."""
    weights = rng.uniform(1, 4, 8).astype("float32")
    weights[:3] = 0.0, 5.0, 0.1  # padding; popular, and often bought; rare
    positives = np.where(rng.random(200) < 0.5, 1, rng.integers(1, 8, 200))
    given = tf.constant(positives, tf.int64), tf.constant(weights), 120
    drawn = np.asarray(answer(*given, 1))
    if np.any(drawn == positives[:, None]):
        raise Wrong(POSITIVE)
    if np.all(drawn == drawn[:, :1]):
        raise Wrong(REPEATED)
    if np.all(np.diff(drawn) >= 0):
        raise Wrong(SORTED)
    alike = drawn[positives == 1]
    if _repeats(alike):
        raise Wrong(ROWS)
    if _repeats(alike.T):
        raise Wrong("Some columns share their draws. Each negative of a row is drawn anew.")
    for positive in range(1, 8):
        _compare_shares(drawn[positives == positive], positive, weights)
    for scale in (1e-12, 1e38):
        scaled = tf.constant([0.0, 1.0, 3.0, 2.0]) * scale
        drawn = np.asarray(answer(tf.ones(20, tf.int64), scaled, 200, 1))
        if np.any(_far(drawn, np.array([0.0, 0.0, 3.0, 2.0]))):
            raise Wrong(RANGE, "shares of 0, 0, 0.6 and 0.4", _shares(drawn, 4).round(3))
    few = given[0][:40], given[1], 20
    traced = tf.function(lambda seed: answer(*few, seed))
    for draw in (lambda seed: answer(*few, seed), traced):
        one, again, *others = (np.asarray(draw(tf.constant(seed))) for seed in (1, 1, 2, -1))
        if not np.array_equal(one, again):
            raise Wrong("The same seed gave other draws. Draw from nothing but the seed.")
        if any(np.mean(one == other) > 0.5 for other in others):
            raise Wrong(SAME_SEED)


def _repeats(draws: np.ndarray) -> bool:
    """Whether rows are the same, or neighbours agree more often than if each were drawn anew."""
    shares = np.unique(draws, return_counts=True)[1] / draws.size
    agree = np.mean(draws[1:] == draws[:-1])
    return len(np.unique(draws, axis=0)) < len(draws) or agree > np.sum(shares**2) + 0.1


def _compare_shares(drawn: np.ndarray, positive: int, weights: np.ndarray) -> None:
    """Refuse draws of rows with this positive that are not in proportion to the weights."""
    allowed = np.where(np.arange(len(weights)) == positive, 0, weights)
    if not np.any(far := _far(drawn, allowed)):
        return
    said = "Products are not drawn in proportion to their weights."
    if not np.any(_far(drawn, allowed > 0)):
        said = EVENLY
    elif not np.any(_far(drawn, np.where(allowed > 0, np.exp(allowed), 0))):
        said = LOGITS
    elif np.sum(_far(drawn, weights)) == 2:  # the positive, and the one in its place
        said = STANDS_IN
    product = int(np.argmax(far))
    expected, came = allowed[product] / allowed.sum(), np.mean(drawn == product)
    where = f"of the draws for positive {positive} are product {product}"
    raise Wrong(said, f"{expected:.1%} {where}", f"{came:.1%}")


def _far(drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which products' shares are off by six standard errors: by chance, one in 100 million."""
    expected = weights / weights.sum()
    away = np.abs(_shares(drawn, len(weights)) - expected)
    return away > 6 * np.sqrt(expected * (1 - expected) / drawn.size) + 1e-9


def _shares(drawn: np.ndarray, products: int) -> np.ndarray:
    return np.mean(drawn[:, :, None] == np.arange(products), axis=(0, 1))


def coverage_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """k, products, batches of scores, and whether they come in a traced function, as in fit."""

    def batches(products: int, *rows: int) -> list[np.ndarray]:
        return [rng.normal(-3, 2, (n, products)).astype("float32") for n in rows]

    two_rows = np.array([[9, 8, 1, 2, 0], [8, 9, 2, 1, 0]], "float32")
    ties = np.array([[1, 3, 3, 3, 0], [0, 0, 0, 0, 0]], "float32")
    close_and_large = np.array([[1, 1.0000005, 0], [20, 25, 1]], "float32")
    far = np.array([[0, -210, -200]], "float32")
    for traced in (False, True):
        yield 2, 5, [two_rows], traced
        yield 2, 5, [two_rows, two_rows[:1], two_rows[:, ::-1]], traced
        yield 1, 4, batches(4, 1), traced
        yield 2, 5, [ties[:1], ties[1:]], traced
        yield 1, 3, [close_and_large], traced
        yield 2, 3, [far], traced
        yield 3, 3, batches(3, 2, 1), traced
        yield 1, 30, batches(30, 4, 4), traced
        yield 3, 25, batches(25, 5, 1, 11), traced
        yield 10, 40, batches(40, 3, 2), traced


def watch_coverage(
    answer: Callable[..., Any], k: int, products: int, batches: list[np.ndarray], traced: bool
) -> Any:
    """Return the coverage after each batch, what is marked, and the same after a reset."""
    metric = answer(k, products)
    if not isinstance(metric, tf.keras.metrics.Metric):
        return metric
    found = {}
    update = metric.update_state
    if traced:
        shapes = [[None, products], [None, products], [None]]
        update = tf.function(update, input_signature=[tf.TensorSpec(shape) for shape in shapes])

    def look(batch: np.ndarray, moment: str) -> None:
        bought, row_weights = None, None
        if traced:
            bought, row_weights = tf.one_hot([0] * len(batch), products), tf.zeros(len(batch))
        update(bought, tf.constant(batch), row_weights)
        found[f"coverage after {moment}"] = round(float(metric.result()), 6)

    for number, batch in enumerate(batches, start=1):
        look(batch, f"batch {number}")
    found["seen"] = np.array(metric.seen)
    metric.reset_state()
    found["coverage after reset_state"] = float(metric.result())
    look(batches[0], "batch 1 again")
    return found


# Parts of the solutions, for mistakes that are edits of them.
DRAW = "tf.random.stateless_categorical(tf.math.log(allowed), n, seed=(seed, 0))"
BEST = "tf.reshape(tf.math.top_k(y_pred, self.k).indices, [-1, 1])"
KEEP = "self.seen.assign(tf.tensor_scatter_nd_update(self.seen, best, ones))"


EXERCISES = [
    Exercise(
        id="3.1",
        title="DLRM's interaction",
        hints=(
            "tf.matmul(vectors, vectors, transpose_b=True) holds all dot products: (batch, n, n).",
            "Keep the entries above the diagonal, row by row.",
        ),
        cases=dots_cases,
        use=call_with_vectors,
        same=same_dtype,
        traced=True,
        mistakes={
            "A vector is no pair with itself. Leave out the diagonal.": changed(
                "3.1", {"range(i + 1, n)": "range(i, n)"}
            ),
            "These are all products, each pair twice. Keep those above the diagonal.": changed(
                "3.1", {"tf.stack([products[:, i, j] for i, j in pairs], axis=1)": "products"}
            ),
            "Each pair comes twice, as (i, j) and as (j, i). Keep i < j only.": changed(
                "3.1", {"range(i + 1, n)": "range(n) if i != j"}
            ),
            "The pairs come in another order. It is (0, 1), (0, 2), ..., (1, 2), ...": changed(
                "3.1", {"range(i + 1, n)": "range(i)"}
            ),
            "The pairs come in the reverse order. It is (0, 1), (0, 2), ..., (1, 2), ...": changed(
                "3.1", {"in pairs]": "in reversed(pairs)]"}
            ),
            "A dot product is one number. Add up its coordinates.": changed(
                "3.1", {"products[:, i, j]": "vectors[:, i] * vectors[:, j]"}
            ),
            "This is the first row of the batch only. The batch comes first.": changed(
                "3.1", {"products[:, i, j]": "products[0, i, j]", "axis=1": "axis=0"}
            ),
            NUMPY: changed("3.1", {"matmul(vectors": "matmul(np.asarray(vectors)"}),
        },
    ),
    Exercise(
        id="3.2",
        title="the number of hash bins",
        hints=(
            "Solve (1 - 1/m) ** (n - 1) = 1 - colliding for m, and round up.",
            "The root is of order n - 1, and a single value needs one bin.",
        ),
        cases=bins_cases,
        same=_same_bins,
        mistakes={
            "The number of values is no bound. Solve the formula for m.": (
                lambda n_values, colliding: n_values
            ),
            "n / colliding is a rule of thumb. Solve the formula for m.": (
                lambda n_values, colliding: int(np.ceil(n_values / colliding))
            ),
            "The result is a float. Round it up to an int.": _bins,
            "The result is rounded down. Round it up.": (
                lambda n_values, colliding: int(_bins(n_values, colliding))
            ),
            "A single value never collides. One bin is enough for it.": changed(
                "3.2", {"return 1\n": "return 2\n"}
            ),
            "The root is of order n - 1: a value does not collide with itself.": changed(
                "3.2", {"n_values == 1": "n_values == 0", "n_values - 1": "n_values"}
            ),
        },
    ),
    Exercise(
        id="3.3",
        title="the off-policy weight",
        hints=(
            "new / old is exp(log new - log old).",
            "tf.minimum cuts off what is above the cap.",
            "tf.stop_gradient hands a tensor on as a constant.",
        ),
        cases=weight_cases,
        use=weight_and_gradients,
        same=_same_weight,
        traced=True,
        mistakes={
            "The weight is not capped. One row could outweigh the rest.": changed(
                "3.3", {"tf.minimum(weight, cap)": "weight"}
            ),
            "This is the logarithm of the weight. Leave the logarithm with tf.exp.": changed(
                "3.3", {"tf.exp(log_new - log_old)": "log_new - log_old"}
            ),
            "Logarithms are subtracted, not divided: log(a / b) = log(a) - log(b).": changed(
                "3.3", {"tf.exp(log_new - log_old)": "log_new / log_old"}
            ),
            "Upside down. The new policy's probability goes above the line.": changed(
                "3.3", {"log_new - log_old": "log_old - log_new"}
            ),
            "The cap is for the weight, not for its logarithm.": changed(
                "3.3",
                {
                    "tf.exp(log_new - log_old)": "log_new - log_old",
                    "tf.minimum(weight, cap)": "tf.exp(tf.minimum(weight, cap))",
                },
            ),
            "The cap is the largest weight, not the smallest.": changed(
                "3.3", {"tf.minimum": "tf.maximum"}
            ),
            "Very small probabilities became 0 / 0. Subtract the logarithms first, and take tf.exp "
            "of the difference.": changed(
                "3.3", {"(log_new - log_old)": "(log_new) / tf.exp(log_old)"}
            ),
            "Very small probabilities became 0 / 0, and their weight 0. Subtract the logarithms "
            "first, and take tf.exp of the difference.": changed(
                "3.3",
                {"exp(log_new - log_old)": "math.divide_no_nan(tf.exp(log_new), tf.exp(log_old))"},
            ),
            "A gradient goes through the weight, so training would change it. tf.stop_gradient "
            "makes it a constant.": changed("3.3", {"tf.stop_gradient": ""}),
            NUMPY: changed("3.3", {"tf.minimum": "np.minimum"}),
        },
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
        cases=negatives_cases,
        use=draw_for_any_batch,
        same=_same_draws,
        judge=_watch_draws,
        traced=True,
        seconds=60.0,
        mistakes={
            POSITIVE: changed("3.4", {"tf.zeros((), weights.dtype)": "weights[None, :]"}),
            OTHERS: changed("3.4", {"where(own,": "where(own | tf.reduce_any(own, axis=0),"}),
            EVENLY: changed("3.4", {"log(allowed)": "log(tf.sign(allowed))"}),
            LOGITS: changed(
                "3.4", {"tf.math.log(allowed)": "tf.where(allowed > 0, allowed, -np.inf)"}
            ),
            STANDS_IN: changed(
                "3.4",
                {
                    "tf.zeros((), weights.dtype)": "weights[None, :]",
                    "return tf.": "drawn = tf.",
                    "(seed, 0))": "(seed, 0))\n"
                    "    after = tf.where(positives + 1 < len(weights), positives + 1, 1)\n"
                    "    return tf.where(drawn == positives[:, None], after[:, None], drawn)",
                },
            ),
            RANGE: changed(
                "3.4", {"math.log(allowed)": "math.log(allowed / tf.reduce_sum(weights))"}
            ),
            "There are n negatives in all. Each row needs n of its own.": changed(
                "3.4", {"(allowed)": "(weights[None, :])", "(seed, 0))": "(seed, 0))[0]"}
            ),
            REPEATED: changed("3.4", {"n, seed=(seed, 0))": "1, seed=(seed, 0)) + [0] * n"}),
            ROWS: changed(
                "3.4",
                {
                    DRAW: "tf.argmax(tf.math.log(tf.random.stateless_uniform("
                    "[n, len(weights)], (seed, 0))) / allowed[:, None], axis=2)"
                },
            ),
            SORTED: changed("3.4", {DRAW: f"tf.sort({DRAW})"}),
            SAME_SEED: changed("3.4", {"(seed, 0)": "(7, 0)"}),
            "tf.random.set_seed takes no tensor, and sets the seed of the whole program. Use a "
            "stateless function, such as tf.random.stateless_categorical.": changed(
                "3.4",
                {
                    "return tf.": "tf.random.set_seed(seed); return tf.",
                    "stateless_": "",
                    ", seed=(seed, 0)": "",
                },
            ),
            NUMPY: changed("3.4", {"(allowed)": "(np.asarray(allowed))"}),
        },
    ),
    Exercise(
        id="3.5",
        title="a metric whose state resets",
        hints=(
            "tf.math.top_k(y_pred, self.k).indices has the shape (batch, k).",
            "tf.tensor_scatter_nd_update(self.seen, positions, ones) takes positions of shape "
            "(many, 1) and returns a new tensor; self.seen.assign keeps it.",
        ),
        cases=coverage_cases,
        use=watch_coverage,
        mistakes={
            "Nothing is marked. self.seen.assign(...) keeps what is computed.": changed(
                "3.5", {KEEP: "pass"}
            ),
            "Only the best product of each row is marked. Mark the k best.": changed(
                "3.5", {"self.k).indices": "1).indices"}
            ),
            "Only the first row of each batch is marked. Mark the k best of all rows.": changed(
                "3.5", {"y_pred, self.k": "y_pred[:1], self.k"}
            ),
            "One product of each row is missing, the last of the k best.": changed(
                "3.5", {".indices": ".indices[:, :-1]"}
            ),
            "One product of each row is too many, the one after the k best.": changed(
                "3.5", {"self.k).indices": "min(self.k + 1, self.products)).indices"}
            ),
            "A product that is shown twice is one product. Mark it with 1, do not count it.": (
                changed("3.5", {"nd_update": "nd_add"})
            ),
            "Only the last batch counts. Add to what is marked, do not replace it.": changed(
                "3.5", {"update(self.seen": "update(0 * self.seen"}
            ),
            "A product that two batches show is one product. Mark it with 1, do not count the "
            "batches.": changed(
                "3.5",
                {
                    "assign(tf.tensor": "assign_add(tf.tensor",
                    "(self.seen, best": "(0 * self.seen, best",
                },
            ),
            "These are the k worst of each row. Take those with the largest scores.": changed(
                "3.5", {"top_k(y_pred": "top_k(-y_pred"}
            ),
            "Of equal scores more than k are marked. Each row shows k products.": changed(
                "3.5",
                {BEST: "tf.where(y_pred >= tf.math.top_k(y_pred, self.k).values[:, -1:])[:, 1:]"},
            ),
            "Coverage asks what is shown, not what was bought. y_true is not used.": changed(
                "3.5",
                {
                    KEEP: "if y_true is not None:\n            "
                    "ones = tf.gather(tf.reduce_max(y_true, axis=0), best[:, 0])\n        "
                    "self.seen.assign(tf.tensor_scatter_nd_max(self.seen, best, ones))"
                },
            ),
            "After reset_state something is left. Keep all state in self.seen, not in a set.": (
                changed(
                    "3.5",
                    {
                        KEEP: "self.shown = getattr(self, 'shown', set()) | {*best.numpy()[:, 0]}",
                        "tf.reduce_mean(self.seen)": "len(self.shown) / self.products",
                    },
                )
            ),
            "After reset_state the batches of before still count. Keep all state in self.seen.": (
                changed(
                    "3.5",
                    {
                        KEEP: "self.kept = tf.tensor_scatter_nd_update("
                        "getattr(self, 'kept', 0 * self.seen), best, ones)\n        "
                        "self.seen.assign(self.kept)"
                    },
                )
            ),
            "reset_state fails: the one that Keras brings sets single numbers back. A vector needs "
            "its own: self.seen.assign(tf.zeros_like(self.seen)).": changed(
                "3.5", {"def reset_state(": "def reset("}
            ),
            NUMPY: changed(
                "3.5",
                {
                    BEST: "np.argsort(-np.asarray(y_pred), axis=1, kind='stable')"
                    "[:, : self.k].reshape(-1, 1)"
                },
            ),
        },
    ),
]
