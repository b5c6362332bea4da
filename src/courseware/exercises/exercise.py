"""What an exercise is, and where the exercises of a section stand."""

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from courseware.course import installed
from courseware.errors import LabError

CHECK_SECONDS = 20.0


class Wrong(Exception):
    """An answer is wrong; shown on the card.

    Args:
        message: what is wrong, in plain sentences.
        expected: what should have come; shown beside ``got`` where both help.
        got: what came.
        arguments: the input that shows it, name -> value.
    """

    def __init__(
        self,
        message: str,
        expected: Any = None,
        got: Any = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.got = got
        self.arguments = arguments or {}
        self.line = ""  # the attendee's own line that raised
        self.printed = ""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a section.

    Attributes:
        id: ``"2.1"`` is the first exercise of section 2.
        title: a few words, shown on the card and in the stub.
        hints: shown one after the other by ``hint``.
        cases: ``cases(rng)`` yields tuples of positional arguments, from small to large. One fixed
            seed decides; other seeds give the tests further inputs.
        mistakes: what the card says -> a function that makes exactly that mistake.
        reference: the right answer; the lab's own solution if None.
        use: ``use(answer, *arguments)`` returns what is compared, where a plain call is not enough:
            the answer is a class, or must be called twice.
        same: ``same(got, expected, *arguments)`` returns what is wrong, or ``""``; by default
            ``courseware.exercises.expect.same``.
        judge: ``judge(answer, rng)`` raises ``Wrong``. Only for what is random or has a state; it
            runs after the cases.
        traced: the cases are run again inside ``tf.function``, with arrays as tensors.
        further: it stands in a further notebook (``labs_solutions/further``), not in a core lab.
        seconds: the most that all calls of an answer together may take.
    """

    id: str
    title: str
    hints: tuple[str, ...]
    cases: Callable[[np.random.Generator], Iterable[tuple[Any, ...]]]
    mistakes: dict[str, Callable[..., Any]]
    reference: Callable[..., Any] | None = None
    use: Callable[..., Any] | None = None
    same: Callable[..., str] | None = None
    judge: Callable[[Any, np.random.Generator], None] | None = None
    traced: bool = False
    further: bool = False
    seconds: float = CHECK_SECONDS

    @property
    def section(self) -> int:
        """The number of the section that holds this exercise."""
        return section_of(self.id)


def section_of(exercise: str) -> int:
    """Return 2 for ``"2.1"``.

    Raises:
        LabError: if ``exercise`` does not read like that.
    """
    if not isinstance(exercise, str) or not re.fullmatch(r"\d+\.\d+", exercise):
        raise LabError(f'{exercise!r} is not an exercise: expected an id such as "2.1".')
    return int(exercise.split(".")[0])


def exercises_of(section: int) -> dict[str, Exercise]:
    """Return the exercises of ``section`` by id, in their order; empty if it has none."""
    name = installed().loads["exercises"].format(section=section)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise
        return {}
    return {exercise.id: exercise for exercise in module.EXERCISES}


def find_exercise(exercise: str) -> Exercise:
    """Return the exercise with this id.

    Raises:
        LabError: if there is none; the message names those that exist.
    """
    known = exercises_of(section_of(exercise))
    if exercise not in known:
        names = ", ".join(known) or "none"
        raise LabError(
            f"There is no exercise {exercise!r}: section {section_of(exercise)} has {names}."
        )
    return known[exercise]
