# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Deploy all four stages
#
# In this lab, two models, an index and a table of features become **one service**: a request names
# users, the reply lists products for each, and the service retrieves, filters, scores and orders.
# You first use Merlin's stock operators and see their limits. Then you remove each limit with a
# short operator of your own.
#
# **After this lab you will be able to**
#
# * serve user features from Feast, and say what belongs there and what does not;
# * build a serving graph with Merlin Systems, and write operators for it;
# * export it, and run it on a real Triton Inference Server;
# * measure the latency of the served pipeline, and spend a latency budget.
#
# About 40 minutes.

# %% tags=["parameters"]
# "store", "movielens", or "rees46" with events = "folder/*.csv.gz"
dataset = "store"
# "ci", "laptop" or "gpu"
profile = "laptop"
events = None

# %%
from multistage import datasets
from courseware.records import record
from multistage.tensorflow_setup import quiet
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
data = datasets.load(workspace, events)

# %% [markdown]
# Lab 4 saved its results in `export`, each folder with a manifest. `workspace.read` compares every
# file with its checksum **before** anything is opened, because loading some of these files runs
# code.

# %%
names = ["query_tower", "ranker", "index", "user_features", "item_features", "popularity"]
exported = {name: workspace.read(f"export/{name}") for name in [*names, "context"]}

# %% [markdown]
# ## User features live in Feast
#
# A feature store answers one question quickly: *what are the features of this user now?* Its
# **offline** side is a table with times, for training. Its **online** side holds the newest row per
# key. Other features need no look-up by user: those of the products are known in advance, and the
# time comes with the request.

# %%
import pandas as pd

users = pd.read_parquet(exported["user_features"] / "user_features.parquet")
items = pd.read_parquet(exported["item_features"] / "item_features.parquet")
users.head(3)

# %% [markdown]
# `seen` holds the products that each user bought or put into the cart, `bought` those that they
# bought, both in the order of time. Both lists are in the feature store because they change: after
# a purchase, the next answer must not contain the product.
#
# A Feast repository is a folder. `feature_view` writes the table into it and derives entity and
# view from the table's types. We also write a view of the products, which only the stock graph
# needs. The online store is a SQLite file in that folder, or a Redis server if the environment
# variable `MULTISTAGE_REDIS` names one as `host:port`.

# %%
from multistage.serving.feature_store import (
    begin_repository,
    feature_view,
    materialise,
    online_store,
    open_store,
)

repository = workspace.folder / "serving" / "feature_repository"
begin_repository(repository, online_store())
store = open_store(repository)  # a feast.FeatureStore

product_view = items.select_dtypes("number").assign(
    product_id=items["product_id"].astype("int32"), event_timestamp=users["event_timestamp"].max()
)
store.apply(
    feature_view(repository, "user_features", "user_id", users)
    + feature_view(repository, "item_features", "product_id", product_view)
)

# %% [markdown]
# `apply` has registered the definitions. `materialise` copies the newest row of every key into the
# online store, **up to the latest time in the data**. (With a fixed date in the script, newer rows
# would be missing without an error.)

# %%
materialise(repository)
someone = int(users["user_id"].iloc[0])
store.get_online_features(
    features=["user_features:user_activity", "user_features:seen"],
    entity_rows=[{"user_id": someone}, {"user_id": -1}],
).to_df()[["user_id", "user_activity", "seen"]]

# %% [markdown]
# The second row is an unknown user, for whom Feast returns nulls. The next sections show how both
# graphs handle these nulls.
#
# ## The stock graph
#
# Merlin Systems chains operators with `>>`. This is the four-stage graph as its examples build it:
# query features, run the query tower, search, filter, query the candidates' features, repeat the
# user's features for each candidate, rank, sample. This graph has one source of candidates. It does
# not give the retrieval scores to the ranker, which gets zeros instead.

# %%
import json

