"""Judge an answer: the same cases for the reference, the answer, and the mistakes that are known.

A mistake is named only if it gives what the answer gave on every case. Otherwise the smallest case
is shown at which the answer is wrong.
"""

import copy
import inspect
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from courseware.course import installed
from courseware.exercises.exercise import Exercise, Wrong
from courseware.exercises.expect import same
from courseware.exercises.source import reference

_TRACED_LINE = re.compile(r'File "([^"]*)", line (\d+), in .*\n +(.*)')
_TEXT = 2_000  # characters of an error's message; one is kept for every case
_TRACED = "When TensorFlow traces it, as `fit` does: "


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a value, or an error.

    Attributes:
        value: a copy of what was returned.
        raised: the error's class.
        said: the error in a sentence.
        line: the answer's own line that raised it.
    """

    value: Any = None
    raised: type[BaseException] | None = None
    said: str = ""
    line: str = ""


@dataclass(frozen=True)
class Trial:
    """A case, and what the reference makes of it.

    Attributes:
        arguments: never changed; each call is given a copy.
        expected: the reference's outcome.
        traced: the call stands inside ``tf.function``.
    """

    arguments: tuple[Any, ...]
    expected: Outcome
    traced: bool = False


def reference_of(task: Exercise) -> Callable[..., Any]:
    """Return the right answer: the exercise's own, or the lab's solution."""
    return task.reference or reference(installed().folder, task.id)


def trials_of(task: Exercise, seed: int = 0) -> list[Trial]:
    """Return the cases of ``task`` with the reference's outcomes; seed 0 is the one that decides.

    Where answers are traced, every case comes a second time at the end.
    """
    right = reference_of(task)
    trials = []
    for arguments in task.cases(np.random.default_rng(seed)):
        trials.append(Trial(arguments, call(task, right, arguments)))
    if task.traced:
        trials += [Trial(trial.arguments, trial.expected, traced=True) for trial in trials]
    return trials


def call(
    task: Exercise, answer: Callable[..., Any], arguments: tuple[Any, ...], traced: bool = False
) -> Outcome:
    """Call ``answer`` as ``task`` says, on a copy of ``arguments``.

    Raises:
        NotImplementedError: if the answer is the stub.
        MemoryError: if the answer does; the next case would take as long.
    """
    given = copy.deepcopy(arguments)
    try:
        return Outcome(_copy(_use(task, answer, given, traced)))
    except NotImplementedError as error:
        if f"Exercise {task.id}" in str(error):
            raise
        return _failed(error, answer)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        return _failed(error, answer)


def fault(task: Exercise, trial: Trial, got: Outcome) -> str:
    """Return what is wrong with the outcome ``got``; ``""`` if it is right."""
    said = _fault(task, trial, got)
    return _TRACED + said if said and trial.traced else said


def refusal(task: Exercise, trials: list[Trial], outcomes: list[Outcome]) -> Wrong | None:
    """Return what the card says of these outcomes; None if all are right.

    Args:
        task: the exercise.
        trials: all of them.
        outcomes: of the first trials; the traced ones are left out where others are wrong.
    """
    trials = trials[: len(outcomes)]
    faults = [fault(task, t, got) for t, got in zip(trials, outcomes, strict=True)]
    if not any(faults):
        return None
    first = next(number for number, said in enumerate(faults) if said)
    trial, got = trials[first], outcomes[first]
    wrong = Wrong(
        recognised(task, trials, outcomes) or faults[first],
        _shown(trial.expected),
        _shown(got),
        _named(task, trial.arguments),
    )
    wrong.line = got.line
    return wrong


def recognised(task: Exercise, trials: list[Trial], outcomes: list[Outcome]) -> str:
    """Return the message of the mistake that gives these very outcomes; ``""`` if none does."""
    for message, mistake in task.mistakes.items():
        if all(
            alike(task, trial, call(task, mistake, trial.arguments, trial.traced), got)
            for trial, got in zip(trials, outcomes, strict=True)
        ):
            return message
    return ""


def alike(task: Exercise, trial: Trial, one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes of a case are the same, right or wrong."""
    if one.raised or other.raised:
        return one.raised is other.raised
    if bool(_fault(task, trial, one)) != bool(_fault(task, trial, other)):
        return False
    if not same(one.value, other.value):
        return True
    if task.same is None:
        return False
    arguments = copy.deepcopy(trial.arguments)
    # Both ways: one that looks at its first value only would call all right ones the same, and
    # so they are, but it calls a wrong one and a right one the same as well.
    try:
        return not (
            task.same(one.value, other.value, *arguments)
            or task.same(other.value, one.value, *arguments)
        )
    except Exception:
        return False


