import json
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from multistage.errors import CourseError
from multistage.workspace import MANIFEST, ArtifactError, Workspace, find_course

MAPS = {
    "01-introduction": {"makes": ["data"]},
    "02-architectures": {"makes": ["features/tables"]},
    "04-retrieval": {"makes": ["export/index"]},
}


@pytest.fixture
def workspace(small_course):
    return Workspace.open(
        "store",
        "ci",
        small_course(MAPS, _01_introduction="", _02_architectures="", _04_retrieval=""),
    )


def write(workspace, name="data", text="hello"):
    with workspace.write(name, producer="01-introduction") as folder:
        (folder / "a.txt").write_text(text)
        pd.DataFrame({"user_id": [1], "price": [2.0]}).to_parquet(folder / "t.parquet")


def test_the_course_is_found_from_inside_and_named_when_missing(workspace, tmp_path):
    deep = workspace.course / "notebooks" / "images"
    deep.mkdir()
    assert find_course(deep) == workspace.course
    with pytest.raises(CourseError, match="No course folder holds"):
        find_course(tmp_path)


def test_what_is_written_is_read_and_says_where_it_is_from(workspace):
    write(workspace)
    folder = workspace.read("data")
    assert (folder / "a.txt").read_text() == "hello"
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["producer"] == "01-introduction"
    assert manifest["schema"]["t.parquet"] == {"user_id": "int64", "price": "double"}
    assert str(workspace.course) not in (folder / MANIFEST).read_text()
    assert workspace.artifacts() == ["data"]


def damage_change(folder):
    (folder / "a.txt").write_text("hellO")


def damage_remove(folder):
    (folder / "a.txt").unlink()


def damage_add(folder):
    (folder / "b.txt").write_text("")


def damage_manifest(folder):
    (folder / MANIFEST).write_text("{")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_change, "a.txt is changed"),
        (damage_remove, "a.txt is missing"),
        (damage_add, "b.txt is unknown"),
        (damage_manifest, "cannot be read"),
    ],
)
def test_damage_is_named_with_the_command_that_fixes_it(workspace, damage, said):
    write(workspace)
    damage(workspace.folder / "data")
    with pytest.raises(ArtifactError, match=said) as refused:
        workspace.read("data")
    assert "lab run --dataset store --profile ci --section 1" in str(refused.value)
    assert not workspace.has("data")
    write(workspace, text="again")
    assert workspace.has("data")


def test_a_failed_write_leaves_the_old_artifact(workspace):
    write(workspace, text="old")

    def fail():
        with workspace.write("data", producer="x") as folder:
            (folder / "a.txt").write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert (workspace.read("data") / "a.txt").read_text() == "old"
    assert [item.name for item in workspace.folder.iterdir()] == ["data"]


def test_a_missing_artifact_is_named(workspace):
    with pytest.raises(ArtifactError, match=r"'export/index' is missing.*--section 4"):
        workspace.read("export/index")


def test_what_was_made_from_other_data_is_refused(workspace):
    write(workspace, "data", "one")
    write(workspace, "features/tables", "of one")
    assert workspace.has("features/tables")
    write(workspace, "data", "two")
    with pytest.raises(ArtifactError, match=r"was made from other data.*--section 2"):
        workspace.read("features/tables")
    write(workspace, "data", "one")
    assert workspace.has("features/tables")


def test_of_racing_writers_one_wins_whole(workspace):
    def write_often(text):
        for _ in range(25):
            with workspace.write("data", producer="01-introduction") as folder:
                for name in ("a.txt", "b.txt"):
                    (folder / name).write_text(text)

    with ThreadPoolExecutor() as pool:
        for finished in [pool.submit(write_often, text) for text in ("one", "two", "three")]:
            finished.result()
    folder = workspace.read("data")
    assert (folder / "a.txt").read_text() == (folder / "b.txt").read_text()
    assert [path.name for path in workspace.folder.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["../outside", "..", "a/b", "/etc", "", "Store", "a b", "-rf"])
def test_a_data_sets_name_is_no_path(small_course, name):
    with pytest.raises(CourseError, match="cannot be the name of a data set"):
        Workspace.open(
            name,
            "ci",
            small_course(MAPS, _01_introduction="", _02_architectures="", _04_retrieval=""),
        )
