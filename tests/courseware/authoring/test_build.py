import nbformat
import pytest

from courseware.authoring import build, drift
from courseware.authoring.execute import CellError
from courseware.authoring.read import AuthoringError, read_source
from courseware.course import Course

pytestmark = pytest.mark.real

LAB = '''
    # %% [markdown]
    # # A lab

    # %% tags=["parameters"]
    profile = "laptop"

    # %% tags=["exercise-1.1"]
    def total(values: list[int]) -> int:
        """Return the sum."""
        ### BEGIN SOLUTION
        result = 0
        for value in values:
            result += value
        return result
        ### END SOLUTION


    # %% tags=["check-1.1"]
    def check(name, answer): ...
    check("1.1", total)

    # %% tags=["nbval-check-output"]
    import os, pathlib
    print("[03:34:11] task [xgboost.dask-0]:tcp://127.0.0.1:37579 got new rank 0")
    print(total([1, 2]), pathlib.Path.cwd())
    '''
TITLES = {"1.1": 'A "total"'}


def titles(section):
    return TITLES


@pytest.fixture
def section(small_course):
    return Course.read(small_course(_01_first=LAB)).find()[0]


def test_the_attendees_notebook_has_a_stub_that_names_the_exercise(section):
    build(section, run=False, titles=titles)
    attendee = nbformat.read(section.attendee, as_version=4)
    nbformat.validate(attendee)
    stub = attendee.cells[2].source
    assert stub.startswith("def total(values: list[int]) -> int:")
    assert "Return the sum." in stub
    assert "result" not in stub
    namespace = {}
    exec(stub, namespace)
    with pytest.raises(NotImplementedError, match=r'^Exercise 1\.1: A "total"$'):
        namespace["total"]([1])


def test_the_solved_notebook_keeps_outputs_and_no_machine(section):
    build(section, titles=titles)
    text = section.solved.read_text()
    solved = nbformat.read(section.solved, as_version=4)
    assert solved.cells[-1].outputs[0].text == "3 labs_solutions\n"
    assert str(section.source.parent.parent) not in text
    assert "papermill" not in text
    assert "iopub" not in text


def test_building_twice_gives_the_same_bytes(section):
    build(section, titles=titles)
    first = section.solved.read_bytes(), section.attendee.read_bytes()
    build(section, titles=titles)
    assert (section.solved.read_bytes(), section.attendee.read_bytes()) == first


def test_without_running_outputs_of_unchanged_cells_stay(section):
    build(section, titles=titles)
    section.source.write_text(section.source.read_text().replace("# # A lab", "# # One lab"))
    build(section, run=False, titles=titles)
    solved = nbformat.read(section.solved, as_version=4)
    assert solved.cells[0].source == "# One lab"
    assert solved.cells[-1].outputs[0].text == "3 labs_solutions\n"


def test_what_was_built_is_in_step(section):
    build(section, run=False, titles=titles)
    assert drift(section, titles) == []


def edit(file, change):
    notebook = nbformat.read(file, as_version=4)
    change(notebook)
    nbformat.write(notebook, file)


def changed_source(section):
    section.source.write_text(section.source.read_text().replace("[1, 2]", "[1, 3]"))


def changed_solved(section):
    edit(section.solved, lambda nb: nb.cells[0].update(source="# Other"))


def changed_tag(section):
    edit(section.attendee, lambda nb: nb.cells[4].metadata.update(tags=[]))


def removed_cell(section):
    edit(section.attendee, lambda nb: nb.cells.pop())


def added_output(section):
    output = nbformat.v4.new_output("stream", text="3")
    edit(section.attendee, lambda nb: nb.cells[4].outputs.append(output))


def removed_file(section):
    section.attendee.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_source, "labs_solutions/01-first.ipynb, cell 5 differs"),
        (changed_solved, "labs_solutions/01-first.ipynb, cell 1 differs"),
        (changed_tag, "notebooks/01-first.ipynb, cell 5 differs"),
        (removed_cell, "notebooks/01-first.ipynb has 4 cells, its source 5"),
        (added_output, "notebooks/01-first.ipynb, cell 5 has outputs"),
        (removed_file, "notebooks/01-first.ipynb is missing"),
    ],
)
def test_drift_is_told(section, change, said):
    build(section, run=False, titles=titles)
    change(section)
    assert any(said in line for line in drift(section, titles))


