"""Values worked out by hand: a solution in a lab that is wrong itself is noticed."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from courseware.exercises.source import reference
from tests.conftest import COURSE


def solution(exercise):
    return reference(COURSE, exercise)


@pytest.mark.parametrize(
    ("recommended", "relevant", "k", "expected"),
    [
        ([4, 1, 5, 6, 2], {1, 2, 3}, 5, 0.4776),  # the lab's own example: 1.018 / 2.131
        ([7, 8], {8}, 2, 0.6309),  # 1 / log2(3)
        ([7, 8], {8}, 1, 0.0),
        ([7], {7, 8, 9}, 3, 0.4693),  # 1 / 2.131
        ([], {7}, 3, 0.0),
        ([1, 2], {1, 2, 3, 4}, 2, 1.0),
    ],
)
def test_ndcg(recommended, relevant, k, expected):
    assert solution("1.1")(recommended, relevant, k) == pytest.approx(expected, abs=1e-4)


def test_split_in_time():
    days = {"a": 3, "b": 1, "c": 10, "d": 2, "e": 20, "f": 5}
    rows = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 1, 1],
            "product_id": [7, 7, 7, 7, 7, 8],
            "timestamp": [pd.Timestamp(2024, 3, day) for day in days.values()],
            "target": [0, 1, 0, 1, 0, 1],
        },
        index=list(days),
    )
    parts = solution("1.2")(rows, pd.Timestamp(2024, 3, 10), pd.Timestamp(2024, 3, 20))
    left = {name: sorted(part.index) for name, part in parts.items()}
    assert left == {"train": ["a", "d", "f"], "valid": ["c"], "test": ["e"]}
    assert parts["train"].loc["a"].to_dict() == rows.loc["a"].to_dict()


@pytest.mark.parametrize(
    ("ranked", "seen", "available", "n", "expected"),
    [
        ([1, 1, 2, 3, 1, 4, 2, 5], set(), {1, 2, 3, 4, 5}, 4, [1, 2, 3, 4]),
        ([3, 1, 2, 4], {3}, {1, 3, 4}, 2, [1, 4]),
        ([3, 1, 2], {1}, {1, 2, 3}, 5, [3, 2]),
        ([], set(), {1}, 1, []),
    ],
)
def test_filter(ranked, seen, available, n, expected):
    assert solution("1.3")(np.array(ranked, dtype=int), seen, available, n) == expected


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"retrieve": [[1, 2, 3, 9], [7, 8]], "score": [[1], [7, 8]]}, ("score", 2 / 6)),
        ({"retrieve": [[1, -1], [7]], "score": [[1], [7]]}, ("retrieve", 4 / 6)),
        ({"b": [[1, 2, 3], [7, 8]], "a": [[1, 2, 3, 4], [7]]}, ("b", 1 / 6)),
        ({"retrieve": [[1, 2, 3, 4], [7, 8]], "filter": [[4, 3, 2, 1], [7, 8]]}, ("retrieve", 0)),
    ],
)
def test_largest_loss(stages, expected):
    name, lost = solution("1.4")(stages, [{1, 2, 3, 4}, {7, 8}])
    assert (name, lost) == (expected[0], pytest.approx(expected[1]))


def test_out_of_fold():
    keys, target = pd.Series(list("aaab"), [4, 3, 2, 1]), pd.Series([1, 0, 1, 0], [4, 3, 2, 1])
    got = solution("2.1")(keys, target, np.array([7, 7, 3, 3]), 2.0)
    # (1 + 2 * 0.5) / (1 + 2) twice, (1 + 2 * 0.5) / (2 + 2), and the mean
    assert got == pytest.approx([2 / 3, 2 / 3, 1 / 2, 1 / 2])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1_000,), 12),  # 2 * 5.6
        ((50_000,), 32),  # 2 * 15.0, a little less than 30
        ((100_000, 4.0), 72),  # 4 * 17.8
        ((1,), 4),
        ((5, 40.0), 8),  # no more than 5, rounded up
    ],
)
def test_embedding_size(arguments, expected):
    assert solution("2.2")(*arguments) == expected


def test_pairs():
    vectors = tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert solution("2.3")(vectors).numpy().tolist() == [[3 + 5 + 15, 8 + 12 + 24]]


def test_better():
    target = np.arange(40) % 2
    good, bad = target + np.arange(40) / 100, np.arange(40) % 4
    assert solution("2.4")(target, good, bad, 0) is True
    assert solution("2.4")(target, bad, good, 0) is False
    assert solution("2.4")(target, good, good, 0) is False


def test_dots():
    vectors = tf.constant([[[1.0, 0.0], [2.0, 3.0], [0.0, 5.0], [1.0, 1.0]]])
    # 01, 02, 03, 12, 13, 23
    assert solution("3.1")(vectors).numpy().tolist() == [[2, 0, 1, 15, 5, 5]]


@pytest.mark.parametrize(
    ("n", "colliding", "expected"),
    [(1, 0.1, 1), (2, 0.5, 2), (3, 0.75, 2), (2, 0.24, 5), (10, 0.2, 41)],
)
def test_bins(n, colliding, expected):
    """(1 - 1/41) ** 9 = 0.8007, and (1 - 1/40) ** 9 = 0.7962."""
    assert solution("3.2")(n, colliding) == expected


def test_off_policy_weight():
    new, old = tf.Variable([-2000.0, -300.0, -1.0]), tf.Variable([-2000.5, -302.0, -5.0])
    with tf.GradientTape() as tape:
        weight = solution("3.3")(new, old, 8.0)
    assert weight.numpy() == pytest.approx([np.exp(0.5), np.exp(2.0), 8.0])
    assert tape.gradient(weight, [new, old]) == [None, None]


def test_negatives():
    """One product is left for each row."""
    positives, weights = tf.constant([1, 3], tf.int64), tf.constant([0.0, 5.0, 0.0, 1e-9])
    drawn = solution("3.4")(positives, weights, 3, 0)
    assert drawn.dtype == tf.int64
    assert drawn.numpy().tolist() == [[3, 3, 3], [1, 1, 1]]


def test_coverage():
    metric = solution("3.5")(2, 5)
    metric.update_state(None, tf.constant([[9.0, 8.0, 1.0, 2.0, 0.0], [8.0, 9.0, 2.0, 1.0, 0.0]]))
    metric.update_state(None, tf.constant([[-1.0, -2.0, -3.0, -1.5, -9.0]]))
    assert metric.seen.numpy().tolist() == [1, 1, 0, 1, 0]
    assert float(metric.result()) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("logits", "probability", "expected"),
    [
        ([[3.0]], [0.2], 0.0),
        # log(1 + 5/e) and log(1 + exp(-2.5) / 5)
        ([[2.0, 1.0], [0.5, 3.0]], [0.5, 0.1], (1.04359 + 0.01628) / 2),
        # 0 and log(1 + exp(5) / 2)
        ([[5000.0, 4000.0], [0.0, -5.0]], [0.5, 0.25], 4.32024 / 2),
    ],
)
def test_corrected_loss(logits, probability, expected):
    got = solution("4.1")(np.array(logits), np.array(probability))
    assert got == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 2), (2, 1 / 2), (3, 5 / 6), (10, 1.0)])
def test_catalogue_recall(k, expected):
    """The first user's order is 0, 1, 3, the second one's is 3, 1, 2, 0."""
    users = np.array([[1.0, 0.0], [0.0, 1.0]])
    products = np.array([[3.0, 0.0], [2.0, 2.5], [1.0, 2.0], [0.0, 3.0]])
    bought = [np.array([1, 3]), np.array([2, 3, 0])]
    seen = [np.array([2]), np.array([], dtype=int)]
    assert solution("4.2")(users, products, seen, bought, k) == pytest.approx(expected)


def test_hard_negatives():
    candidates = np.array([[5, -1, 7, 9], [0, 3, 4, -1]])
    got = solution("4.3")(candidates, [{7, 0}, {4}], 2, np.random.default_rng(1))
    assert np.sort(got).tolist() == [[5, 9], [0, 3]]


@pytest.mark.parametrize(
    ("least_recall", "most_ms", "expected"),
    [(0.95, 1.0, "c"), (0.96, 1.0, "a"), (0.95, 0.85, "c"), (0.99, 1.0, None), (0.5, 0.1, "d")],
)
def test_choose_index(least_recall, most_ms, expected):
    measured = pd.DataFrame(
        {
            "recall": [0.97, 0.95, 0.95, 0.6, 1.0],
            "ms": [0.7, 0.9, 0.8, 0.1, 5.0],
            "mib": [130, 128, 128, 20, 10],
        },
        index=["a", "b", "c", "d", "e"],
    )
    assert solution("4.4")(measured, least_recall, most_ms) == expected


@pytest.mark.parametrize(
    ("ndcg", "expected"),
    [
        ({"as it is": 0.2, "order": 0.5, "score": 0.5, "retrieve": 0.4}, "score"),
        ({"as it is": 0.4, "filter": 0.39, "order": 0.1}, "filter"),
        ({"order": 0.0, "as it is": 0.0}, "order"),
    ],
)
def test_weakest_stage(ndcg, expected):
    assert solution("4.5")(ndcg) == expected


def test_filter_for_each_user():
    candidates = np.array([[7, -1, 0, 5], [10, 20, 30, 40], [1, 2, 3, 4]])
    seen = [np.array([5, 30]), np.array([20, 10]), np.array([4, 3, 2, 1])]
    expected = [[7, 0, -1], [30, 40, -1], [-1, -1, -1]]
    assert solution("5.1")(candidates, seen, 3).tolist() == expected
    assert solution("5.1")(candidates[:1], seen[:1], 1).tolist() == [[7]]


def test_fill_gaps():
    candidates = np.array([[0, -1, -1, -1], [8, 7, 6, 5], [-1, -1, -1, -1]])
    seen = [np.array([2]), np.array([3]), np.array([], dtype=int)]
    expected = [[0, 3, 1, -1], [8, 7, 6, 5], [3, 2, 0, 1]]
    assert solution("5.2")(candidates, seen, np.array([3, 2, 0, 1])).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_sample(seed):
    """Noise of a few units cannot change the order of these."""
    logits = np.array([-1e4, 0.0, -2e4])
    assert solution("5.3")(logits, 2.0, 3, np.random.default_rng(seed)).tolist() == [1, 0, 2]
    assert solution("5.3")(logits, 2.0, 1, np.random.default_rng(seed)).tolist() == [1]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (3.0, {"retrieve": "few", "score": "small"}),
        (4.0, {"retrieve": "few", "score": "large"}),  # not "many": that gains less
        (7.25, {"retrieve": "few", "score": "large"}),
        (7.5, {"retrieve": "many", "score": "large"}),
        (1.5, None),
    ],
)
def test_spend_budget(budget, expected):
    stages = {
        "retrieve": {"many": (4.5, 0.25), "few": (1.0, 0.0)},
        "score": {"slow": (2.0, 0.0), "small": (1.0, 0.0), "large": (3.0, 0.5)},
    }
    assert solution("5.4")(stages, budget) == expected