def own_line(error: BaseException, answer: Callable[..., Any]) -> str:
    """Return the last line of the attendee's own code in the traceback, ``""`` if there is none."""
    code = getattr(answer, "__code__", None) or getattr(type(answer).__call__, "__code__", None)
    own = code.co_filename if code else ""
    # An error in a traced function is another one, raised by TensorFlow, that tells of its lines.
    lines = _TRACED_LINE.findall(str(error)) if _is_traced(error) else []
    if not lines:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [(frame.filename, frame.lineno, frame.line) for frame in frames]
    lines = [line for line in lines if line[0] == own or "ipykernel_" in line[0]]
    return f"line {lines[-1][1]}: {lines[-1][2]}" if lines else ""


def raised(error: BaseException, line: str) -> str:
    """Return a sentence on an error that an answer raised in its own ``line``."""
    text = str(error)
    if _is_traced(error) and (
        own := re.search(rf"^ *{type(error).__name__}: (.*)", text, flags=re.MULTILINE)
    ):
        text = own[1]
    text = text[:_TEXT]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, MemoryError):
        return "It needs too much memory. Look for a list that grows without end."
    if isinstance(error, NameError):
        said += ". Is it spelt right, and imported? After a restart run the cells above."
    elif not line and isinstance(error, TypeError) and re.search(r"\bargument", text):
        return f"It cannot be called as the exercise says: {text}. Do not change its line with def."
    return f"It raised {said}"


def _is_traced(error: BaseException) -> bool:
    return str(error).startswith("in user code:")


def _use(task: Exercise, answer: Callable[..., Any], given: tuple[Any, ...], traced: bool) -> Any:
    def run(*arguments: Any) -> Any:
        return task.use(answer, *arguments) if task.use else answer(*arguments)

    if traced:
        import tensorflow as tf

        return tf.function(run)(*given)
    return run(*given)


def _copy(value: Any) -> Any:
    """A copy, since an answer may hand out one list again and again, and change it in between."""
    try:
        return copy.deepcopy(value)
    except Exception:  # a generator, a layer
        return value


def _failed(error: BaseException, answer: Callable[..., Any]) -> Outcome:
    line = own_line(error, answer)
    return Outcome(None, type(error), raised(error, line), line)


def _fault(task: Exercise, trial: Trial, got: Outcome) -> str:
    expected = trial.expected
    if expected.raised is not None:
        if got.raised is not None and issubclass(got.raised, expected.raised):
            return ""
        return got.said or f"It must raise {expected.raised.__name__} here."
    if got.raised is not None:
        return got.said
    arguments = copy.deepcopy(trial.arguments)
    try:
        return (task.same or same)(got.value, expected.value, *arguments)
    except Exception as error:
        return f"The check could not use what it returned ({type(error).__name__}: {error})."


def _shown(outcome: Outcome) -> Any:
    return outcome.raised.__name__ if outcome.raised else outcome.value


def _named(task: Exercise, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments by the names that they have in the reference, or in ``use``."""
    names = _parameters(task.use)[1:] if task.use else []
    if len(names) < len(arguments):
        names = _parameters(reference_of(task))
    if len(names) < len(arguments):
        names = [f"argument {number}" for number in range(1, len(arguments) + 1)]
    return dict(zip(names, arguments, strict=False))


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
