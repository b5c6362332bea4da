"""Change a solution in one place at a time, and see whether its exercise notices.

A mutant counts if it is wrong on a case of its exercise or on one of 200 further inputs. The share
of those that the exercise refuses says how much its cases hold.
"""

import ast
import copy
import linecache
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from courseware.course import installed
from courseware.exercises import Exercise, Wrong
from courseware.exercises.exercise import find_exercise
from courseware.exercises.guard import TimeUp, guarded, within
from courseware.exercises.source import cells_of, definitions_above, solution
from courseware.exercises.verdict import Outcome, Trial, call, fault, reference_of, trials_of

FURTHER = 200  # inputs
SEEDS = 60  # that may be needed to draw them
SECONDS = 2.0  # for all cases of a mutant; a loop without end is refused

_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE),
    ast.NotEq: (ast.Eq, ast.Gt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_NAMES = {
    "min": "max",
    "minimum": "maximum",
    "any": "all",
    "argmin": "argmax",
    "floor": "ceil",
    "sum": "mean",
    "log2": "log",
    "reduce_sum": "reduce_mean",
    "reduce_min": "reduce_max",
}
_NAMES |= {other: name for name, other in _NAMES.items()}


@dataclass
class Tally:
    """What became of the mutants of one exercise.

    Attributes:
        refused: how many the exercise refuses.
        accepted: those that are wrong and pass, each with an input at which it is wrong.
        equal: how many are right on every input that was tried.
    """

    refused: int = 0
    accepted: list[str] = field(default_factory=list)
    equal: int = 0

    @property
    def share(self) -> float:
        """Of the mutants that differ, how many are refused."""
        return self.refused / max(1, self.refused + len(self.accepted))


def tally(exercise: str, as_good: tuple[str, ...] = ()) -> Tally:
    """Run every mutant of the solution of ``exercise``.

    Args:
        exercise: its id.
        as_good: how the descriptions of those mutants begin that are right although they give
            something else, such as another seed.
    """
    task = find_exercise(exercise)
    course = installed().folder
    space = definitions_above(cells_of(course, exercise), exercise)
    name = reference_of(task).__name__
    trials = trials_of(task)
    further = list(further_trials(task))
    result = Tally()
    for change, code in mutants(solution(course, exercise)):
        answer = _defined(code, name, space)
        if answer is None or refuses(task, answer, trials):
            result.refused += 1
        elif change.startswith(as_good):
            result.equal += 1
        elif (trial := _first_fault(task, answer, further)) is not None:
            result.accepted.append(f"{change}   wrong for {trial.arguments!r:.300}")
        else:
            result.equal += 1
    return result


def further_trials(task: Exercise) -> Iterator[Trial]:
    """Yield up to 200 inputs that the exercise draws from other seeds, or that its judge makes."""
    known = {pickle.dumps(trial.arguments) for trial in trials_of(task)}
    found = 0
    for seed in range(1, SEEDS):
        drawn = [*trials_of(task, seed), *_judged(task, seed)]
        for trial in drawn:
            key = pickle.dumps(trial.arguments)
            if found < FURTHER and key not in known and not trial.traced:
                known.add(key)
                found += 1
                yield trial
        if found == FURTHER or not drawn:
            return


def refuses(task: Exercise, answer: Callable[..., Any], trials: list[Trial]) -> bool:
    """Whether the exercise refuses ``answer``: by a case, by its judge, or by its time limit."""
    found: list[bool] = []

    def run() -> None:
        wrong = _first_fault(task, answer, trials) is not None
        if not wrong and task.judge is not None:
            task.judge(answer, np.random.default_rng(0))
        found.append(wrong)

    try:
        with guarded():
            within(SECONDS if task.judge is None else task.seconds, run)
    except (TimeUp, Wrong, Exception, SystemExit):
        return True
    return found[0]


def mutants(code: str) -> Iterator[tuple[str, str]]:
    """Yield (what was changed, the changed code) for every place and every operator."""
    tree, lines = ast.parse(code), code.splitlines()
    for top in tree.body:
        for parent in _inside(top):
            for name, value in ast.iter_fields(parent):
                places = enumerate(value) if isinstance(value, list) else [(None, value)]
                for place, node in list(places):
                    for other in _changes(node, parent):
                        before = ast.unparse(node)
                        _put(parent, name, place, other)
                        line = lines[getattr(node, "lineno", getattr(parent, "lineno", 1)) - 1]
                        change = f"{before.strip()} → {_text(other).strip()} in {line.strip()}"
                        yield change, ast.unparse(ast.fix_missing_locations(tree))
                        _put(parent, name, place, node)


def _inside(top: ast.stmt) -> Iterator[ast.AST]:
    """The nodes inside a function or inside the methods of a class: no signature, no docstring."""
    functions = top.body if isinstance(top, ast.ClassDef) else [top]
    for function in functions:
        if isinstance(function, ast.FunctionDef):
            if ast.get_docstring(function) is not None:
                function.body = function.body[1:] or [ast.Pass()]
            yield from ast.walk(ast.Module(function.body, []))


def _put(parent: ast.AST, name: str, place: int | None, node: ast.AST | None) -> None:
    if place is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[place] = node


def _text(node: ast.AST | None) -> str:
    return "nothing" if node is None or isinstance(node, ast.Pass) else ast.unparse(node)


def _changes(node: Any, parent: ast.AST) -> Iterator[Any]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _COMPARISONS.get(type(operator), ()):
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Slice):
        yield from _slices(node)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.comprehension):
        for place in range(len(node.ifs)):
            left = [*node.ifs[:place], *node.ifs[place + 1 :]]
            yield ast.comprehension(node.target, node.iter, left, 0)
    elif isinstance(node, ast.stmt) and isinstance(parent, ast.Module | ast.For | ast.If):
        yield from _statements(node)


