"""Ranking metrics, one value per user, on whole batches of users at once.

``recommended`` is always an ``(n_users, n)`` integer array of catalogue positions, best first,
with -1 where a list is shorter; a product stands in a list once. ``relevant`` is an
``(n_users, n_items)`` sparse matrix whose non-zero entries are the products that the user went on
to buy. How large an entry is does not count: gains are 0 or 1. A value per user, rather than their
mean, lets intervals be bootstrapped over users.

``k`` may be larger than a list or the catalogue: the places that are left are no hits, and what can
be reached is limited by what is relevant.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from multistage.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def hits_at_k(recommended: Ints, relevant: csr_matrix, k: int) -> NDArray[np.bool_]:
    """Return an ``(n_users, k)`` mask of the recommendations that are relevant.

    Raises:
        ValueError: if ``k`` is less than 1, the two have not the same number of users, a position
            is not in the catalogue, or a product is among the first ``k`` of a list twice. It
            would count twice, and recall could exceed 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if len(recommended) != relevant.shape[0]:
        raise ValueError(f"{len(recommended)} lists, but {relevant.shape[0]} users in relevant")
    top = recommended[:, :k]
    _check_lists(top, relevant.shape[1])
    hits = np.zeros((len(top), k), dtype=bool)
    if not top.size:
        return hits
    users = np.repeat(np.arange(len(top)), top.shape[1])
    found = np.asarray(relevant[users, np.maximum(top, 0).ravel()] != 0).reshape(top.shape)
    hits[:, : top.shape[1]] = found & (top >= 0)
    return hits


def recall_at_k(recommended: Ints, relevant: csr_matrix, k: int) -> Floats:
    """Return the share of each user's relevant products that are among the first ``k``.

    The denominator is ``min(k, relevant products)``, so that 1 can always be reached. A user with
    nothing relevant gets NaN: leave such users out, or average with :func:`numpy.nanmean`.
    """
    hits = hits_at_k(recommended, relevant, k).sum(axis=1)
    reachable = np.minimum(_relevant_per_user(relevant), k)
    return _divide(hits, reachable)


def ndcg_at_k(recommended: Ints, relevant: csr_matrix, k: int) -> Floats:
    """Return normalised discounted cumulative gain at ``k`` with binary gains.

    ``DCG = sum(hit_r / log2(r + 1))`` over ranks r = 1..k, divided by the DCG of a list that has
    all ``min(k, relevant products)`` hits first (Järvelin and Kekäläinen 2002). NaN for a user
    with nothing relevant.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    gained = hits_at_k(recommended, relevant, k) @ discount
    best = np.concatenate([[0.0], np.cumsum(discount)])
    ideal = best[np.minimum(_relevant_per_user(relevant), k)]
    return _divide(gained, ideal)


def catalog_coverage(recommended: Ints, n_items: int) -> float:
    """Return the share of the catalogue that is recommended to at least one user."""
    shown = np.unique(recommended)
    return float((shown >= 0).sum() / n_items)


def novelty(recommended: Ints, popularity: Floats) -> float:
    """Return the mean self-information of what is recommended, in bits (Zhou et al. 2010).

    Args:
        recommended: positions, -1 for none.
        popularity: ``(n_items,)`` counts; an item never bought counts as bought once.
    """
    share = np.maximum(popularity, 1) / np.maximum(popularity, 1).sum()
    shown = recommended[recommended >= 0]
    return float(-np.log2(share[shown]).mean()) if len(shown) else float("nan")


def bootstrap_interval(
    values: Floats, level: float = 0.95, samples: int = 1_000, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of the mean of ``values`` (Efron 1979).

    Args:
        values: one value per user; NaNs are left out.
        level: the share of bootstrap means inside the interval.
        samples: how many times the users are drawn anew, with replacement.
        seed: same seed, same interval.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(samples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auc_interval(
    target: NDArray[np.integer], score: Floats, samples: int = 200, seed: int = 0
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its 95% percentile bootstrap interval over rows.

    Args:
        target: ``(n,)`` 0 or 1.
        score: ``(n,)``, higher for more likely 1.
        samples: how many times the rows are drawn anew, with replacement.
        seed: same seed, same interval.
    """
    return _with_interval(_weighted_auc(target, score), len(np.ravel(target)), samples, seed)


def auc_difference(
    target: NDArray[np.integer],
    first: Floats,
    second: Floats,
    samples: int = 200,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return AUC of ``first`` minus AUC of ``second``, with its 95% paired bootstrap interval.

    Both are judged on the same drawn rows each time, so that what the rows have in common cancels.

    Args:
        target: ``(n,)`` 0 or 1.
        first: ``(n,)`` scores, higher for more likely 1.
        second: likewise.
        samples: how many times the rows are drawn anew, with replacement.
        seed: same seed, same interval.
    """
    one, other = _weighted_auc(target, first), _weighted_auc(target, second)
    return _with_interval(lambda w: one(w) - other(w), len(np.ravel(target)), samples, seed)


def _weighted_auc(
    target: NDArray[np.integer], score: Floats
) -> Callable[[NDArray[np.uint8]], float]:
    """Return the AUC as a function of the rows' weights: a row drawn twice weighs two."""
    order = np.argsort(np.ravel(score), kind="stable")
    values = np.ravel(score)[order]
    is_last = np.append(values[1:] != values[:-1], True)  # of the rows with its score
    bought = np.ravel(target)[order] == 1
    return lambda weight: _area(order, bought, is_last, weight)


@compiled("f8(i8[::1], b1[::1], b1[::1], u1[::1])")
def _area(order, bought, is_last, weight):  # noqa: ANN001, ANN202
    """Go through rows by rising score; a pair counts if the bought row is higher, half if equal."""
    won = ones = zeros = ones_here = zeros_here = 0.0
    for place in range(order.size):
        if bought[place]:
            ones_here += weight[order[place]]
        else:
            zeros_here += weight[order[place]]
        if is_last[place]:
            won += ones_here * (zeros + zeros_here / 2)
            ones, zeros = ones + ones_here, zeros + zeros_here
            ones_here = zeros_here = 0.0
    return won / (ones * zeros) if ones * zeros > 0 else np.nan


def _with_interval(
    statistic: Callable[[NDArray[np.uint8]], float], n: int, samples: int, seed: int
) -> tuple[float, float, float]:
    drawn = [statistic(times) for times in _draws(n, samples, seed)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistic(np.ones(n, np.uint8)), float(low), float(high)


@lru_cache(maxsize=1)  # a lab asks for many intervals over the same rows
def _draws(n: int, samples: int, seed: int) -> NDArray[np.uint8]:
    """Return ``(samples, n)``: how often each row is drawn, with replacement."""
    rng = np.random.default_rng(seed)
    draws = np.empty((samples, n), np.uint8)
    for times in draws:
        times[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return draws


def _check_lists(top: Ints, n_items: int) -> None:
    if top.size and top.max() >= n_items:
        raise ValueError(f"position {top.max()} is not in a catalogue of {n_items} products")
    ordered = np.sort(top, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if repeated.any():
        user, place = np.argwhere(repeated)[0]
        raise ValueError(
            f"list {user} recommends position {ordered[user, place]} twice: remove repeats first"
        )


def _relevant_per_user(relevant: csr_matrix) -> Ints:
    # not by the stored entries: zeros may be stored, and an entry in parts
    return np.asarray((relevant != 0).sum(axis=1)).ravel()


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
