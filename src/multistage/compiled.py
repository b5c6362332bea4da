"""Loops over arrays, compiled to machine code (Lam, Pitrou and Seibert 2015)."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(*signatures: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function for arguments of the named types.

    The types are named so that the work is done when the module is imported, not while the first
    user waits. The machine code is kept where Python keeps bytecode, in ``__pycache__`` or in the
    user's cache: without it each process, the server's too, starts 3 s later. Where neither can be
    written, it is compiled each time.

    Args:
        signatures: in Numba's notation, such as ``"(f8[:, ::1], i8)"``.
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(list(signatures), nogil=True, cache=True)(function)
        except RuntimeError:  # nowhere to keep it
            return numba.njit(list(signatures), nogil=True)(function)

    return compile_
