import numpy as np
import pytest

from multistage.serving.client import _whole
from multistage.serving.request import RequestError, check_request


def check(users=3, time=(0.0,), k=(10,), most=50):
    return check_request(
        np.arange(users), np.array(time, "float64"), np.array(k, "int32"), most=most
    )


def test_one_value_serves_all_users():
    user_id, time, k = check(time=(5.0,), k=(7,))
    assert user_id.tolist() == [0, 1, 2]
    assert time.tolist() == [5.0] * 3
    assert k.tolist() == [7] * 3


def test_each_user_may_have_his_own():
    _, time, k = check(time=(1.0, 2.0, 3.0), k=(1, 50, 9))
    assert time.tolist() == [1.0, 2.0, 3.0]
    assert k.tolist() == [1, 50, 9]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"users": 0}, "user_id is empty"),
        ({"users": 10_001}, "at most 10000"),
        ({"k": (0,)}, "between 1 and 50"),
        ({"k": (-1,)}, "between 1 and 50"),
        ({"k": (51,)}, "between 1 and 50"),
        ({"k": (1, 2)}, "k has 2 values for 3 users"),
        ({"k": ()}, "k has 0 values"),
        ({"time": (float("nan"),)}, "time must be seconds"),
        ({"time": (float("inf"),)}, "time must be seconds"),
        ({"time": (-1.0,)}, "time must be seconds"),
        ({"time": (1.6e12,)}, "time must be seconds"),  # milliseconds
        ({"time": (1.0, 2.0)}, "time has 2 values for 3 users"),
        ({"time": (1.0, float("nan"), 2.0)}, "time must be seconds"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(bad, words):
    with pytest.raises(RequestError, match=words):
        check(**bad)


def test_ten_thousand_users_are_allowed():
    assert check(users=10_000)[0].size == 10_000


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.5], "int64"),
        ([float("nan")], "int64"),
        (["7"], "int64"),
        ([2**63], "int64"),
        ([2**70], "int64"),
        (10**12, "int32"),
        (2.7, "int32"),
    ],
)
def test_the_client_does_not_ask_for_somebody_else(values, dtype):
    with pytest.raises(RequestError, match=r"k must be whole numbers from -"):
        _whole("k", values, dtype)


def test_the_client_takes_every_whole_number():
    ends = [-(2**63), 0, 2**63 - 1]
    assert _whole("users", ends, "int64").tolist() == ends
    assert _whole("users", np.array([7], "uint8"), "int64").dtype == "int64"
    assert _whole("users", [], "int64").size == 0
