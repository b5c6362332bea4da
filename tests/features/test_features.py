import numpy as np
import pandas as pd
import pytest

from multistage.features import (
    TargetEncoding,
    add_user_history,
    fit_workflow,
    hour,
    log_price,
    relative_price,
    user_history,
    weekday,
)


@pytest.fixture
def interactions():
    rng = np.random.default_rng(0)
    n = 400
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, n),
            "timestamp": pd.Timestamp("2019-10-01", tz="UTC")
            + pd.to_timedelta(rng.integers(0, 90, n), unit="h"),
            "price": np.where(rng.random(n) < 0.1, np.nan, rng.uniform(1, 100, n)),
            "brand": rng.choice(["a", "b", None], n),
            "target": rng.integers(0, 2, n),
        },
        index=rng.permutation(n) + 7,
    )


def test_history_is_what_came_strictly_before(interactions):
    got = add_user_history(interactions)
    for label in interactions.index[:60]:
        row = interactions.loc[label]
        before = interactions[
            (interactions["user_id"] == row["user_id"])
            & (interactions["timestamp"] < row["timestamp"])
        ]
        assert got.loc[label, "user_activity"] == pytest.approx(np.log1p(len(before)), rel=1e-6)
        expected = np.log1p(before["price"]).mean()
        assert got.loc[label, "user_price"] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_history_does_not_depend_on_the_order_of_rows_or_on_later_rows(interactions):
    whole = add_user_history(interactions)
    shuffled = add_user_history(interactions.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(whole, shuffled.loc[whole.index])
    early = interactions[interactions["timestamp"] < interactions["timestamp"].median()]
    pd.testing.assert_frame_equal(add_user_history(early), whole.loc[early.index])


def test_final_history_has_one_row_per_user_over_all_rows(interactions):
    state = user_history(interactions).set_index("user_id")
    counts = interactions["user_id"].value_counts()
    np.testing.assert_allclose(state["user_activity"], np.log1p(counts[state.index]), rtol=1e-6)


def test_a_user_without_prices_has_none():
    frame = pd.DataFrame(
        {"user_id": [1], "timestamp": [pd.Timestamp("2020-01-01", tz="UTC")], "price": [np.nan]}
    )
    assert user_history(frame)["user_price"].isna().all()


def test_encoding_of_later_rows_is_one_value_a_key_and_needs_no_target(interactions):
    encoding = TargetEncoding(["brand"], smoothing=4).fit(interactions)
    got = encoding.transform(interactions.drop(columns="target"))
    assert (got.groupby(got["brand"].fillna("none"))["brand_te"].nunique() == 1).all()
    group = interactions[interactions["brand"] == "a"]["target"]
    mean = interactions["target"].mean()
    expected = (group.sum() + 4 * mean) / (len(group) + 4)
    assert got.loc[got["brand"] == "a", "brand_te"].iloc[0] == pytest.approx(expected)


def test_unknown_keys_get_the_overall_mean(interactions):
    encoding = TargetEncoding(["brand"]).fit(interactions)
    got = encoding.transform(pd.DataFrame({"brand": ["never seen"]}))
    assert got["brand_te"].iloc[0] == pytest.approx(interactions["target"].mean())


def test_training_rows_do_not_see_their_own_target(interactions):
    """Flip one row's target: its own value may move only through the overall mean."""
    before = TargetEncoding(["brand"], smoothing=0).fit_transform(interactions)
    flipped = interactions.copy()
    label = interactions.index[0]
    flipped.loc[label, "target"] = 1 - flipped.loc[label, "target"]
    after = TargetEncoding(["brand"], smoothing=0).fit_transform(flipped)
    assert after.loc[label, "brand_te"] == before.loc[label, "brand_te"]
    assert (after["brand_te"] != before["brand_te"]).any()


def test_encoding_pure_noise_out_of_fold_is_worth_nothing():
    """Keys with two rows each and random targets: an honest feature has an AUC near 0.5."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(7)
    noise = pd.DataFrame(
        {"key": np.repeat(np.arange(5_000), 2), "target": rng.integers(0, 2, 10_000)}
    )
    honest = TargetEncoding(["key"], smoothing=1).fit_transform(noise)["key_te"]
    leaking = TargetEncoding(["key"], smoothing=1).fit(noise).transform(noise)["key_te"]
    # 0.02 is four standard errors of an AUC over 10,000 rows
    assert roc_auc_score(noise["target"], honest) == pytest.approx(0.5, abs=0.02)
    assert roc_auc_score(noise["target"], leaking) > 0.8


def test_saved_encoding_transforms_alike(interactions, tmp_path):
    encoding = TargetEncoding(["brand", "user_id"]).fit(interactions)
    encoding.save(tmp_path / "encoding.parquet")
    loaded = TargetEncoding.load(tmp_path / "encoding.parquet")
    pd.testing.assert_frame_equal(encoding.transform(interactions), loaded.transform(interactions))


def test_columns():
    times = pd.Series(pd.to_datetime(["2019-10-07 23:59:59+00:00", "2019-10-13 00:00+00:00"]))
    assert hour(times).tolist() == [23, 0]
    assert weekday(times).tolist() == [0, 6]
    prices = log_price(pd.Series([np.e - 1, np.nan, np.e - 1]))
    np.testing.assert_allclose(prices, 1, rtol=1e-6)
    assert prices.dtype == "float32"


def test_the_relative_price_is_that_of_training_and_moves_with_its_folder(tmp_path):
    """By hand: log of price over the category's mean in training, 0 where either is unknown."""
    import nvtabular as nvt
    from merlin.io import Dataset
    from nvtabular import ops

    rows = {"cat_1": ["tv", "tv", "mouse", None], "price": [100.0, 300.0, 10.0, 5.0]}
    mean_price = ["cat_1"] >> ops.JoinGroupby(cont_cols=["price"], stats=["mean"])
    column = ["price"] >> ops.LambdaOp(relative_price, dependency=[mean_price])
    (tmp_path / "fitted").mkdir()
    workflow = nvt.Workflow(column >> ops.Rename(name="relative_price"))
    fit_workflow(workflow, Dataset(pd.DataFrame(rows)), tmp_path / "fitted")
    (tmp_path / "fitted").rename(tmp_path / "moved")

    loaded = nvt.Workflow.load(tmp_path / "moved" / "workflow")
    asked = pd.DataFrame(
        {
            "cat_1": ["tv", "tv", "mouse", None, "sofa", "tv", "tv"],
            "price": [200.0, 400.0, 5.0, 7.0, 7.0, np.nan, 0.0],
        }
    )
    got = loaded.transform(Dataset(asked)).compute()["relative_price"]
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, [0, np.log(2), -np.log(2), 0, 0, 0, 0], atol=1e-6)
    for file in (tmp_path / "moved").rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes(), file.name
