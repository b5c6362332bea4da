"""What beginners get wrong in lab 3."""

import math

import numpy as np


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
    return (vectors[:, first] * vectors[:, second]).max(axis=2)


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


WRONG = {
    "3.1": [
        ("with the diagonal", dots_with_diagonal, "no pair with itself"),
        ("the whole matrix", dots_whole_matrix, "Each pair once"),
        ("another order", dots_lower_triangle, "wrong value"),
        ("elementwise", dots_elementwise, "wrong value"),
        ("without the batch", dots_without_batch, "batch comes first"),
    ],
    "3.2": [
        ("one bin a value", bins_one_each, "Too few bins"),
        ("a rule of thumb", bins_by_rule_of_thumb, "Fewer bins are enough"),
        ("a float", bins_as_float, "wrong type"),
        ("forgets a single value", bins_forgets_one_value, "single value never collides"),
    ],
}
