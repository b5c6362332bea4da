"""Tables of the labs in README.md and docs say what course.toml says."""

import re

import pytest

from courseware.course import Course
from tests.conftest import COURSE

PAGES = [COURSE / "README.md", *sorted((COURSE / "docs").glob("*.md"))]
SECTIONS = Course.read(COURSE).find()
TABLE = re.compile(r"^\| lab \| minutes \|.*\n\|[-|]+\n(?:\|.*\n)+", re.MULTILINE)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(page):
    """The tables of labs in a page, each a list of rows: name of a column -> cell."""
    for found in TABLE.findall(page.read_text()):
        head, _, *rows = found.splitlines()
        yield [dict(zip(cells(head), cells(row), strict=True)) for row in rows]


def artifacts(names):
    return ", ".join(f"`{name}`" for name in names) or "–"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_labs_are_those_of_the_map(page):
    for rows in tables(page):
        labs = [row["lab"].split(".")[0] for row in rows]
        assert labs == [str(section.number) for section in SECTIONS], "a lab without a row"
        for row, section in zip(rows, SECTIONS, strict=True):
            assert row["lab"] == f"{section.number}. {section.title}"
            assert row["minutes"] == str(section.minutes)
            assert row.get("reads") in (None, artifacts(section.reads))
            assert row.get("makes") in (None, artifacts(section.makes))


def test_readme_and_docs_have_tables_of_labs():
    columns = {page.name: set().union(*(rows[0] for rows in tables(page))) for page in PAGES}
    assert {"lab", "minutes"} <= columns["README.md"]
    assert {"lab", "minutes", "reads", "makes"} <= columns["instructor-guide.md"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_lab_says_how_long_it_takes(section):
    found = re.search(r"About (\d+)\s*(?:# )?minutes", section.source.read_text())
    assert found
    assert int(found[1]) == section.minutes
