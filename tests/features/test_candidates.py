"""Fusion, list features and EASE against loops and planted truth."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from multistage.features import EASE, ease_weights
from multistage.features.candidates import fuse, list_features, top_k


def test_fusion_adds_reciprocal_ranks_by_hand():
    lists = [np.array([[4, 2, 7]]), np.array([[2, 9, -1]])]
    ids, scores = fuse(lists, 5)
    # 2 stands second and first; 4 first; 9 second; 7 third
    assert ids.tolist() == [[2, 4, 9, 7, -1]]
    np.testing.assert_allclose(scores, [[1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63, 0]], rtol=1e-6)


def test_fusion_of_random_lists_agrees_with_a_dictionary():
    rng = np.random.default_rng(0)
    lists = [np.stack([rng.permutation(40)[:12] for _ in range(20)]) for _ in range(3)]
    lists[1][:, 9:] = -1
    ids, scores = fuse(lists, 15)
    for row in range(20):
        total = {}
        for ranked in lists:
            for rank, product in enumerate(ranked[row], 1):
                if product >= 0:
                    total[product] = total.get(product, 0) + 1 / (60 + rank)
        wanted = sorted(total, key=lambda product: (-total[product], product))[:15]
        assert ids[row].tolist() == wanted
        np.testing.assert_allclose(scores[row], [total[product] for product in wanted], rtol=1e-5)


def test_a_row_of_no_products_fuses_to_none():
    none = np.full((1, 3), -1)
    ids, scores = fuse([none, none], 2)
    assert ids.tolist() == [[-1, -1]]
    assert scores.tolist() == [[0, 0]]


def test_list_features_are_standardised_within_the_list_and_ranked():
    scores = np.array([[3.0, 1.0, 2.0, 99.0]])
    features = list_features({"a": scores}, np.array([[True, True, True, False]]))
    spread = np.std([3, 1, 2])
    np.testing.assert_allclose(features["a_score"], [[1 / spread, -1 / spread, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(features["a_rank"], [[0, np.log(3), np.log(2), 0]], rtol=1e-6)


def test_list_features_do_not_feel_a_sources_scale_or_another_row():
    rng = np.random.default_rng(1)
    scores, there = rng.normal(size=(6, 30)), rng.random((6, 30)) < 0.8
    features = list_features({"a": scores}, there)
    moved = list_features({"a": 1_000 * scores + 7}, there)
    np.testing.assert_allclose(moved["a_score"], features["a_score"], atol=1e-3)
    np.testing.assert_array_equal(moved["a_rank"], features["a_rank"])
    alone = list_features({"a": scores[2:3]}, there[2:3])
    np.testing.assert_array_equal(alone["a_score"][0], features["a_score"][2])


def test_equal_scores_are_no_reason_for_infinities():
    features = list_features({"a": np.ones((1, 4))}, np.full((1, 4), True))
    assert np.isfinite(features["a_score"]).all()


def test_top_k_breaks_ties_by_position_and_leaves_out_minus_infinity():
    scores = np.array([[1.0, 2.0, 2.0, -np.inf]])
    assert top_k(scores, 4).tolist() == [[1, 2, 0, -1]]
    assert top_k(scores, 1).tolist() == [[1]]


def test_top_k_equals_a_full_stable_sort_in_any_length():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (50, 30)).astype(float)  # full of ties
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_ = np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)
    padded = np.pad(sorted_, ((0, 0), (0, 5)), constant_values=-1)
    for k in (1, 10, 30, 35):
        np.testing.assert_array_equal(top_k(scores, k), padded[:, :k])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_k_leaves_out_what_is_not_a_number(k):
    scores = np.array([[np.nan, 3.0, np.nan, 5.0], [1.0, np.nan, 2.0, 2.0]])
    wanted = np.array([[3, 1, -1, -1], [2, 3, 0, -1]])
    np.testing.assert_array_equal(top_k(scores, k), wanted[:, :k])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_top_k_above_a_score_are_those_of_a_full_sort(dtype):
    rng = np.random.default_rng(2)
    scores = np.where(rng.random((30, 50)) < 0.3, rng.normal(size=(30, 50)).round(1), 0.0)
    scores = scores.astype(dtype)
    for row, found in zip(scores, top_k(scores, 8, above=0.0), strict=True):
        wanted = [place for place in np.argsort(-row, kind="stable") if row[place] > 0][:8]
        assert found.tolist() == wanted + [-1] * (8 - len(wanted))


@pytest.fixture(scope="module")
def purchases():
    rng = np.random.default_rng(3)
    return csr_matrix((rng.random((200, 25)) < 0.2).astype(float))


def test_all_weights_kept_give_the_scores_of_the_formula(purchases):
    ease = EASE.fit(purchases, 50.0, keep=25)
    wanted = purchases @ ease_weights(purchases, 50.0)
    np.testing.assert_allclose(ease.scores(purchases), wanted, rtol=1e-4, atol=1e-6)


def test_each_product_keeps_its_largest_weights(purchases):
    kept = EASE.fit(purchases, 50.0, keep=5).weights.toarray()
    full = np.abs(ease_weights(purchases, 50.0))
    assert ((kept != 0).sum(axis=0) == 5).all()
    for column in range(25):
        assert np.abs(kept[:, column]).sum() == pytest.approx(np.sort(full[:, column])[-5:].sum())


def test_weights_survive_saving(purchases, tmp_path):
    ease = EASE.fit(purchases, 50.0, keep=5)
    ease.save(tmp_path / "weights.npz")
    again = EASE.load(tmp_path / "weights.npz")
    np.testing.assert_array_equal(again.scores(purchases), ease.scores(purchases))
