"""The words: links that lead somewhere, spelling, and slides that need no network."""

import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from tests.conftest import COURSE

PAGES = sorted([*COURSE.glob("*.md"), *(COURSE / "docs").glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPELT = ("*.md", "*.py", "*.in", "*.toml", "*.yml", "*.yaml", "*.sh", "Makefile", "Dockerfile")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(markdown: str) -> set[str]:
    """The anchors that forges make of headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", markdown), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.strip().replace(" ", "-") for text in plain}


def test_anchors_are_those_of_a_forge():
    page = "# A `small` page\n```\n# no heading\n```\n## What's new, and why?\n"
    assert anchors(page) == {"a-small-page", "whats-new-and-why"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        is_lost = not target.exists() or not target.is_relative_to(COURSE)
        if is_lost or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short():
    assert len((COURSE / "README.md").read_text().splitlines()) <= 120


def test_every_page_is_reached():
    """From the newcomer's page or the contributor's."""
    seen, ahead = set(), [COURSE / "README.md", COURSE / "docs" / "contributing.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = [link.split("#")[0] for link in LINK.findall(page.read_text())]
        ahead += [file for link in links if (file := (page.parent / link).resolve()).is_file()]
    assert [page.name for page in PAGES if page not in seen] == []


# "Yi et al. 2019", "Hu, Koren and Volinsky 2008", "(Steck 2019)", "Steck, *EASE* (2019)"
NAME = r"[A-Z][\w'-]+"
NAMES = rf"\b({NAME})(?: et al\.|(?:, {NAME})* and {NAME})"
YEAR = r"((?:19|20)\d\d)"
CITATIONS = [rf"{NAMES},? {YEAR}", rf"\(({NAME}),? {YEAR}\)"]
CITATIONS += [rf"{names}, \*[^*]+\* \({YEAR}\)" for names in (NAMES, rf"\b({NAME})")]


def test_every_paper_that_is_cited_is_listed():
    """Surname and year, wherever they are named, stand in one entry of docs/sources.md."""
    listed = (COURSE / "docs" / "sources.md").read_text().split("\n* ")
    files = [COURSE / "README.md"]
    for folder in ("labs_solutions", "src", "docs", "benchmarks", "data_scripts"):
        files += [*(COURSE / folder).rglob("*.py"), *(COURSE / folder).rglob("*.md")]
    cited = set()
    for file in files:
        flowing = re.sub(r"\n *#? *", " ", file.read_text())
        cited |= {found for pattern in CITATIONS for found in re.findall(pattern, flowing)}
    assert len(cited) >= 25
    assert {(n, y) for n, y in cited if not any(n in one and y in one for one in listed)} == set()


def test_spelling():
    files = subprocess.run(
        ["git", "ls-files", "-z", *SPELT],
        cwd=COURSE,
        capture_output=True,
        text=True,
        check=False,
    )
    if files.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in files.stdout.split("\0") if name and (COURSE / name).exists()]
    ended = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *names],
        cwd=COURSE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def slides():
    """The slides of the committed lab."""
    sys.path.insert(0, str(COURSE / "docs"))
    from make_slides import LAB, make_slides

    return make_slides(nbformat.read(LAB, as_version=4))


def test_slides_load_nothing(slides):
    assert not re.search(r"<(?:link|iframe|object)\b|<script[^>]+src|@import|import\(", slides)
    loaded = re.findall(r"""(?:src|srcset|data)\s*=\s*["']?([^"'\s>]{0,40})""", slides)
    loaded += re.findall(r"url\(([^)]{0,40})", slides)
    assert loaded
    assert [address for address in loaded if not address.startswith("data:")] == []


def test_slides_hold_the_lesson_and_no_exercise(slides):
    assert slides.count("<section>") >= 8
    assert slides.count("data:image/png") >= 3
    assert "mermaid" not in slides
    assert "NotImplementedError" not in slides
    assert "courseware-card" not in slides
    text = re.sub(r"<[^>]+>", "", slides)
    assert "Exercise 1.1" not in text


PATHS = re.compile(
    r"(?<![\w/.-])((?:src|tests|docs|benchmarks|labs_solutions|data_scripts|multistage)/[\w./-]+\w)"
)
MODULES = re.compile(r"\b((?:multistage|courseware)(?:\.\w+)+)")
# what contributors are told to write
EXAMPLES = {"section_6.py", "toy.py", "test_toy.py", "06-name.py", "NN-name.py"}


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(find_spec(name))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_are_there(page):
    code = " ".join(re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text())))
    files = {name for name in PATHS.findall(code) if Path(name).name not in EXAMPLES}
    places = (COURSE, COURSE / "src")
    assert [name for name in files if not any((place / name).exists() for place in places)] == []
    assert [name for name in set(MODULES.findall(code)) if not is_there(name)] == []
