"""The four stages in this process, on a thousand users of a toy shop."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import CANDIDATES, NOON
from lab_5 import create_repository, four_stages
from standin import SCORE_COLUMNS

from multistage.serving.request import FallbackStatus, RequestError


@pytest.fixture(scope="module")
def users(user_features):
    return user_features["user_id"].to_numpy()


@pytest.fixture(scope="module")
def all_answers(ask, users):
    return ask(users)


def test_answers_do_not_depend_on_who_else_asks(ask, users, all_answers):
    order = np.random.default_rng(0).permutation(len(users))
    for size in (1, 7, 200):
        for start in range(0, 200 if size == 1 else len(users), size):
            rows = order[start : start + size]
            answer = ask(users[rows])
            assert np.array_equal(answer["ordered_ids"], all_answers["ordered_ids"][rows])
            assert np.allclose(
                answer["ordered_scores"], all_answers["ordered_scores"][rows], rtol=0, atol=1e-5
            )


def test_no_product_comes_back_that_its_user_has_seen_or_that_is_not_available(
    all_answers, user_features, workspace
):
    items = pd.read_parquet(workspace.read("export/item_features") / "item_features.parquet")
    available = set(items["product_id"][items["available"]])
    for offered, seen in zip(all_answers["ordered_ids"], user_features["seen"], strict=True):
        assert not set(offered) & set(seen)
        assert set(offered) <= available
        assert len(set(offered)) == len(offered)


def test_scores_fall_and_are_those_of_the_ranker(
    ask, all_answers, exports, user_features, users, recommender
):
    from multistage.serving.catalog import Context
    from multistage.serving.saved_model import SavedModel

    assert (np.diff(all_answers["ordered_scores"], axis=1) <= 0).all()
    items = pd.read_parquet(exports / "item_features" / "item_features.parquet")
    row = 5
    products = items.set_index("product_id").loc[all_answers["ordered_ids"][row]]
    context = Context.read(exports / "context").encode(np.array([NOON]))
    columns = {name: products[name].to_numpy() for name in products}
    for name in ("user", "user_activity", "user_price"):
        columns[name] = np.full(10, user_features[name].iloc[row])
    columns |= {name: np.full(10, value) for name, value in context.items()}
    ask(users[row : row + 1])
    rated = next(s.table for s in recommender.runtime.steps if s.operator == "AddRetrievalScores")
    place = pd.Index(rated["candidate_ids"].values[0]).get_indexer(all_answers["ordered_ids"][row])
    columns |= {name: rated[name].values[0][place] for name in SCORE_COLUMNS}
    scores = SavedModel(exports / "ranker")(columns)[:, 0]
    assert np.allclose(scores, all_answers["ordered_scores"][row], atol=1e-6)


def test_what_the_sources_think_is_computed_from_the_users_own_lists(
    ask, exports, user_features, users, recommender
):
    """Against plain loops, for one user among others."""
    from scipy.sparse import load_npz

    ask(users[:8])
    rated = next(s.table for s in recommender.runtime.steps if s.operator == "AddRetrievalScores")
    items = pd.read_parquet(exports / "item_features" / "item_features.parquet")
    row, ids = 3, items["product_id"].to_list()
    candidates = [ids.index(product) for product in rated["candidate_ids"].values[row]]
    bought = [ids.index(product) for product in user_features["bought"].iloc[row]]
    weights = load_npz(exports / "ease" / "bought.npz").toarray()
    for source, history in {"bought": bought, "recent": bought[-5:]}.items():
        scores = np.array([sum(weights[own, c] for own in history) for c in candidates])
        wanted = (scores - scores.mean()) / (scores.std() + 1e-6)
        np.testing.assert_allclose(
            rated[f"{source}_score"].values[row], wanted, rtol=1e-3, atol=1e-5
        )
    popularity = pd.read_parquet(exports / "popularity" / "popularity.parquet")
    counts = popularity.set_index("product_id")["purchases"]
    ranks = rated["popular_rank"].values[row]
    best = rated["candidate_ids"].values[row][ranks == 0]
    assert best.size == 1
    assert counts[best[0]] == counts[rated["candidate_ids"].values[row]].max()


def test_the_time_of_the_request_reaches_the_ranker(ask, users, all_answers):
    night = ask(users, time=NOON + 9 * 3_600)
    assert not np.allclose(night["ordered_scores"], all_answers["ordered_scores"])


def test_unknown_negative_and_huge_ids_get_popular_products(ask, users, workspace):
    popular = pd.read_parquet(workspace.read("export/popularity") / "popularity.parquet")
    items = pd.read_parquet(workspace.read("export/item_features") / "item_features.parquet")
    offered = popular["product_id"][popular["product_id"].isin(items.query("available").product_id)]
    answer = ask([users[0], -1, 2**63 - 1, -(2**63), users[1]])
    assert answer["fallback_status"].tolist() == [0, 1, 1, 1, 0]
    for row in (1, 2, 3):
        assert answer["ordered_ids"][row].tolist() == offered.head(10).tolist()
    alone = ask([users[0]])
    assert np.array_equal(alone["ordered_ids"][0], answer["ordered_ids"][0])


def test_the_same_user_twice(ask, users):
    answer = ask([users[3]] * 3)
    assert (answer["ordered_ids"] == answer["ordered_ids"][0]).all()


def test_a_large_request_is_answered_in_parts_of_different_width(ask, users, all_answers):
    k = np.full(2_500, 2, "int32")
    k[1_200] = 10
    answer = ask(np.resize(users, 2_500), k=k)
    assert answer["ordered_ids"].shape == answer["ordered_scores"].shape == (2_500, 10)
    assert np.array_equal(answer["ordered_ids"][1_200], all_answers["ordered_ids"][200])
    others = np.arange(2_500) != 1_200
    wanted = np.resize(all_answers["ordered_ids"][:, :2], (2_500, 2))
    assert np.array_equal(answer["ordered_ids"][others, :2], wanted[others])
    assert (answer["ordered_ids"][others, 2:] == -1).all()
    assert np.isnan(answer["ordered_scores"][others, 2:]).all()


def test_requests_answered_together_get_what_each_gets_alone(recommender, users):
    """Of different length, width and time; together they are more than one part of the graph."""
    requests = [
        recommender.check(np.resize(users, size), np.array([NOON + size]), np.array([k], "int32"))
        for size, k in ((1, 3), (700, 10), (2, CANDIDATES), (700, 1))
    ]
    for request, reply in zip(requests, recommender.run_together(requests), strict=True):
        assert reply["ordered_ids"].shape == (len(request[0]), request[2].max())
        for name, column in recommender.run(*request).items():
            assert np.array_equal(reply[name], column, equal_nan=True)


def test_k_of_each_user(ask, users):
    answer = ask(users[:2], k=[2, CANDIDATES])
    assert answer["ordered_ids"].shape == (2, CANDIDATES)
    assert (answer["ordered_ids"][0, 2:] == -1).all()
    with pytest.raises(RequestError, match=f"between 1 and {CANDIDATES}"):
        ask(users[:1], k=CANDIDATES + 1)


def test_another_last_stage_changes_the_order_and_not_the_promise(exports, users, user_features):
    from multistage.serving.graph import Recommender
    from multistage.serving.operators import OrderByDiversity, OrderBySampling

    plain = None
    for order in (None, OrderBySampling(2.0), OrderByDiversity(0.3, exports)):
        recommender = Recommender(four_stages(exports, CANDIDATES, order).graph)
        answer = recommender.run(users[:50], np.array([NOON]), np.array([10], "int32"))
        for offered, seen in zip(answer["ordered_ids"], user_features["seen"], strict=False):
            assert not set(offered) & set(seen)
        if plain is None:
            plain = answer["ordered_ids"]
        else:
            assert not np.array_equal(plain, answer["ordered_ids"])
        half = recommender.run(users[25:50], np.array([NOON]), np.array([10], "int32"))
        assert np.array_equal(half["ordered_ids"], answer["ordered_ids"][25:])


def changed(exports, tmp_path, users):
    """Return a copy of the exports with a feature store of these ``users``."""
    copy = tmp_path / "inputs"
    shutil.copytree(exports, copy)
    shutil.rmtree(copy / "feature_repository")
    create_repository(copy / "feature_repository", users)
    return copy


def answer_of(folder, users):
    from multistage.serving.graph import Recommender

    recommender = Recommender(four_stages(folder, CANDIDATES).graph)
    return recommender.run(np.array(users), np.array([NOON]), np.array([10], "int32"))


def test_a_user_who_has_everything_gets_nothing_and_another_user_all(
    exports, tmp_path, user_features, workspace
):
    items = pd.read_parquet(workspace.read("export/item_features") / "item_features.parquet")
    two = user_features.head(2).copy()
    two.at[0, "seen"] = items["product_id"].tolist()
    answer = answer_of(changed(exports, tmp_path, two), two["user_id"])
    assert (answer["ordered_ids"][0] == -1).all()
    assert np.isnan(answer["ordered_scores"][0]).all()
    assert (answer["ordered_ids"][1] > 0).all()


def test_an_index_with_fewer_products_than_asked_is_filled_up(exports, tmp_path, user_features):
    from standin import write_index

    few = user_features.head(3)
    copy = changed(exports, tmp_path, few)
    ids = pd.read_parquet(exports / "item_features" / "item_features.parquet")["product_id"]
    write_index(copy / "index" / "index.faiss", np.ones((2, 8), "float32"), ids.to_numpy()[5:7])
    answer = answer_of(copy, few["user_id"])
    assert answer["fallback_status"].tolist() == [FallbackStatus.PERSONAL] * 3
    assert (answer["ordered_ids"] > 0).all()


def test_every_node_runs_once(recommender, ask, users):
    ask(users[:2])
    names = [step.operator for step in recommender.runtime.steps]
    assert len(names) == len(set(names))
    assert names.index("RetrieveCandidates") < names.index("FilterCandidates")


def test_an_export_names_no_place_and_holds_no_lambda(model_repository, workspace, repository):
    import pickletools

    places = [str(workspace.course).encode(), str(repository).encode(), b"site-packages"]
    for file in model_repository.rglob("*"):
        if file.is_file():
            assert not any(place in file.read_bytes() for place in places), file.name
    pickled = (model_repository / "recommender" / "1" / "graph.pkl").read_bytes()
    assert b"lambda" not in pickled
    assert "cloudpickle" not in {
        str(argument) for _, argument, _ in pickletools.genops(pickled) if argument
    }


@pytest.mark.parametrize(
    "file", ["graph.pkl", "ranker/saved_model.pb", "index/index.faiss", "model.py"]
)
def test_a_changed_byte_refuses_to_load_and_names_the_file(model_repository, tmp_path, file):
    from multistage.serving.runtime import load_graph

    copy = tmp_path / "copy"
    shutil.copytree(model_repository / "recommender" / "1", copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        load_graph(copy)


def test_a_truncated_and_an_added_file_refuse_to_load(model_repository, tmp_path):
    from multistage.serving.runtime import load_graph, verify_checksums

    copy = tmp_path / "copy"
    shutil.copytree(model_repository / "recommender" / "1", copy)
    (copy / "extra.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"extra\.pkl"):
        verify_checksums(copy)
    (copy / "extra.pkl").unlink()
    verify_checksums(copy)
    embeddings = copy / "query_tower" / "variables" / "variables.data-00000-of-00001"
    embeddings.write_bytes(embeddings.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"variables\.data"):
        load_graph(copy)


def test_checksums_are_part_of_the_export(model_repository):
    sums = json.loads((model_repository / "recommender" / "1" / "checksums.json").read_text())
    assert {"graph.pkl", "model.py", "index/index.faiss"} <= sums.keys()


def test_a_full_disk_leaves_the_last_export_as_it_was(workspace, graph):
    """The limit on a file's size stands in for a disk that is full: the same error, an OSError."""
    import resource

    from multistage.serving.runtime import ServingRuntime

    def export():
        with workspace.write("serving/full_disk", producer="05-deployment") as folder:
            graph.export(folder, runtime=ServingRuntime())

    export()
    before = (workspace.folder / "serving" / "full_disk" / "manifest.json").read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            export()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    folder = workspace.read("serving/full_disk")
    assert (folder / "manifest.json").read_text() == before
    assert not [f for f in folder.parent.iterdir() if f.name.startswith(".full_disk")]


def test_of_two_exports_at_once_one_wins_whole(workspace, graph):
    from concurrent.futures import ThreadPoolExecutor

    from multistage.serving.runtime import ServingRuntime, load_graph

    def export(_):
        with workspace.write("serving/raced", producer="05-deployment") as folder:
            graph.export(folder, runtime=ServingRuntime())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(export, range(6)))
    folder = workspace.read("serving/raced")
    assert load_graph(folder / "recommender" / "1").output_schema == graph.output_schema
    assert not [f for f in folder.parent.iterdir() if f.name.startswith(".raced")]


def test_a_truncated_export_of_section_4_is_refused_before_it_is_gathered(workspace, repository):
    from multistage.serving.exports import gather_exports
    from multistage.workspace import ArtifactError

    file = workspace.folder / "export" / "popularity" / "popularity.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    try:
        with pytest.raises(ArtifactError, match=r"popularity\.parquet is changed"):
            gather_exports(workspace, repository)
    finally:
        file.write_bytes(content)
    gather_exports(workspace, repository)
