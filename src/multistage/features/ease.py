"""EASE (Steck 2019): item-item weights, a linear model in closed form.

Only the largest weights of each product are kept, so that a large catalogue fits into memory. A
user's scores are sums of the weights of the products that the user has. So there is no model to
run, and a new purchase changes the scores as soon as it is known.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, load_npz, save_npz


def ease_weights(purchases: csr_matrix, regularisation: float) -> NDArray[np.float64]:
    """Return EASE's ``(n_items, n_items)`` weights, zero on the diagonal (Steck 2019).

    With the Gram matrix ``G = XᵀX + λI`` and ``P = G⁻¹`` they are ``B = -P / diag(P)``.

    Args:
        purchases: ``(n_users, n_items)`` 0/1 matrix ``X``.
        regularisation: λ; larger for sparser data.
    """
    gram = (purchases.T @ purchases).toarray()
    gram[np.diag_indices_from(gram)] += regularisation
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


class EASE:
    """Scores products by the weights of the products that a user has; see :func:`ease_weights`."""

    def __init__(self, weights: csr_matrix) -> None:
        """Score with ``(n_items, n_items)`` float32 weights: from the row's product to others."""
        self.weights = weights

    @classmethod
    def fit(cls, purchases: csr_matrix, regularisation: float, keep: int = 200) -> "EASE":
        """Learn from purchases.

        Args:
            purchases: ``(n_users, n_items)`` 0/1 matrix.
            regularisation: λ of EASE.
            keep: how many weights into each product are kept, those of the largest absolute value.
        """
        weights = ease_weights(purchases, regularisation).astype(np.float32)
        if keep < len(weights):
            size = np.abs(weights)
            least = np.partition(size, -keep, axis=0)[-keep]
            weights[size < least] = 0
        return cls(csr_matrix(weights))

    def scores(self, history: csr_matrix) -> NDArray[np.float32]:
        """Return ``(n, n_items)`` scores for ``(n, n_items)`` 0/1 rows of what users have."""
        return (csr_matrix(history, dtype=np.float32) @ self.weights).toarray()

    def save(self, file: Path) -> None:
        """Write the weights to an ``.npz`` file."""
        save_npz(file, self.weights)

    @classmethod
    def load(cls, file: Path) -> "EASE":
        """Read what :meth:`save` wrote."""
        return cls(csr_matrix(load_npz(file)))
