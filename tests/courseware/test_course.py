"""``course.toml``: what it says, what is refused, and that the labs do what it says."""

import re
import subprocess
import sys

import pytest

from courseware.course import Course, find_course, installed, load
from courseware.errors import LabError
from courseware.lab import seats
from courseware.lab.pristine import seat_files
from multistage.profiles import PROFILES
from tests.conftest import COURSE
from tests.small_course import write_map

SECTIONS = Course.read(COURSE).find()


def test_the_map_leads_to_a_labs_files():
    section = Course.read(COURSE).find([4])[0]
    assert (section.number, section.name) == (4, "04-retrieval-and-ranking")
    assert section.source == COURSE / "labs_solutions" / "04-retrieval-and-ranking.py"
    assert section.solved == section.source.with_suffix(".ipynb")
    assert section.attendee == COURSE / "notebooks" / "04-retrieval-and-ranking.ipynb"
    assert section.reads == ("data", "features/workflow", "features/tables")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_lab_reads_and_writes_what_the_map_says(section):
    text = section.source.read_text()
    read = set(re.findall(r'workspace\.read\("([^"{]+)"\)', text))
    written = set(re.findall(r'workspace\.write\("([^"{]+)"', text))
    read |= {"data"} if "datasets.load(workspace" in text else set()
    listed = re.search(r"^names = (\[.*?\])$", text, re.MULTILINE)  # lab 5 reads a list of exports
    if 'workspace.read(f"export/{name}")' in text:
        read |= {f"export/{name}" for name in re.findall(r'"(\w+)"', listed[1])}
    if "gather_exports(workspace" in text:
        from multistage.serving.exports import EXPORTS, INPUTS

        read |= {f"export/{name}" for name in EXPORTS}
        written |= {INPUTS}
    made_here = set(section.makes)
    assert written | ({"data"} & made_here) == made_here
    assert (read | {"data"}) - made_here == set(section.reads) | ({"data"} - made_here)


def test_what_a_lab_reads_an_earlier_one_makes():
    made = set()
    for section in SECTIONS:
        assert set(section.reads) <= made
        made |= set(section.makes)


def test_profiles_and_data_sets_are_those_of_the_package():
    from multistage.datasets.prepare import DATASETS

    course = Course.read(COURSE)
    assert set(course.profiles) == set(PROFILES)
    assert set(course.datasets) == set(DATASETS)
    assert course.profile in PROFILES
    assert course.dataset in DATASETS
    assert all(len(needs.memory) == len(SECTIONS) for needs in course.profiles.values())


@pytest.mark.parametrize("what", ["workspace", "servers", "stop_servers", "checks", "deep_checks"])
def test_what_the_map_names_is_there(what):
    assert load(installed().loads[what]) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "cannot be read"),
        ('title = "x"\n', "'labs' is missing"),
        ('[[labs]]\ntitle = "x"\n', "'file' is missing"),
        ('[[labs]]\nfile = "01-x"\nmakez = []\n', "makez"),
        ("labs = []\ncolour = 1\n", "colour"),
        ("labs = 3\n", "cannot be read"),
        ('[[labs]]\nfile = "02-x"\nreads = ["data"]\n', "02-x reads 'data', which no earlier"),
        ("labs = []\n[profiles]\nci = { memory = [1] }\n", "'disk' is missing"),
    ],
)
def test_a_malformed_map_is_refused_in_words(tmp_path, text, said):
    (tmp_path / "course.toml").write_text(text)
    with pytest.raises(LabError, match=said) as refused:
        Course.read(tmp_path)
    assert str(refused.value).startswith("course.toml")


def test_a_lab_without_an_entry_and_an_entry_without_a_lab_are_named(tmp_path):
    write_map(tmp_path, **{"01-one": {}})
    with pytest.raises(LabError, match=r"01-one\.py is missing"):
        Course.read(tmp_path).find()
    (tmp_path / "labs_solutions" / "01-one.py").write_text("")
    (tmp_path / "labs_solutions" / "02-two.py").write_text("")
    with pytest.raises(LabError, match=r"02-two\.py is not in course\.toml"):
        Course.read(tmp_path).find()


def test_a_folder_of_no_course_is_named(tmp_path):
    with pytest.raises(LabError, match=r"No course folder holds .*course\.toml"):
        find_course(tmp_path)


EVIL = """
[loads]
servers = "evil:servers"
workspace = "evil:Workspace"
[commands]
serve = "evil:servers"
"""


def test_nothing_is_imported_because_a_seat_says_so(tmp_path):
    """Root runs ``lab`` for a seat whose owner can write into the seat's map."""
    room = tmp_path / "room"
    seats.create(COURSE, room, 1)
    seat = room / "seat-01"
    map_ = (seat / "course.toml").read_text().split("[loads]")[0]
    (seat / "course.toml").write_text(map_ + EVIL)
    (seat / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('done').touch()\n"
    )
    for arguments in (["status"], ["reset", "--dry-run"], ["serve", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-m", "courseware.lab", *arguments],
            cwd=seat,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
    assert not (seat / "done").exists()
    assert seats.reset(
        seat, seat_files(COURSE)
    )  # the map is the course's own again, the seat's is kept
    assert (seat / "course.toml").read_text() == (COURSE / "course.toml").read_text()
