import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from courseware import memory
from courseware.errors import LabError
from courseware.exercises import Exercise, Wrong, check, guard, hint
from courseware.exercises.engine import Interrupted, NotYet, Unfilled
from courseware.exercises.progress import Progress


def check_total(answer, rng):
    for size in (1, 5):
        values = rng.normal(size=size)
        got = answer(values.copy())
        if not isinstance(got, float):
            raise Wrong("The total has the wrong type.", "float", type(got).__name__)
        if not np.isclose(got, values.sum()):
            raise Wrong("The total is wrong.", values.sum(), got)


def right(values):
    return float(sum(values))


@pytest.fixture(autouse=True)
def exercises(small_course, register, monkeypatch):
    root = small_course()
    monkeypatch.chdir(root / "notebooks")
    register(
        Exercise("9.1", "A total", ("Think.", "Add."), check_total, seconds=0.5),
    )
    return root


def refused(capsys, answer):
    with pytest.raises(NotYet) as stopped:
        check("9.1", answer)
    return str(stopped.value), capsys.readouterr().out


def test_right_answer_passes_and_is_kept(capsys):
    assert check("9.1", right) is None
    assert "Exercise 9.1: A total. Passed" in capsys.readouterr().out
    entry = Progress.here().entry("9.1")
    assert (entry.passed, entry.attempts, entry.failures) == (True, 1, 0)


def test_stub_stops_with_the_name_of_the_exercise(capsys):
    def stub(values):
        raise NotImplementedError("Exercise 9.1: A total")

    with pytest.raises(Unfilled, match=r"^Exercise 9\.1: A total$") as stopped:
        check("9.1", stub)
    assert isinstance(stopped.value, NotImplementedError)
    assert "Not filled in yet" in capsys.readouterr().out
    assert Progress.here().entry("9.1").attempts == 0


def test_wrong_answer_is_told_what_was_expected_and_what_came(capsys):
    message, card = refused(capsys, lambda values: 3)
    assert message == "Exercise 9.1: A total: The total has the wrong type."
    assert "expected: float" in card
    assert "got: int" in card
    assert 'hint("9.1")' in card
    assert "solve" not in card


def test_solution_is_offered_after_three_failures_and_no_longer_once_passed(capsys):
    for _ in range(2):
        assert "solve" not in refused(capsys, lambda values: 3)[1]
    assert 'solve("9.1")' in refused(capsys, lambda values: 3)[1]
    check("9.1", right)
    capsys.readouterr()
    assert "solve" not in refused(capsys, lambda values: 3)[1]
    assert Progress.here().entry("9.1").passed


def test_a_value_learnt_by_heart_fails_on_fresh_inputs(capsys):
    rng = np.random.default_rng(0)
    known = [float(rng.normal(size=size).sum()) for size in (1, 5)]

    def by_heart(values):
        return known[0] if len(values) == 1 else known[1]

    assert "The total is wrong." in refused(capsys, by_heart)[0]


def test_an_error_is_shown_with_the_attendees_own_line(capsys):
    def answer(values):
        return values.nothing

    message, card = refused(capsys, answer)
    assert "It raised AttributeError" in message
    assert "return values.nothing" in card
    assert "engine.py" not in card


def test_what_cannot_be_used_is_said_without_our_stack(capsys, register):
    def careless(answer, rng):
        len(answer(3).shape)

    register(Exercise("9.1", "A total", ("Think.",), careless))
    elsewhere = eval(compile("lambda x: x", "<another file>", "eval"))
    assert "could not use what it returned (AttributeError" in refused(capsys, elsewhere)[0]


def test_a_result_in_place_of_the_function_is_named(capsys):
    message, card = refused(capsys, 6.0)
    assert "the function itself" in message
    assert "float: 6.0" in card


def loops(values):
    while True:
        pass


def loops_and_swallows(values):
    swallowed = 0
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            swallowed += 1