from merlin.schema import ColumnSchema, Schema
from merlin.systems.dag import Ensemble
from merlin.systems.dag.ops.faiss import QueryFaiss
from merlin.systems.dag.ops.feast import QueryFeast
from merlin.systems.dag.ops.session_filter import FilterCandidates
from merlin.systems.dag.ops.softmax_sampling import SoftmaxSampling
from merlin.systems.dag.ops.unroll_features import UnrollFeatures
from multistage.serving.stock import PredictHere, without_output

candidates = workspace.profile.candidates


def stock_graph(store, exported, columns, candidates):
    user = ["user_id"] >> QueryFeast.from_feature_view(store, "user_features", "user_id")
    near = (
        user[columns]
        >> PredictHere(exported["query_tower"], "user_vector")
        >> QueryFaiss(exported["index"] / "index.faiss", topk=candidates)
    )
    unseen = near >> FilterCandidates(filter_out=user["seen"])
    product = unseen >> QueryFeast.from_feature_view(
        store, "item_features", "filtered_ids", include_id=True
    )
    pairs = product >> UnrollFeatures("product_id", user[columns] + ["hour", "weekday"])
    scored = pairs >> PredictHere(exported["ranker"], "score")
    ordered = pairs["product_id"] >> SoftmaxSampling(scored["score"], temperature=20.0, topk=10)
    request = [ColumnSchema(name, dtype="int64") for name in ("user_id", "hour", "weekday")]
    return Ensemble(ordered, Schema(request))


user_columns = [c for c in users if c not in ("user_id", "event_timestamp", "seen", "bought")]
with without_output():  # QueryFeast materialises again, and prints it
    stock = stock_graph(store, exported, user_columns, candidates)

# %% [markdown]
# A graph also runs in this process, without a server, which is convenient for development.

# %%
import numpy as np
from merlin.dag.runtime import Runtime
from merlin.table import TensorTable

context = json.loads((exported["context"] / "context.json").read_text())


def ask_stock(*user_ids):
    size = len(user_ids)
    request = {
        "user_id": np.array(user_ids),
        "hour": np.full(size, context["hour"]["12"]),
        "weekday": np.full(size, context["weekday"]["4"]),
    }
    with without_output():
        return stock.transform(TensorTable(request), runtime=Runtime())


ask_stock(someone)["ordered_ids"].values

# %% [markdown]
# One user works. Now a user that the store does not know, and then two users at once:

# %%
for request in ([-1], users["user_id"].iloc[:2].tolist()):
    try:
        ask_stock(*request)
        print(f"{len(request)} user(s): answered")
    except Exception as error:
        lines = str(error).splitlines()
        reason = next((line for line in lines if "must be equal" in line), lines[0])
        print(f"{len(request)} user(s): {type(error).__name__}: {reason[:100]}")

# %% [markdown]
# Neither is a rare case. A shop has new visitors every minute, and a server needs batches to be
# efficient. The causes are in the operators' design:
#
# | operator | what it does | what is needed |
# |---|---|---|
# | `QueryFeast` | casts nulls to integers | defaults, and a fallback status in the reply |
# | `QueryFaiss` | joins all users' candidates into one list | one row of candidates per user |
# | `FilterCandidates` | removes what *any* user of the request has seen | each user's own list |
# | `SoftmaxSampling` | weights `exp(T * s) / sum(s)` | the usual definition of temperature |
#
# There is another problem, without an error message: Merlin's executor evaluates a node once for
# **every path** from the node to the output. How often does this graph query Feast for one user?

# %%
from time import perf_counter


class CountingQuery(QueryFeast):
    calls = 0

    def transform(self, *arguments):
        CountingQuery.calls += 1
        return super().transform(*arguments)


from merlin.dag import postorder_iter_nodes

queries = [n.op for n in postorder_iter_nodes(stock.graph.output_node) if type(n.op) is QueryFeast]
for query in queries:
    query.__class__ = CountingQuery
ask_stock(someone)
print(f"{len(set(map(id, queries)))} Feast operators, {CountingQuery.calls} look-ups per request")

# %%
stock_seconds = []
for user_id in users["user_id"].iloc[:30]:
    start = perf_counter()
    ask_stock(user_id)
    stock_seconds.append(perf_counter() - start)
