"""Filtering and ordering on tables of a few users."""

import numpy as np
import pandas as pd
import pytest
from merlin.table import TensorTable

from multistage.serving.operators import (
    FilterCandidates,
    OrderByDiversity,
    OrderBySampling,
    OrderByScore,
)
from multistage.serving.request import FallbackStatus


@pytest.fixture
def shop(tmp_path):
    """Products 1 to 9; 9 is not available; 1 is the most popular; categories by parity."""
    ids = np.arange(1, 10)
    for name in ("item_features", "popularity"):
        (tmp_path / name).mkdir()
    pd.DataFrame(
        {
            "product_id": ids,
            "price": np.float32(ids),
            "available": ids != 9,
            "category": np.where(ids % 2, "odd", "even"),
        }
    ).to_parquet(tmp_path / "item_features" / "item_features.parquet")
    pd.DataFrame({"product_id": ids, "purchases": 20 - ids}).to_parquet(
        tmp_path / "popularity" / "popularity.parquet"
    )
    return tmp_path


def filtered(shop, candidates, seen, keep):
    offsets = np.cumsum([0] + [len(row) for row in seen]).astype("int32")
    values = np.array([product for row in seen for product in row], "int64")
    table = TensorTable({"candidate_ids": np.array(candidates), "seen": (values, offsets)})
    return FilterCandidates(keep, shop).run(table)["candidate_ids"].tolist()


def test_each_user_loses_what_this_user_has_seen(shop):
    assert filtered(shop, [[5, 6, 7, 8], [5, 6, 7, 8]], [[5], [8, 6]], 2) == [[6, 7], [5, 7]]


def test_unavailable_and_unknown_products_leave(shop):
    assert filtered(shop, [[9, 77, 4, 3]], [[]], 2) == [[4, 3]]


def test_gaps_are_filled_by_popular_products_not_seen_and_not_there(shop):
    assert filtered(shop, [[3, -1, -1, -1]], [[1]], 4) == [[3, 2, 4, 5]]


def test_a_product_that_one_has_seen_and_the_shop_no_longer_knows(shop):
    assert filtered(shop, [[5, 6]], [[5, 1234]], 1) == [[6]]


def test_who_has_seen_everything_gets_nothing(shop):
    assert filtered(shop, [[1, 2, 3]], [list(range(1, 10))], 3) == [[-1, -1, -1]]


def test_more_wanted_than_the_shop_has(shop):
    row = filtered(shop, [[3, 2]], [[1]], 12)[0]
    assert row == [3, 2, 4, 5, 6, 7, 8] + [-1] * 5


def ordered(operator, ids, scores, k, statuses=None, users=None):
    size = len(ids)
    table = TensorTable(
        {
            "user_id": np.array(users if users is not None else np.arange(size), "int64"),
            "time": np.zeros(size),
            "k": np.broadcast_to(np.array(k, "int32"), (size,)),
            "fallback_status": np.array(statuses or [FallbackStatus.PERSONAL] * size, "int8"),
            "candidate_ids": np.array(ids, "int64"),
            "candidate_scores": np.array(scores, "float32"),
        }
    )
    answer = operator.run(table)
    return answer["ordered_ids"], answer["ordered_scores"]


def test_best_score_first_ties_by_id_gaps_last():
    ids, scores = ordered(
        OrderByScore(), [[7, 3, 5, -1], [1, 2, 3, 4]], [[0.5, 0.5, 0.9, np.nan], [4, 3, 2, 1]], 4
    )
    assert ids.tolist() == [[5, 3, 7, -1], [1, 2, 3, 4]]
    assert np.isnan(scores[0, 3])
    assert scores[0, :3].tolist() == [np.float32(0.9), 0.5, 0.5]


def test_each_user_gets_his_own_k():
    ids, scores = ordered(OrderByScore(), [[1, 2, 3]] * 2, [[3, 2, 1]] * 2, [1, 3])
    assert ids.tolist() == [[1, -1, -1], [1, 2, 3]]
    assert np.isnan(scores[0, 1:]).all()


def test_sampling_draws_with_the_probabilities_of_softmax():
    probability = np.array([0.7, 0.2, 0.1, 0.05], "float32")
    logit = np.log(probability / (1 - probability))
    size = 20_000
    for temperature in (0.5, 2.0):
        ids, _ = ordered(
            OrderBySampling(temperature, seed=5), [[10, 11, 12, 13]] * size, [probability] * size, 2
        )
        wanted = np.exp(logit / temperature)
        wanted /= wanted.sum()
        got = np.bincount(ids[:, 0] - 10, minlength=4) / size
        assert np.abs(got - wanted).max() < 0.015
        second = np.bincount(ids[ids[:, 0] == 10, 1] - 11, minlength=3)
        assert np.abs(second / second.sum() - wanted[1:] / wanted[1:].sum()).max() < 0.02


def test_sampling_repeats_itself_and_ignores_company():
    scores = np.random.default_rng(0).uniform(size=(50, 20))
    ids = np.arange(1_000).reshape(50, 20)
    all_together, _ = ordered(OrderBySampling(1.0), ids, scores, 5, users=range(50))
    for row in (0, 17, 49):
        alone, _ = ordered(OrderBySampling(1.0), ids[[row]], scores[[row]], 5, users=[row])
        assert alone[0].tolist() == all_together[row].tolist()
    other_seed, _ = ordered(OrderBySampling(1.0, seed=1), ids, scores, 5, users=range(50))
    assert (other_seed != all_together).any()


def test_sampling_keeps_popular_products_in_their_order_and_gaps_last():
    sampling = OrderBySampling(100.0)
    ids, _ = ordered(sampling, [[1, 2, 3]], [[0.3, 0.2, 0.1]], 3, statuses=[FallbackStatus.POPULAR])
    assert ids.tolist() == [[1, 2, 3]]
    ids, _ = ordered(sampling, [[1, -1, 3]] * 30, [[0.3, np.nan, 0.1]] * 30, 3, users=range(30))
    assert (ids[:, 2] == -1).all()


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        OrderBySampling(0.0)


def test_diversity_by_hand(shop):
    # Relevance 1, 0.9, 0.8, 0 in categories odd, odd, odd, even. After 1 and, at weight 0.5:
    # 3 is worth 0.45 - 0.5, 4 is worth 0 - 0: the even one comes second.
    ids, _ = ordered(OrderByDiversity(0.5, shop), [[1, 3, 5, 4]], [[1.0, 0.9, 0.8, 0.0]], 3)
    assert ids.tolist() == [[1, 4, 3]]
    by_score, _ = ordered(OrderByDiversity(1.0, shop), [[1, 3, 5, 4]], [[1.0, 0.9, 0.8, 0.0]], 4)
    assert by_score.tolist() == [[1, 3, 5, 4]]


def test_diversity_with_gaps_and_equal_scores(shop):
    ids, scores = ordered(
        OrderByDiversity(0.7, shop), [[2, -1, -1], [-1, -1, -1]], [[0.4, np.nan, np.nan]] * 2, 3
    )
    assert ids.tolist() == [[2, -1, -1], [-1, -1, -1]]
    assert np.isnan(scores[0, 1])
