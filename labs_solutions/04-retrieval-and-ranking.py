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
# # 4. Train retrieval and ranking, and judge them together
#
# Lab 2 compared rankers on rows that a log happened to hold. A pipeline is another matter: the
# ranker sees only what retrieval found, and what matters is the ten products that come out at the
# end. This lab trains both stages and judges **the pipeline**, on the whole catalogue, beside peers
# that have no neural network in them.
#
# **After this lab you will be able to**
#
# * train a two-tower model with in-batch negatives and the log-Q correction;
# * measure recall over the catalogue, and say why in-batch recall is something else;
# * train a ranker for the pipeline, and see whether it earns its place;
# * tell which stage loses what, and export everything for serving.
#
# About 40 minutes. It starts from the workflow and the tables that lab 2 made.

# %% tags=["parameters"]
# "store", "movielens", or "rees46" with events = "folder/*.csv.gz"
dataset = "store"
# "ci", "laptop" or "gpu"
profile = "laptop"
events = None

# %%
from multistage import datasets
from multistage.notebook import quiet, record
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
data = datasets.load(workspace, events)
tables = workspace.read("features/tables")
workflow_folder = workspace.read("features/workflow")

# %%
import merlin.models.tf as mm
import numpy as np
import nvtabular as nvt
import pandas as pd
import tensorflow as tf
from merlin.io import Dataset
from merlin.schema import Tags

settings = workspace.profile
tf.keras.utils.set_random_seed(settings.seed)
tf.config.experimental.enable_op_determinism()

train_set = Dataset(str(tables / "train"), engine="parquet")
schema = train_set.schema
user_schema = schema.select_by_tag(Tags.USER)
item_schema = schema.select_by_tag(Tags.ITEM)

# %% [markdown]
# ## Users and products as the models see them
#
# The workflow of lab 2 encodes anything that has its columns. `remove_inputs` leaves the branches
# that the rest can feed: for a table of products, all but the user's and the context's.

# %%
from multistage.features import TargetEncoding, user_history


def encode(frame):
    """Encode the columns that `frame` has with the workflow of lab 2."""
    workflow = nvt.Workflow.load(workflow_folder / "workflow")
    missing = [name for name in workflow.input_schema.column_names if name not in frame]
    return workflow.remove_inputs(missing).transform(Dataset(frame)).compute()


encoding = TargetEncoding.load(workflow_folder / "target_encoding.parquet")
items = encode(encoding.transform(data.catalog))[item_schema.column_names]
state = user_history(data.train)
users = encode(state)[user_schema.column_names]
# A person nobody knows: code 2 is "unknown", and no history at all.
unknown = encode(pd.DataFrame({"user_id": [-1], "user_activity": [0.0], "user_price": [np.nan]}))
unknown = unknown[user_schema.column_names]
unknown

# %% [markdown]
# ## Two towers
#
# One network reads the user, another the product, and their dot product is the score. Because the
# two never meet before the end, every product's vector can be computed **ahead of time**, and
# retrieval becomes a search for the nearest vectors.

# %%
positives = train_set.compute()
positives = positives[positives["target"] == 1].drop(columns="target")
retrieval_schema = user_schema + item_schema
retrieval_set = Dataset(positives[retrieval_schema.column_names], schema=retrieval_schema)


def tower(tower_schema):
    """Embeddings and numbers, then an MLP down to 32 numbers."""
    embeddings = mm.Embeddings(
        tower_schema.select_by_tag(Tags.CATEGORICAL),
        dim=32,
        embeddings_regularizer=tf.keras.regularizers.l2(1e-4),
    )
    return mm.Encoder(
        mm.InputBlockV2(tower_schema, categorical=embeddings),
        mm.MLPBlock([64, 32], no_activation_last_layer=True),
    )


# %% [markdown]
# There are no negatives in a log of purchases. **In-batch negatives** borrow them: for each person,
# the products that the other people of the batch bought. It is cheap, and it is biased: a best
# seller sits in nearly every batch, so it is pushed down again and again for everybody.
#
# The **log-Q correction** (Yi et al. 2019) undoes this. With Q(j) the probability of meeting
# product j as a negative, the logit of j becomes `s_j - log Q(j)` during training.
#
# ### Exercise 4.1: log-Q