stock_ms = float(np.median(stock_seconds) * 1_000)
print(f"stock graph, in process, one user: {stock_ms:.1f} ms (median)")

# %% [markdown]
# ## Exclude what each user has seen
#
# The filter has the simplest task of the four stages, but its errors are the most visible: users
# notice when they are offered what they have just bought. In a batch, each row of candidates must
# be compared with **this user's** list only.
#
# ### Exercise 5.1: filter each user's candidates


# %% tags=["exercise-5.1"]
def filter_candidates(candidates: np.ndarray, seen: list[np.ndarray], keep: int) -> np.ndarray:
    """Return each user's first `keep` candidates that this user has not seen.

    Args:
        candidates: (users, width) product ids, from 0 to millions, best first, none twice in a row;
            -1 marks an empty place, anywhere in a row. It may not be changed.
        seen: one array of product ids per user, of any length and in any order, possibly empty; a
            product may stand in it more than once, or not be among the candidates. The list may be
            changed.
        keep: how many to return per user, at least 1; it may be larger than width.

    Returns:
        (users, keep) product ids in the order of `candidates`. Places without a product hold -1 and
        stand at the end of the row.
    """
    ### BEGIN SOLUTION
    kept = np.full((len(candidates), keep), -1, dtype=candidates.dtype)
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        left = ids[(ids != -1) & ~np.isin(ids, mine)][:keep]
        kept[row, : len(left)] = left
    return kept
    ### END SOLUTION


# %% tags=["check-5.1"]
from courseware.exercises import check

check("5.1", filter_candidates)

# %% [markdown]
# ### Exercise 5.2: fill empty places with popular products
#
# After filtering, some users have empty places: they have seen many products, or the index returned
# too few. An unknown user has only empty places. We fill them with popular products.


# %% tags=["exercise-5.2"]
def fill_gaps(candidates: np.ndarray, seen: list[np.ndarray], popular: np.ndarray) -> np.ndarray:
    """Return `candidates` with the empty places filled by popular products.

    Args:
        candidates: (users, width) product ids, from 0 to millions, none twice in a row and none
            that the user has seen; -1 marks an empty place, always at the row's end. It may not be
            changed.
        seen: one array of product ids per user, possibly empty; not to be offered to this user. A
            product may stand in it more than once. The list may be changed.
        popular: (products,) product ids, each once, the most popular first, possibly fewer than
            there are empty places, possibly none. It may not be changed.

    Returns:
        (users, width) product ids. The candidates stay in their places; the empty places after them
        hold the most popular products that the row does not hold and that this user has not seen,
        the most popular first; -1 only where even the popular products run out.
    """
    ### BEGIN SOLUTION
    filled = candidates.copy()
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        there = ids[ids != -1]
        new = popular[~np.isin(popular, np.concatenate([there, mine]))]
        places = np.flatnonzero(ids == -1)[: len(new)]
        filled[row, places] = new[: len(places)]
    return filled
    ### END SOLUTION


# %% tags=["check-5.2"]
check("5.2", fill_gaps)

# %% [markdown]
# ## Sampling with a temperature
#
# To explore, the last stage may sample instead of sorting by score. The usual definition of
# *temperature* is to draw with probabilities proportional to `exp(logit / temperature)`. At a
# temperature near zero the best candidate is almost always drawn; far above one, all candidates are
# nearly equally likely. The stock operator multiplies by the temperature instead, and divides by
# the sum of the scores, which may be negative.
#
# To draw `k` products **without replacement**, add independent Gumbel noise to the scaled logits,
# and take the `k` largest.
#
# ### Exercise 5.3: Gumbel top-k


