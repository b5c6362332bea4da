"""A real redis-server as the online store: asked, killed under load, back again."""

import signal
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from conftest import NOON
from lab_5 import create_repository

from multistage.errors import CourseError
from multistage.serving.client import Client
from multistage.serving.feature_store import (
    REDIS,
    OnlineUserFeatures,
    online_store,
    push,
    push_purchase,
    redis,
)
from multistage.serving.load import run_load
from multistage.serving.triton import LIVE_REPOSITORY, TritonServer
from tests.redis_server import BINARY, RedisServer

pytestmark = pytest.mark.skipif(not BINARY, reason="redis-server is not installed")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def live(store, user_features, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live") / "repository"
    create_repository(folder, user_features, redis(store.port))
    return folder


@pytest.fixture(scope="module")
def server(model_repository, live):
    with TritonServer(model_repository, environment={LIVE_REPOSITORY: str(live)}) as server:
        yield server


def test_the_same_features_as_from_sqlite(live, repository, user_features):
    ids = np.append(user_features["user_id"].to_numpy(), [-1, 2**62])
    defaults = {"user": 2, "user_activity": 0.0, "user_price": 0.0}
    columns, lists, known = OnlineUserFeatures(live).read(ids, defaults)
    wanted_columns, wanted_lists, wanted_known = OnlineUserFeatures(repository).read(ids, defaults)
    assert np.array_equal(known, wanted_known)
    for name, column in columns.items():
        assert np.array_equal(column, wanted_columns[name])
    assert set(lists) == set(wanted_lists) == {"seen", "bought"}
    for got, wanted in zip(lists["seen"], wanted_lists["seen"], strict=True):
        assert np.array_equal(got, wanted)


def test_the_server_that_the_environment_names_is_the_online_store(store, monkeypatch):
    monkeypatch.delenv(REDIS, raising=False)
    assert online_store()["type"] == "sqlite"
    monkeypatch.setenv(REDIS, f"127.0.0.1:{store.port}")
    assert online_store() == redis(store.port)


def test_repositories_that_share_a_redis_keep_their_rows_apart(store, user_features, tmp_path):
    of_two = [user_features.iloc[:2], user_features.iloc[1:3]]
    for name, rows in zip("ab", of_two, strict=True):
        create_repository(tmp_path / name, rows, redis(store.port))
    users = user_features["user_id"].tolist()[:3]
    known = [
        [OnlineUserFeatures(tmp_path / name).row(user) is not None for user in users]
        for name in "ab"
    ]
    assert known == [[True, True, False], [False, True, True]]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("6379", "expected host:port, such as 127.0.0.1:6379"),
        ("127.0.0.1:redis", "expected host:port"),
        ("127.0.0.1:1", "no server answers there"),
        ("127.0.0.1:65536", "no server answers there"),
        ("no-such-host.invalid:6379", "no server answers there"),
    ],
)
def test_a_redis_that_cannot_be_used_is_named(monkeypatch, named, words):
    monkeypatch.setenv(REDIS, named)
    with pytest.raises(CourseError, match=words) as refused:
        online_store()
    assert named in str(refused.value)


def test_a_purchase_changes_the_next_answer(server, live, user_features, ask):
    user = int(user_features["user_id"].iloc[7])
    with Client(server.grpc_url) as client:
        before = client.recommend([user], time=NOON).ordered_ids[0]
        assert before.tolist() == ask([user])["ordered_ids"][0].tolist()
        push_purchase(live, user, before[0], datetime(2020, 3, 2, tzinfo=UTC))
        after = client.recommend([user], time=NOON).ordered_ids[0]
    assert before[0] not in after
    # what was bought also raises other products' scores, so the order of the others may change
    assert len(set(after.tolist())) == len(after) == 10
    assert not set(after) & set(user_features["seen"].iloc[7])


def test_a_purchase_counts_whatever_the_time_of_the_features_is(live, user_features):
    """Redis drops a row that is not newer than the one it has."""
    row = user_features.iloc[9]
    user, stored = int(row["user_id"]), row["event_timestamp"].to_pydatetime()
    for product, time in ((7, stored), (8, stored - timedelta(days=3)), (9, stored)):
        push_purchase(live, user, product, time)
    assert OnlineUserFeatures(live).row(user)["bought"][-3:] == [7, 8, 9]
    later = user_features["event_timestamp"] + pd.Timedelta(days=2)
    push(live, user_features.assign(event_timestamp=later).iloc[[9]])


def test_a_user_who_has_bought_everything_gets_nothing_and_another_user_all(
    server, live, user_features, workspace
):
    items = pd.read_parquet(workspace.read("export/item_features") / "item_features.parquet")
    row = user_features.iloc[[8]].copy()
    row["event_timestamp"] += pd.Timedelta(days=1)  # Redis keeps the newest
    row.at[row.index[0], "seen"] = items["product_id"].tolist()
    push(live, row)
    users = user_features["user_id"].to_numpy()[8:10]
    with Client(server.grpc_url) as client:
        reply = client.recommend(users, time=NOON)
    later = user_features["event_timestamp"] + pd.Timedelta(days=2)
    push(live, user_features.assign(event_timestamp=later).iloc[[8]])
    assert reply.statuses == ["personal"] * 2
    assert (reply.ordered_ids[0] == -1).all()
    assert np.isnan(reply.ordered_scores[0]).all()
    assert (reply.ordered_ids[1] > 0).all()


def test_killed_under_load_degrades_every_answer_loses_none_and_recovers(
    server, store, user_features, workspace
):
    users = user_features["user_id"].to_numpy()
    killer = threading.Timer(0.3, store.kill)
    killer.start()
    load = run_load(
        server.grpc_url, list(users.reshape(-1, 1)), 1_000, 2, time=NOON, keep_replies=True
    )
    killer.join()
    statuses = [reply.statuses[0] for reply in load.replies]
    assert load.errors == []
    assert len(load.replies) == 1_000
    assert set(statuses) == {"personal", "degraded"}
    assert all((reply.ordered_ids > 0).all() for reply in load.replies)

    store.start()
    with Client(server.grpc_url) as client:
        assert client.recommend(users[:3], time=NOON).statuses == ["personal"] * 3


def test_a_store_that_hangs_degrades_too(server, store, user_features):
    users = user_features["user_id"].to_numpy()[:2]
    store.process.send_signal(signal.SIGSTOP)
    try:
        with Client(server.grpc_url) as client:
            assert client.recommend(users, time=NOON).statuses == ["degraded"] * 2
            store.process.send_signal(signal.SIGCONT)
            assert client.recommend(users, time=NOON).statuses == ["personal"] * 2
    finally:
        store.process.send_signal(signal.SIGCONT)
