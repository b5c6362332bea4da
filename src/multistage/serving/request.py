"""The columns of a request, the fallback status of a reply, and which requests are refused."""

from enum import IntEnum

import numpy as np

from multistage.errors import CourseError

MODEL = "recommender"  # its name on the server
MAX_USERS = 10_000
LAST_TIME = 4_102_444_800.0  # 2100-01-01, seconds since 1970
Request = tuple[np.ndarray, np.ndarray, np.ndarray]  # user_id, time, k: one value per user


class FallbackStatus(IntEnum):
    """Whether a user's answer came from all stages, or was replaced by popular products, and why.

    Arrays are compared with a member's ``value``: numpy takes 10 microseconds to convert the member
    itself.
    """

    PERSONAL = 0  # all four stages
    POPULAR = 1  # the user is unknown: popular products of the catalogue
    DEGRADED = 2  # the feature store did not answer: popular products too


class RequestError(CourseError):
    """A request that cannot be answered; the message says what was wrong with it."""


def check_request(user_id: np.ndarray, time: np.ndarray, k: np.ndarray, most: int) -> Request:
    """Return the three columns of a request, one value per user, or say what is wrong.

    Args:
        user_id: int64, shape (users,); any integer is allowed, an unknown one included.
        time: float64, shape (users,) or (1,), seconds since 1970 in UTC.
        k: int32, shape (users,) or (1,): how many products each user wants.
        most: the largest ``k`` that is served.

    Raises:
        RequestError: for no user, more than 10,000 of them, columns of unequal length, a time that
            is not a number or outside of 1970 to 2100, or a ``k`` outside of 1 to ``most``.
    """
    users = user_id.size
    if users == 0:
        raise RequestError("user_id is empty: ask for at least one user.")
    if users > MAX_USERS:
        raise RequestError(
            f"user_id holds {users} users: ask for at most {MAX_USERS} in one request."
        )
    columns = {"time": time, "k": k}
    for name, column in columns.items():
        if column.size not in (1, users):
            raise RequestError(
                f"{name} has {column.size} values for {users} users: give one each, or one for all."
            )
        if column.size != users:
            columns[name] = column.reshape(1).repeat(users)
    time, k = columns["time"], columns["k"]
    if not ((time >= 0) & (time < LAST_TIME)).all():  # NaN compares false
        raise RequestError(
            "time must be seconds since 1970 in UTC, between 1970 and 2100, and a number."
        )
    if not ((k >= 1) & (k <= most)).all():
        raise RequestError(f"k must lie between 1 and {most}, the candidates per user.")
    return user_id.reshape(users), time.reshape(users), k.reshape(users)
