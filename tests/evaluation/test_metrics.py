import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

from multistage.evaluation import (
    auc_difference,
    auc_interval,
    bootstrap_interval,
    catalog_coverage,
    ndcg_at_k,
    novelty,
    recall_at_k,
)


def one(*hits, items=10):
    """A user whose relevant products are `hits`."""
    row = np.zeros((1, items))
    row[0, list(hits)] = 1
    return csr_matrix(row)


def test_ndcg_of_the_case_computed_by_hand_in_lab_1():
    recommended = np.array([[0, 1, 2, 3, 4]])
    assert ndcg_at_k(recommended, one(1, 4, 9), 5) == pytest.approx(0.4776, abs=1e-4)


def test_recall_divides_by_what_can_be_reached():
    recommended = np.array([[0, 1]])
    assert recall_at_k(recommended, one(0, 1, 2, 3), 2) == pytest.approx(1.0)
    assert recall_at_k(recommended, one(0, 5), 2) == pytest.approx(0.5)


def test_missing_places_are_no_hits():
    recommended = np.array([[-1, -1, -1]])
    assert recall_at_k(recommended, one(9), 3) == 0
    assert ndcg_at_k(recommended, one(9), 3) == 0


def test_a_short_list_counts_as_padded():
    short, padded = np.array([[3]]), np.array([[3, -1, -1]])
    assert ndcg_at_k(short, one(3, 4), 3) == ndcg_at_k(padded, one(3, 4), 3)


def test_nobody_relevant_is_nan():
    assert np.isnan(recall_at_k(np.array([[0]]), one(), 1))
    assert np.isnan(ndcg_at_k(np.array([[0]]), one(), 1))


def test_k_below_one_and_unequal_users_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        recall_at_k(np.array([[0]]), one(0), 0)
    with pytest.raises(ValueError, match="2 lists, but 1 users"):
        ndcg_at_k(np.array([[0], [1]]), one(0), 1)


@pytest.mark.parametrize("metric", [recall_at_k, ndcg_at_k])
def test_a_product_that_is_recommended_twice_is_refused(metric):
    """Counted twice it gave a recall of 1.5."""
    lists = np.array([[1, 2, 3], [4, 0, 4]])
    relevant = csr_matrix(np.ones((2, 10)))
    with pytest.raises(ValueError, match="list 1 recommends position 4 twice"):
        metric(lists, relevant, 3)
    assert metric(lists, relevant, 2).tolist() == [1, 1]  # the first two are all different
    assert metric(np.array([[-1, -1, -1]]), relevant[:1], 3) == 0  # no product at all, thrice


def test_a_position_outside_of_the_catalogue_is_refused():
    with pytest.raises(ValueError, match="position 10 is not in a catalogue of 10"):
        recall_at_k(np.array([[10]]), one(0), 1)


@pytest.mark.parametrize("metric", [recall_at_k, ndcg_at_k])
def test_gains_are_0_or_1_however_they_are_stored(metric):
    lists = np.array([[0, 5, 2, 3]])
    plain = one(0, 2, 7)
    weighted = plain.copy()
    weighted.data[:] = [3, 2, 1]
    zeros = csr_matrix((np.array([1.0, 1, 1, 0]), ([0] * 4, [0, 2, 7, 5])), shape=(1, 10))
    in_parts = csr_matrix((np.ones(4), np.array([0, 2, 2, 7]), np.array([0, 4])), shape=(1, 10))
    expected = metric(lists, plain, 4)
    for stored in (weighted, zeros, in_parts):
        assert metric(lists, stored, 4) == expected


def test_k_may_exceed_the_catalogue():
    lists = np.array([[4, 3, 2, 1, 0]])
    everything = csr_matrix(np.ones((1, 5)))
    assert recall_at_k(lists, everything, 100) == 1
    assert ndcg_at_k(lists, everything, 100) == pytest.approx(1)
    assert recall_at_k(lists, one(0, items=5), 100) == 1


