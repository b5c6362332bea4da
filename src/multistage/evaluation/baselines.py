"""Baselines. Each takes purchases, and scores users by their history.

``purchases`` is an ``(n_users, n_items)`` 0/1 matrix to learn from; ``history`` an ``(m, n_items)``
0/1 matrix of the users to score, who need not be among those learned from. Scores come as an
``(m, n_items)`` array, higher is better.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from multistage.features import ease_weights

Scores = NDArray[np.float64]


def popularity(purchases: csr_matrix, history: csr_matrix) -> Scores:
    """Score each product by how many users bought it; the same for all users."""
    counts = np.asarray(purchases.sum(axis=0)).ravel()
    return np.tile(counts, (history.shape[0], 1))


def ease(purchases: csr_matrix, history: csr_matrix, regularisation: float = 100.0) -> Scores:
    """Score by EASE, a linear item-item model in closed form (Steck 2019).

    See :func:`multistage.features.ease_weights`.

    Args:
        purchases: to learn from.
        history: to score.
        regularisation: λ; larger for sparser data.
    """
    return history @ ease_weights(purchases, regularisation)


def als(
    purchases: csr_matrix,
    history: csr_matrix,
    factors: int = 32,
    regularisation: float = 5.0,
    alpha: float = 10.0,
    iterations: int = 15,
    seed: int = 42,
) -> Scores:
    """Score by implicit-feedback matrix factorisation (Hu, Koren and Volinsky 2008).

    Args:
        purchases: to learn from.
        history: to score; user factors are folded in from it.
        factors: size of the latent vectors.
        regularisation: L2 penalty.
        alpha: confidence of a purchase, ``1 + alpha``.
        iterations: alternating sweeps.
        seed: same seed, same factors.
    """
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularisation,
            alpha=alpha,
            iterations=iterations,
            random_state=seed,
            num_threads=1,  # several threads add up in another order each time
        )
        model.fit(csr_matrix(purchases), show_progress=False)
        users = model.recalculate_user(np.arange(history.shape[0]), csr_matrix(history))
    return (users @ model.item_factors.T).astype(np.float64)


def item_knn(purchases: csr_matrix, history: csr_matrix, neighbours: int = 50) -> Scores:
    """Score by cosine similarity of products, summed over the history (Sarwar et al. 2001)."""
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=neighbours, num_threads=1)
    model.fit(csr_matrix(purchases), show_progress=False)
    similarity = csr_matrix(model.similarity).tolil()
    similarity.setdiag(0)
    return (history @ similarity.tocsr()).toarray()


def bpr(
    purchases: csr_matrix,
    users: NDArray[np.int64],
    factors: int = 32,
    learning_rate: float = 0.05,
    regularisation: float = 0.02,
    iterations: int = 30,
    seed: int = 42,
) -> Scores:
    """Score by matrix factorisation with the BPR loss (Rendle et al. 2009).

    It has a vector for each user of the training data and cannot fold in others: a user without
    purchases gets the mean of the users' vectors.

    Args:
        purchases: to learn from.
        users: ``(m,)`` the rows of ``purchases`` to score, -1 for a user who has none.
        factors: size of the latent vectors.
        learning_rate: of stochastic gradient descent.
        regularisation: L2 penalty.
        iterations: passes over the purchases.
        seed: same seed, same factors.
    """
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=learning_rate,
        regularization=regularisation,
        iterations=iterations,
        random_state=seed,
        num_threads=1,  # several threads race, and each run would end elsewhere
    )
    model.fit(csr_matrix(purchases), show_progress=False)
    known = np.vstack([model.user_factors, model.user_factors.mean(axis=0)])
    return (known[users] @ model.item_factors.T).astype(np.float64)
