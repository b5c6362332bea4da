"""What beginners get wrong in lab 3."""

import math

import numpy as np
import tensorflow as tf


def _products(vectors):
    vectors = np.asarray(vectors)
    return vectors @ vectors.transpose(0, 2, 1)


def dots_with_diagonal(vectors):
    products = _products(vectors)
    return products[(slice(None), *np.triu_indices(products.shape[1]))]


def dots_whole_matrix(vectors):
    return _products(vectors)


def dots_lower_triangle(vectors):
    products = _products(vectors)
    return products[(slice(None), *np.tril_indices(products.shape[1], -1))][:, ::-1]


def dots_elementwise(vectors):
    vectors = np.asarray(vectors)
    first, second = np.triu_indices(vectors.shape[1], 1)
    return vectors[:, first] * vectors[:, second]


def dots_without_batch(vectors):
    return dots_with_diagonal(vectors)[0, [1, 2, 4]]


def bins_one_each(n_values, colliding):
    return n_values


def bins_by_rule_of_thumb(n_values, colliding):
    return max(1, math.ceil(n_values / colliding) * 2)


def bins_as_float(n_values, colliding):
    return 1 / (1 - (1 - colliding) ** (1 / max(1, n_values - 1)))


def bins_forgets_one_value(n_values, colliding):
    return max(2, math.ceil(1 / (1 - (1 - colliding) ** (1 / max(1, n_values - 1))) - 1e-9))


def weight_not_capped(log_new, log_old, cap):
    return tf.stop_gradient(tf.exp(log_new - log_old))


def weight_in_logarithms(log_new, log_old, cap):
    return tf.stop_gradient(tf.minimum(log_new - log_old, cap))


def weight_of_divided_logarithms(log_new, log_old, cap):
    return tf.stop_gradient(tf.minimum(log_new / log_old, cap))


def weight_upside_down(log_new, log_old, cap):
    return tf.stop_gradient(tf.minimum(tf.exp(log_old - log_new), cap))


def weight_with_capped_logarithm(log_new, log_old, cap):
    return tf.stop_gradient(tf.exp(tf.minimum(log_new - log_old, cap)))


def weight_capped_below(log_new, log_old, cap):
    return tf.stop_gradient(tf.maximum(tf.exp(log_new - log_old), cap))


def weight_of_vanished_probabilities(log_new, log_old, cap):
    return tf.stop_gradient(tf.minimum(tf.exp(log_new) / tf.exp(log_old), cap))


def weight_with_gradient(log_new, log_old, cap):
    return tf.minimum(tf.exp(log_new - log_old), cap)


def _draw(weights, shape, seed):
    weights = np.asarray(weights, dtype="float64")
    return np.random.default_rng(seed).choice(len(weights), size=shape, p=weights / weights.sum())


def negatives_with_positives(positives, weights, n, seed):
    return _draw(weights, (len(positives), n), seed)


def negatives_uniform(positives, weights, n, seed):
    own = tf.one_hot(positives, len(weights), on_value=True, off_value=False)
    allowed = tf.where(own | (weights == 0)[None, :], 0.0, 1.0)
    return tf.random.stateless_categorical(tf.math.log(allowed), n, seed=(seed, 0))


def negatives_without_anybodys_positive(positives, weights, n, seed):
    weights = np.array(weights)
    weights[1] = 0  # stands for the positives of the whole batch
    return _positive_to_zero(positives, weights, n, seed)


def _positive_to_zero(positives, weights, n, seed):
    own = tf.one_hot(positives, len(weights), on_value=True, off_value=False)
    allowed = tf.where(own, 0.0, tf.constant(weights)[None, :])
    return tf.random.stateless_categorical(tf.math.log(allowed), n, seed=(seed, 0))


def negatives_with_the_next_product(positives, weights, n, seed):
    drawn, own = negatives_with_positives(positives, weights, n, seed), np.asarray(positives)
    clash = drawn == own[:, None]
    after = np.where(own + 1 < len(weights), own + 1, 1)
    return np.where(clash, after[:, None], drawn)


def negatives_shared(positives, weights, n, seed):
    return _draw(weights, n, seed)


def negatives_repeated(positives, weights, n, seed):
    return tf.repeat(_positive_to_zero(positives, weights, 1, seed), n, axis=1)


def negatives_of_one_seed(positives, weights, n, seed):
    return _positive_to_zero(positives, weights, n, 7)


