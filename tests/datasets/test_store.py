"""The simulated shop: it does what its truth says, and always the same."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from multistage.datasets import Data
from multistage.datasets.rees46.label import EVENT_COLUMNS, label_sessions, split_category
from multistage.datasets.rees46.logs import read_logs
from multistage.datasets.splits import make_split, split_by_time
from multistage.datasets.store import StoreSettings, StoreTruth, World, simulate
from multistage.datasets.store.events import simulate_block
from multistage.datasets.store.files import write_events
from multistage.datasets.store.world import BLOCK, FIRST_USER
from multistage.errors import CourseError
from multistage.evaluation import Holdout, ndcg_at_k
from multistage.evaluation.baselines import popularity
from tests.datasets import reference

SMALL = StoreSettings(users=1_200, products=300)
TINY = StoreSettings(users=150, products=100)  # where the slow reference has to follow


@pytest.fixture(scope="module")
def world():
    return World(SMALL)


@pytest.fixture(scope="module")
def events(world):
    return simulate(world)


@pytest.fixture(scope="module")
def tables(world, events):
    rows = split_category(label_sessions(events)[0])
    bounds = pd.DatetimeIndex(world.month_starts()[-3:-1]).tz_localize("UTC")
    return make_split(rows, split_by_time(rows, *bounds), 1, 1).tables


@pytest.fixture(scope="module")
def truth(tables):
    return StoreTruth(SMALL, tables["catalog"]["product_id"].to_numpy())


def test_events_have_the_columns_of_rees46(events):
    assert tuple(events.columns) == EVENT_COLUMNS
    assert set(events["event_type"]) == {"view", "cart", "purchase"}
    assert events["user_id"].min() > 2**32  # ids that 32 bits cannot hold
    assert events["event_time"].between("2019-10-01", "2020-05-02").all()


def test_in_a_session_each_purchase_follows_a_cart_and_each_cart_a_view(events):
    keys = ["user_id", "user_session", "product_id"]
    first = events.groupby([*keys, "event_type"])["event_time"].min().unstack()
    bought = first[first["purchase"].notna()]
    assert (bought["cart"] < bought["purchase"]).all()
    carted = first[first["cart"].notna()]
    assert (carted["view"] < carted["cart"]).all()
    assert events.groupby("user_session")["user_id"].nunique().max() == 1


def test_shares_are_those_of_the_settings(events, world):
    share = events["event_type"].value_counts(normalize=True)
    assert share["view"] == pytest.approx(SMALL.view_share, abs=0.02)
    assert share["purchase"] / share["cart"] == pytest.approx(SMALL.buy_share, abs=0.04)
    coded = world.leaf_share[world.leaf_coded].sum()
    assert 1 - coded == pytest.approx(SMALL.missing_category, abs=0.03)


def test_new_products_and_late_users_appear(events, world, tables):
    days = events["event_time"].to_numpy("datetime64[ns]")
    month = pd.Series(days.astype("datetime64[M]").astype(int))
    month -= month.min()
    first = month.groupby(events["product_id"].to_numpy()).min()
    launch = pd.Series(world.launch, world.product_id).loc[first.index]
    assert (first >= launch).all()
    assert (launch > 0).sum() > 10
    assert not tables["test"]["user_known"].all()
    assert tables["test"]["user_known"].mean() > 0.9


def test_the_share_of_views_changes_no_purchase(events):
    more = simulate_block(World(replace(SMALL, view_share=0.8)), 0, 2)
    acted = more[more["event_type"] != "view"].reset_index(drop=True)
    same = simulate_block(World(SMALL), 0, 2)
    same = same[same["event_type"] != "view"].reset_index(drop=True)
    assert len(more) > 1.5 * len(simulate_block(World(SMALL), 0, 2))
    pd.testing.assert_frame_equal(acted, same)


def test_an_impossible_share_of_views_is_a_clear_error():
    with pytest.raises(CourseError, match=r"view_share is 0\.1: expected at least 0\.42"):
        simulate(World(replace(SMALL, view_share=0.1)))


def test_a_user_is_the_same_in_a_shop_of_any_size():
    small = World(SMALL).users(0)
    large = World(replace(SMALL, users=5_000)).users(0)
    np.testing.assert_array_equal(small.base, large.base)
    assert small.user_id[0] == FIRST_USER
    assert len(World(SMALL).users(1).user_id) == SMALL.users - BLOCK


def test_files_have_the_same_bytes_for_any_number_of_workers(tmp_path):
    settings = replace(TINY, users=2_100, months=2, cart_sessions=1.0)
    one = write_events(settings, tmp_path / "one", workers=1)
    two = write_events(settings, tmp_path / "two", workers=2)
    assert [f.name for f in one] == ["2019-Oct.csv.gz", "2019-Nov.csv.gz"]
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in two]
    other = write_events(replace(settings, seed=1), tmp_path / "other", workers=1)
    assert other[0].read_bytes() != one[0].read_bytes()


@pytest.mark.parametrize("form", ["csv", "csv.gz"])
def test_its_files_prepared_give_the_rows_of_its_memory(tmp_path, form):
    files = write_events(TINY, tmp_path, form, workers=1)
    found = read_logs(files, tmp_path, task_bytes=1 << 20)
    assert not found.quarantine
    pd.testing.assert_frame_equal(
        reference.canonical(split_category(found.rows)),
        reference.canonical(split_category(label_sessions(simulate(World(TINY)))[0])),
    )


def test_the_reference_gives_the_same_tables(tmp_path):
    files = write_events(TINY, tmp_path, "csv", workers=1)
    rows = split_category(read_logs(files, tmp_path).rows)
    bounds = pd.DatetimeIndex(World(TINY).month_starts()[-3:-1]).tz_localize("UTC")
    found = make_split(rows, split_by_time(rows, *bounds), 5, 5)
    events = [row for file in files for row in reference.read(file)[0]]
    expected = reference.split(reference.label(events), *bounds, core=5)
    assert found.dropped["core"] > 0
    for name, part in zip(("train", "valid", "test"), expected, strict=True):
        pd.testing.assert_frame_equal(
            reference.canonical(found.tables[name]), reference.frame(part)
        )


def test_parquet_holds_the_same_events(tmp_path):
    settings = replace(TINY, months=2)
    table = pd.read_parquet(write_events(settings, tmp_path, "parquet", workers=1)[0])
    text = pd.read_csv(write_events(settings, tmp_path, "csv", workers=1)[0])
    assert len(table) == len(text)
    for name in ("product_id", "user_id", "user_session", "event_type", "price"):
        np.testing.assert_array_equal(table[name], text[name])


def test_probabilities_are_calibrated(truth, tables):
    """In each fifth of the true probability the share bought is that probability."""
    rows = pd.concat([tables["train"], tables["valid"], tables["test"]])
    p = truth.purchase_probability(rows["user_id"], rows["product_id"], rows["timestamp"])
    fifth = pd.qcut(p, 5, labels=False)
    for k in range(5):
        inside = fifth == k
        error = (p[inside] * (1 - p[inside])).sum() ** 0.5 / inside.sum()
        # Rows are the last of their pair, so the expected gap is not exactly 0 but small.
        assert abs(rows["target"][inside].mean() - p[inside].mean()) < 4 * error + 0.01


def test_nobody_ranks_better_than_the_truth(truth, tables):
    rows = tables["test"]
    p = truth.purchase_probability(rows["user_id"], rows["product_id"], rows["timestamp"])
    best = roc_auc_score(rows["target"], p)
    assert 0.75 <= best <= 0.91
    rng = np.random.default_rng(0)
    logit = np.log(p / (1 - p))
    for noise in (0.5, 1.0):
        assert roc_auc_score(rows["target"], logit + noise * rng.normal(size=len(p))) < best


def test_the_best_ranking_is_personal(truth, tables):
    holdout = Holdout.from_data(Data(name="store", truth=truth, **tables))
    best = holdout.top_k(truth.purchase_intensity(holdout.user_ids), 10)
    popular = holdout.top_k(popularity(holdout.purchases, holdout.history), 10)
    ndcg = [np.mean(ndcg_at_k(top, holdout.relevant, 10)) for top in (best, popular)]
    assert ndcg[1] < 0.6 * ndcg[0]


def test_intensities_are_the_purchases_to_be_expected(truth, events):
    """Summed over users they match the purchases of the last month, product by product."""
    users = FIRST_USER + np.arange(SMALL.users)
    intensity = truth.purchase_intensity(users)
    assert intensity.shape == (SMALL.users, len(truth.product_ids))
    assert intensity.dtype == np.float32
    last = events[(events["event_time"] >= "2020-04-01") & (events["event_type"] == "purchase")]
    bought = last["product_id"].value_counts().reindex(truth.product_ids, fill_value=0).to_numpy()
    expected = intensity.sum(axis=0)
    assert expected.sum() == pytest.approx(bought.sum(), rel=0.05)
    large = expected > 20
    assert large.sum() > 20
    z = (bought[large] - expected[large]) / np.sqrt(expected[large])
    assert abs(z.mean()) < 0.5
    assert z.std() < 1.5


def test_truth_survives_the_disk_without_pickles(truth, tmp_path):
    truth.save(tmp_path / "truth.npz")
    again = StoreTruth.load(tmp_path / "truth.npz")
    assert again.settings == truth.settings
    np.testing.assert_array_equal(
        again.purchase_intensity([FIRST_USER]), truth.purchase_intensity([FIRST_USER])
    )


def test_unknown_ids_are_clear_errors(truth):
    with pytest.raises(CourseError, match="no user 5"):
        truth.purchase_intensity([5])
    with pytest.raises(CourseError, match="no product 5"):
        truth.purchase_probability([FIRST_USER], [5], ["2020-04-01"])
