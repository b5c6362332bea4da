"""The engine in a real kernel, in the attendee's folder of a small course."""

import json

import nbformat
import pytest

from courseware.authoring.execute import CellError, execute
from courseware.course import PROGRESS

pytestmark = pytest.mark.real

KNOWN = """
import sys, types
from courseware.exercises import Exercise

module = types.ModuleType("multistage.exercises.section_9")
module.EXERCISES = [
    Exercise(
        id="9.1",
        title="A double",
        hints=("Add it <twice>.",),
        cases=lambda rng: [(3,), (int(rng.integers(4, 100)),)],
        mistakes={},
        reference=lambda x: 2 * x,
    )
]
sys.modules[module.__name__] = module
"""
SOURCE = """
    # %% tags=["exercise-9.1"]
    def double(x):
        ### BEGIN SOLUTION
        return x + x
        ### END SOLUTION

    # %% tags=["check-9.1"]
    check("9.1", double)
    """
FAIL = """
try:
    check("9.1", double)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def run(small_course):
    course = small_course(_09_nine=SOURCE)

    def executed(*cells):
        code = [KNOWN, "from courseware.exercises import check", *cells]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in code])
        return execute(notebook, course / "notebooks").cells[2:]

    executed.course = course
    return executed


def cards(cell, kind):
    found = [output.data for output in cell.outputs if "data" in output]
    return [d["text/plain"] for d in found if f"courseware-{kind}" in d.get("text/html", "")]


def test_from_a_wrong_answer_over_hint_and_solution_to_a_pass(run):
    cells = run(
        "def double(x):\n    return x + 1",
        FAIL * 3,
        'hint("9.1")',  # never imported: the card offered it
        'solve("9.1")',
        'check("9.1", double)\ndouble(5)',
    )
    wrong = cards(cells[1], "wrong")
    assert ["expected: 6" in card and "got: 4" in card for card in wrong] == [True] * 3
    assert ["solve" in card for card in wrong] == [False, False, True]
    assert cells[1].outputs[-1].text == "NotYet\n"
    assert "Add it <twice>." in cards(cells[2], "hint")[0]
    assert "&lt;twice&gt;" in cells[2].outputs[0].data["text/html"]
    (solution,) = cards(cells[3], "solution")
    assert "return x + x" in solution
    assert "SOLUTION" not in solution
    assert len(cards(cells[4], "passed")) == 1
    assert cells[4].outputs[-1].data["text/plain"] == "10"
    entry = json.loads((run.course / PROGRESS).read_text())["exercises"]["9.1"]
    assert entry == {
        "attempts": 4,
        "failures": 0,
        "hints": 1,
        "passed": True,
        "solution_shown": True,
    }


def test_an_error_shows_the_attendees_own_line_and_nothing_of_ours(run):
    with pytest.raises(CellError) as failed:
        run("def double(x):\n    return x / 0", 'check("9.1", double)')
    assert failed.value.name == "NotYet"
    assert "It raised ZeroDivisionError: division by zero" in str(failed.value)
    (cell,) = run("def double(x):\n    y = x\n    return y / 0\n" + FAIL)
    (card,) = cards(cell, "wrong")
    assert "your line: line 3: return y / 0" in card
    assert "engine.py" not in card


def test_the_card_of_a_pass_is_the_same_each_time(run):
    solved = "def double(x):\n    return 2 * x\n" + 'check("9.1", double)'
    first, second = run(solved), run(solved)
    assert first[0].outputs == second[0].outputs


def test_what_an_answer_displays_draws_and_leaves_is_dropped(run):
    noisy = """
import matplotlib.pyplot as plt
from IPython.display import display
def double(x):
    display("noise")
    plt.plot([1, 2])
    plt.figure()
    return 2 * x
"""
    cells = run("%matplotlib inline", noisy + 'check("9.1", double)', "def double(x): exit()", FAIL)
    (output,) = cells[1].outputs
    assert output.data["text/plain"] == "Exercise 9.1: A double. Passed"
    assert "It raised SystemExit" in cards(cells[3], "wrong")[0]


# The limits of a check that nothing can interrupt, small.
HURRY = """
import dataclasses
import courseware.exercises.engine as engine
engine.GRACE = 0.5
module.EXERCISES = [dataclasses.replace(module.EXERCISES[0], seconds=0.2)]
"""


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("sum(range(10**13))", "line 3 of double was busy with one call that nothing can interr"),
        ("import os; os._exit(1)", "never ended: the kernel was restarted or died"),
    ],
)
def test_a_check_that_takes_its_kernel_with_it_is_told_of(run, deed, said):
    answer = f"def double(x):\n    x += 1\n    {deed}\n"
    with pytest.raises(CellError) as died:
        run(HURRY, answer, FAIL)
    assert died.value.name == "DeadKernelError"
    told, right = run(answer + FAIL, "def double(x):\n    return 2 * x\n" + FAIL)
    assert said in cards(told, "wrong")[0]
    assert cards(right, "passed")
    assert not list((run.course / "workspace").glob(".checking-*"))
