from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from courseware.exercises.expect import CHANGED, keeping, same

TABLE = pd.DataFrame({"user": [1, 2], "price": [0.5, np.nan]})
RIGHT = [
    (3, 3.0),
    (np.float32(0.1), 0.1),
    (np.array(5), 5),
    (Fraction(1, 2), 0.5),
    (float("nan"), np.nan),
    (float("inf"), np.inf),
    (2 - 1e-12, 2),  # whole numbers that came by way of floats
    ("a", np.str_("a")),
    (np.bool_(True), True),
    (None, None),
    ((1, 2), [1.0, 2.0]),
    (np.array([[1, 2]]), [(1, 2)]),
    (pd.Series([1, 2]), np.array([1, 2])),
    ([], np.array([])),
    ([[1], [2, 3]], ([1.0], (2, 3))),
    (("score", 0.1 + 0.2), ["score", 0.3]),
    ({"b": 1, "a": [2]}, {"a": (2.0,), "b": 1.0}),
    ({1, 2}, frozenset({2, 1})),
    (TABLE[["price", "user"]].set_axis([7, 8]), TABLE),
    ([pd.Timestamp(2024, 1, 1), pd.NaT], [pd.Timestamp("2024-01-01"), pd.NaT]),
]
WRONG = [
    (None, 3, "The result is None. Did you forget to return it?"),
    ("3", 3, "The result has the wrong type: str, where a number is expected."),
    (True, 1, "The result has the wrong type: bool, where a number is expected."),
    (1, True, "The result has the wrong type: int, where True or False is expected."),
    ([3], 3, "The result has the wrong type: list, where a number is expected."),
    (3, [3], "The result has the wrong type: int, where a list is expected."),
    (print, 3, "wrong type: builtin_function_or_method"),
    ((x for x in (1, 2)), [1, 2], "wrong type: generator, where a list is expected"),
    ({1}, {1: 2}, "wrong type: set, where a dict is expected"),
    (3.001, 3.0, "The result is wrong."),
    (100_000_001, 100_000_000, "The result is wrong."),
    (np.nan, 0.0, "The result is wrong."),
    ("a", "b", "The result is wrong."),
    ([1, 2], [1, 2, 3], "The result has 2 entries, where 3 are expected."),
    (np.zeros((2, 3)), np.zeros((3, 2)), "has the shape (2, 3), where (3, 2) is expected."),
    ([1, 3, 3], [1, 2, 4], "wrong value at [1]: 3, where 2 is expected (2 of 3 differ)."),
    ([[1, 2], [3, 5]], np.array([[1, 2], [3, 4]]), "at [1, 1]: 5, where 4 is expected"),
    ([123_456_789], [123_456_788], "at [0]: 123456789, where 123456788 is expected"),
    ([True, False], [1, 0], "holds bool, where numbers are expected"),
    ([1, 0], [True, False], "where True or False are expected"),
    (["a", 2], ["a", 1], "The result at [1] is wrong."),
    ([[1], [2]], [[1], [2, 3]], "The result at [1] has 1 entries, where 2 are expected."),
    ({"a": 1}, {"a": 1, "b": 2}, "has no key 'b'"),
    ({"a": 1, "c": 2}, {"a": 1}, "an unexpected key: 'c'"),
    ({"a": [1, 2]}, {"a": [1, 3]}, "The result at ['a'] has a wrong value at [1]"),
    ({1}, {1, 2}, "is missing 2"),
    ({1, 3}, {1}, "holds 3, which should not be there"),
    (TABLE[["user"]], TABLE, "has no column 'price'"),
    (TABLE.assign(x=1), TABLE, "an unexpected column: 'x'"),
    (TABLE[:1], TABLE, "has 1 rows, where 2 are expected"),
    (TABLE[::-1], TABLE, "in column 'user' has a wrong value at [0]"),
    ([pd.Timestamp(2024, 1, 1)], [pd.Timestamp(2024, 1, 2)], "The result at [0] is wrong."),
]


@pytest.mark.parametrize(("got", "expected"), RIGHT)
def test_what_is_the_same_is_accepted(got, expected):
    assert same(got, expected) == ""


@pytest.mark.parametrize(("got", "expected", "said"), WRONG)
def test_what_differs_is_said(got, expected, said):
    assert said in same(got, expected)


def test_tensors_are_lists_and_numbers():
    import tensorflow as tf

    assert same(tf.constant([1, 2]), [1, 2]) == ""
    assert same(tf.constant(2.0), 2) == ""
    assert same([tf.constant(1.0), tf.constant(2.0)], np.array([1.0, 2.0])) == ""
    assert "shape" in same(tf.zeros((2, 1)), [0.0, 0.0])


def test_subject_and_tolerance_can_be_chosen():
    assert same(1.01, 1.0, rtol=0.1) == ""
    assert same([[1.01]], [[1.0]], rtol=0.1) == ""
    assert same(1.2, 1.0, what="The loss", rtol=0.1) == "The loss is wrong."


def adds_in_place(values, others):
    values += 1
    others.append(1)
    return values


@pytest.mark.parametrize("values", [np.array([1, 2]), TABLE.copy()])
def test_a_change_of_an_argument_that_is_kept_is_the_outcome(values):
    outcome = keeping(0)(adds_in_place, values, [])
    assert same(outcome, np.array([2, 3])) == CHANGED
    assert same(outcome, None) == CHANGED
    assert same(outcome, keeping(0)(adds_in_place, values, [])) == ""


def test_other_arguments_may_be_changed():
    others = []
    assert keeping(0)(lambda values, given: given.append(1) or 7, np.array([1, 2]), others) == 7
    assert others == [1]
    assert keeping()(adds_in_place, np.array([1, 2]), []).tolist() == [2, 3]
