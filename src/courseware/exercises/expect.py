"""The order every check keeps: type, then shape, then value. Properties are the check's own."""

from typing import Any

import numpy as np

from courseware.exercises.exercise import Wrong


def same_type(got: Any, kind: type | tuple[type, ...], what: str = "The result") -> None:
    """Refuse ``got`` unless it is a ``kind``; the message starts with ``what``.

    Raises:
        Wrong: naming both types.
    """
    if got is None:
        raise Wrong(f"{what} is None. Did you forget to return it?", _names(kind), "None")
    if not isinstance(got, kind):
        raise Wrong(f"{what} has the wrong type.", _names(kind), type(got).__name__)


def number(got: Any, expected: float, what: str = "The result", rtol: float = 1e-5) -> None:
    """Refuse ``got`` unless it is a number close to ``expected`` (relative ``rtol``).

    Raises:
        Wrong: naming both numbers.
    """
    same_type(got, (int, float, np.number), what)
    if not np.isclose(got, expected, rtol=rtol, atol=1e-8, equal_nan=True):
        raise Wrong(f"{what} is wrong.", f"{expected:.6g}", f"{got:.6g}")


def array(got: Any, expected: np.ndarray, what: str = "The result", rtol: float = 1e-5) -> None:
    """Refuse ``got`` unless it is an array of the shape and the values of ``expected``.

    Args:
        got: an array, or anything that ``numpy.asarray`` takes (a tensor, a list).
        expected: any shape and dtype.
        what: the subject of the message.
        rtol: relative tolerance for floating point; other types must be equal.

    Raises:
        Wrong: naming both shapes, or the first place that differs.
    """
    if got is None or isinstance(got, str | dict | set) or callable(got):
        same_type(got, (np.ndarray,), what)
    values = np.asarray(got)
    if values.dtype == object:
        raise Wrong(f"{what} is no array of numbers.", "an array", type(got).__name__)
    if values.shape != expected.shape:
        raise Wrong(f"{what} has the wrong shape.", expected.shape, values.shape)
    if np.issubdtype(expected.dtype, np.number) and np.issubdtype(values.dtype, np.number):
        bad = ~np.isclose(values, expected, rtol=rtol, atol=1e-8, equal_nan=True)
    else:
        bad = values != expected
    if np.any(bad):
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f" at {where[0] if len(where) == 1 else where}" if where else ""
        raise Wrong(
            f"{what} has a wrong value{place} ({int(np.sum(bad))} of {values.size} differ).",
            expected[where],
            values[where],
        )


def _names(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if np.number in kinds:
        return "a number"
    return " or ".join(k.__name__ for k in kinds)
