"""Every exercise of every lab: hints, a reference that passes, wrong answers that are refused."""

import copy
import importlib
import pickle

import numpy as np
import pandas as pd
import pytest

from courseware.authoring.read import check_id, exercise_id, read_source
from courseware.course import Course
from courseware.exercises import Wrong
from courseware.exercises.engine import probe
from courseware.exercises.exercise import exercises_of
from courseware.exercises.source import reference
from tests.conftest import COURSE

SECTIONS = Course.read(COURSE).find()
EXERCISES = {e.id: e for s in SECTIONS for e in exercises_of(s.number).values()}


def catalogue(section):
    name = f"tests.exercises.wrong_answers.section_{section}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return {}
    return module.WRONG


WRONG = [
    pytest.param(
        exercise, answer, said, [s for *_, s in answers if s != said], id=f"{exercise}-{name}"
    )
    for section in SECTIONS
    for exercise, answers in catalogue(section.number).items()
    for name, answer, said in answers
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_labs_and_checks_name_the_same_exercises(section):
    cells = read_source(section).cells
    known = list(exercises_of(section.number))
    assert [e for e in map(exercise_id, cells) if e] == known
    assert [e for e in map(check_id, cells) if e] == known
    assert known


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_an_exercise_has_hints_and_wrong_answers(exercise):
    assert exercise.title
    assert exercise.hints
    assert all(hint.strip() for hint in exercise.hints)
    wrong = catalogue(exercise.section).get(exercise.id, [])
    assert len(wrong) >= 3
    assert len({answer for _, answer, _ in wrong}) == len(wrong)
    assert len({said for *_, said in wrong}) == len(wrong)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_reference_passes(exercise):
    answer = reference(COURSE, exercise.id)
    for _ in range(3):  # each time with a fresh seed as well
        probe(exercise, answer)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_other_seeds_give_other_inputs(exercise):
    """An answer learnt by heart cannot know them."""

    def inputs(seed):
        seen = []

        def spied(*given, **named):
            seen.append(pickle.dumps((given, named)))
            return answer(*given, **named)

        exercise.check(spied, np.random.default_rng(seed))
        return set(seen)

    answer = reference(COURSE, exercise.id)
    assert inputs(1) != inputs(2)


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


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_an_answer_that_spoils_its_inputs_does_no_harm(exercise):
    """It passes, or is told just that."""
    said = ""

    def spoiling(*given, **named):
        result = copy.deepcopy(answer(*given, **named))
        for value in (*given, *named.values()):
            spoil(value)
        return result

    answer = reference(COURSE, exercise.id)
    try:
        probe(exercise, spoiling)
    except Wrong as refused:
        said = refused.message
    assert not said or "changed" in said


@pytest.mark.parametrize(("exercise", "answer", "said", "to_others"), WRONG)
def test_a_wrong_answer_is_refused_with_its_own_message(exercise, answer, said, to_others):
    with pytest.raises(Wrong) as refused:
        probe(EXERCISES[exercise], answer)
    assert said in refused.value.message
    assert [other for other in to_others if other in refused.value.message] == []


def test_every_catalogued_exercise_exists():
    assert {param.values[0] for param in WRONG} <= set(EXERCISES)
