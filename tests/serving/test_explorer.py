import re

import pandas as pd
import pytest
from conftest import CANDIDATES, NOON

from multistage.explorer import explain, stage_explorer
from multistage.serving.request import FallbackStatus


def test_every_stage_of_one_answer(recommender, user_features, ask):
    row = user_features.iloc[4]
    status, rows = explain(recommender, row["user_id"], NOON, 10)
    assert status == FallbackStatus.PERSONAL
    assert rows["retrieved"].notna().sum() == 2 * CANDIDATES
    assert rows["score"].notna().sum() == CANDIDATES
    offered = rows[rows["place"].notna()]
    assert offered["product_id"].tolist() == ask([row["user_id"]])["ordered_ids"][0].tolist()
    assert offered["place"].tolist() == list(range(1, 11))
    seen = set(rows["product_id"][rows["filter"] == "seen"])
    assert seen == set(row["seen"]) & set(rows["product_id"])
    assert rows["score"][rows["filter"].isin(["seen", "not available", "spare"])].isna().all()


def test_an_unknown_user(recommender):
    status, rows = explain(recommender, -1, NOON, 5)
    assert status == FallbackStatus.POPULAR
    assert rows["place"].notna().sum() == 5


def test_a_missing_value_of_a_product_is_left_empty(recommender, user_features):
    pytest.importorskip("ipywidgets")
    user = int(user_features["user_id"].iloc[0])
    _, rows = explain(recommender, user, NOON, 10)
    brands = [None, "acme"] * len(rows)
    catalog = rows[["product_id"]].assign(brand=brands[: len(rows)])
    page = stage_explorer(recommender, [user], catalog, NOON).children[1].value
    assert "acme" in page
    words = re.sub(r"<[^>]*>", " ", page).split()
    assert not {"None", "nan", "NaN", "&lt;NA&gt;"} & set(words)


def test_the_widget_follows_its_controls(recommender, user_features):
    pytest.importorskip("ipywidgets")
    users = [int(user_features["user_id"].iloc[0]), -1]
    catalog = pd.DataFrame({"product_id": [0], "brand": ["none"]})
    box = stage_explorer(recommender, users, catalog, NOON)
    (user, k), page = box.children[0].children, box.children[1]
    assert "personal" in page.value
    user.value = -1
    assert "popular" in page.value
    k.value = 3
    assert "offered</span>" in page.value
    assert page.value.split("offered")[1].split("0.5em'>")[1].startswith("3<")
