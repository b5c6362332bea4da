import inspect

import pytest

from courseware.authoring.read import read_source
from courseware.course import Course
from courseware.errors import LabError
from courseware.exercises.source import (
    answer_in,
    cells_of,
    changed,
    definitions_above,
    exercise_cell,
    read_cells,
    reference,
    solution,
)
from tests.conftest import COURSE

SOURCE = """
    # %% [markdown]
    # # A lab

    # %%
    import math
    import there_is_no_such_module

    ran = []

    def note(value):
        ran.append(value)
        return value

    def half(x):
        return twice(x) / 4

    def twice(x):
        return 2 * x

    def noted(x=note(3)):
        return x

    # %% tags=["exercise-9.1"]
    def root(x):
        ### BEGIN SOLUTION
        return math.sqrt(half(x))
        ### END SOLUTION

    # %% tags=["check-9.1"]
    check("9.1", root)
    """
FURTHER = """# %% tags=["exercise-9.2"]
def one():
    ### BEGIN SOLUTION
    return 1
    ### END SOLUTION

# %% tags=["check-9.2"]
check("9.2", one)
"""


@pytest.mark.parametrize("section", Course.read(COURSE).find(), ids=lambda section: section.name)
def test_cells_are_read_as_jupytext_reads_them(section):
    ours = read_cells(section.source.read_text())
    theirs = read_source(section).cells
    theirs = [(c.cell_type, c.source.strip("\n"), c.metadata.get("tags", [])) for c in theirs]
    code = [(c.cell_type, c.source, c.metadata["tags"]) for c in ours]
    assert len(code) == len(theirs)
    assert [c for c in code if c[0] == "code"] == [c for c in theirs if c[0] == "code"]


def test_a_solution_is_defined_with_what_it_needs_and_no_more(small_course):
    course = small_course(_09_nine=SOURCE)
    assert reference(course, "9.1")(18.0) == 3.0
    assert reference(course, "9.1") is reference(course, "9.1")
    assert solution(course, "9.1") == "def root(x):\n    return math.sqrt(half(x))"
    cells = read_cells((course / "labs_solutions" / "09-nine.py").read_text())
    names = set(definitions_above(cells, "9.1")) - {"__name__", "__builtins__"}
    assert names == {"math", "half", "twice"}


def test_a_solution_is_found_in_a_further_notebook(small_course):
    course = small_course(_09_nine=SOURCE)
    further = course / "labs_solutions" / "further"
    further.mkdir()
    (further / "09-more.py").write_text(FURTHER)
    (further / "08-other.py").write_text(FURTHER.replace("9.2", "9.3"))
    assert reference(course, "9.2")() == 1
    assert solution(course, "9.1").startswith("def root")
    with pytest.raises(LabError, match=r"No source of section 9 has a cell tagged exercise-9\.3"):
        solution(course, "9.3")
    with pytest.raises(LabError, match="The source of section 7 is missing"):
        solution(course, "7.1")


def test_a_mistake_can_be_an_edit_of_the_solution():
    forgets_k = changed("1.1", {"recommended[:k]": "recommended"})
    assert reference(COURSE, "1.1")([8, 7], {7}, 1) == 0
    assert forgets_k([8, 7], {7}, 1) == pytest.approx(0.6309, abs=1e-4)
    with pytest.raises(LabError, match=r"The solution of 1\.1 does not contain 'nothing'"):
        changed("1.1", {"nothing": ""})([8, 7], {7}, 1)


def test_each_code_keeps_its_own_source():
    """TensorFlow reads the source of what it traces, and must not be given the solution's."""
    cells = cells_of(COURSE, "1.1")
    own = exercise_cell(cells, "1.1")
    own.source = own.source.replace("recommended[:k]", "recommended")
    forgets_k = answer_in(cells, "1.1")
    reference.cache_clear()
    assert "recommended[:k]" in inspect.getsource(reference(COURSE, "1.1"))
    assert "recommended[:k]" not in inspect.getsource(forgets_k)
