"""Candidates from several sources, and what their scores tell a ranker."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FUSION = 60.0


def fuse(lists: Sequence[NDArray[np.int64]], k: int, n_items: int) -> NDArray[np.int64]:
    """Merge ranked lists into one by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).

    A product's score is the sum of ``1 / (60 + rank)`` over the lists that hold it.

    Args:
        lists: each ``(n, any)`` positions, best first, no product twice in a row; -1 for none.
        k: length of the result.
        n_items: how many products there are.

    Returns:
        ``(n, k)`` positions, best first; ties go to the lower position; -1 for none.
    """
    total = np.zeros((len(lists[0]), n_items))
    for ranked in lists:
        rows, places = np.nonzero(ranked >= 0)
        total[rows, ranked[rows, places]] += 1 / (FUSION + 1 + places)
    order = np.argsort(-total, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(total, order, axis=1) > 0, order, -1)


def list_features(
    scores: Mapping[str, NDArray[np.floating]], there: NDArray[np.bool_]
) -> dict[str, NDArray[np.float32]]:
    """Return what each source's scores say of a candidate among the candidates of its list.

    Sources have scales of their own, and one person's scores lie higher than another's. So a score
    is told by its distance from the list's mean, in the list's standard deviations, and by its
    rank.

    Args:
        scores: for each source ``(n, k)`` scores of the candidates.
        there: ``(n, k)`` whether a place holds a candidate; the others count for nothing.

    Returns:
        ``<source>_score`` and ``<source>_rank`` (``log(1 + rank)``, 0 for the best) of each, both
        ``(n, k)`` float32; 0 where there is no candidate.
    """
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    features = {}
    for source, score in scores.items():
        score = np.where(there, score, 0.0)
        mean = score.sum(axis=1, keepdims=True) / count
        centred = np.where(there, score - mean, 0.0)
        spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
        order = np.argsort(np.where(there, -score, np.inf), axis=1, kind="stable")
        rank = np.argsort(order, axis=1, kind="stable")
        features[f"{source}_score"] = (centred / (spread + 1e-6)).astype(np.float32)
        features[f"{source}_rank"] = np.where(there, np.log1p(rank), 0).astype(np.float32)
    return features
