import numpy as np
import pytest
from scipy.sparse import csr_matrix

from multistage.evaluation import baselines


@pytest.fixture(scope="module")
def two_groups():
    """Sixty users; half buy products 0 to 4 only, half 5 to 9; each leaves one out."""
    rng = np.random.default_rng(0)
    rows = np.zeros((60, 10))
    for user in range(60):
        own = np.arange(5) + 5 * (user % 2)
        rows[user, rng.choice(own, 4, replace=False)] = 1
    return csr_matrix(rows)


@pytest.mark.parametrize("method", [baselines.ease, baselines.als, baselines.item_knn])
def test_users_get_the_products_of_their_group(two_groups, method):
    scores = method(two_groups, two_groups)
    assert scores.shape == (60, 10)
    own = np.arange(10)[None, :] // 5 == np.arange(60)[:, None] % 2
    left_out = own & (two_groups.toarray() == 0)
    assert scores[left_out].min() > scores[~own].max()


@pytest.mark.parametrize("method", [baselines.ease, baselines.als, baselines.item_knn])
def test_same_input_same_scores(two_groups, method):
    np.testing.assert_array_equal(method(two_groups, two_groups), method(two_groups, two_groups))


def test_popularity_counts_buyers_and_is_the_same_for_all(two_groups):
    scores = baselines.popularity(two_groups, two_groups[:3])
    np.testing.assert_array_equal(scores[0], np.asarray(two_groups.sum(axis=0)).ravel())
    assert (scores == scores[0]).all()


def test_ease_solves_its_constrained_least_squares(two_groups):
    """No other zero-diagonal weights have a smaller ridge loss: the gradient off it is zero."""
    dense, regularisation = two_groups.toarray(), 10.0
    weights = baselines.ease(two_groups, csr_matrix(np.eye(10)), regularisation)
    np.testing.assert_allclose(np.diag(weights), 0, atol=1e-12)
    gradient = dense.T @ (dense @ weights - dense) + regularisation * weights
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-8)


def test_nobody_with_no_history_gets_a_preference_from_ease(two_groups):
    assert not baselines.ease(two_groups, csr_matrix((1, 10))).any()


def test_bpr_learns_the_tribes_and_gives_a_stranger_the_mean_user(two_groups):
    users = np.append(np.arange(60), -1)
    scores = baselines.bpr(two_groups, users, factors=4, iterations=200)
    own = np.arange(10)[None, :] // 5 == np.arange(60)[:, None] % 2
    assert scores[:60][own].mean() > scores[:60][~own].mean()
    np.testing.assert_allclose(scores[60], scores[:60].mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        scores, baselines.bpr(two_groups, users, factors=4, iterations=200)
    )
