"""Figures in README.md and docs: written by docs/figures.py, and never typed."""

import json
import math
import re
import sys

import nbformat
import pytest

from courseware.course import Course
from courseware.records import read_records
from tests.conftest import COURSE

sys.path.insert(0, str(COURSE / "docs"))
import figures

PAGES = figures.pages()
BLOCK = re.compile(r"^<!-- figures$.*?^<!-- /figures -->$", re.MULTILINE | re.DOTALL)
BY_HAND = re.compile(r"^<!-- by hand: .+? -->$.*?^<!-- /by hand -->$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
# a time in seconds or less, memory, a metric with three digits
TYPED = re.compile(r"\d(?:[\d.,]*\d)? (?:s|ms|µs)\b|\d[\d.,]*\d MiB\b|\b0\.\d{3,}\b")


def typed(text):
    """Measured figures in a page, its templates included, that the command does not write."""
    templates = [figures.FIELD.sub("", found["template"]) for found in figures.BLOCK.finditer(text)]
    for kind in (FENCE, BLOCK, BY_HAND):
        text = kind.sub("", text)
    return TYPED.findall("\n".join([text, *templates]))


@pytest.fixture(scope="module")
def known():
    return figures.names(figures.RESULTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_was_measured(page, known):
    text = page.read_text()
    assert text == figures.write(text, known, page.name), "run: python docs/figures.py"


def test_the_pages_with_figures_have_blocks():
    names = {page.name for page in PAGES if BLOCK.search(page.read_text())}
    assert {"README.md", "results.md", "serving.md", "scaling.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_measured_figure_is_typed(page):
    """Two pages could then say different things: write a block, or say that it is by hand."""
    assert typed(page.read_text()) == []


def test_typed_figures_are_found():
    page = "It takes 6.1 to 7.5 ms.\n<!-- by hand: once -->\n3 ms\n<!-- /by hand -->\n0.855, 0.8\n"
    page += "<!-- figures\n{one.ms:.1f} ms, 4 ms\n-->\n5 ms\n<!-- /figures -->\n"
    assert typed(page) == ["7.5 ms", "0.855", "4 ms"]


def test_a_block_is_written_from_its_template():
    page = "A\n<!-- figures\nIt takes {one.ms:.1f} ms, {-one.ms / 2:+.2f}.\n-->\nold\n"
    page += "<!-- /figures -->\nB\n"
    known = {"one": figures.Figures(ms=4.04)}
    written = figures.write(page, known, "page")
    assert written == page.replace("old", "It takes 4.0 ms, \N{MINUS SIGN}2.02.")
    assert figures.write(written, known, "page") == written


def test_a_figure_that_is_not_there_is_named():
    page = "<!-- figures\n{one.second}\n-->\n<!-- /figures -->\n"
    with pytest.raises(SystemExit, match=r"page: \{one.second\}: no figure 'second', but ms"):
        figures.write(page, {"one": figures.Figures(ms=4)}, "page")


def test_what_was_not_measured_again_stays(tmp_path):
    build, kept = tmp_path / "build", tmp_path / "results"
    for name, content in {
        "bench/serving.json": {"p50_ms": 4.0},
        "bench/quality.json": {"store": {"pipeline": {"EASE": {"ndcg_at_10": 0.2}}}},
        "run/store-laptop/summary.json": {
            "dataset": "store",
            "sections": [
                {"section": "01-a", "status": "passed", "seconds": 3.0, "metrics": {"x": 1.0}},
                {"section": "02-b", "status": "failed", "seconds": 9.0, "metrics": {}},
            ],
        },
        "run/store-ci/summary.json": {"dataset": "store", "sections": "of no interest"},
    }.items():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        (build / name).write_text(json.dumps(content))
    kept.mkdir()
    (kept / "serving.json").write_text('{"old": 1}')
    (kept / "quality.json").write_text('{"store": {"pipeline": {"old": 1}, "models": 2}}')
    (kept / "labs.json").write_text('{"store": {"lab1": {"old": 1}, "lab2": 5}, "movielens": 6}')
    figures.collect(build, kept)
    read = {file.stem: json.loads(file.read_text()) for file in kept.iterdir()}
    assert read == {
        "serving": {"p50_ms": 4.0},
        "quality": {"store": {"pipeline": {"EASE": {"ndcg_at_10": 0.2}}, "models": 2}},
        "labs": {"store": {"lab1": {"seconds": 3.0, "x": 1.0}, "lab2": 5}, "movielens": 6},
    }


@pytest.mark.parametrize("section", Course.read(COURSE).find(), ids=lambda section: section.name)
def test_the_committed_notebook_shows_the_same(section, known):
    """Of the cells that nbval compares; times differ from run to run."""
    notebook = nbformat.read(section.solved, as_version=4)
    compared = "nbval-check-output"
    notebook.cells = [c for c in notebook.cells if compared in c.metadata.get("tags", [])]
    shown = read_records(notebook)
    kept = known["labs"].store[f"lab{section.number}"]
    assert [name for name in shown if name not in kept] == []
    assert [n for n, value in shown.items() if not math.isclose(value, kept[n], rel_tol=0.01)] == []


def test_lab_4_quotes_the_benchmark_of_indexes(known):
    source = (COURSE / "labs_solutions" / "04-retrieval-and-ranking.py").read_text()
    (text,) = re.findall(r"# At one million products exact search(.*?)\n#\n", source, re.DOTALL)
    text = text.replace("\n#", "")
    million = known["million"]
    assert f"takes {million.exact.ms:.0f} ms and {million.exact.mib:.0f} MiB" in text
    assert re.search(f"{million.IVF.recall:.3f} .{{0,60}}{million.IVF.ms:.2f} ms", text)
    assert re.search(f"HNSW {million.HNSW.recall:.3f} in {million.HNSW.ms:.2f} ms", text)


def test_notebooks_record_figures():
    notebooks = [nbformat.read(s.solved, as_version=4) for s in Course.read(COURSE).find()]
    assert all(map(read_records, notebooks))
