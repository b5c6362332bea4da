"""Candidates from several sources, and features for the ranker from their scores."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from multistage.compiled import compiled

FUSION = 60.0


def fuse(lists: Sequence[NDArray[np.int64]], k: int) -> tuple[NDArray[np.int64], NDArray]:
    """Merge ranked lists into one by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).

    A product's score is the sum of ``1 / (60 + rank)`` over the lists that hold it.

    Args:
        lists: each ``(n, any)`` positions, best first, no product twice in a row; -1 for none.
        k: length of the result.

    Returns:
        ``(n, k)`` positions, best first, ties to the lower position, -1 for none; and their
        scores, float32, 0 for none.
    """
    ids = np.concatenate(lists, axis=1)
    gain = _gains(*(ranked.shape[1] for ranked in lists))
    best, total = np.full((len(ids), k), -1), np.zeros((len(ids), k))
    if ids.size:
        _fuse(ids, gain, best, total)
    return best, total.astype(np.float32)


@cache
def _gains(*lengths: int) -> NDArray[np.float64]:
    """Return the gain of each place of these lists, concatenated."""
    return np.concatenate([1 / (FUSION + 1 + np.arange(length)) for length in lengths])


@compiled("(i8[:, :], f8[::1], i8[:, ::1], f8[:, ::1])")
def _fuse(ids, gain, best, total):  # noqa: ANN001, ANN202
    """Add up each row's gains by product, and insert the product where it belongs."""
    k = best.shape[1]
    sums = np.zeros(max(ids.max(), 0) + 2)  # the last one is where -1 points to
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            sums[ids[row, column]] += gain[column]
        sums[-1] = 0.0
        filled = 0
        for column in range(ids.shape[1]):
            product = ids[row, column]
            score = sums[product]
            sums[product] = 0.0  # it counts once
            if score == 0.0:
                continue
            place = filled
            while place > 0 and (
                total[row, place - 1] < score
                or (total[row, place - 1] == score and best[row, place - 1] > product)
            ):
                if place < k:
                    best[row, place] = best[row, place - 1]
                    total[row, place] = total[row, place - 1]
                place -= 1
            if place < k:
                best[row, place] = product
                total[row, place] = score
                filled = min(filled + 1, k)


def list_features(
    scores: Mapping[str, NDArray[np.floating]], there: NDArray[np.bool_]
) -> dict[str, NDArray[np.float32]]:
    """Return features of each source's scores, relative to the candidates of the same list.

    Scores of different sources, and of different users, have different scales. So a score is given
    as its distance from the list's mean, in the list's standard deviations, and as its rank.

    Args:
        scores: for each source ``(n, k)`` scores of the candidates.
        there: ``(n, k)`` whether a place holds a candidate; other places are ignored.

    Returns:
        ``<source>_score`` and ``<source>_rank`` (``log(1 + rank)``, 0 for the best) of each, both
        ``(n, k)`` float32; 0 where there is no candidate.
    """
    distance, rank = np.zeros((2, len(scores), *there.shape), np.float32)
    _describe(np.array(list(scores.values()), np.float64), there, distance, rank)
    features = {}
    for place, source in enumerate(scores):
        features[f"{source}_score"], features[f"{source}_rank"] = distance[place], rank[place]
    return features


@compiled("(f8[:, :, ::1], b1[:, :], f4[:, :, ::1], f4[:, :, ::1])")
def _describe(scores, there, distance, rank):  # noqa: ANN001, ANN202
    """Fill in each candidate's distance from its list's mean, and its rank; see above."""
    logs = np.log1p(np.arange(scores.shape[2]))
    for row in range(scores.shape[1]):
        places = np.flatnonzero(there[row])
        if not places.size:
            continue
        for source in range(scores.shape[0]):
            own = scores[source, row][places]
            mean = own.mean()
            spread = np.sqrt(np.square(own - mean).mean()) + 1e-6
            for one in range(own.size):
                distance[source, row, places[one]] = (own[one] - mean) / spread
                # For a hundred scores, counting the higher ones is faster than sorting.
                ahead = 0
                for other in range(one):
                    ahead += own[other] >= own[one]
                for other in range(one + 1, own.size):
                    ahead += own[other] > own[one]
                rank[source, row, places[one]] = logs[ahead]


def top_k(scores: NDArray[np.floating], k: int, above: float = -np.inf) -> NDArray[np.int64]:
    """Return the positions of each row's ``k`` highest scores, best first; -1 for none.

    Args:
        scores: ``(n, m)``, higher is better.
        k: length of the lists.
        above: only higher scores count; so ``-inf`` never does.

    Returns:
        ``(n, k)``; ties go to the lower position.
    """
    best = np.full((len(scores), k), -1)
    if k > 0:
        dtype = np.float32 if scores.dtype == np.float32 else np.float64
        scores = np.ascontiguousarray(scores, dtype)
        last = np.full(len(scores), -np.inf, dtype)
        if k < scores.shape[1]:
            np.negative(np.partition(-scores, k - 1, axis=1)[:, k - 1], out=last)
        _top(scores, last, above, best)
    return best


@compiled("(f4[:, ::1], f4[::1], f8, i8[:, ::1])", "(f8[:, ::1], f8[::1], f8, i8[:, ::1])")
def _top(scores, last, above, best):  # noqa: ANN001, ANN202
    """Sort those of each row's scores that are not lower than its ``last``, the k-th best."""
    found = np.empty(scores.shape[1], np.int64)
    for row in range(scores.shape[0]):
        own, least, count = scores[row], last[row], 0
        for product in range(own.size):
            found[count] = product  # the next one takes its place, unless it counts
            count += (own[product] > above) & (not own[product] < least)
        order = np.argsort(-own[found[:count]], kind="mergesort")[: best.shape[1]]
        best[row, : order.size] = found[order]
