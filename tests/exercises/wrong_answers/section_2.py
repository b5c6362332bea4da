"""What beginners get wrong in lab 2."""

import numpy as np
from sklearn.metrics import roc_auc_score


def _totals(keys, target, groups):
    by_key = target.groupby(groups)
    return by_key.transform("sum").to_numpy(), by_key.transform("count").to_numpy()


def encode_with_own_row(keys, target, fold, smoothing):
    total, count = _totals(keys, target, keys)
    return (total + smoothing * target.mean()) / (count + smoothing)


def encode_without_smoothing(keys, target, fold, smoothing):
    total, count = _totals(keys, target, keys)
    own, own_count = _totals(keys, target, [keys, fold])
    with np.errstate(invalid="ignore"):
        return (total - own) / (count - own_count)


def encode_leave_one_out(keys, target, fold, smoothing):
    total, count = _totals(keys, target, keys)
    return (total - target.to_numpy() + smoothing * target.mean()) / (count - 1 + smoothing)


def encode_one_value_a_key(keys, target, fold, smoothing):
    return target.groupby(keys).mean().to_numpy()


def encode_own_fold_only(keys, target, fold, smoothing):
    total, count = _totals(keys, target, [keys, fold])
    return (total + smoothing * target.mean()) / (count + smoothing)


def better_by_point_estimate(target, first, second, seed):
    return roc_auc_score(target, first) >= roc_auc_score(target, second)


def better_if_intervals_apart(target, first, second, seed):
    rng = np.random.default_rng(seed)

    def interval(score):
        drawn = [rng.integers(len(target), size=len(target)) for _ in range(100)]
        return np.quantile([roc_auc_score(target[r], score[r]) for r in drawn], [0.025, 0.975])

    return bool(interval(first)[0] > interval(second)[1])


def better_whichever_way(target, first, second, seed):
    return bool(abs(roc_auc_score(target, first) - roc_auc_score(target, second)) > 1e-3)


def better_returns_the_difference(target, first, second, seed):
    return float(roc_auc_score(target, first) - roc_auc_score(target, second))


def _size(wanted):
    return 4 * int(np.ceil(wanted / 4))


def size_not_rounded(values, multiplier=2.0):
    return int(np.ceil(min(multiplier * values**0.25, values)))


def size_square_root(values, multiplier=2.0):
    return _size(min(multiplier * values**0.5, values))


def size_without_bound(values, multiplier=2.0):
    return _size(multiplier * values**0.25)


def size_rounds_down(values, multiplier=2.0):
    return 4 * int(min(multiplier * values**0.25, values) // 4)


def size_ignores_the_multiplier(values, multiplier=2.0):
    return _size(min(2.0 * values**0.25, values))


def size_as_float(values, multiplier=2.0):
    return 4 * np.ceil(min(multiplier * values**0.25, values) / 4)


def _sums(vectors, axis=1):
    vectors = np.asarray(vectors)
    return vectors.sum(axis=axis) ** 2, (vectors**2).sum(axis=axis)


def pairs_twice(vectors):
    square, squares = _sums(vectors)
    return square - squares


def pairs_with_squares(vectors):
    return 0.5 * _sums(vectors)[0]


def pairs_over_coordinates(vectors):
    square, squares = _sums(vectors, axis=2)
    return 0.5 * (square - squares)


def pairs_added_up(vectors):
    square, squares = _sums(vectors)
    return 0.5 * (square - squares).sum(axis=1)


WRONG = {
    "2.1": [
        ("own row included", encode_with_own_row, "own fold is in its mean"),
        ("not smoothed", encode_without_smoothing, "not smoothed"),
        ("leave one out", encode_leave_one_out, "Only the row itself"),
        ("one value a key", encode_one_value_a_key, "One value a row"),
        ("own fold only", encode_own_fold_only, "the row's own fold: take"),
    ],
    "2.2": [
        ("no multiple of 4", size_not_rounded, "no multiple of 4"),
        ("square root", size_square_root, "fourth root"),
        ("more numbers than values", size_without_bound, "More numbers than values"),
        ("rounds down", size_rounds_down, "Round up"),
        ("ignores the multiplier", size_ignores_the_multiplier, "multiplier is not used"),
        ("a float", size_as_float, "wrong type"),
    ],
    "2.3": [
        ("each pair twice", pairs_twice, "Each pair counts once"),
        ("with the squares", pairs_with_squares, "no pair with itself"),
        ("over coordinates", pairs_over_coordinates, "coordinates stay"),
        ("one number", pairs_added_up, "Coordinates are not added up"),
    ],
    "2.4": [
        ("point estimate", better_by_point_estimate, "Equal scores are no improvement"),
        ("intervals apart", better_if_intervals_apart, "Draw the same rows"),
        ("whichever way", better_whichever_way, "first model is clearly worse"),
        ("returns the difference", better_returns_the_difference, "wrong type"),
    ],
}
