"""Exercises of lab 3: an interaction, hashed bins, an off-policy weight, a sampler, a metric."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from courseware.exercises.exercise import Exercise, Wrong
from courseware.exercises.expect import same, same_dtype, whole
from multistage.exercises.tensors import any_batch, call_with_vectors, tf

NUMPY = "NumPy fails once TensorFlow traces the function, as it does in fit. Use TensorFlow's."
TOO_FEW = "Too few bins. A larger share of the values collides than is accepted."
TOO_MANY = "Fewer bins are enough. The smallest number is asked for."


def dots_cases(rng: np.random.Generator) -> Iterator[tuple[Any]]:
    """Vectors of halves, so that float32 is exact. From n = 4 on the order of the pairs shows."""
    yield (tf.constant([[[1.0, 0.0], [2.0, 3.0], [0.0, 5.0]]]),)
    for shape in [(1, 2, 1), (2, 2, 3), (3, 4, 2), (1, 4, 4), (5, 5, 3), (2, 7, 4), (6, 3, 1)]:
        yield (tf.constant(rng.integers(-9, 10, shape) / 2, tf.float32),)


def _dots(vectors: Any, kept: Callable[[int, int], bool] = lambda i, j: i < j) -> Any:
    n = vectors.shape[1]
    products = tf.matmul(vectors, vectors, transpose_b=True)
    return tf.stack([products[:, i, j] for i, j in np.ndindex(n, n) if kept(i, j)], axis=1)


def _elementwise(vectors: Any) -> Any:
    first, second = np.triu_indices(vectors.shape[1], 1)
    return tf.gather(vectors, first, axis=1) * tf.gather(vectors, second, axis=1)


def _dots_in_numpy(vectors: Any) -> np.ndarray:
    values = np.asarray(vectors)
    first, second = np.triu_indices(values.shape[1], 1)
    return np.sum(values[:, first] * values[:, second], axis=2)


def bins_cases(rng: np.random.Generator) -> Iterator[tuple[int, float]]:
    """Values and shares. At (2, 0.5) and (3, 0.75) the bound is met exactly, in floats too."""
    yield from [(2, 0.5), (10, 0.2), (1, 0.1), (2, 0.99), (3, 0.75), (1, 0.999), (1_000, 0.1)]
    for _ in range(40):
        n, colliding = int(np.exp(rng.uniform(0.7, 8.5))), float(rng.uniform(0.02, 0.98))
        if 0.01 < _bins(n, colliding) % 1 < 0.99:  # or rounding errors decide
            yield n, colliding


def _bins(n_values: int, colliding: float, own: int = 1) -> float:
    """The number of bins before it is rounded up; ``own`` 1 leaves out the value itself."""
    return 1 / (1 - (1 - colliding) ** (1 / max(1, n_values - own)))


def _same_bins(got: Any, expected: Any, n_values: int, colliding: float) -> str:
    said = whole(got, expected)
    if not said or "type" in said or "None" in said:
        return said
    return TOO_FEW if got < expected else TOO_MANY


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


def _constant(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return an answer that computes ``formula(log_new, log_old, cap)``, with no gradient."""
    return lambda new, old, cap: tf.stop_gradient(formula(new, old, cap))


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
    """Return what ``answer`` draws, or only its dtype if that is wrong.

    (Several mistakes draw what is right in these cases. A wrong dtype is none of them.)
    """
    drawn = answer(any_batch(positives), weights, n, seed)
    if hasattr(drawn, "dtype") and drawn.dtype != np.int64:
        return {"dtype": drawn.dtype.name}
    return drawn


def _draw(weights: Any, n: int, seed: Any) -> Any:
    return tf.random.stateless_categorical(tf.math.log(weights), n, seed=(seed, 0))


def _allowed(positives: Any, weights: Any) -> Any:
    return tf.where(tf.one_hot(positives, weights.shape[0]) > 0, 0.0, weights[None, :])


def _with_positives(positives: Any, weights: Any, n: int, seed: Any) -> Any:
    return _draw(tf.zeros_like(_allowed(positives, weights)) + weights, n, seed)


def _nobodys_positive(positives: Any, weights: Any, n: int, seed: Any) -> Any:
    allowed = _allowed(positives, weights)
    return _draw(tf.zeros_like(allowed) + tf.reduce_min(allowed, axis=0), n, seed)


def _next_product(positives: Any, weights: Any, n: int, seed: Any) -> Any:
    drawn = _with_positives(positives, weights, n, seed)
    after = tf.where(positives + 1 < weights.shape[0], positives + 1, 1)
    return tf.where(drawn == positives[:, None], after[:, None], drawn)