def _constants(value: Any) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)


def _slices(node: ast.Slice) -> Iterator[ast.AST]:
    if node.lower is not None:
        yield ast.Slice(None, node.upper, node.step)
    if node.upper is not None:
        yield ast.Slice(node.lower, None, node.step)
    if node.step is not None:
        yield ast.Slice(node.lower, node.upper, None)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    if len(node.args) > 1:
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    if len(node.args) == 1 and not isinstance(node.args[0], ast.GeneratorExp | ast.Starred):
        yield node.args[0]
    for place in range(len(node.keywords)):
        left = [*node.keywords[:place], *node.keywords[place + 1 :]]
        yield ast.Call(node.func, node.args, left)
    function = node.func
    if isinstance(function, ast.Name) and function.id in _NAMES:
        yield ast.Call(ast.Name(_NAMES[function.id]), node.args, node.keywords)
    if isinstance(function, ast.Attribute) and function.attr in _NAMES:
        other = ast.Attribute(function.value, _NAMES[function.attr])
        yield ast.Call(other, node.args, node.keywords)


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    """A statement removed. (A name that is then missing is noticed by anybody.)"""
    if isinstance(node, ast.AugAssign):
        yield ast.AugAssign(node.target, _other_operator(node.op), node.value)
    if isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    if not isinstance(node, ast.Return | ast.Pass | ast.FunctionDef):
        yield ast.Pass()


def _other_operator(operator: ast.operator) -> ast.operator:
    return _ARITHMETIC.get(type(operator), ast.Sub)()


def _defined(code: str, name: str, space: dict[str, Any]) -> Callable[..., Any] | None:
    """Run a mutant's code; None if it cannot even be defined."""
    own = dict(space)
    # TensorFlow reads the source of what it traces.
    linecache.cache["<mutant>"] = (len(code), None, code.splitlines(keepends=True), "<mutant>")
    try:
        exec(compile(code, "<mutant>", "exec"), own)
    except Exception:
        return None
    return own[name]


def _first_fault(task: Exercise, answer: Callable[..., Any], trials: list[Trial]) -> Trial | None:
    for trial in trials:
        try:
            got = call(task, answer, trial.arguments, trial.traced)
        except MemoryError as error:
            got = Outcome(raised=type(error), said="too much memory")
        if fault(task, trial, got):
            return trial
    return None


def _judged(task: Exercise, seed: int) -> list[Trial]:
    """What the judge of ``task`` gives to an answer that is a function."""
    right = reference_of(task)
    if task.judge is None or isinstance(right, type):
        return []
    trials: list[Trial] = []

    def spied(*arguments: Any) -> Any:
        try:
            kept = copy.deepcopy(arguments)
        except TypeError:  # symbolic tensors: the judge traces
            return right(*arguments)
        trials.append(Trial(kept, call(task, right, kept)))
        return right(*arguments)

    task.judge(spied, np.random.default_rng(seed))
    return trials
