"""Compare what came with what was expected: type, then shape, then value."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Number
from typing import Any, Literal

import numpy as np
import pandas as pd

_EXACT = 1e-9  # relative; whole numbers up to a billion differ by more

Kind = Literal["None", "True or False", "a number", "text", "a dict", "a set", "a table", "a list"]


CHANGED = (
    "An argument was changed that must stay as it is, since the caller uses it again: work on a "
    "copy."
)


@dataclass(frozen=True)
class Changed:
    """Stands in place of a result: the answer changed an argument that it must leave alone."""

    def __repr__(self) -> str:
        return "a changed argument"


def keeping(*places: int) -> Callable[..., Any]:
    """Return a ``use`` for an exercise whose docstring says which arguments may not be changed.

    It returns what the answer returns, or ``Changed`` if that changed one of those arguments.

    Args:
        places: of the arguments (arrays or tables) that must stay as they are; the first is 0.
    """

    def use(answer: Callable[..., Any], *arguments: Any) -> Any:
        before = copy.deepcopy(arguments)
        result = answer(*arguments)
        kept = all(_unchanged(arguments[place], before[place]) for place in places)
        return result if kept else Changed()

    return use


def _unchanged(now: Any, before: Any) -> bool:
    if isinstance(now, pd.DataFrame | pd.Series):
        return now.equals(before)
    return np.array_equal(now, before)


def same(
    got: Any,
    expected: Any,
    *_arguments: Any,
    what: str = "The result",
    rtol: float = 1e-5,
    atol: float = 1e-8,
) -> str:
    """Return what is wrong with ``got``, or ``""`` if it is what was expected.

    Python's and numpy's numbers and arrays or tensors of no dimension are numbers; True and False
    are not. Lists, tuples, arrays, tensors and series are all lists. Whole numbers and floats of
    the same value are equal, and so are two nan. Of a table the columns may stand in any order,
    and the index does not count.

    Args:
        got: what an answer returned.
        expected: what the reference returned. Whole numbers in it must be met exactly.
        what: the subject of the sentence.
        rtol: relative tolerance of floats.
        atol: absolute tolerance of floats.
    """
    kind, wanted = _kind(got), _kind(expected)
    if isinstance(got, Changed) and not isinstance(expected, Changed):
        return CHANGED
    if got is None and expected is not None:
        return f"{what} is None. Did you forget to return it?"
    if kind == "a number" and wanted == "a list" and hasattr(expected, "shape"):
        return f"{what} is a single number, where the shape {tuple(expected.shape)} is expected."
    if kind != wanted:
        return f"{what} has the wrong type: {type(got).__name__}, where {wanted} is expected."
    tolerance = {"rtol": rtol, "atol": atol}
    if wanted == "a number":
        return "" if _close(_number(got), _number(expected), **tolerance) else _wrong(what)
    if wanted == "a dict":
        return _dicts(got, expected, what, **tolerance)
    if wanted == "a set":
        return _sets(got, expected, what)
    if wanted == "a table":
        return _tables(got, expected, what, **tolerance)
    if wanted == "a list":
        return _lists(got, expected, what, **tolerance)
    return "" if got == expected or (got is pd.NaT and expected is pd.NaT) else _wrong(what)


def whole(got: Any, expected: Any, *arguments: Any) -> str:
    """Return what :func:`same` does; a float is wrong as well, whatever its value."""
    if said := same(got, expected, *arguments):
        return said
    is_float = np.asarray(got).dtype.kind == "f"
    return "The result is a float, where an int is expected." if is_float else ""


def same_dtype(got: Any, expected: Any, *arguments: Any) -> str:
    """Return what :func:`same` does; arrays or tensors of another dtype are wrong as well."""
    if said := same(got, expected, *arguments):
        return said
    came, wanted = np.asarray(got).dtype, np.asarray(expected).dtype
    return "" if came == wanted else f"The result is {came}, where {wanted} is expected."


def _kind(value: Any) -> Kind | str:
    if value is None:
        return "None"
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, Number):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "a dict"
    if isinstance(value, set | frozenset):
        return "a set"
    if isinstance(value, pd.DataFrame):
        return "a table"
    if isinstance(value, list | tuple | range):
        return "a list"
    if hasattr(value, "__array__") and not isinstance(value, type | np.generic):
        array = np.asarray(value)
        return "a list" if array.ndim else _kind(array.item())
    return f"a {type(value).__name__}"


def _wrong(what: str) -> str:
    return f"{what} is wrong."


def _number(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return np.asarray(float(value)) if array.dtype.kind == "O" else array  # a Fraction, a Decimal


def _close(got: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    """Return where numbers are equal, as an array of their shape."""
    if expected.dtype.kind in "iu":
        if got.dtype.kind in "iu":
            return got == expected
        rtol = _EXACT
    return np.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True)


def _dicts(got: dict, expected: dict, what: str, **tolerance: float) -> str:
    for key in expected:
        if key not in got:
            return f"{what} has no key {key!r}."
    for key in got:
        if key not in expected:
            return f"{what} has an unexpected key: {key!r}."
    found = (same(got[k], expected[k], what=f"{what} at [{k!r}]", **tolerance) for k in expected)
    return next(filter(None, found), "")


def _sets(got: set, expected: set, what: str) -> str:
    if missing := expected - got:
        return f"{what} is missing {_few(missing)}."
    if extra := got - expected:
        return f"{what} holds {_few(extra)}, which should not be there."
    return ""


def _few(values: set) -> str:
    return ", ".join(sorted(map(repr, values))[:5])


def _tables(got: pd.DataFrame, expected: pd.DataFrame, what: str, **tolerance: float) -> str:
    for column in expected.columns:
        if column not in got.columns:
            return f"{what} has no column {column!r}."
    for column in got.columns:
        if column not in expected.columns:
            return f"{what} has an unexpected column: {column!r}."
    if len(got) != len(expected):
        return f"{what} has {len(got)} rows, where {len(expected)} are expected."
    for column in expected.columns:
        ours, theirs = got[column].tolist(), expected[column].tolist()
        if said := _lists(ours, theirs, f"{what} in column {column!r}", **tolerance):
            return said
    return ""


def _lists(got: Any, expected: Any, what: str, **tolerance: float) -> str:
    ours, theirs = _numbers(got), _numbers(expected)
    if ours is not None and theirs is not None:
        return _arrays(ours, theirs, what, **tolerance)
    got, expected = list(got), list(expected)
    if len(got) != len(expected):
        return _length(got, expected, what)
    found = (
        same(mine, right, what=f"{what} at [{place}]", **tolerance)
        for place, (mine, right) in enumerate(zip(got, expected, strict=True))
    )
    return next(filter(None, found), "")


def _numbers(values: Any) -> np.ndarray | None:
    """Return an array of numbers or truths; None if it is something else, or not rectangular."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    return array if array.dtype.kind in "iufcb" else None


def _arrays(got: np.ndarray, expected: np.ndarray, what: str, **tolerance: float) -> str:
    if got.shape != expected.shape:
        if got.ndim == expected.ndim == 1:
            return _length(got, expected, what)
        return f"{what} has the shape {got.shape}, where {expected.shape} is expected."
    if expected.size and (got.dtype.kind == "b") != (expected.dtype.kind == "b"):
        wanted = "True or False" if expected.dtype.kind == "b" else "numbers"
        return f"{what} holds {got.dtype.name}, where {wanted} are expected."
    bad = ~_close(got, expected, **tolerance)
    if not bad.any():
        return ""
    where = np.argwhere(bad)[0].tolist()
    came, right = (
        f"{value:.6g}" if isinstance(value, float) else str(value)
        for value in (got[tuple(where)].item(), expected[tuple(where)].item())
    )
    return (
        f"{what} has a wrong value at {where}: {came}, where {right} is expected "
        f"({bad.sum()} of {bad.size} differ)."
    )


def _length(got: Any, expected: Any, what: str) -> str:
    return f"{what} has {len(got)} entries, where {len(expected)} are expected."
