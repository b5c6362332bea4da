"""The notebooks in the repository: in step with their sources, and what an attendee gets."""

import nbformat
import pytest

from courseware.authoring import drift
from courseware.course import Course
from courseware.authoring.clean import machine_paths
from courseware.authoring.execute import CellError, execute
from courseware.authoring.read import exercise_id
from courseware.exercises.exercise import exercises_of
from courseware.lab.state import read_progress
from tests.conftest import COURSE
from tests.notebooks.conftest import PROFILE

SECTIONS = Course.read(COURSE).find()


def test_there_are_five_labs():
    assert [section.name for section in SECTIONS] == [
        "01-introduction",
        "02-architectures",
        "03-customising",
        "04-retrieval-and-ranking",
        "05-deployment",
    ]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_notebooks_are_in_step_with_their_source(section):
    assert drift(section) == []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_committed_outputs_are_complete_and_name_no_machine(section):
    solved = nbformat.read(section.solved, as_version=4)
    nbformat.validate(solved)
    code = [cell for cell in solved.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert machine_paths(solved) == []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_no_generated_notebook_is_without_source(section):
    names = {section.name for section in SECTIONS}
    for folder in ("labs_solutions", "notebooks"):
        assert {file.stem for file in (COURSE / folder).glob("*.ipynb")} == names


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_an_attendee_is_stopped_at_the_first_stub_by_its_name(section, store_run):
    assert store_run.code == 0, store_run.said
    notebook = nbformat.read(store_run.course / "notebooks" / f"{section.name}.ipynb", 4)
    first = next(exercise for exercise in map(exercise_id, notebook.cells) if exercise)
    title = exercises_of(section.number)[first].title
    parameters = {"dataset": "store", "profile": PROFILE, "events": None}
    with pytest.raises(CellError) as stopped:
        execute(notebook, store_run.course / "notebooks", parameters)
    assert stopped.value.name == "Unfilled"
    assert str(stopped.value) == f"Exercise {first}: {title}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_an_attendee_who_asks_for_each_solution_comes_to_the_end(section, store_run):
    assert store_run.code == 0, store_run.said
    notebook = nbformat.read(store_run.course / "notebooks" / f"{section.name}.ipynb", 4)
    cells = [nbformat.v4.new_code_cell("from courseware.exercises import solve")]
    for cell in notebook.cells:
        cells.append(cell)
        if exercise := exercise_id(cell):
            cells.append(nbformat.v4.new_code_cell(f'solve("{exercise}")'))
    # The parameters' cell stays the first one that is tagged, so they are injected as ever.
    filled = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    parameters = {"dataset": "store", "profile": PROFILE, "events": None}
    execute(filled, store_run.course / "notebooks", parameters)
    passed = {name for name, entry in read_progress(store_run.course).items() if entry["passed"]}
    assert set(exercises_of(section.number)) <= passed
