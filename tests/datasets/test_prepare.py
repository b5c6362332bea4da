"""``load``: prepared once, read afterwards, prepared anew when the shop is another one."""

import json
from pathlib import Path

import pandas as pd
import pytest

from multistage.datasets import load
from multistage.datasets.contract import INTERACTION_COLUMNS, Truth
from multistage.errors import CourseError
from multistage.profiles import Profile
from multistage.workspace import Workspace
from tests.datasets.test_logs import REAL, row, write
from tests.small_course import write_map

TINY = Profile("tiny", users=150, products=100)


@pytest.fixture
def course(tmp_path):
    write_map(tmp_path)
    return tmp_path


def report(workspace):
    return json.loads((workspace.folder / "data" / "report.json").read_text())


def sums_agree(told):
    splits = sum(told["rows"][name] for name in ("train", "valid", "test"))
    return told["labelled"] == splits + sum(told["dropped"].values())


def test_the_store_keeps_the_contract(course):
    workspace = Workspace(course, "store", TINY)
    data = load(workspace)
    for table in (data.train, data.valid, data.test):
        assert tuple(table.columns) == INTERACTION_COLUMNS
        assert table["user_id"].dtype == table["product_id"].dtype == "int64"
        assert str(table["timestamp"].dt.tz) == "UTC"
        assert not table.duplicated(["user_id", "product_id"]).any()
    assert data.train["timestamp"].max() < data.valid["timestamp"].min()
    assert data.valid["timestamp"].max() < data.test["timestamp"].min()
    assert data.has("brand")
    members = {name for name in vars(Truth) if not name.startswith("_")}
    assert members == {"purchase_probability", "purchase_intensity"}
    assert all(hasattr(data.truth, name) for name in members | {*Truth.__annotations__})
    assert list(data.truth.product_ids) == data.catalog["product_id"].tolist()
    assert sums_agree(report(workspace))


def test_it_is_prepared_once(course):
    workspace = Workspace(course, "store", TINY)
    first = load(workspace)
    written = (workspace.folder / "data" / "train.parquet").stat().st_mtime_ns
    pd.testing.assert_frame_equal(load(workspace).train, first.train)
    assert (workspace.folder / "data" / "train.parquet").stat().st_mtime_ns == written


def test_another_shop_is_prepared_anew(course):
    load(Workspace(course, "store", TINY))
    other = load(Workspace(course, "store", Profile("tiny", users=160, products=100)))
    assert other.truth.settings.users == 160


def test_logs_through_the_same_door(course):
    rows = [
        row(f"2020-0{1 + (u + p) % 3}-10 10:00:0{p} UTC", product=p, user=u, session=f"{u}-{p}")
        for u in range(60)
        for p in range(10)
    ]
    logs = write(course / "logs.csv", rows * 2)
    workspace = Workspace(course, "rees46", TINY)
    with pytest.raises(CourseError, match="No user has enough"):
        load(workspace, str(logs))  # nobody has five carts in January
    rows += [
        row(f"2020-01-1{p} 10:00:00 UTC", product=p, user=u, session=f"more {u}")
        for u in range(60)
        for p in range(10)
    ]
    data = load(workspace, str(write(logs, rows)))
    assert len(data.train) == 600
    assert data.test["user_known"].all()
    told = report(workspace)
    assert told["read"] == 1200
    assert sums_agree(told)
    assert (workspace.folder / "data" / "quarantine.csv").read_text().count("\n") == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared holds no real REES46 rows here")
def test_too_few_rows_are_a_clear_error(course):
    workspace = Workspace(course, "rees46", TINY)
    with pytest.raises(CourseError) as error:
        load(workspace, str(REAL / "2019-Oct-first-hours.csv"))
    for part in ("17,435 rows", "127 interactions labelled", "101 of training dropped", "at least"):
        assert part in str(error.value)
    assert not (workspace.folder / "data").exists()
    assert not list(Path(workspace.folder).glob(".*"))


@pytest.mark.parametrize("name", ["shop", "Store"])
def test_an_unknown_data_set_is_a_clear_error(course, name):
    with pytest.raises(CourseError, match="choose one of store, movielens, rees46"):
        load(Workspace(course, name, TINY))