@pytest.mark.parametrize("answer", [loops, loops_and_swallows])
@pytest.mark.timeout(60)
def test_an_endless_answer_ends_and_its_line_is_shown(capsys, answer):
    message, card = refused(capsys, answer)
    assert "did not end within 0.5 s" in message
    assert "your line: line " in card


def test_endless_recursion_is_named(capsys):
    def calls_itself(values):
        return calls_itself(values)

    message, card = refused(capsys, calls_itself)
    assert "RecursionError" in message
    assert "return calls_itself(values)" in card


@pytest.mark.parametrize("answer", ["lambda: 1.0", "lambda values, k: 1.0"])
def test_another_signature_is_named_as_such(capsys, answer):
    elsewhere = eval(compile(answer, "<another file>", "eval"))
    assert "cannot be called as the exercise says" in refused(capsys, elsewhere)[0]


def test_memory_is_bounded_for_the_check_alone(capsys, monkeypatch):
    monkeypatch.setattr(guard, "ROOM", 100 * 2**20)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)

    def grows(values):
        rows = []
        while True:
            rows.append([0.0] * 100_000)

    message, card = refused(capsys, grows)
    assert "too much memory" in message
    assert "rows.append" in card
    assert len(bytearray(200 * 2**20)) == 200 * 2**20


def test_an_interrupt_is_no_failure(capsys):
    def interrupted(values):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.4)

    with pytest.raises(Interrupted):
        check("9.1", interrupted)
    assert Progress.here().entry("9.1").attempts == 0


def test_prints_are_caught_and_cut(capsys):
    def chatty(values):
        for _ in range(10_000):
            print("x" * 100)
        return 3

    card = refused(capsys, chatty)[1]
    assert "printed" in card
    assert len(card) < 4_000


def test_exit_does_not_end_the_kernel(capsys):
    def leaves(values):
        raise SystemExit(1)

    assert "It raised SystemExit" in refused(capsys, leaves)[0]


def test_a_patched_library_is_put_back_and_named(capsys):
    mean = np.mean

    def patches(values):
        np.mean = None
        return float(sum(values))

    assert "It replaced numpy.mean" in refused(capsys, patches)[0]
    assert np.mean is mean


def test_a_patched_check_is_put_back(capsys, monkeypatch):
    import courseware.exercises.engine as engine

    probe = engine.probe

    def patches(values):
        engine.probe = print
        return float(sum(values))

    assert "It replaced courseware.exercises.engine.probe" in refused(capsys, patches)[0]
    assert engine.probe is probe


def test_a_patched_class_is_put_back(capsys):
    total = pd.DataFrame.sum

    def patches(values):
        pd.DataFrame.sum = lambda self: 3
        return float(sum(values))

    assert "It replaced DataFrame.sum" in refused(capsys, patches)[0]
    assert pd.DataFrame.sum is total


def test_folder_and_environment_are_put_back(exercises, monkeypatch):
    monkeypatch.setenv("KEPT", "1")

    def wanders(values):
        os.chdir("/")
        os.environ["ADDED"] = "1"
        os.environ.pop("KEPT", None)
        return float(sum(values))

    check("9.1", wanders)
    assert Path.cwd() == exercises / "notebooks"
    assert ("ADDED" in os.environ, os.environ.get("KEPT")) == (False, "1")
    assert Progress.here().entry("9.1").passed


def test_random_state_is_left_alone():
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)

    def draws(values):
        np.random.rand(5)
        return float(sum(values))

    check("9.1", draws)
    assert np.random.rand() == expected


def test_hints_come_one_after_the_other(capsys):
    for expected in ("Hint 1 of 2", "Hint 2 of 2", "Hint 1 of 2"):
        hint("9.1")
        assert expected in capsys.readouterr().out
    assert Progress.here().entry("9.1").hints == 3


@pytest.mark.parametrize("name", ["9.7", "nine", "9", 9.1])
def test_an_unknown_exercise_is_named(name):
    with pytest.raises(LabError, match=r"9\.7.*has 9\.1|expected an id such as"):
        check(name, right)
