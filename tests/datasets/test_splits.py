"""Splits: time first, one row per pair inside each, the core on training only."""

import numpy as np
import pandas as pd
import pytest

from multistage.datasets.splits import core, make_split, split_by_time, stray, time_bounds


def rows(*entries):
    """Interactions of (user, product, day) in January 2020, or (user, product, "YYYY-MM-DD")."""
    day = [f"2020-01-{d:02}" if isinstance(d, int) else d for _, _, d in entries]
    return pd.DataFrame(
        {
            "user_id": [u for u, _, _ in entries],
            "product_id": [p for _, p, _ in entries],
            "timestamp": pd.to_datetime(day, utc=True),
            "target": 1,
            "brand": None,
            "cat_0": None,
            "cat_1": None,
            "cat_2": None,
            "price": [float(d[-2:]) if isinstance(d, str) else float(d) for _, _, d in entries],
        }
    )


def split(table, **options):
    valid, test = pd.Timestamp("2020-01-10", tz="UTC"), pd.Timestamp("2020-01-20", tz="UTC")
    part = split_by_time(table, valid, test)
    return make_split(table, part, **({"user_core": 1, "product_core": 1} | options))


def test_a_later_event_deletes_no_training_row():
    found = split(rows((1, 1, 1), (1, 1, 2), (1, 1, 12), (1, 1, 25))).tables
    assert [len(found[name]) for name in ("train", "valid", "test")] == [1, 1, 1]
    assert found["train"]["timestamp"][0].day == 2  # the last of the pair in its split


def test_bounds_belong_to_the_later_split():
    found = split(rows((1, 1, 9), (1, 1, 10), (1, 1, 20))).tables
    assert [len(found[name]) for name in ("train", "valid", "test")] == [1, 1, 1]


def test_unseen_users_and_products_stay_and_are_marked():
    test = split(rows((1, 1, 1), (1, 2, 25), (2, 1, 25))).tables["test"]
    assert test[["user_known", "product_known"]].values.tolist() == [[True, False], [False, True]]


def test_the_core_is_a_fixed_point():
    # User 3 has two rows; once product 9 goes (one row), it has one, goes, and so on.
    user, product = np.array([1, 1, 2, 2, 3, 3]), np.array([1, 2, 1, 2, 2, 9])
    assert core(user, product, 2, 2).tolist() == [True] * 4 + [False] * 2
    assert not core(user, product, 3, 1).any()
    assert core(user, product, 1, 1).all()
    assert core(user[:0], product[:0], 5, 5).tolist() == []


def test_the_core_leaves_valid_and_test_alone():
    found = split(rows((1, 1, 1), (1, 2, 1), (2, 3, 2), (2, 3, 12)), user_core=2)
    assert found.tables["train"]["user_id"].tolist() == [1, 1]
    assert len(found.tables["valid"]) == 1
    assert not found.tables["valid"]["user_known"][0]
    assert found.dropped == {"repeated_pairs": 0, "core": 1}


def test_catalog_and_users_are_those_of_the_end_of_training():
    found = split(rows((1, 1, 1), (2, 1, 5), (2, 1, 12))).tables
    assert found["catalog"][["product_id", "price"]].values.tolist() == [[1, 5]]
    assert found["users"]["interactions"].tolist() == [1, 1]
    assert found["users"]["last_seen"].dt.day.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("days", "valid", "test"),
    [
        (["2019-10-01", "2020-04-30"], "2020-03-01", "2020-04-01"),
        (["2019-12-31", "2020-01-15", "2020-02-01"], "2020-01-01", "2020-02-01"),
        ([f"2020-01-{d:02}" for d in range(1, 12)], "2020-01-09", "2020-01-10"),
    ],
)
def test_the_last_months_are_test_and_valid_or_the_last_fifth(days, valid, test):
    bounds = time_bounds(pd.to_datetime(pd.Series(days), utc=True))
    assert bounds == (pd.Timestamp(valid, tz="UTC"), pd.Timestamp(test, tz="UTC"))


def dates(*months_and_rows):
    """Timestamps: so many rows in each month."""
    months = [pd.Timestamp(month, tz="UTC") for month, rows in months_and_rows for _ in range(rows)]
    return pd.Series(months)


@pytest.mark.parametrize("far", ["1970-01", "2019-08", "2250-01"])
def test_one_row_of_another_time_is_stray(far):
    times = dates(("2019-10", 200), (far, 1), ("2019-11", 10))
    assert stray(times).tolist() == [False] * 200 + [True] + [False] * 10


def test_a_thin_month_beside_the_others_is_none():
    assert not stray(dates(("2019-10", 500), ("2019-11", 500), ("2019-12", 1))).any()


def test_a_log_with_a_hole_keeps_both_sides():
    assert not stray(dates(("2019-10", 90), ("2020-03", 10))).any()


def test_stray_rows_of_several_times_count_together():
    few = dates(("2019-10", 300), ("1999-01", 1), ("2250-01", 2))
    assert stray(few).sum() == 3
    assert not stray(dates(("2019-10", 100), ("1999-01", 1), ("2250-01", 2))).any()