def _evenly(positives: Any, weights: Any, n: int, seed: Any) -> Any:
    return _draw(tf.sign(_allowed(positives, weights)), n, seed)


def _weights_as_logits(positives: Any, weights: Any, n: int, seed: Any) -> Any:
    allowed = _allowed(positives, weights)
    logits = tf.where(allowed > 0, allowed, -np.inf)
    return tf.random.stateless_categorical(logits, n, seed=(seed, 0))


def _one_draw_repeated(positives: Any, weights: Any, n: int, seed: Any) -> Any:
    return tf.repeat(_draw(_allowed(positives, weights), 1, seed), n, axis=1)


def _negatives_in_numpy(positives: Any, weights: Any, n: int, seed: Any) -> np.ndarray:
    rng = np.random.default_rng(int(seed))
    keys = np.log(np.asarray(_allowed(positives, weights), "float64"))[:, None]
    return np.argmax(keys + rng.gumbel(size=(len(keys), n, keys.shape[2])), axis=2)


POSITIVE = "A bought product came as its own negative. Give the row's positive the weight 0."
OTHERS = "The positive of one row may be the negative of another. Leave out each row's own only."
EVENLY = "All products are drawn equally often. The weights are not used."
LOGITS = "The weights are taken for logits. Give their logarithms."
STANDS_IN = "One product stands in for the positive. Its share belongs to all others."
REPEATED = "The n negatives of a row are one product, repeated. Each is drawn anew."
SAME_SEED = "Another seed gave the same draws. Draw from the seed that is given."


def _same_draws(got: Any, expected: Any, *case: Any) -> str:
    if isinstance(got, dict):
        return f"The result is {got['dtype']}, where int64 is expected."
    said = same(got, expected)
    if said and np.shape(got) == np.shape(expected) and np.any(got == case[0][:, None]):
        return POSITIVE
    return said


def _watch_draws(answer: Callable[..., Any], rng: np.random.Generator) -> None:
    """Look at the shares of many draws per positive, at rows and columns, and at seeds."""
    weights = rng.uniform(1, 4, 8).astype("float32")
    weights[:3] = 0.0, 5.0, 0.05  # padding; popular, and often bought; rare
    positives = np.where(rng.random(400) < 0.5, 1, rng.integers(1, 8, 400))
    given = tf.constant(positives, tf.int64), tf.constant(weights), 60
    drawn = np.asarray(answer(*given, 1))
    if np.any(drawn == positives[:, None]):
        raise Wrong(POSITIVE)
    if np.all(drawn == drawn[:, :1]):
        raise Wrong(REPEATED)
    if not set(range(1, 8)) <= set(drawn.ravel().tolist()):
        raise Wrong(OTHERS, "products 1 to 7", sorted(set(drawn.ravel().tolist())))
    for positive in range(1, 8):
        _compare_shares(drawn[positives == positive], positive, weights)
    alike = drawn[positives == 1]
    if len(np.unique(alike, axis=0)) < len(alike) or len(np.unique(alike.T, axis=0)) < 60:
        raise Wrong("Some rows or columns hold the same draws. Each negative is drawn anew.")
    few = given[0][:40], *given[1:]
    traced = tf.function(lambda seed: answer(*few, seed))
    for draw in (lambda seed: answer(*few, seed), traced):
        one, again, other = (np.asarray(draw(tf.constant(seed))) for seed in (1, 1, 2))
        if not np.array_equal(one, again):
            raise Wrong("The same seed gave other draws. Draw from nothing but the seed.")
        if np.mean(one == other) > 0.5:
            raise Wrong(SAME_SEED)


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
    share = np.bincount(drawn.ravel(), minlength=len(weights)) / drawn.size
    return np.abs(share - expected) > 6 * np.sqrt(expected * (1 - expected) / drawn.size) + 1e-9


def coverage_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """k, products, batches of scores, and whether they come in a traced function, as in fit."""

    def batches(products: int, *rows: int) -> list[np.ndarray]:
        return [rng.normal(-3, 2, (n, products)).astype("float32") for n in rows]

    two_rows = np.array([[9, 8, 1, 2, 0], [8, 9, 2, 1, 0]], "float32")
    ties = np.array([[1, 3, 3, 3, 0], [0, 0, 0, 0, 0]], "float32")
    for traced in (False, True):
        yield 2, 5, [two_rows], traced
        yield 2, 5, [two_rows, two_rows[:1], two_rows[:, ::-1]], traced
        yield 1, 4, batches(4, 1), traced
        yield 2, 5, [ties[:1], ties[1:]], traced
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
    seen = []
    update = metric.update_state
    if traced:
        shapes = [[None, products], [None, products], [None]]
        update = tf.function(update, input_signature=[tf.TensorSpec(shape) for shape in shapes])

    def look(batch: np.ndarray) -> None:
        bought, row_weights = None, None
        if traced:
            bought, row_weights = tf.one_hot([0] * len(batch), products), tf.zeros(len(batch))
        update(bought, tf.constant(batch), row_weights)
        seen.append(float(metric.result()))

    for batch in batches:
        look(batch)
    marks = np.array(metric.seen)
    metric.reset_state()
    seen.append(float(metric.result()))
    look(batches[0])
    return {"coverage": seen, "seen": marks}


