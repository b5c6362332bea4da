import shutil
import sqlite3
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from lab_5 import create_repository

from multistage.errors import CourseError
from multistage.serving.feature_store import (
    OnlineUserFeatures,
    materialise,
    open_store,
    push_purchase,
)

DEFAULTS = {"user": 2, "user_activity": -1.5, "user_price": 0.0}


@pytest.fixture
def users():
    return pd.DataFrame(
        {
            "user_id": [7, -3, 2**62],
            "user": np.array([3, 4, 5]),
            "user_activity": np.float32([0.5, 0.25, 2]),
            "user_price": np.float32([1, -1, 0]),
            "event_timestamp": pd.to_datetime(["2020-01-01", "2020-01-05", "2020-02-01"], utc=True),
            "seen": [[11, 10_000_000_000], [12], [13]],
            "bought": [[10_000_000_000], [], [13]],
        }
    )


@pytest.fixture
def folder(tmp_path, users):
    create_repository(tmp_path / "repository", users)
    return tmp_path / "repository"


def read(folder, *ids):
    return OnlineUserFeatures(folder).read(np.array(ids, "int64"), DEFAULTS)


def test_features_of_known_and_unknown_users_in_the_order_asked(folder):
    columns, lists, known = read(folder, 2**62, 99, 7, 7)
    assert known.tolist() == [True, False, True, True]
    assert columns["user"].tolist() == [5, 2, 3, 3]
    assert columns["user"].dtype == "int64"
    assert columns["user_activity"].tolist() == [2.0, -1.5, 0.5, 0.5]
    assert columns["user_activity"].dtype == "float32"
    assert [products.tolist() for products in lists["seen"][:3]] == [[13], [], [11, 10_000_000_000]]


def test_the_same_as_feast_itself_says(folder, users):
    names = ["user", "user_activity", "user_price", "seen", "bought"]
    wanted = (
        open_store(folder)
        .get_online_features(
            features=[f"user_features:{name}" for name in names],
            entity_rows=[{"user_id": int(user)} for user in users["user_id"]],
        )
        .to_dict()
    )
    columns, lists, _ = read(folder, *users["user_id"])
    for name in names[:-2]:
        assert columns[name].tolist() == wanted[name]
    assert [row.tolist() for row in lists["seen"]] == wanted["seen"]
    assert [row.tolist() for row in lists["bought"]] == [row or [] for row in wanted["bought"]]


def test_the_folder_may_be_moved_and_names_no_place(folder, tmp_path):
    moved = tmp_path / "elsewhere" / "shop"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    assert read(moved, 7)[2].tolist() == [True]
    materialise(moved)
    for file in moved.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_everything_up_to_the_newest_row_is_online(folder, users):
    assert read(folder, *users["user_id"])[2].all()


def test_a_purchase_shows_at_the_next_read(folder):
    reader = OnlineUserFeatures(folder)
    push_purchase(folder, 7, 42, datetime(2020, 3, 1, tzinfo=UTC))
    columns, lists, _ = reader.read(np.array([7, -3]), DEFAULTS)
    assert lists["seen"][0].tolist() == [11, 10_000_000_000, 42]
    assert lists["bought"][0].tolist() == [10_000_000_000, 42]
    assert lists["seen"][1].tolist() == [12]
    assert lists["bought"][1].size == 0
    assert columns["user"].tolist() == [3, 4]


def test_a_purchase_by_a_stranger_is_refused(folder):
    with pytest.raises(CourseError, match="knows no user 99"):
        push_purchase(folder, 99, 42, datetime(2020, 3, 1, tzinfo=UTC))


def test_a_folder_without_repository_says_what_to_do(tmp_path):
    with pytest.raises(CourseError, match=r"feature_store\.yaml"):
        open_store(tmp_path)


def test_a_library_that_writes_times_otherwise_does_no_harm(tmp_path, users):
    """nbformat tells sqlite3 so when it is imported, as a check's solution is read, say."""
    open_store_of = tmp_path / "repository"
    create_repository(open_store_of, users)
    before = sqlite3.adapters[(datetime, sqlite3.PrepareProtocol)]
    try:
        sqlite3.register_adapter(datetime, datetime.isoformat)
        push_purchase(open_store_of, int(users["user_id"].iloc[0]), 77, datetime.now(UTC))
        known = OnlineUserFeatures(open_store_of).row(int(users["user_id"].iloc[0]))
    finally:
        sqlite3.adapters[(datetime, sqlite3.PrepareProtocol)] = before
    assert known["bought"][-1] == 77
