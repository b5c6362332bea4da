import nbformat
import pytest

from multistage.authoring.execute import execute
from multistage.notebook import read_records


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    cells = [
        "from multistage.notebook import quiet, record; quiet()",
        'record("auc", 1 / 3)\nrecord("count", 7)',
        'record("auc", 0.25)',
        'import logging; logging.getLogger("tensorflow").warning("noise")\n'
        'import warnings; warnings.warn("noise")',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    return execute(notebook, tmp_path_factory.mktemp("cwd"))


def test_records_are_read_back_and_the_last_one_counts(executed):
    assert read_records(executed) == {"auc": 0.25, "count": 7.0}


def test_a_record_is_seen_by_the_reader(executed):
    shown = [output["data"]["text/plain"] for output in executed.cells[1].outputs]
    assert shown == ["auc = 0.3333", "count = 7"]


def test_quiet_keeps_noise_out_of_outputs(executed):
    assert executed.cells[3].outputs == []


def test_a_notebook_without_records_has_none():
    cells = [nbformat.v4.new_code_cell("1 + 1"), nbformat.v4.new_markdown_cell("auc = 3")]
    assert read_records(nbformat.v4.new_notebook(cells=cells)) == {}