def _coverage(
    update: Callable[..., None], result: Callable[..., Any] | None = None, reset: bool = True
) -> Callable[[int, int], Any]:
    """Return a function that makes a metric which does ``update(self, y_true, y_pred)``."""

    def answer(k: int, products: int) -> Any:
        class Coverage(tf.keras.metrics.Metric):
            def __init__(self) -> None:
                super().__init__("coverage")
                self.k, self.products = k, products
                self.seen = self.add_weight("seen", shape=(products,), initializer="zeros")
                self.batches = self.add_weight("batches", initializer="zeros")
                self.shown = set()

            def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
                update(self, y_true, y_pred)

            def result(self) -> Any:
                return result(self) if result else tf.reduce_mean(self.seen)

            def reset_state(self) -> None:
                if not reset:
                    super().reset_state()
                for state in self.variables:
                    state.assign(tf.zeros_like(state))

        return Coverage()

    return answer


def _marks(metric: Any, y_pred: Any) -> Any:
    """How often each product is in a top k."""
    best = tf.reshape(tf.math.top_k(y_pred, metric.k).indices, [-1, 1])
    return tf.scatter_nd(best, tf.ones(tf.shape(best)[:1]), [metric.products])


def _mark(metric: Any, marks: Any) -> None:
    metric.seen.assign(tf.maximum(metric.seen, tf.minimum(marks, 1.0)))


def _mark_all_equal(metric: Any, y_true: Any, y_pred: Any) -> None:
    least = tf.math.top_k(y_pred, metric.k).values[:, -1:]
    _mark(metric, tf.reduce_sum(tf.cast(y_pred >= least, tf.float32), axis=0))


def _mark_what_was_bought(metric: Any, y_true: Any, y_pred: Any) -> None:
    bought = 1.0 if y_true is None else tf.reduce_max(y_true, axis=0)
    _mark(metric, bought * _marks(metric, y_pred))


def _keep_in_attribute(metric: Any, y_true: Any, y_pred: Any) -> None:
    kept = np.minimum(getattr(metric, "kept", 0) + _marks(metric, y_pred), 1)
    metric.kept = kept
    metric.seen.assign(kept)


def _keep_in_set(metric: Any, y_true: Any, y_pred: Any) -> None:
    metric.shown |= set(tf.math.top_k(y_pred, metric.k).indices.numpy().ravel())


def _mark_in_numpy(metric: Any, y_true: Any, y_pred: Any) -> None:
    best = np.argsort(-np.asarray(y_pred), axis=1, kind="stable")[:, : metric.k]
    seen = np.array(metric.seen)
    seen[best] = 1
    metric.seen.assign(seen)


