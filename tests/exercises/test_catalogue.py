"""Every exercise of every lab: hints, a reference that passes, mistakes that are named."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from courseware.authoring.read import check_id, exercise_id, read_source
from courseware.course import Course
from courseware.exercises import Wrong
from courseware.exercises.card import readable
from courseware.exercises.engine import probe
from courseware.exercises.exercise import exercises_of
from courseware.exercises.verdict import reference_of
from tests.conftest import COURSE

SECTIONS = Course.read(COURSE).find()


EXERCISES = {name: e for s in SECTIONS for name, e in exercises_of(s.number).items()}
MISTAKES = [
    pytest.param(name, message, mistake, id=f"{name}-{number}")
    for name, exercise in EXERCISES.items()
    for number, (message, mistake) in enumerate(exercise.mistakes.items(), start=1)
]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_labs_and_checks_name_the_same_exercises(section):
    cells = read_source(section).cells
    known = [name for name, e in exercises_of(section.number).items() if not e.further]
    assert [e for e in map(exercise_id, cells) if e] == known
    assert [e for e in map(check_id, cells) if e] == known
    assert known


@every_exercise
def test_an_exercise_has_hints_and_mistakes(exercise):
    assert exercise.title
    assert exercise.hints
    assert all(hint.strip() for hint in exercise.hints)
    assert len(exercise.mistakes) >= 3
    assert len(set(exercise.mistakes.values())) == len(exercise.mistakes)
    assert all(message.strip().endswith(".") for message in exercise.mistakes)


@every_exercise
def test_the_cases_are_always_the_same_and_the_first_can_be_read(exercise):
    first, again = (list(exercise.cases(np.random.default_rng(0))) for _ in range(2))
    assert [pickle.dumps(case) for case in first] == [pickle.dumps(case) for case in again]
    for value in first[0] if first else ():
        assert "…" not in readable(value)
        assert "..." not in readable(value)


@every_exercise
def test_the_reference_passes(exercise):
    probe(exercise, reference_of(exercise))


@pytest.mark.parametrize(("exercise", "message", "mistake"), MISTAKES)
def test_a_mistake_is_refused_with_its_own_message(exercise, message, mistake):
    try:
        probe(EXERCISES[exercise], mistake)
    except Wrong as wrong:
        refused = wrong
    else:
        pytest.fail("It passes: no case tells this mistake from the solution. Add one.")
    assert refused.message == message
    # `changed` raises it if the solution reads differently now.
    assert repr(refused.got) != "'LabError'"


def spoil(value):
    """Leave of a mutable value as little as possible."""
    if isinstance(value, np.ndarray):
        value[...] = 0
    elif isinstance(value, pd.DataFrame):
        value.drop(value.index, inplace=True)
    elif isinstance(value, dict):
        for inside in value.values():
            spoil(inside)
        value.clear()
    elif isinstance(value, list | set):
        value.clear()


@every_exercise
def test_an_answer_that_spoils_its_inputs_does_no_harm(exercise):
    """It passes, or is told just that."""
    answer = reference_of(exercise)
    if isinstance(answer, type):
        pytest.skip("a class: its methods are called by `use`")

    def spoiling(*given, **named):
        result = answer(*given, **named)
        if isinstance(result, np.ndarray | pd.DataFrame | dict | list | set | tuple):
            result = copy.deepcopy(result)
        for value in (*given, *named.values()):
            spoil(value)
        return result

    said = ""
    try:
        probe(exercise, spoiling)
    except Wrong as refused:
        said = refused.message
    assert not said or "chang" in said


def nothing(*given, **named):
    return None


def something_else(*given, **named):
    return object()


def divides_by_zero(*given, **named):
    return 1 / 0


@every_exercise
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (nothing, "None"),
        (something_else, "object"),
        (divides_by_zero, "ZeroDivisionError"),
    ],
)
def test_what_is_no_answer_at_all_is_refused_in_words(exercise, answer, said):
    with pytest.raises(Wrong) as refused:
        probe(exercise, answer)
    assert said in refused.value.message
    assert "could not use" not in refused.value.message
