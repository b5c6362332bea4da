"""Scores of :class:`multistage.features.EASE` for the users of one request."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from multistage.compiled import compiled


def ease_scores(
    weights: csr_matrix,
    positions: NDArray[np.int64],
    starts: NDArray[np.integer],
    ends: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Return for each user the sum of the weights' rows of the products that the user has.

    The same as :meth:`multistage.features.EASE.scores`, for lists instead of a sparse matrix. A
    request sums a few thousand weights per user, and scipy would spend most of the time on checking
    its arguments.

    Args:
        weights: ``(products, products)`` float32, from the row's product to others.
        positions: of products, all users' lists one after the other; -1 for an unknown product.
        starts: ``(users,)`` where each user's list begins in ``positions``.
        ends: ``(users,)`` where it ends.

    Returns:
        ``(users, products)``. A product that stands in a list twice counts once.
    """
    sums = np.zeros((len(starts), weights.shape[1]), np.float32)
    lists = (np.asarray(column, np.int64) for column in (positions, starts, ends))
    # Without a sign an index cannot count from the end, and numba need not look whether it does:
    # the loop takes a third of the time.
    begins, columns = weights.indptr.view(np.uint32), weights.indices.view(np.uint32)
    _add_rows(begins, columns, weights.data, *lists, sums)
    return sums


@compiled("(u4[::1], u4[::1], f4[::1], i8[:], i8[:], i8[:], f4[:, ::1])")
def _add_rows(indptr, indices, data, positions, starts, ends, sums):  # noqa: ANN001, ANN202
    last_user = np.full(sums.shape[1], -1)
    for user in range(len(starts)):
        for place in range(starts[user], ends[user]):
            product = positions[place]
            if product < 0 or last_user[product] == user:
                continue
            last_user[product] = user
            for entry in range(indptr[product], indptr[product + 1]):
                sums[user, indices[entry]] += data[entry]