# %% tags=["exercise-4.1"]
def corrected_logits(logits: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the logits with the log-Q correction.

    Args:
        logits: (people, products) dot products of a batch.
        probability: (products,) the probability of meeting each product in a batch, above 0.

    Returns:
        (people, products): each logit without the logarithm of its product's probability.
    """
    ### BEGIN SOLUTION
    return logits - np.log(probability)[np.newaxis, :]
    ### END SOLUTION


# %% tags=["check-4.1"]
from multistage.exercises import check

check("4.1", corrected_logits)

# %% [markdown]
# In Merlin the correction is a block behind the output. It wants the frequency of every code; a
# product never bought counts as bought once.

# %%
from merlin.models.tf.outputs.base import DotProduct
from merlin.models.tf.transforms.bias import PopularityLogitsCorrection

frequencies = np.ones(item_schema["product"].int_domain.max + 1)
counts = positives["product"].value_counts()
frequencies[counts.index] += counts.to_numpy()

two_tower = mm.TwoTowerModelV2(
    tower(user_schema),
    tower(item_schema),
    outputs=mm.ContrastiveOutput(
        to_call=DotProduct(),
        negative_samplers="in-batch",
        schema=item_schema.select_by_tag(Tags.ITEM_ID),
        store_negative_ids=True,
        post=PopularityLogitsCorrection(frequencies, schema=item_schema),
    ),
)
two_tower.compile(optimizer=tf.keras.optimizers.Adam(3e-3), metrics=[mm.RecallAt(10)])
history = two_tower.fit(
    # drop_last: RecallAt(10) fails on a last batch of fewer than ten rows
    mm.Loader(
        retrieval_set, batch_size=settings.retrieval_batch_size, shuffle=True, drop_last=True
    ),
    epochs=settings.retrieval_epochs,
    verbose=0,
)
in_batch_recall = history.history["recall_at_10"][-1]
print(f"in-batch recall@10, training: {in_batch_recall:.4f}")

# %% [markdown]
# ## Recall that means something
#
# In-batch recall asks: among the few hundred products of this batch, is the right one near the top?
# The question that matters is asked of the **whole catalogue**. `to_top_k_encoder` puts the product
# vectors behind the query tower.

# %%
from multistage.evaluation import Holdout, bootstrap_interval, ndcg_at_k, recall_at_k

task = Holdout.from_data(data)
item_set = Dataset(items, schema=item_schema)
# the 300 nearest: some of them will have been seen, and go
top_k = two_tower.to_top_k_encoder(
    item_set, k=min(300, len(items)), batch_size=settings.retrieval_batch_size
)
top_k.compile()

row_of_user = pd.Series(np.arange(len(state)), index=state["user_id"])
rows = row_of_user.reindex(task.user_ids)
task_users = pd.concat([users, unknown], ignore_index=True)
task_users = task_users.iloc[rows.fillna(len(users)).astype(int)].reset_index(drop=True)
found = top_k.predict(
    mm.Loader(
        Dataset(task_users, schema=user_schema),
        batch_size=settings.retrieval_batch_size,
        shuffle=False,
    ),
    verbose=0,
)

# %% [markdown]
# The encoder answers with product codes and scores. We lay them out as a matrix of people by
# products, so that the same `Holdout` judges this model and its peers: seen products removed, whole
# catalogue.

# %%
position = pd.Series(np.arange(len(items)), index=items["product"])
retrieval_scores = np.full((len(task.user_ids), len(items)), -np.inf)
np.put_along_axis(
    retrieval_scores,
    position.loc[found.identifiers.ravel()].to_numpy().reshape(found.identifiers.shape),
    found.scores,
    axis=1,
)
retrieved = task.top_k(retrieval_scores, settings.candidates)
retrieval_recall = np.mean(recall_at_k(retrieved, task.relevant, 100))
print(f"in-batch recall@10, training: {in_batch_recall:.4f}")
print(f"catalogue recall@10, test:    {np.mean(recall_at_k(retrieved, task.relevant, 10)):.4f}")
print(f"catalogue recall@100, test:   {retrieval_recall:.4f}")

# %% tags=["nbval-check-output"]
record("retrieval_recall_at_100", retrieval_recall)

# %% [markdown]
# ## A ranker for the pipeline
#
# The ranker of lab 2 learned from carts: *bought, given that it was in the cart*. In the pipeline
# nothing is in a cart yet. The question is *which of these hundred does this person buy*, and it
# takes other negatives: for every purchase, a few products drawn from the catalogue.
#
# A product that the person did buy is no negative, however it was drawn.
#
# ### Exercise 4.2: negatives without false ones


# %% tags=["exercise-4.2"]
def sample_negatives(
    candidates: np.ndarray, bought: list[set[int]], n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw n negatives a person from their candidates.

    Args:
        candidates: (people, k) products to draw from.
        bought: for each person, the products they bought; these are no negatives. At least one
            candidate of each person was not bought.
        n: how many to draw, with replacement.
        rng: the source of chance; the same state gives the same draw.

    Returns:
        (people, n) products, each a candidate of its person and none of them bought.
    """
    ### BEGIN SOLUTION
    negatives = np.empty((len(candidates), n), dtype=candidates.dtype)
    for person, found in enumerate(candidates):
        allowed = found[~np.isin(found, list(bought[person]))]
        negatives[person] = rng.choice(allowed, size=n)
    return negatives
    ### END SOLUTION


# %% tags=["check-4.2"]
check("4.2", sample_negatives)

# %% [markdown]
# For every purchase of training: the features of person and moment as they were, the product that
# was bought with target 1, and the drawn ones with target 0.

# %%
codes = items["product"].to_numpy()
bought = positives.groupby("user")["product"].agg(set).to_dict()
buyers = positives["user"].to_numpy()
rng = np.random.default_rng(settings.seed)
drawn = sample_negatives(
    rng.choice(codes, size=(len(buyers), settings.negatives + 20)),
    [bought[user] for user in buyers],
    settings.negatives,
    rng,
)
context_columns = [*user_schema.column_names, "hour", "weekday"]
context = positives[context_columns].reset_index(drop=True)


def examples(products, target):
    """Rows of person, moment and product, with the target."""
    product_rows = items.iloc[position.loc[products]].reset_index(drop=True)
    return pd.concat([context, product_rows], axis=1).assign(target=np.int8(target))


ranking_rows = pd.concat(
    [examples(positives["product"].to_numpy(), 1)] + [examples(column, 0) for column in drawn.T],
    ignore_index=True,
)[schema.column_names]
print(f"{len(ranking_rows):,} rows, {ranking_rows['target'].mean():.1%} of them bought")

# %%
ranker = mm.DLRMModel(
    schema,
    embeddings=mm.Embeddings(
        schema.select_by_tag(Tags.CATEGORICAL),
        dim=16,
        embeddings_regularizer=tf.keras.regularizers.l2(1e-5),
    ),
    bottom_block=mm.MLPBlock([64, 16]),
    top_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
ranker.compile(optimizer=tf.keras.optimizers.Adam(1e-2), metrics=[tf.keras.metrics.AUC(name="auc")])
history = ranker.fit(
    mm.Loader(Dataset(ranking_rows, schema=schema), batch_size=settings.batch_size, shuffle=True),
    epochs=settings.ranking_epochs,
    verbose=0,
)
print(f"AUC on sampled negatives, training: {history.history['auc'][-1]:.4f}")

# %% [markdown]
# ## The pipeline
#
# Each person asks at the moment of their first event in the test month, and gets the best ten of
# the hundred that retrieval found.

# %%
asked_at = data.test.groupby("user_id")["timestamp"].min().loc[task.user_ids]
moments = encode(pd.DataFrame({"timestamp": asked_at.to_numpy()}))
pairs = pd.concat(
    [
        task_users.loc[task_users.index.repeat(retrieved.shape[1])].reset_index(drop=True),
        moments.loc[moments.index.repeat(retrieved.shape[1])].reset_index(drop=True),
        items.iloc[np.maximum(retrieved, 0).ravel()].reset_index(drop=True),
    ],
    axis=1,
).assign(target=np.int8(0))[schema.column_names]
logits = ranker.predict(
    mm.Loader(Dataset(pairs, schema=schema), batch_size=16_384, shuffle=False), verbose=0
).reshape(retrieved.shape)
logits = np.where(retrieved >= 0, logits, -np.inf)
ranked = np.take_along_axis(retrieved, np.argsort(-logits, axis=1, kind="stable"), axis=1)

# %% [markdown]
# Beside it, on the same task: peers without a network, the ranking that retrieval alone would give,
# and the oracle.

# %%
from multistage.evaluation import baselines

lists = {
    "popularity": task.top_k(baselines.popularity(task.purchases, task.history), 100),
    "ALS": task.top_k(baselines.als(task.purchases, task.history), 100),
    "EASE": task.top_k(baselines.ease(task.purchases, task.history), 100),
    "retrieval alone": retrieved,
    "two stages": ranked,
}
if data.truth is not None:
    lists["oracle"] = task.top_k(data.truth.purchase_intensity(task.user_ids), 100)

results = {}
for name, recommended in lists.items():
    ndcg = ndcg_at_k(recommended, task.relevant, 10)
    low, high = bootstrap_interval(ndcg)
    results[name] = {
        "NDCG@10": ndcg.mean(),
        "low": low,
        "high": high,
        "recall@100": recall_at_k(recommended, task.relevant, 100).mean(),
        "NDCG@10, warm": ndcg[task.warm].mean(),
        "NDCG@10, cold": ndcg[~task.warm].mean() if (~task.warm).any() else np.nan,
    }
pd.DataFrame(results).T.round(4)

# %% tags=["nbval-check-output"]
record("two_stage_ndcg_at_10", results["two stages"]["NDCG@10"])
record("popularity_ndcg_at_10", results["popularity"]["NDCG@10"])
record("als_ndcg_at_10", results["ALS"]["NDCG@10"])
record("ease_ndcg_at_10", results["EASE"]["NDCG@10"])
if "oracle" in results:
    record("oracle_ndcg_at_10", results["oracle"]["NDCG@10"])

# %% [markdown]
# Read it with care. A ranker can only reorder what it gets: its recall@100 *is* retrieval's.
# Compare "two stages" with "retrieval alone": a second stage is not better by being second. It
# earns its place with what retrieval cannot know, the hour, the price of the moment, crosses of
# features, and it has to show that in this table. And a peer as simple and as close as EASE is a
# fine thing to have: as a fallback, as a second source of candidates, and as a reason to stay
# modest.
#
# ## Where is the loss?
#
# Replace one stage by the best and by the worst possible one. The stage with the longest bar is the
# one to mend.

# %%
import matplotlib.pyplot as plt

relevant_here = np.take_along_axis(task.relevant.toarray(), np.maximum(retrieved, 0), axis=1) * (
    retrieved >= 0
)
perfect = np.take_along_axis(retrieved, np.argsort(-relevant_here, axis=1, kind="stable"), axis=1)
chance = np.random.default_rng(0).permuted(retrieved, axis=1)
swaps = {
    "ranker by chance": ndcg_at_k(chance, task.relevant, 10).mean(),
    "as it is": results["two stages"]["NDCG@10"],
    "perfect ranker": ndcg_at_k(perfect, task.relevant, 10).mean(),
    "perfect retrieval and ranker": 1.0,
}
figure, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
bars = axis.barh(list(swaps)[::-1], list(swaps.values())[::-1])
axis.bar_label(bars, fmt="%.3f", padding=3)
axis.set(xlabel="NDCG@10", xlim=(0, 1.1))
plt.show()

# %% [markdown]
# ## Export
#
# Lab 5 serves what stands here. Each artifact is a folder with a manifest: its files' checksums,
# their columns, the data set, the seed and the versions that made it.

# %%
import faiss

producer = "04-retrieval-and-ranking"
with workspace.write("export/query_tower", producer) as folder:
    two_tower.query_encoder.save(str(folder))
with workspace.write("export/ranker", producer) as folder:
    ranker.save(str(folder))

vectors = two_tower.candidate_embeddings(
    item_set, index=Tags.ITEM_ID, batch_size=settings.retrieval_batch_size
).compute()
vectors = vectors.loc[items["product"]].to_numpy(dtype="float32")
product_ids = data.catalog["product_id"].to_numpy()
with workspace.write("export/item_embeddings", producer) as folder:
    pd.DataFrame({"product_id": product_ids, "embedding": list(vectors)}).to_parquet(
        folder / "item_embeddings.parquet"
    )

index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
index.add_with_ids(vectors, product_ids)
with workspace.write("export/index", producer) as folder:
    faiss.write_index(index, str(folder / "index.faiss"))

# %% [markdown]
# The features as the models read them: users for the feature store, with what each has seen;
# products as a snapshot that goes with the index; how a moment is encoded; the best sellers, for
# people nobody knows.

# %%
import json

seen = data.train.groupby("user_id")["product_id"].agg(list)
user_features = pd.concat([state[["user_id"]], users], axis=1).assign(
    seen=state["user_id"].map(seen), event_timestamp=data.train["timestamp"].max()
)
with workspace.write("export/user_features", producer) as folder:
    user_features.to_parquet(folder / "user_features.parquet")

recent = data.train["timestamp"] > data.train["timestamp"].max() - pd.Timedelta(days=60)
item_features = pd.concat([data.catalog[["product_id"]], items], axis=1).assign(
    available=data.catalog["product_id"].isin(data.train.loc[recent, "product_id"]),
    category=data.catalog["cat_1"].fillna("unknown"),
)
with workspace.write("export/item_features", producer) as folder:
    item_features.to_parquet(folder / "item_features.parquet")

best_sellers = pd.DataFrame(
    {
        "product_id": product_ids,
        "purchases": np.asarray(task.purchases.sum(axis=0)).ravel().astype("int64"),
    }
).sort_values("purchases", ascending=False, kind="stable", ignore_index=True)
with workspace.write("export/popularity", producer) as folder:
    best_sellers.to_parquet(folder / "popularity.parquet")

week = pd.date_range("2019-10-07", periods=7 * 24, freq="h", tz="UTC")  # from a Monday
codes_of_week = encode(pd.DataFrame({"timestamp": week}))
context = {
    "hour": {str(t.hour): int(c) for t, c in zip(week, codes_of_week["hour"], strict=True)},
    "weekday": {
        str(t.weekday()): int(c) for t, c in zip(week, codes_of_week["weekday"], strict=True)
    },
    "unknown_user": {name: unknown[name].iloc[0].item() for name in unknown},
}
with workspace.write("export/context", producer) as folder:
    (folder / "context.json").write_text(json.dumps(context, indent=1))

# %%
pd.Series(
    {
        name: sum(f.stat().st_size for f in (workspace.folder / name).rglob("*")) // 1024
        for name in workspace.artifacts()
        if name.startswith("export/")
    },
    name="KiB",
).to_frame()

# %% [markdown]
# ## Summary
#
# * Retrieval is judged over the catalogue, not inside a batch; the log-Q correction keeps best
#   sellers from being punished for being popular.
# * A ranker is judged on the candidates that it will really see, beside retrieval's own order.
# * Judge the pipeline as a whole, beside simple peers and a ceiling, with warm and cold apart.
#
# **To read.** Yi et al., *Sampling-bias-corrected neural modeling* (2019). Covington et al.,
# *YouTube recommendations* (2016). Dacrema et al., *Are we really making much progress?* (2019),
# on peers that were never tuned.
