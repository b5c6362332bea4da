"""Candidates from several sources, and what their scores tell a ranker."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

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
    gain = np.concatenate([1 / (FUSION + 1 + np.arange(ranked.shape[1])) for ranked in lists])
    # Position and place in one number: sorting these is faster than finding the order of those.
    bits = ids.shape[1].bit_length()
    keys = np.sort((ids << bits) + np.arange(ids.shape[1]), axis=1)
    ids, gain = keys >> bits, gain[keys & ((1 << bits) - 1)]
    gain[ids < 0] = 0.0
    total = gain.copy()
    for shift in range(1, len(lists)):  # the same product stands side by side now
        total[:, :-shift] += np.where(ids[:, shift:] == ids[:, :-shift], gain[:, shift:], 0.0)
    total[:, 1:][ids[:, 1:] == ids[:, :-1]] = 0.0  # counted at its first place
    best = np.argsort(-total, axis=1, kind="stable")[:, :k]
    ids, total = np.take_along_axis(ids, best, axis=1), np.take_along_axis(total, best, axis=1)
    short = k - ids.shape[1]
    if short > 0:
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=-1)
        total = np.pad(total, ((0, 0), (0, short)))
    return np.where(total > 0, ids, -1), total.astype(np.float32)


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
    stack = np.where(there, np.stack(list(scores.values())), 0.0)  # (sources, n, k)
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    centred = np.where(there, stack - stack.sum(axis=2, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=2, keepdims=True) / count)
    distance = (centred / (spread + 1e-6)).astype(np.float32)

    order = np.argsort(np.where(there, -stack, np.inf), axis=2, kind="stable")
    logs = np.log1p(np.arange(stack.shape[2])).astype(np.float32)
    rank = np.empty_like(distance)
    np.put_along_axis(rank, order, np.broadcast_to(logs, order.shape), axis=2)
    rank = np.where(there, rank, np.float32(0))
    return {
        f"{source}_{what}": values[i]
        for i, source in enumerate(scores)
        for what, values in (("score", distance), ("rank", rank))
    }


def top_positions(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the positions of each row's ``k`` highest scores above 0, best first; -1 for none.

    In a large catalogue few products score above 0, and only these are looked at. Ties go to the
    lower position.
    """
    above = np.flatnonzero((scores > 0).any(axis=0))
    # Score and position in one number, so that one sort of all rows settles both: numbers of 32
    # bits above 0 are in the order of their bits, and a lower position makes a larger number.
    bits = np.ascontiguousarray(scores[:, above], np.float32).view(np.int32).astype(np.int64)
    keys = (bits << 32) - above
    if above.size > k:
        keys = np.partition(keys, -k, axis=1)[:, -k:]
    keys = np.sort(keys, axis=1)[:, ::-1]
    top = np.full((len(scores), k), -1)
    top[:, : keys.shape[1]] = np.where(keys > 0, -keys & 0xFFFFFFFF, -1)
    return top
