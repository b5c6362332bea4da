"""The task that every recommender is judged on, the same for all of them.

For each user who bought something in the held-out part: rank the whole catalogue as known at the
end of training, without the products that the user has a training row with. Relevant is what the
user then bought. Products that appeared later are not in the catalogue and do not count.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from multistage.datasets import Data
from multistage.features.candidates import top_k


@dataclass(frozen=True)
class Holdout:
    """Users, catalogue, and who saw and bought what.

    Attributes:
        user_ids: ``(n,)`` int64, users with at least one relevant product.
        product_ids: ``(m,)`` int64, the catalogue; positions refer to this order.
        history: ``(n, m)`` what each user bought in training.
        seen: ``(n, m)`` what each user has a training row with; never recommended.
        relevant: ``(n, m)`` what each user bought in the held-out part, seen products left out.
        purchases: ``(all training users, m)`` what all users bought in training, to learn from.
    """

    user_ids: NDArray[np.int64]
    product_ids: NDArray[np.int64]
    history: csr_matrix
    seen: csr_matrix
    relevant: csr_matrix
    purchases: csr_matrix

    @classmethod
    def from_data(cls, data: Data, split: str = "test") -> "Holdout":
        """Build the task from the split ``"valid"`` or ``"test"`` of ``data``."""
        product_ids = data.catalog["product_id"].to_numpy()
        train = data.train
        train_users = np.unique(train["user_id"])
        bought = train[train["target"] == 1]

        heldout = getattr(data, split)
        heldout = heldout[heldout["target"] == 1]
        users = np.unique(heldout["user_id"])
        seen = indicator(train, users, product_ids)
        relevant = indicator(heldout, users, product_ids)
        relevant = relevant - relevant.multiply(seen)
        relevant.eliminate_zeros()
        kept = np.diff(relevant.indptr) > 0
        users = users[kept]
        return cls(
            user_ids=users,
            product_ids=product_ids,
            history=indicator(bought, users, product_ids),
            seen=seen[kept],
            relevant=relevant[kept],
            purchases=indicator(bought, train_users, product_ids),
        )

    @property
    def warm(self) -> NDArray[np.bool_]:
        """``(n,)`` whether each user has a training row; the others are cold."""
        return np.diff(self.seen.indptr) > 0

    def of(self, users: NDArray[np.int64]) -> "Holdout":
        """Return the task of some users only, given by their positions."""
        return replace(
            self,
            user_ids=self.user_ids[users],
            history=self.history[users],
            seen=self.seen[users],
            relevant=self.relevant[users],
        )

    def top_k(self, scores: NDArray[np.floating], k: int) -> NDArray[np.int64]:
        """Return each user's ``k`` best unseen products as positions, best first.

        Args:
            scores: ``(n, m)``, higher is better; ``-inf`` is never recommended.
            k: length of the lists; a list that has fewer candidates ends in -1.
        """
        scores = np.array(scores, dtype=np.float64)
        scores[self.seen.nonzero()] = -np.inf
        return top_k(scores, k)


def indicator(
    interactions: pd.DataFrame, user_ids: NDArray[np.int64], product_ids: NDArray[np.int64]
) -> csr_matrix:
    """Return a 0/1 matrix of users by products; rows of others are left out.

    Args:
        interactions: with ``user_id`` and ``product_id``.
        user_ids: ``(n,)`` unique, the rows.
        product_ids: ``(m,)`` unique, the columns.
    """
    rows = pd.Index(user_ids).get_indexer(interactions["user_id"])
    columns = pd.Index(product_ids).get_indexer(interactions["product_id"])
    inside = (rows >= 0) & (columns >= 0)
    shape = (len(user_ids), len(product_ids))
    ones = np.ones(inside.sum())
    matrix = csr_matrix((ones, (rows[inside], columns[inside])), shape=shape)
    matrix.data[:] = 1
    return matrix