def negatives_of_logits(positives, weights, n, seed):
    own = tf.one_hot(positives, len(weights), on_value=True, off_value=False)
    none = own | (weights == 0)[None, :]
    return tf.random.stateless_categorical(
        tf.where(none, -np.inf, weights[None, :]), n, seed=(seed, 0)
    )


class _Coverage(tf.keras.metrics.Metric):
    def __init__(self, k, products, name="coverage", **kwargs):
        super().__init__(name=name, **kwargs)
        self.k, self.products = k, products
        self.seen = self.add_weight("seen", shape=(products,), initializer="zeros")

    def best(self, y_pred):
        return tf.reshape(tf.math.top_k(y_pred, self.k).indices, [-1, 1])

    def marks(self, y_pred):
        best = self.best(y_pred)
        return tf.scatter_nd(best, tf.ones(len(best)), (self.products,))

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign(tf.maximum(self.seen, tf.minimum(self.marks(y_pred), 1.0)))

    def result(self):
        return tf.reduce_mean(self.seen)

    def reset_state(self):
        for state in self.variables:
            state.assign(tf.zeros_like(state))


class CoverageOverBatches(_Coverage):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = self.add_weight("batches", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign_add(tf.minimum(self.marks(y_pred), 1.0))
        self.batches.assign_add(1.0)

    def result(self):
        return tf.math.divide_no_nan(tf.reduce_mean(self.seen), self.batches)


class CoverageOfTheLastBatch(_Coverage):
    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign(tf.minimum(self.marks(y_pred), 1.0))


class CoverageThatCounts(_Coverage):
    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign_add(self.marks(y_pred))


class CoverageInASet(_Coverage):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shown = set()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.shown |= set(self.best(y_pred).numpy().ravel().tolist())

    def result(self):
        return len(self.shown) / self.products


class CoverageInAnAttribute(_Coverage):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept = np.zeros(self.products)

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.kept = np.maximum(self.kept, np.minimum(self.marks(y_pred), 1.0))
        self.seen.assign(self.kept)


class CoverageWithTheInheritedReset(_Coverage):
    def reset_state(self):
        tf.keras.metrics.Metric.reset_state(self)


class CoverageOfTheWorst(_Coverage):
    def best(self, y_pred):
        return super().best(-y_pred)


WRONG = {
    "3.1": [
        ("with the diagonal", dots_with_diagonal, "no pair with itself"),
        ("the whole matrix", dots_whole_matrix, "Each pair once"),
        ("another order", dots_lower_triangle, "another order"),
        ("elementwise", dots_elementwise, "is one number"),
        ("without the batch", dots_without_batch, "batch comes first"),
    ],
    "3.2": [
        ("one bin a value", bins_one_each, "Too few bins"),
        ("a rule of thumb", bins_by_rule_of_thumb, "Fewer bins are enough"),
        ("a float", bins_as_float, "wrong type"),
        ("forgets a single value", bins_forgets_one_value, "single value never collides"),
    ],
    "3.3": [
        ("not capped", weight_not_capped, "not capped"),
        ("still a logarithm", weight_in_logarithms, "logarithm of the weight"),
        ("logarithms divided", weight_of_divided_logarithms, "subtracted, not divided"),
        ("upside down", weight_upside_down, "Upside down"),
        ("the logarithm capped", weight_with_capped_logarithm, "not for its logarithm"),
        ("capped below", weight_capped_below, "not the smallest"),
        ("vanished probabilities", weight_of_vanished_probabilities, "0 / 0"),
        ("with gradient", weight_with_gradient, "gradient goes through"),
    ],
    "3.4": [
        ("the positive too", negatives_with_positives, "came as its own negative"),
        ("uniform", negatives_uniform, "the weights are not used"),
        ("nobody's positive", negatives_without_anybodys_positive, "each row's own only"),
        ("the next product instead", negatives_with_the_next_product, "stands in for the positive"),
        ("one set for the batch", negatives_shared, "its own negatives"),
        ("one draw repeated", negatives_repeated, "same product"),
        ("always the same", negatives_of_one_seed, "Another seed"),
        ("weights as logits", negatives_of_logits, "taken for logits"),
    ],
    "3.5": [
        ("mean over batches", CoverageOverBatches, "mean over batches"),
        ("the last batch", CoverageOfTheLastBatch, "Only the last batch"),
        ("counts", CoverageThatCounts, "mark it, do not count"),
        ("in a set", CoverageInASet, "something is left"),
        ("in an attribute", CoverageInAnAttribute, "still count"),
        ("the inherited reset", CoverageWithTheInheritedReset, "needs its own"),
        ("the worst ones", CoverageOfTheWorst, "is wrong"),
    ],
}