# %% tags=["exercise-5.3"]
def sample_top_k(
    logits: np.ndarray, temperature: float, k: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `k` of the candidates without replacement, likelier ones first.

    Args:
        logits: (candidates,) whole or fractional numbers, of either sign, possibly in the millions
            and thousands apart; not sorted. It may not be changed.
        temperature: above 0, possibly 1e-12 or 1000; the first draw has probabilities
            softmax(logits / temperature), each further draw the same among the candidates that are
            left.
        k: from 1 to the number of candidates, both included.
        rng: the only source of chance; `rng.gumbel(size=...)` draws Gumbel noise.

    Returns:
        (k,) indices into `logits`, in the order drawn: the first draw first. The same state of
        `rng` gives the same result.
    """
    ### BEGIN SOLUTION
    noisy = logits / temperature + rng.gumbel(size=len(logits))
    return np.argsort(-noisy)[:k]
    ### END SOLUTION


# %% tags=["check-5.3"]
check("5.3", sample_top_k)

# %% [markdown]
# ## Our graph: one path
#
# `multistage.serving.operators` contains these functions as operators for a batch of users: each
# operator is a class with one short method. For example:

# %%
import inspect

from multistage.serving.operators import RetrieveCandidates

print(inspect.getsource(RetrieveCandidates.run))

# %% [markdown]
# The graph is **one path**, so nothing is evaluated twice. Two more decisions make it fast:
# products' features come from a columnar table in memory, exported together with the index, and the
# ranker is called once for all candidates of all users. Between filter and ranker,
# `AddRetrievalScores` adds the scores of lab 4's five sources, which the ranker reads.

# %%
from multistage.serving.exports import gather_exports
from multistage.serving.graph import REPLY, REQUEST_SCHEMA
from multistage.serving.operators import (
    AddRetrievalScores,
    EncodeUsers,
    FilterCandidates as FilterForEach,
    OrderByScore,
    QueryUserFeatures,
    ScoreCandidates,
)


def four_stages(exports, candidates, order):
    path = (
        REQUEST_SCHEMA.column_names
        >> QueryUserFeatures(exports)
        >> EncodeUsers(exports)
        >> RetrieveCandidates(2 * candidates, exports)
        >> FilterForEach(candidates, exports)
        >> AddRetrievalScores(candidates, exports)
        >> ScoreCandidates(candidates, exports)
        >> order
    )
    return Ensemble(path[list(REPLY)], REQUEST_SCHEMA)


exports = gather_exports(workspace, repository)
graph = four_stages(exports, candidates, OrderByScore())

# %% [markdown]
# The request that broke the stock graph, an unknown user among known ones:

# %%
from multistage.serving.graph import Recommender
from multistage.serving.request import FallbackStatus

recommender = Recommender(graph.graph)
noon = data.test["timestamp"].max().normalize().timestamp() + 12 * 3_600
someones = np.array([*users["user_id"].iloc[:2], -1])
answer = recommender.run(someones, time=np.array([noon]), k=np.array([5], "int32"))
pd.DataFrame(
    {
        "user": answer["user_id"],
        "status": [FallbackStatus(s).name.lower() for s in answer["fallback_status"]],
        "products": answer["ordered_ids"].tolist(),
    }
)

# %% [markdown]
# ## Look inside
#
# Select a user and see the result of each stage: what retrieval found, what the filter removed and
# why, the ranker's scores, and the products shown. In the simulated shop, `true_rank` is the
# product's rank among **all** products by this user's true purchase probability.

# %%
from multistage.explorer import explain, stage_explorer

described = data.catalog[["product_id", "brand", "cat_1", "price"]].dropna(axis=1, how="all")
choices = [*users["user_id"].head(20).tolist(), -1]
stage_explorer(recommender, choices, described, noon, data.truth)

# %% [markdown]
# The widget works only in a running notebook. This table shows the same for the first user:

# %%
status, rows = explain(recommender, someone, noon, k=5, truth=data.truth)
rows.head(8)

# %% [markdown]
# ## How much relevance do other orders cost?
#
# The last stage may have other aims than relevance. `OrderBySampling` explores. `OrderByDiversity`
# shows more categories, at the cost of some relevance. We give the scored candidates of the same
# users to each operator, and measure NDCG and the number of categories.

# %%
from multistage.evaluation import Holdout, ndcg_at_k
from multistage.serving.operators import OrderByDiversity, OrderBySampling

task = Holdout.from_data(data.with_validation())
rows_asked = np.flatnonzero(task.warm)[:1_000]
recommender.run(task.user_ids[rows_asked], np.array([noon]), np.array([10], "int32"))
scored = next(s.table for s in recommender.runtime.steps if s.operator == "ScoreCandidates")
categories = items.set_index("product_id")["category"]

orders = {
    "by score": OrderByScore(),
    "sampled at 0.3": OrderBySampling(0.3),
    "sampled at 1": OrderBySampling(1.0),
    "diverse, weight 0.7": OrderByDiversity(0.7, exports),
    "diverse, weight 0.4": OrderByDiversity(0.4, exports),
}
compared = {}
for name, order in orders.items():
    offered = order.run(scored)["ordered_ids"]
    places = pd.Index(task.product_ids).get_indexer(offered.ravel()).reshape(offered.shape)
    compared[name] = {
        "NDCG@10": ndcg_at_k(places, task.relevant[rows_asked], 10).mean(),
        "categories in 10": np.mean([categories.reindex(row).nunique() for row in offered]),
    }
pd.DataFrame(compared).T.round(4)

# %% [markdown]
# More categories, or more exploration, cost relevance. The table shows how much relevance is lost;
# the shop must decide how much loss it accepts.
#
# ## Where the time goes
#
# Our runtime times each step of a request. The figure shows the medians over a few hundred
# requests:

# %%
import matplotlib.pyplot as plt

timings = []
for user_id in users["user_id"].sample(300, random_state=workspace.profile.seed):
    recommender.run(np.array([user_id]), np.array([noon]), np.array([10], "int32"))
    timings.append({step.operator: step.seconds * 1_000 for step in recommender.runtime.steps})
stages = pd.DataFrame(timings).median()[
    [
        "QueryUserFeatures",
        "EncodeUsers",
        "RetrieveCandidates",
        "FilterCandidates",
        "AddRetrievalScores",
        "ScoreCandidates",
        "OrderByScore",
    ]
]
stages.plot.barh(figsize=(7, 2.6), color="#4c78a8", xlabel="milliseconds, median, one user")
plt.gca().invert_yaxis()
plt.tight_layout()
plt.show()

# %% [markdown]
# The look-up of the user's features, retrieval, the retrieval scores and the ranker take most of
# the time. If more time were allowed, for which stage should it be used?
#
# ### Exercise 5.4: spend a latency budget
#
# Each stage has several options: more candidates, a deeper index search, a larger ranker. For each
# option, the milliseconds that it costs and the NDCG that it gains were measured. Choose one option
# per stage.

# %% tags=["exercise-5.4"]
from itertools import product as combinations


def spend_budget(
    stages: dict[str, dict[str, tuple[float, float]]], budget: float
) -> dict[str, str] | None:
    """Choose one option for each stage: the most NDCG that the budget allows.

    Args:
        stages: stage -> option -> (milliseconds, NDCG gained), in no particular order. Both are
            fractional numbers; milliseconds are 0 or more, and a gain may be negative. There is at
            least one stage, and every stage has at least one option. The dict may be changed.
        budget: milliseconds for all stages together; to use all of it is allowed. Sums are compared
            as they are, without rounding (all sums of the check are exact).

    Returns:
        stage -> the option chosen, one for every stage, with the largest sum of gains; of equally
        good choices a cheapest one. None if even the cheapest options exceed the budget.
    """
    ### BEGIN SOLUTION
    best, best_key = None, None
    for chosen in combinations(*stages.values()):
        costs = [options[name] for options, name in zip(stages.values(), chosen, strict=True)]
        milliseconds = sum(cost for cost, _ in costs)
        key = (sum(gain for _, gain in costs), -milliseconds)
        if milliseconds <= budget and (best_key is None or key > best_key):
            best, best_key = dict(zip(stages, chosen, strict=True)), key
    return best
    ### END SOLUTION


# %% tags=["check-5.4"]
check("5.4", spend_budget)

# %% [markdown]
# ## Export, and start a real Triton
#
# An exported graph is a folder: a configuration, the graph, and a copy of everything that its
# operators need. The folder contains no absolute paths, so it can be moved. It also contains
# checksums, which the server verifies before it loads anything.

# %%
from multistage.serving.runtime import ServingRuntime

with workspace.write("serving/model_repository", producer="05-deployment") as folder:
    graph.export(folder, runtime=ServingRuntime())
model_repository = workspace.read("serving/model_repository")
config = (model_repository / "recommender" / "config.pbtxt").read_text()
print(config[: config.index("output")], "...\n", config[config.index("dynamic") :], sep="")

# %% [markdown]
# Three settings of this configuration matter under load. With `dynamic_batching`, Triton collects
# the requests that arrive while the model is busy, up to `max_batch_size`, and runs the stages once
# for all of them. The requests may have different lengths (`allow_ragged_batch`), and no request
# waits for others to arrive. This is correct only because no user's answer depends on the other
# users of a batch.
#
# `TritonServer` starts the server of the package `nvidia-pytriton` (or the one on PATH, in a
# container) on free ports of the loopback interface. Loading TensorFlow takes most of the time.
# `MULTISTAGE_FEATURE_REPOSITORY` tells the server to query the live feature store instead of the
# copy in the export.

# %%
from multistage.serving.triton import LIVE_REPOSITORY, TritonServer

server = TritonServer(model_repository, environment={LIVE_REPOSITORY: str(repository)})
server.start()
print("ready, process", "running" if server.running else "gone")

# %% [markdown]
# A client does not need our package. It sends inputs with shapes and types over gRPC. The first
# dimension is for Triton's batches of requests. Each request is one row; this one asks for two
# users.

# %%
import tritonclient.grpc as grpc

client = grpc.InferenceServerClient(server.grpc_url)
ids = grpc.InferInput("user_id", [1, 2], "INT64")
ids.set_data_from_numpy(np.array([[someone, -1]]))
reply = client.infer("recommender", [ids])
client.close()
reply.as_numpy("ordered_ids")[0]

# %% [markdown]
# Does the server give the same answers as the graph in this process? For every user of a sample,
# the product ids must be equal, and the scores must agree to 1e-5.

# %%
from multistage.serving.client import Client

sample = users["user_id"].sample(min(1_000, len(users)), random_state=1).to_numpy()
here = recommender.run(sample, np.array([noon]), np.array([10], "int32"))
with Client(server.grpc_url) as connection:
    there = connection.recommend(sample, time=noon, k=10)
assert np.array_equal(there.ordered_ids, here["ordered_ids"])
assert np.allclose(there.ordered_scores, here["ordered_scores"], atol=1e-5, equal_nan=True)
print(f"{len(sample)} users: the same products in the same order")

# %% [markdown]
# ## Load test
#
# Four clients send requests at the same time, with one user per request. We measure two percentiles
# of the latency: the median is the time of a typical request, and one request in a hundred takes
# longer than the 99th percentile.

# %%
from multistage.serving.load import run_load

asked = users["user_id"].sample(workspace.profile.requests, replace=True, random_state=2)
load = run_load(
    server.grpc_url,
    [np.array([user_id]) for user_id in asked],
    requests=workspace.profile.requests,
    clients=4,
    time=noon,
    keep_replies=True,
)
record("served_requests", len(load.latencies))
record("errors", len(load.errors))

# %%
record("p50_ms", load.percentile(50))
record("p99_ms", load.percentile(99))

# %% [markdown]
# No user may be offered a product that they have already seen. We check this on every reply,
# against the training data:

# %% tags=["nbval-check-output"]
known = set(zip(data.train["user_id"], data.train["product_id"], strict=True))
offered = {
    (int(user_id), int(product_id))
    for reply in load.replies
    for user_id, row in zip(reply.user_id, reply.ordered_ids, strict=True)
    for product_id in row
}
print(f"products offered that their user already had: {len(offered & known)}")
assert not offered & known


# %%
def users_per_second(size, clients):
    asked = users["user_id"].sample(size * 20, replace=True, random_state=3).to_numpy()
    requests = list(asked.reshape(20, size))
    return run_load(server.grpc_url, requests, 100, clients=clients, time=noon).users_per_second


fig, axes = plt.subplots(1, 3, figsize=(10, 2.6))
axes[0].hist(np.array(load.latencies) * 1_000, bins=40, color="#4c78a8")
axes[0].set(xlabel="milliseconds per request", ylabel="requests", title="one user, four clients")
axes[1].bar(["1", "4", "8"], [users_per_second(1, n) for n in (1, 4, 8)], color="#f58518")
axes[1].set(
    xlabel="clients, one user each", ylabel="users per second", title="batches made by Triton"
)
axes[2].bar(["1", "8", "32"], [users_per_second(size, 1) for size in (1, 8, 32)], color="#f58518")
axes[2].set(
    xlabel="users in a request", ylabel="users per second", title="batches made by the client"
)
plt.tight_layout()
plt.show()

# %% [markdown]
# The server also measures itself. A monitoring system reads the server's metrics page, which shows
# how long requests waited in the queue, and how long their computation took.

# %%
from urllib.request import urlopen

totals = {}
for line in urlopen(server.metrics_url).read().decode().splitlines():
    if line.startswith("nv_inference_") and 'model="recommender"' in line:
        totals[line.split("{")[0]] = float(line.split()[-1])
answered, runs = totals["nv_inference_request_success"], totals["nv_inference_exec_count"]
print(f"{answered:,.0f} requests in {runs:,.0f} runs of the graph")
pd.Series(
    {
        part: totals[f"nv_inference_{part}_duration_us"] / answered / 1_000
        for part in ("queue", "compute_infer", "request")
    },
    name="milliseconds per request",
).plot.barh(figsize=(7, 1.6), color="#54a24b", xlabel="milliseconds per request, batches included")
plt.show()

# %% [markdown]
# One call of the ranker for 3,200 pairs takes far less time than 32 calls for 100 pairs each. So
# all our operators take a batch of users. The batch may come from one request, or Triton may
# collect it from several requests.
#
# ## Fresh features
#
# A user buys the first product on their list. The shop pushes the purchase into the feature store,
# and the next answer no longer contains the product.

# %%
from multistage.serving.feature_store import push_purchase

with Client(server.grpc_url) as connection:
    before = connection.recommend([someone], time=noon, k=3).ordered_ids[0]
    push_purchase(repository, someone, before[0], pd.Timestamp(noon, unit="s", tz="UTC"))
    after = connection.recommend([someone], time=noon, k=3).ordered_ids[0]
print("before:", before, " after:", after)
assert before[0] not in after

# %% [markdown]
# ## Bad requests
#
# How does the service handle bad requests? Each of these gets its own error message, and the next
# request is served.

# %%
from multistage.serving.client import ServerError

with Client(server.grpc_url) as connection:
    for bad in ({"users": []}, {"users": [1], "k": 0}, {"users": [1], "time": float("nan")}):
        try:
            connection.recommend(**bad)
        except ServerError as error:
            print(f"{bad}: {error}")
    print("next request:", connection.recommend([someone]).statuses)

# %% [markdown]
# ## Stop
#
# The server also stops when the notebook's kernel ends, but it is better to stop it explicitly.

# %%
server.stop()

# %% [markdown]
# ## What you have now
#
# A four-stage recommender on a real inference server. It handles batches and unknown users, never
# offers what a user has already seen, has a measured latency and clear error messages. `lab status`
# shows its artifacts.
#
# **Read on:** Covington et al. 2016 on retrieval and ranking at YouTube; Kool et al. 2019 on
# sampling without replacement; Carbonell and Goldstein 1998 on relevance and diversity
# (`OrderByDiversity` implements it: use it instead of `OrderByScore`); the
# [Triton documentation](https://docs.nvidia.com/deeplearning/triton-inference-server/) on metrics
# and on running several instances of a model.
