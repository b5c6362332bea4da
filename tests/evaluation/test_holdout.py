import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from multistage.datasets import Data
from multistage.evaluation import Holdout, ndcg_at_k, recall_at_k, waterfall


def rows(*triples):
    return pd.DataFrame(triples, columns=["user_id", "product_id", "target"])


@pytest.fixture
def task():
    train = rows((1, 10, 1), (1, 11, 0), (2, 12, 1), (3, 10, 1))
    test = rows(
        (1, 11, 1),  # seen in training: not relevant
        (1, 12, 1),  # relevant
        (1, 13, 0),  # left in the cart
        (2, 99, 1),  # not in the catalogue
        (3, 10, 1),  # bought before
        (4, 13, 1),  # a new user
    )
    catalog = pd.DataFrame({"product_id": [10, 11, 12, 13]})
    data = Data("toy", train, test.iloc[:0], test, catalog, pd.DataFrame())
    return Holdout.from_data(data)


def test_relevant_is_bought_new_and_in_the_catalogue(task):
    assert task.user_ids.tolist() == [1, 4]
    assert task.relevant.toarray().tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


def test_seen_is_any_training_row_history_only_purchases(task):
    assert task.seen.toarray().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert task.history.toarray().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert task.warm.tolist() == [True, False]


def test_everybody_of_training_is_learned_from(task):
    assert task.purchases.toarray().sum(axis=0).tolist() == [2, 0, 1, 0]


def test_seen_products_never_come_out(task):
    scores = np.array([[9.0, 8, 1, 2], [9, 8, 1, 2]])
    assert task.top_k(scores, 4).tolist() == [[3, 2, -1, -1], [0, 1, 3, 2]]


def test_the_task_of_some_people_is_theirs_and_learns_from_everybody(task):
    few = task.of(np.array([1]))
    assert few.user_ids.tolist() == [4]
    assert few.relevant.toarray().tolist() == [[0, 0, 0, 1]]
    assert few.top_k(np.array([[9.0, 8, 1, 2]]), 2).tolist() == [[0, 1]]
    assert few.purchases is task.purchases


def test_waterfall_counts_purchases_that_survive(task):
    stages = waterfall(
        {
            "retrieve": np.array([[2, 3, 0], [3, 1, 0]]),
            "filter": np.array([[2, 3, -1], [3, 1, 0]]),
            "order": np.array([[3, -1], [3, -1]]),
        },
        task.relevant,
    )
    assert stages["surviving"].tolist() == [1.0, 1.0, 0.5]
    assert stages["lost"].tolist() == [0.0, 0.0, 0.5]
    assert stages["candidates"].tolist() == [3.0, 2.5, 1.0]


def test_with_validation_what_was_bought_in_it_is_known_and_the_catalogue_stays():
    def dated(day, *triples):
        return rows(*triples).assign(timestamp=pd.Timestamp(day, tz="UTC"))

    data = Data(
        "toy",
        train=dated("2020-01-01", (1, 10, 0), (2, 11, 1)),
        valid=dated("2020-02-01", (1, 10, 1), (3, 12, 1)),
        test=dated("2020-03-01", (1, 10, 1), (1, 11, 1), (3, 11, 1)),
        catalog=pd.DataFrame({"product_id": [10, 11]}),
        users=pd.DataFrame(),
    )
    known = data.with_validation()
    assert known.train[["user_id", "product_id", "target"]].to_numpy().tolist() == [
        [2, 11, 1],
        [1, 10, 1],  # the last row of a pair that is in both
        [3, 12, 1],
    ]
    task = Holdout.from_data(known)
    assert task.user_ids.tolist() == [1, 3]
    assert task.history.toarray().tolist() == [[1, 0], [0, 0]]
    assert task.relevant.toarray().tolist() == [[0, 1], [0, 1]]


def of_frames(train, test, products=(10, 11, 12, 13)):
    catalog = pd.DataFrame({"product_id": list(products)})
    return Holdout.from_data(Data("toy", train, test.iloc[:0], test, catalog, pd.DataFrame()))


def test_a_month_with_strangers_only_is_a_task_like_any():
    task = of_frames(rows((1, 10, 1)), rows((7, 12, 1), (8, 13, 1)))
    assert task.user_ids.tolist() == [7, 8]
    assert not task.warm.any()
    lists = task.top_k(np.tile([4.0, 3, 2, 1], (2, 1)), 3)
    assert lists.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert recall_at_k(lists, task.relevant, 3).tolist() == [1, 0]


def test_a_month_in_which_nobody_buys_anything_new_has_no_users():
    task = of_frames(rows((1, 10, 1)), rows((1, 10, 1), (1, 11, 0)))
    assert len(task.user_ids) == 0
    lists = task.top_k(np.zeros((0, 4)), 3)
    assert lists.shape == (0, 3)
    assert recall_at_k(lists, task.relevant, 3).shape == (0,)
    assert np.isnan(waterfall({"all": lists}, task.relevant)["surviving"]).all()


def test_lists_longer_than_the_catalogue_end_in_nothing():
    task = of_frames(rows((1, 10, 1)), rows((1, 12, 1)))
    lists = task.top_k(np.array([[1.0, 2, 3, 4]]), 100)
    assert lists[0, :4].tolist() == [3, 2, 1, -1]
    assert (lists[0, 3:] == -1).all()
    assert recall_at_k(lists, task.relevant, 100) == 1


def test_who_has_seen_everything_is_offered_nothing():
    seen = rows(*[(1, product, 0) for product in (10, 11, 12, 13)])
    task = of_frames(seen, rows((1, 12, 1), (2, 12, 1)))
    assert task.user_ids.tolist() == [2]  # nothing is left that the first could be offered
    everything = Holdout(
        task.user_ids,
        task.product_ids,
        task.history,
        csr_matrix(np.ones((1, 4))),
        *[task.relevant] * 2,
    )
    lists = everything.top_k(np.ones((1, 4)), 2)
    assert lists.tolist() == [[-1, -1]]
    assert ndcg_at_k(lists, task.relevant, 2) == 0
