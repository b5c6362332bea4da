"""Values worked out by hand: a solution in a lab that is wrong itself is noticed."""

import numpy as np
import pandas as pd
import pytest

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