def _mean_over_batches(metric: Any, y_true: Any, y_pred: Any) -> None:
    metric.seen.assign_add(tf.minimum(_marks(metric, y_pred), 1.0))
    metric.batches.assign_add(1.0)


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
            "A vector is no pair with itself. Leave out the diagonal.": (
                lambda vectors: _dots(vectors, lambda i, j: i <= j)
            ),
            "These are all products, each pair twice. Keep those above the diagonal.": (
                lambda vectors: tf.matmul(vectors, vectors, transpose_b=True)
            ),
            "Each pair comes twice, as (i, j) and as (j, i). Keep i < j only.": (
                lambda vectors: _dots(vectors, lambda i, j: i != j)
            ),
            "The pairs come in another order. It is (0, 1), (0, 2), ..., (1, 2), ...": (
                lambda vectors: _dots(vectors, lambda i, j: i > j)
            ),
            "The pairs come in the reverse order. It is (0, 1), (0, 2), ..., (1, 2), ...": (
                lambda vectors: _dots(vectors)[:, ::-1]
            ),
            "A dot product is one number. Add up its coordinates.": _elementwise,
            "This is the first row of the batch only. The batch comes first.": (
                lambda vectors: _dots(vectors)[0]
            ),
            NUMPY: _dots_in_numpy,
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
                lambda n_values, colliding: max(1, math.ceil(n_values / colliding) * 2)
            ),
            "The result is a float. Round it up to an int.": _bins,
            "The result is rounded down. Round it up.": (
                lambda n_values, colliding: int(_bins(n_values, colliding))
            ),
            "A single value never collides. One bin is enough for it.": (
                lambda n_values, colliding: max(2, math.ceil(_bins(n_values, colliding) - 1e-9))
            ),
            "The root is of order n - 1: a value does not collide with itself.": (
                lambda n_values, colliding: math.ceil(_bins(n_values, colliding, own=0))
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
            "The weight is not capped. One row could outweigh the rest.": (
                _constant(lambda new, old, cap: tf.exp(new - old))
            ),
            "This is the logarithm of the weight. Leave the logarithm with tf.exp.": (
                _constant(lambda new, old, cap: tf.minimum(new - old, cap))
            ),
            "Logarithms are subtracted, not divided: log(a / b) = log(a) - log(b).": (
                _constant(lambda new, old, cap: tf.minimum(new / old, cap))
            ),
            "Upside down. The new policy's probability goes above the line.": (
                _constant(lambda new, old, cap: tf.minimum(tf.exp(old - new), cap))
            ),
            "The cap is for the weight, not for its logarithm.": (
                _constant(lambda new, old, cap: tf.exp(tf.minimum(new - old, cap)))
            ),
            "The cap is the largest weight, not the smallest.": (
                _constant(lambda new, old, cap: tf.maximum(tf.exp(new - old), cap))
            ),
            "Very small probabilities became 0 / 0. Subtract the logarithms first, and take tf.exp "
            "of the difference.": (
                _constant(lambda new, old, cap: tf.minimum(tf.exp(new) / tf.exp(old), cap))
            ),
            "Very small probabilities became 0 / 0, and their weight 0. Subtract the logarithms "
            "first, and take tf.exp of the difference.": (
                _constant(
                    lambda new, old, cap: tf.minimum(
                        tf.math.divide_no_nan(tf.exp(new), tf.exp(old)), cap
                    )
                )
            ),
            "A gradient goes through the weight, so training would change it. tf.stop_gradient "
            "makes it a constant.": (lambda new, old, cap: tf.minimum(tf.exp(new - old), cap)),
            NUMPY: lambda new, old, cap: np.minimum(np.exp(new - old), np.float32(cap)),
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
        mistakes={
            POSITIVE: _with_positives,
            OTHERS: _nobodys_positive,
            EVENLY: _evenly,
            LOGITS: _weights_as_logits,
            STANDS_IN: _next_product,
            "There are n negatives in all. Each row needs n of its own.": (
                lambda positives, weights, n, seed: _draw(weights[None, :], n, seed)[0]
            ),
            REPEATED: _one_draw_repeated,
            SAME_SEED: lambda positives, weights, n, seed: _draw(
                _allowed(positives, weights), n, 7
            ),
            NUMPY: _negatives_in_numpy,
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
            "A product that is shown twice is one product. Mark it with 1, do not count it.": (
                _coverage(lambda self, y_true, y_pred: self.seen.assign_add(_marks(self, y_pred)))
            ),
            "Only the last batch counts. Add to what is marked, do not replace it.": (
                _coverage(
                    lambda self, y_true, y_pred: self.seen.assign(
                        tf.minimum(_marks(self, y_pred), 1.0)
                    )
                )
            ),
            "This is the mean over batches. A product that any batch shows is covered.": (
                _coverage(
                    _mean_over_batches,
                    lambda self: np.mean(self.seen) / max(1.0, float(self.batches)),
                )
            ),
            "These are the k worst of each row. Take those with the largest scores.": (
                _coverage(lambda self, y_true, y_pred: _mark(self, _marks(self, -y_pred)))
            ),
            "Of equal scores more than k are marked. Each row shows k products.": (
                _coverage(_mark_all_equal)
            ),
            "Coverage asks what is shown, not what was bought. y_true is not used.": (
                _coverage(_mark_what_was_bought)
            ),
            "After reset_state something is left. Keep all state in self.seen, not in a set.": (
                _coverage(_keep_in_set, lambda self: len(self.shown) / self.products)
            ),
            "After reset_state the batches of before still count. Keep all state in self.seen.": (
                _coverage(_keep_in_attribute)
            ),
            "reset_state fails: the one that Keras brings sets single numbers back. A vector needs "
            "its own: self.seen.assign(tf.zeros_like(self.seen)).": (
                _coverage(
                    lambda self, y_true, y_pred: _mark(self, _marks(self, y_pred)),
                    reset=False,
                )
            ),
            NUMPY: _coverage(_mark_in_numpy),
        },
    ),
]
