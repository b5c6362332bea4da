import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from courseware import memory
from courseware.errors import LabError
from courseware.exercises import Exercise, Wrong, check, guard, hint
from courseware.exercises.engine import Interrupted, NotYet, Unfilled
from courseware.exercises.progress import Progress


def totals(rng):
    yield ([1.5],)
    yield ([2.0, 3.0],)
    for size in (1, 5):
        yield (rng.normal(size=size).tolist(),)


def right(values):
    return float(sum(values))


def mean(values):
    return sum(values) / len(values)


TOTAL = Exercise(
    id="9.1",
    title="A total",
    hints=("Think.", "Add."),
    cases=totals,
    mistakes={"It is the mean: do not divide.": mean},
    reference=right,
    seconds=0.5,
)


@pytest.fixture(autouse=True)
def exercises(small_course, register, monkeypatch):
    root = small_course()
    monkeypatch.chdir(root / "notebooks")
    register(TOTAL)
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
    message, card = refused(capsys, lambda values: 1.5)
    assert message == "Exercise 9.1: A total: The result is wrong."
    assert "input: values = [2.0, 3.0]" in card  # the smallest case that shows it
    assert "expected: 5.0" in card
    assert "got: 1.5" in card
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


def test_every_check_has_the_same_inputs():
    seen = []

    def spied(values):
        seen.append(tuple(values))
        return sum(values)

    check("9.1", spied)
    check("9.1", spied)
    assert len(seen) == 8
    assert seen[:4] == seen[4:]


def test_a_mistake_is_named_if_it_gives_the_same_on_every_case(capsys):
    message, card = refused(capsys, lambda values: np.mean(values))
    assert message.endswith("It is the mean: do not divide.")
    assert "input: values = [2.0, 3.0]" in card


def test_a_mistake_is_not_named_if_it_gives_something_else_on_one_case(capsys):
    message, card = refused(capsys, lambda v: mean(v) if len(v) < 3 else 0.0)
    assert message.endswith("The result is wrong.")
    assert "got: 2.5" in card


def test_what_an_answer_does_to_its_inputs_is_seen_by_nobody(capsys):
    def empties(values):
        total = sum(values)
        values.clear()
        return total

    check("9.1", empties)

    def empties_and_is_wrong(values):
        result = mean(values)
        values.clear()
        return result

    message, card = refused(capsys, empties_and_is_wrong)
    assert message.endswith("It is the mean: do not divide.")
    assert "input: values = [2.0, 3.0]" in card


def test_one_list_handed_out_each_time_is_judged_as_it_was_then(capsys, register):
    kept = []

    def grows(values):
        kept.append(len(values))
        return kept

    register(replace(TOTAL, reference=lambda values: [len(values)]))
    message, card = refused(capsys, grows)
    assert message.endswith("The result has 2 entries, where 1 are expected.")
    assert "got: [1, 2]" in card


def test_an_error_may_be_what_is_expected(capsys, register):
    def strict(values):
        if len(values) > 4:
            raise ValueError("too many")
        return sum(values)

    register(replace(TOTAL, reference=strict))
    check("9.1", strict)
    assert refused(capsys, right)[0].endswith("It must raise ValueError here.")

    def fails(values):
        raise KeyError(values[0])

    register(replace(TOTAL, mistakes={"It always fails.": fails}))
    assert refused(capsys, lambda values: {}[0])[0].endswith("It always fails.")


def test_use_says_how_an_answer_is_called(capsys, register):
    def twice(answer, values):
        return [answer(values), answer(values)]

    def empties(values):
        total = sum(values)
        values.clear()
        return total

    register(replace(TOTAL, use=twice))
    check("9.1", right)
    message, card = refused(capsys, empties)
    assert message.endswith("a wrong value at [1]: 0, where 1.5 is expected (1 of 2 differ).")
    assert "input: values = [1.5]" in card


def test_same_says_what_is_right(capsys, register):
    def at_least(got, expected, values):
        return "" if got >= expected else f"It is below the sum of {len(values)}."

    register(replace(TOTAL, same=at_least, mistakes={"It is 0.": lambda values: 0.0}))
    check("9.1", lambda values: 1 + sum(values))
    message, _ = refused(capsys, lambda values: sum(values) - 1)
    assert message.endswith("It is below the sum of 1.")
    assert refused(capsys, lambda values: 0)[0].endswith("It is 0.")


def test_a_judge_has_the_last_word(capsys, register):
    def judge(answer, rng):
        if answer([]) != 0:
            raise Wrong("The total of nothing is 0.", 0, answer([]))

    register(replace(TOTAL, judge=judge))
    check("9.1", right)
    message, card = refused(capsys, lambda values: sum(values) if values else 1)
    assert message.endswith("The total of nothing is 0.")
    assert "got: 1" in card
    assert (
        "ZeroDivisionError" in refused(capsys, lambda values: sum(values) if values else 1 / 0)[0]
    )
    assert refused(capsys, mean)[0].endswith("It is the mean: do not divide.")


def test_an_answer_is_traced_as_tensorflow_does(capsys, register):
    import tensorflow as tf

    def arrays(rng):
        yield (np.float32([1, 2]),)
        yield (np.float32([1, 2, 3]),)

    def in_numpy(values):
        numbers = np.asarray(values)
        return np.float32(np.sum(numbers))

    def forgets_the_last(values):
        return tf.reduce_sum(values[:-1])

    traced = replace(
        TOTAL,
        cases=arrays,
        reference=lambda values: tf.reduce_sum(values),
        mistakes={"numpy": in_numpy, "last": forgets_the_last},
        traced=True,
        seconds=20.0,
    )
    register(traced)
    check("9.1", lambda values: tf.math.add_n([tf.reduce_sum(values)]))
    assert refused(capsys, lambda values: np.sum(np.array(values)))[0].endswith(": numpy")
    assert refused(capsys, lambda values: tf.reduce_sum(values[:-1]))[0].endswith(": last")
    register(replace(traced, mistakes={}))
    message, card = refused(capsys, in_numpy)
    assert (
        "When TensorFlow traces it, as `fit` does: It raised NotImplementedError: Cannot" in message
    )
    assert "in user code" not in card
    assert ": numbers = np.asarray(values)" in card


def test_an_error_is_shown_with_the_attendees_own_line(capsys):
    def answer(values):
        return values.nothing

    message, card = refused(capsys, answer)
    assert "It raised AttributeError" in message
    assert "return values.nothing" in card
    assert "engine.py" not in card


def test_what_cannot_be_used_is_said_without_our_stack(capsys, register):
    def careless(got, expected, values):
        return got.shape

    register(replace(TOTAL, same=careless))
    assert "could not use what it returned (AttributeError" in refused(capsys, lambda values: 3)[0]


def test_an_error_that_only_looks_like_the_stub_is_an_error(capsys):
    def unfinished(values):
        raise NotImplementedError("negative values")

    assert "It raised NotImplementedError: negative values" in refused(capsys, unfinished)[0]


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
