"""What docs/contributing.md says, done to the letter in a copy of the course.

Of a section of the page, each block of Python goes into the file that the text before it names, at
the place that the text names; then the commands of its ``sh`` blocks are run there.
"""

import re
import shutil
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import COURSE

PAGE = COURSE / "docs" / "contributing.md"
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "build", "workspace", "*.egg-info")
PRISTINE = Path("notebooks") / ".pristine"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """A block of code: its language, its lines, and the text between it and the one before."""

    language: str
    code: str
    before: str

    @property
    def file(self) -> str:
        """The last file that the text names."""
        return re.findall(r"`([\w./-]+/[\w.-]+\.\w+)`", self.before)[-1]

    def add_to(self, course: Path) -> None:
        """Put the code where the text says: above or in place of a line, at the end, or anew."""
        file = course / self.file
        if where := re.search(r"(above|in place of) the (?:last )?line,? `([^`]+)`", self.flowing):
            lines = file.read_text().splitlines(keepends=True)
            place = max(i for i, line in enumerate(lines) if line.startswith(where[2]))
            rest = lines[place:] if where[1] == "above" else lines[place + 1 :]
            gap = "\n\n" if self.code.startswith(("#", "def")) else ""
            file.write_text("".join([*lines[:place], self.code, gap, *rest]))
        elif f"At the end of `{self.file}`" in self.flowing:
            file.write_text(f"{file.read_text()}\n{self.code}")
        else:
            assert not file.exists(), f"{self.file} is there: the page must say where the code goes"
            file.write_text(self.code)

    @property
    def flowing(self) -> str:
        """The text on one line."""
        return re.sub(r"\n *", " ", self.before)


def blocks(heading: str) -> list[Block]:
    """The blocks of one section of the page."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{heading}\n")]
    found, end = [], 0
    for match in BLOCK.finditer(text):
        code = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(match[2], code, text[end : match.start()]))
        end = match.end()
    return found


@pytest.fixture
def copied(tmp_path):
    """A copy of the course, as git would have it, with an environment of its own.

    The environment has the packages of this one, but the course's own packages are the copy's.
    """
    root = tmp_path / "course"
    shutil.copytree(COURSE, root, ignore=IGNORED)
    shutil.copytree(COURSE / PRISTINE, root / PRISTINE)
    venv.create(root / ".venv", symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(root / ".venv")}))
    others = sysconfig.get_path("purelib")
    lines = [str(root / "src"), f"import site; site.addsitedir({others!r})"]
    (packages / "course.pth").write_text("\n".join(lines))
    for name, module in (("lab", "courseware.lab"), ("pytest", "pytest")):
        script = root / ".venv" / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{root}/.venv/bin/python" -m {module} "$@"\n')
        script.chmod(0o755)
    (script.parent / "ruff").symlink_to(Path(sysconfig.get_path("scripts")) / "ruff")
    return root


def run(command: str, course: Path) -> str:
    """Run a command in the course with its environment active; return what it said."""
    ended = subprocess.run(
        ["bash", "-c", f"source .venv/bin/activate && {command}"],
        cwd=course,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-6_000:]}"
    return ended.stdout


def follow(heading: str, course: Path) -> str:
    """Do what a section of the page says; return what the commands said."""
    said = ""
    for block in blocks(heading):
        if block.language == "python":
            block.add_to(course)
            continue
        for command in block.code.splitlines():
            said += run(command, course)
    return said


def test_the_copy_is_the_course_that_is_used(copied):
    code = "import courseware.course as c, multistage as m; print(c.installed().folder, m.__file__)"
    folder, file = run(f"python -c '{code}'", copied).split()
    assert Path(folder) == copied
    assert Path(file).is_relative_to(copied)


@pytest.mark.real
def test_an_exercise_is_added(copied):
    said = follow("Add an exercise", copied)
    passed = re.search(r"^(\d+) passed", said, re.MULTILINE)
    assert passed
    assert int(passed[1]) >= 10  # of the new exercise alone
    assert "in step" in said
    attendee = (copied / "notebooks" / "01-introduction.ipynb").read_text()
    assert "Exercise 1.5: precision" in attendee
    assert "set(recommended[:k]) & relevant" not in attendee
    solved = (copied / "labs_solutions" / "01-introduction.ipynb").read_text()
    assert "Exercise 1.5: precision. Passed" in solved


def test_a_data_set_is_added(copied):
    assert "1 passed" in follow("Add a data set", copied)
