"""``check``, ``hint`` and ``solve``: what an attendee calls."""

import linecache
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from courseware.course import find_course
from courseware.errors import LabError
from courseware.exercises.card import Card, named, readable, shown
from courseware.exercises.exercise import Exercise, Wrong, find_exercise
from courseware.exercises.guard import PATIENCE, Printed, TimeUp, guarded, within
from courseware.exercises.progress import Progress
from courseware.exercises.running import died, marked
from courseware.exercises.shell import find_shell
from courseware.exercises.source import solution
from courseware.exercises.verdict import (
    Outcome,
    Trial,
    call,
    fault,
    own_line,
    raised,
    reference_of,
    refusal,
    trials_of,
)

__all__ = ["Exercise", "NotYet", "Unfilled", "Wrong", "check", "hint", "probe", "solve"]

FAILURES_BEFORE_SOLUTION = 3
GRACE = 60.0  # seconds that a check has to end by itself once its time is up


class NotYet(LabError):
    """An answer was refused; the card says why. It stops the cells below, calmly."""

    def _render_traceback_(self) -> list[str]:
        return ["The notebook stops here until the check passes."]


class Interrupted(KeyboardInterrupt):
    """The attendee stopped the check, and needs no stack of ours to know."""

    def _render_traceback_(self) -> list[str]:
        return ["The check was interrupted."]


class Unfilled(NotImplementedError):
    """The stub was not filled in yet; the message names the exercise."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def check(exercise: str, answer: Callable[..., Any]) -> None:
    """Check ``answer`` and show a card: passed, or what is wrong.

    Args:
        exercise: its id, such as ``"2.1"``.
        answer: the function itself, not its result.

    Raises:
        Unfilled: if the answer is still the stub.
        NotYet: if the answer is wrong. The cells below would run on a wrong function.
        Interrupted: if the attendee interrupts it.
        LabError: if there is no such exercise.
    """
    task = find_exercise(exercise)
    progress = Progress.here()
    entry = progress.entry(exercise)
    name = f"Exercise {task.id}: {task.title}"
    mark = progress.mark(exercise)
    try:
        if said := died(mark):
            raise Wrong(said)
        with marked(mark, PATIENCE * task.seconds + GRACE):
            probe(task, answer)
    except KeyboardInterrupt:
        raise Interrupted from None
    except NotImplementedError:
        Card(
            "open",
            f"{name}. Not filled in yet",
            "Replace the line with NotImplementedError by your answer, run its cell until it shows "
            "no error, and check again.",
            footer=_way_on(task.id, entry.failures),
        ).show()
        raise Unfilled(name) from None
    except Wrong as wrong:
        entry.attempts += 1
        entry.failures += 1
        progress.keep(exercise, entry)
        _wrong_card(name, wrong, _way_on(task.id, entry.failures)).show()
        raise NotYet(f"{name}: {wrong.message}") from None
    entry.attempts += 1
    entry.failures = 0
    entry.passed = True
    progress.keep(exercise, entry)
    Card("passed", f"{name}. Passed").show()


def probe(task: Exercise, answer: Callable[..., Any]) -> None:
    """Run ``answer`` on the cases of ``task``, and its ``judge`` if it has one.

    Raises:
        Wrong: if the answer is refused, raises, takes too much time or memory, or replaces parts
            of a library.
        NotImplementedError: if the answer is the stub.
    """
    if not callable(answer):
        raise Wrong("Give the function itself, not its result.", "a function", _kind(answer))
    reference_of(task)
    with guarded():
        trials = trials_of(task)
    outcomes: list[Outcome] = []
    printed = Printed()
    replaced: list[str] = []
    try:
        with guarded() as (printed, replaced):
            within(task.seconds, partial(_run, task, answer, trials, outcomes))
    except NotImplementedError:
        raise
    except TimeUp as up:
        raise _wrong(
            f"It did not end within {task.seconds:g} s. Look for a loop that never ends, or for "
            "work that can be done once.",
            own_line(up, answer),
            printed,
        ) from None
    except Wrong as wrong:
        wrong.printed = printed.text
        raise
    except (Exception, SystemExit) as error:
        line = own_line(error, answer)
        raise _wrong(raised(error, line), line, printed) from None
    if replaced:
        raise Wrong(f"It replaced {', '.join(replaced)}. Do not change the libraries.")
    with guarded():
        wrong = refusal(task, trials, outcomes)
    if wrong is not None:
        wrong.printed = printed.text
        raise wrong


def _run(
    task: Exercise, answer: Callable[..., Any], trials: list[Trial], outcomes: list[Outcome]
) -> None:
    """Fill ``outcomes``; what is wrong as it stands is not traced, nor given to the judge."""
    for traced in (False, True):
        for trial in trials:
            if trial.traced is traced:
                outcomes.append(call(task, answer, trial.arguments, traced))
        if any(map(partial(fault, task), trials, outcomes)):
            return
    if task.judge is not None:
        task.judge(answer, np.random.default_rng(0))


def hint(exercise: str) -> None:
    """Show the next hint of ``exercise``; after the last one, the first again."""
    task = find_exercise(exercise)
    progress = Progress.here()
    entry = progress.entry(exercise)
    number = entry.hints % len(task.hints)
    entry.hints += 1
    progress.keep(exercise, entry)
    more = number + 1 < len(task.hints)
    Card(
        "hint",
        f"Exercise {task.id}: {task.title}. Hint {number + 1} of {len(task.hints)}",
        task.hints[number],
        footer=f'Another: hint("{task.id}")' if more else f'The answer: solve("{task.id}")',
    ).show()


def solve(exercise: str) -> None:
    """Show the solution of ``exercise`` and define it in the notebook."""
    task = find_exercise(exercise)
    code = solution(find_course(), exercise)
    progress = Progress.here()
    entry = progress.entry(exercise)
    entry.solution_shown = True
    progress.keep(exercise, entry)
    shell = find_shell()
    if shell is not None:
        file = f"<solution of exercise {exercise}>"
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        exec(compile(code, file, "exec"), shell.user_ns)
    Card(
        "solution",
        f"Exercise {task.id}: {task.title}. A solution",
        "It is now defined in this notebook: run the check, then read it."
        if shell is not None
        else "",
        {"code": code},
    ).show()


def _wrong_card(name: str, wrong: Wrong, footer: str) -> Card:
    facts = {}
    if wrong.arguments:
        facts["input"] = named(wrong.arguments)
    if wrong.expected is not None or wrong.got is not None:
        facts |= {"expected": readable(wrong.expected), "got": readable(wrong.got)}
    if wrong.line:
        facts["your line"] = wrong.line
    if text := wrong.printed.strip():
        facts["printed"] = shown(text)
    return Card("wrong", f"{name}. Not yet", wrong.message, facts, footer)


def _way_on(exercise: str, failures: int) -> str:
    """The card's last line. What it offers can be called, whatever the notebook imported."""
    shell = find_shell()
    if shell is not None:
        shell.user_ns.setdefault("hint", hint)
        shell.user_ns.setdefault("solve", solve)
    if failures >= FAILURES_BEFORE_SOLUTION:
        return f'A hint: hint("{exercise}"). The solution: solve("{exercise}")'
    return f'A hint: hint("{exercise}")'


def _wrong(message: str, line: str, printed: Printed) -> Wrong:
    wrong = Wrong(message)
    wrong.line, wrong.printed = line, printed.text
    return wrong


def _kind(value: Any) -> str:
    return f"{type(value).__name__}: {shown(value)}"