B, E = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"
DEF = "def f(x):\n"
TAGGED = '# %% tags=["exercise-1.1"]\n'
CHECK = '# %% tags=["check-1.1"]\ncheck("1.1", f)\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TAGGED + DEF + B + "    return x\n" + CHECK, "cell 1, line 2: '### BEGIN SOLUTION' wi"),
        (TAGGED + DEF + E + "    return x\n" + CHECK, "cell 1, line 2: '### END SOLUTION' without"),
        (TAGGED + DEF + B + B + "    return x\n" + E + CHECK, "inside the solution that line 2"),
        (TAGGED + DEF + B + "    x\n" + E + B + "    x\n" + E + CHECK, "more than one solution"),
        (TAGGED + DEF + "    # BEGIN SOLUTION\n    x\n" + E + CHECK, "found '# BEGIN SOLUTION'"),
        (TAGGED + DEF + "    return x\n" + CHECK, "exercise 1.1 has no ### BEGIN SOLUTION"),
        ("# %%\n" + DEF + B + "    return x\n" + E, "a solution in a cell without the tag"),
        (TAGGED + DEF + B + "    return x\n" + E, "exercise 1.1 has no check cell"),
        (TAGGED.replace("1.1", "2.1") + DEF + B + "    x\n" + E, "2.1 is in the wrong section"),
        (CHECK, "check 1.1 does not follow its exercise"),
        (TAGGED + DEF + B + "    x\n" + E + CHECK.replace("(", "(1, "), 'call of check("1.1"'),
        ("# %% [markdown]\n# ### BEGIN SOLUTION\n", "cell 1, line 1"),
    ],
)
def test_malformed_marks_are_refused_by_file_cell_and_line(small_course, text, said):
    section = Course.read(small_course(_01_first=text)).find()[0]
    with pytest.raises(AuthoringError) as refused:
        read_source(section)
    assert said in str(refused.value)
    assert "01-first.py" in str(refused.value)


def test_a_malformed_cell_is_found_by_its_line_in_the_source(small_course):
    text = "# %% [markdown]\n# # One\n\n" + TAGGED + DEF + B + "    return x\n"
    section = Course.read(small_course(_01_first=text)).find()[0]
    with pytest.raises(AuthoringError, match=r"^01-first\.py:4, cell 2, line 2: "):
        read_source(section)
    section = Course.read(small_course(_01_first="1 + 1\n\n" + text)).find()[0]
    with pytest.raises(AuthoringError, match=r"^01-first\.py, cell 3, line 2: "):
        read_source(section)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (B.strip() + "\ndef f(x):\n    return x\n" + E.strip() + "\n", "the stub of exercise 1.1"),
        ("def f(x:\n" + B + "    return x\n" + E, "cell 1, line 1"),
    ],
)
def test_a_stub_must_keep_the_signature(small_course, cell, said):
    section = Course.read(small_course(_01_first=TAGGED + cell + CHECK)).find()[0]
    with pytest.raises(AuthoringError, match=said):
        build(section, run=False, titles=titles)


def test_an_exercise_without_a_check_is_named(section):
    with pytest.raises(AuthoringError, match=r"exercise 1\.1 is not in the list EXERCISES"):
        build(section, run=False, titles=lambda number: {})


def test_an_output_with_a_path_of_this_machine_is_refused(small_course):
    source = "# %%\nimport tempfile\nprint(tempfile.gettempdir() + '/secret.txt')\n"
    section = Course.read(small_course(_01_first=source)).find()[0]
    with pytest.raises(AuthoringError, match=r"cell 1: /.*secret\.txt"):
        build(section, titles=titles)
    assert not section.solved.exists()


def test_a_failing_cell_is_named_by_its_heading(small_course):
    source = "# %% [markdown]\n# # One\n\n# ## Two\n\n# %%\nx = 1\nx / 0\n"
    section = Course.read(small_course(_01_first=source)).find()[0]
    with pytest.raises(CellError) as failed:
        build(section, titles=titles)
    assert failed.value.heading == "Two"
    assert failed.value.line == "x / 0"
    assert str(failed.value) == "ZeroDivisionError: division by zero"
    assert not failed.value.user_can_fix


def test_a_dead_kernel_is_named(small_course):
    source = "# %% [markdown]\n# # One\n\n# %%\nimport os\nos._exit(1)\n"
    section = Course.read(small_course(_01_first=source)).find()[0]
    with pytest.raises(CellError, match="The kernel died") as failed:
        build(section, titles=titles)
    assert failed.value.heading == "One"
