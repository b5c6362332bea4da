import numpy as np
from scipy.sparse import random as random_sparse

from multistage.serving.ease_scores import ease_scores


def test_the_same_as_a_product_of_matrices():
    rng = np.random.default_rng(0)
    weights = random_sparse(40, 40, 0.3, "csr", "float32", rng)
    lists = [rng.permutation(40)[: rng.integers(0, 12)] for _ in range(25)]
    history = np.zeros((25, 40), "float32")
    for row, products in zip(history, lists, strict=True):
        row[products] = 1
    ends = np.cumsum([len(products) for products in lists])
    starts = ends - [len(products) for products in lists]
    found = ease_scores(weights, np.concatenate(lists), starts, ends)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, history @ weights.toarray(), rtol=1e-5, atol=1e-6)


def test_a_product_counts_once_and_an_unknown_one_not_at_all():
    weights = random_sparse(6, 6, 0.9, "csr", "float32", np.random.default_rng(1))
    positions = np.array([2, -1, 4, 2])
    once = weights.toarray()[[2, 4]].sum(axis=0)
    found = ease_scores(weights, positions, np.array([0, 4, 1]), np.array([4, 4, 2]))
    np.testing.assert_allclose(found, [once, np.zeros(6), np.zeros(6)], rtol=1e-6)