@pytest.fixture(scope="module")
def ranx():
    """ranx as plain Python: to compile it takes a minute, for lists of fifteen products."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        import ranx

        yield ranx


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 12))
def test_agrees_with_ranx_on_random_lists(ranx, seed, k):
    rng = np.random.default_rng(seed)
    users, items = 6, 15
    relevant = (rng.random((users, items)) < 0.3).astype(float)
    relevant[np.arange(users), rng.integers(items, size=users)] = 1
    recommended = np.stack([rng.permutation(items) for _ in range(users)])
    qrels = ranx.Qrels(
        {f"u{u}": {f"i{i}": 1 for i in np.flatnonzero(relevant[u])} for u in range(users)}
    )
    run = ranx.Run(
        {
            f"u{u}": {f"i{i}": float(items - place) for place, i in enumerate(recommended[u])}
            for u in range(users)
        }
    )
    expected = ranx.evaluate(qrels, run, f"ndcg@{k}")
    ours = ndcg_at_k(recommended, csr_matrix(relevant), k)
    # ranx divides by the ideal list over all relevant products cut at k, as we do
    assert ours.mean() == pytest.approx(expected, rel=1e-6)


def test_coverage_and_novelty_by_hand():
    recommended = np.array([[0, 1], [0, -1]])
    assert catalog_coverage(recommended, 4) == 0.5
    # shares 1/2, 1/4, 1/4: shown are 0, 1, 0, worth 1, 2 and 1 bits
    assert novelty(recommended, np.array([2.0, 1.0, 1.0])) == pytest.approx(4 / 3)
    assert np.isnan(novelty(np.array([[-1]]), np.ones(2)))


def test_interval_holds_the_mean_and_shrinks_with_users():
    rng = np.random.default_rng(0)
    few, many = rng.random(50), rng.random(5_000)
    for values in (few, many):
        low, high = bootstrap_interval(values)
        assert low < values.mean() < high
    widths = [np.diff(bootstrap_interval(v))[0] for v in (few, many)]
    assert widths[1] < widths[0] / 5  # by 1/sqrt(100) = 1/10 in expectation
    assert bootstrap_interval(few) == bootstrap_interval(few)
    assert np.isnan(bootstrap_interval(np.array([np.nan]))).all()


def test_auc_is_sklearns_and_lies_inside_its_interval():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 2, 500)
    score = target + rng.normal(size=500)
    auc, low, high = auc_interval(target, score)
    assert auc == pytest.approx(roc_auc_score(target, score), rel=1e-12)
    assert low < auc < high
    rounded = np.round(score)  # many ties
    assert auc_interval(target, rounded)[0] == pytest.approx(roc_auc_score(target, rounded))


def test_auc_interval_is_that_of_drawing_rows():
    rng = np.random.default_rng(2)
    target = rng.integers(0, 2, 300)
    score = np.round(target + rng.normal(size=300), 1)
    again = np.random.default_rng(5)
    drawn = []
    for _ in range(200):
        rows = again.integers(300, size=300)
        drawn.append(roc_auc_score(target[rows], score[rows]))
    expected = np.quantile(drawn, [0.025, 0.975])
    interval = auc_interval(target, score, seed=5)
    np.testing.assert_allclose(interval[1:], expected)
    assert auc_interval(target, score, seed=6) != interval  # nor does it remember another question
    assert auc_interval(target, score, seed=5) == interval


def test_auc_difference_is_paired():
    rng = np.random.default_rng(3)
    target = rng.integers(0, 2, 2_000)
    second = target + 2.0 * rng.normal(size=2_000)
    first = second + 0.2 * target  # the same noise, a little more signal
    difference, low, high = auc_difference(target, first, second)
    assert difference == pytest.approx(roc_auc_score(target, first) - roc_auc_score(target, second))
    assert 0 < low < difference < high
    apart = auc_interval(target, first)[1] - auc_interval(target, second)[2]
    assert apart < 0  # unpaired intervals overlap: they could not have told
    assert auc_difference(target, second, second) == (0.0, 0.0, 0.0)
