"""Solutions that were changed in one place: at least 95 of 100 wrong ones are refused."""

import pytest

from tests.exercises.mutants import mutants, tally
from tests.exercises.test_catalogue import EXERCISES

pytestmark = pytest.mark.filterwarnings("ignore")  # what a changed solution divides by zero
LEAST = 0.95
# Mutants that are right although they give something else, exercise -> what was changed.
AS_GOOD: dict[str, tuple[str, ...]] = {
    "2.4": ("100 → 101 in ", "100 → 99 in "),  # draws
    "3.4": ("0 → 1 in return tf.random", "0 → -1 in return tf.random"),  # of the seed
}


@pytest.fixture(scope="module")
def tallies():
    """Exercise -> its tally, filled as the tests go."""
    return {}


@pytest.mark.parametrize("exercise", EXERCISES)
def test_changed_solutions_are_refused(exercise, tallies):
    found = tallies[exercise] = tally(exercise, AS_GOOD.get(exercise, ()))
    assert found.refused >= 5
    assert found.share >= LEAST, "\n".join([f"{found.share:.1%} refused", *found.accepted])


def test_of_all_exercises_together(tallies):
    refused = sum(found.refused for found in tallies.values())
    accepted = sum(len(found.accepted) for found in tallies.values())
    assert refused >= LEAST * (refused + accepted)


CODE = '''
def few(values, k):
    """Return the first k values above 0, doubled."""
    return [2 * value for value in values if value > 0][:k]
'''


def test_mutants_change_one_place_each_and_leave_docstring_and_signature_alone():
    found = dict(mutants(CODE))
    changes = {change.split(" in ", 1)[0] for change in found}
    assert {
        "value > 0 → value >= 0",
        "2 * value → 2 / value",
        "0 → 1",
        ":k → :",
        "2 → 3",
    } <= changes
    assert all("def few(values, k):" in code for code in found.values())
    assert len(set(found.values())) == len(found)
