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
# # 2. Popular architectures, compared honestly
#
# A ranker answers one question: *how likely does this person buy this product, now?* This lab
# prepares features with NVTabular, trains the architectures that everybody names on **one table
# with one budget**, and reads their figures beside a floor and a ceiling.
#
# **After this lab you will be able to**
#
# * build an NVTabular workflow with tags and a schema, and save it for serving;
# * encode a target without leaking it;
# * train DLRM and DCN-v2 with Merlin Models, and XGBoost on Dask;
# * tell a better model from a luckier one.
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
from multistage.notebook import quiet, record
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
data = datasets.load(workspace, events)

# %% [markdown]
# Merlin's models take their shape from a **schema**. TensorFlow is told to be repeatable: same
# seed, same data, same machine, same figures.

# %%
import merlin.models.tf as mm
import nvtabular as nvt
import tensorflow as tf
from merlin.io import Dataset
from merlin.schema import Tags
from nvtabular import ops

tf.keras.utils.set_random_seed(workspace.profile.seed)
tf.config.experimental.enable_op_determinism()

# %% [markdown]
# ## What was known, and when
#
# How active a person is, and how much they usually pay, are good features, if they are taken **as
# of the moment**. A training row sees only what came before it; a row of the test month sees the
# state at the end of training, which is what a feature store will serve.

# %%
from multistage.features import add_user_history, user_history

train = add_user_history(data.train)
state = user_history(data.train)
valid = data.valid.merge(state, on="user_id", how="left")
test = data.test.merge(state, on="user_id", how="left")
train[["user_id", "timestamp", "price", "user_activity", "user_price"]].tail(3)

# %% [markdown]
# ## The mean target, without the target
#
# "Share of carts with this brand that were bought" is a strong feature, and a treacherous one: for
# a brand with three rows, a third of it *is* the label of the row you look at. The cure is to
# compute it **out of fold**: each training row gets the mean over rows of the other folds.
#
# ### Exercise 2.1: a target encoding that does not leak

# %% tags=["exercise-2.1"]
import numpy as np
import pandas as pd


def encode_out_of_fold(
    keys: pd.Series, target: pd.Series, fold: np.ndarray, smoothing: float
) -> np.ndarray:
    """Return for each row the smoothed mean target of its key over the rows of other folds.

    Args:
        keys: (n,) the category of each row.
        target: (n,) 0 or 1, with the same index.
        fold: (n,) the fold of each row.
        smoothing: how many rows the overall mean of `target` counts for.

    Returns:
        (n,) floats: (sum + smoothing * mean) / (count + smoothing), where sum and count run over
        the rows of the same key in other folds. A key that occurs in one fold only gets the mean.
    """
    ### BEGIN SOLUTION
    mean = target.mean()
    by_key = target.groupby(keys.to_numpy()).agg(["sum", "count"]).loc[keys]
    by_key_and_fold = target.groupby([keys.to_numpy(), fold]).agg(["sum", "count"])
    own = by_key_and_fold.loc[list(zip(keys, fold, strict=True))]
    others = by_key.to_numpy() - own.to_numpy()
    return (others[:, 0] + smoothing * mean) / (others[:, 1] + smoothing)
    ### END SOLUTION


# %% tags=["check-2.1"]
from multistage.exercises import check

check("2.1", encode_out_of_fold)

# %% [markdown]
# The package's `TargetEncoding` does the same for several columns. On later rows it gives one
# value a key, and needs no target. It encodes **items only**. The 2022 tutorial also encoded the
# user: that figure, stored with items, tells a model which rows are positive.
#
# What would the leak have looked like? We encode the product in both ways and let the encoding
# alone, with no model at all, predict.

# %%
from multistage.evaluation import auc_interval
from multistage.features import TargetEncoding

item_keys = ["product_id"] + [c for c in ("brand", "cat_0", "cat_1", "cat_2") if data.has(c)]
encoding = TargetEncoding(item_keys)
train = encoding.fit_transform(train)
valid = encoding.transform(valid)
test = encoding.transform(test)

naive_train = encoding.transform(data.train)["product_id_te"]
rows = {
    "own row included": [naive_train, data.train["target"]],
    "out of fold": [train["product_id_te"], data.train["target"]],
    "on the validation month": [valid["product_id_te"], data.valid["target"]],
}
for name, (score, target) in rows.items():
    print(f"AUC of the product's mean target, {name}: {auc_interval(target, score)[0]:.4f}")

# %% [markdown]
# The first figure is what a model sees in training when the row's own label is in its feature. The
# third is what the feature is worth. Out of fold, training is honest about it.
#
# ## An NVTabular workflow
#
# Columns go in at the left, `>>` sends them through an operator, and tags say what they mean.
# `Categorify` maps values to codes: 0 is padding, 1 null, 2 unknown, and real values start at 3.
# The *same* fitted workflow will encode tomorrow's requests.

# %%
from multistage.features import hour, log_price, weekday

user_id = ["user_id"] >> ops.Categorify() >> ops.Rename(name="user")
product_id = ["product_id"] >> ops.Categorify() >> ops.Rename(name="product")
item_columns = [c for c in ("brand", "cat_0", "cat_1", "cat_2") if data.has(c)]
hours = ["timestamp"] >> ops.LambdaOp(hour) >> ops.Rename(name="hour") >> ops.Categorify()
weekdays = ["timestamp"] >> ops.LambdaOp(weekday) >> ops.Rename(name="weekday") >> ops.Categorify()

features = (
    (user_id >> ops.AddMetadata(tags=[Tags.USER, Tags.USER_ID]))
    + (["user_activity"] >> ops.FillMissing() >> ops.Normalize() >> ops.AddMetadata(Tags.USER))
    + (product_id >> ops.AddMetadata(tags=[Tags.ITEM, Tags.ITEM_ID]))
    + (item_columns >> ops.Categorify() >> ops.AddMetadata(Tags.ITEM))
    + ([f"{key}_te" for key in item_keys] >> ops.Normalize() >> ops.AddMetadata(Tags.ITEM))
    + (hours + weekdays >> ops.AddMetadata(Tags.CONTEXT))
    + (["target"] >> ops.AddMetadata(tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET]))
)

# %% [markdown]
# A shop with prices has two features more. The named functions `log_price`, `hour` and `weekday`
# live in an importable module: a saved workflow refers to them by name, and a lambda would be
# pickled into it.

# %%
if data.has("price"):
    usual = float(np.log1p(data.train["price"]).mean())
    features += (
        ["user_price"] >> ops.FillMissing(usual) >> ops.Normalize() >> ops.AddMetadata(Tags.USER)
    )
    features += (
        ["price"] >> ops.LambdaOp(log_price) >> ops.Normalize() >> ops.AddMetadata(Tags.ITEM)
    )

# %%
from multistage.features import fit_workflow, write_table

with workspace.write("features/workflow", producer="02-architectures") as folder:
    fit_workflow(nvt.Workflow(features), Dataset(train), folder)
    encoding.save(folder / "target_encoding.parquet")

workflow = nvt.Workflow.load(workspace.read("features/workflow") / "workflow")
with workspace.write("features/tables", producer="02-architectures") as folder:
    for name, table in {"train": train, "valid": valid, "test": test}.items():
        write_table(workflow.transform(Dataset(table)), folder / name)

# %%
tables = workspace.read("features/tables")
train_set, valid_set, test_set = (
    Dataset(str(tables / name), engine="parquet") for name in ("train", "valid", "test")
)
schema = train_set.schema
pd.DataFrame(
    {
        "tags": {c.name: ", ".join(sorted(t.value for t in c.tags)) for c in schema},
        "values": {c.name: c.int_domain.max + 1 if c.int_domain else "" for c in schema},
    }
)

# %% [markdown]
# ## A floor and a ceiling
#
# The floor is **logistic regression** on the same features, with the small categories one-hot. It
# adds up effects and knows no interactions: if a network cannot beat it, the network has learnt
# nothing about *this person with this product*. The ceiling is the **oracle**, the shop's own
# probability of each purchase.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.compose import make_column_transformer

frames = {
    name: split.compute()
    for name, split in {"train": train_set, "valid": valid_set, "test": test_set}.items()
}
target = frames["test"]["target"].to_numpy()
numbers = schema.select_by_tag(Tags.CONTINUOUS).column_names
small = [
    c for c in schema.select_by_tag(Tags.CATEGORICAL).column_names if c not in ("user", "product")
]

results = {}


def judge(name, score, seconds=0.0, parameters=0):
    """Keep the AUC on the test month, with its interval."""
    auc, low, high = auc_interval(target, score)
    results[name] = {
        "AUC": auc,
        "low": low,
        "high": high,
        "seconds": seconds,
        "parameters": parameters,
    }
    return auc


regression = make_pipeline(
    make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), small), remainder="passthrough"
    ),
    LogisticRegression(max_iter=200),
)
regression.fit(frames["train"][small + numbers], frames["train"]["target"])
judge("logistic regression", regression.predict_proba(frames["test"][small + numbers])[:, 1])

if data.truth is not None:
    truth = data.truth.purchase_probability(
        data.test["user_id"], data.test["product_id"], data.test["timestamp"]
    )
    record("auc_oracle", judge("oracle", truth))

# %% [markdown]
# ## XGBoost on Dask
#
# Boosted trees split numbers and know nothing of embeddings. They still win competitions on
# tables. Merlin wraps XGBoost's Dask training, so the same three lines run on one machine or many.

# %%
import time

from merlin.core.utils import Distributed
from merlin.models.xgb import XGBoost

with Distributed(n_workers=1, threads_per_worker=2):
    start = time.perf_counter()
    trees = XGBoost(
        schema.without(["user", "product"]),
        objective="binary:logistic",
        eval_metric="auc",
        max_depth=6,
        eta=0.1,
        tree_method="hist",
        seed=workspace.profile.seed,
    )
    trees.fit(
        train_set,
        evals=[(valid_set, "valid")],
        num_boost_round=300,
        early_stopping_rounds=20,
        verbose_eval=False,
    )
    seconds = time.perf_counter() - start
    tree_scores = trees.predict(test_set)

# %% tags=["nbval-check-output"]
record("auc_xgboost", judge("XGBoost", tree_scores, seconds))

# %% [markdown]
# ## DLRM
#
# DLRM (Naumov et al. 2019) gives every category an embedding, sends the numbers through a bottom
# MLP to a vector of the same size, takes the **dot product of every pair** of these vectors, and
# lets a top MLP read the products. The pair person × brand is in there by construction.
#
# Forty rows a person are few for eight numbers a person, so embeddings are pulled towards zero
# (L2), and training stops when the validation month stops improving.


# %%
def embeddings():
    """One table a category, 8 numbers a value, pulled towards zero."""
    return mm.Embeddings(
        schema.select_by_tag(Tags.CATEGORICAL),
        dim=8,
        embeddings_regularizer=tf.keras.regularizers.l2(1e-4),
    )


def train_and_judge(name, model):
    """Train with early stopping on the validation month; judge on the test month."""
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-2), metrics=[tf.keras.metrics.AUC(name="auc")]
    )
    start = time.perf_counter()
    history = model.fit(
        mm.Loader(train_set, batch_size=workspace.profile.batch_size, shuffle=True),
        validation_data=mm.Loader(valid_set, batch_size=8_192, shuffle=False),
        epochs=workspace.profile.epochs,
        callbacks=[
            tf.keras.callbacks.EarlyStopping(
                "val_auc", mode="max", patience=1, restore_best_weights=True
            )
        ],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    for epoch, (fitted, kept) in enumerate(
        zip(history.history["auc"], history.history["val_auc"], strict=True), start=1
    ):
        print(f"{name}, epoch {epoch}: AUC {fitted:.4f} in training, {kept:.4f} in validation")
    scores[name] = model.predict(
        mm.Loader(test_set, batch_size=8_192, shuffle=False), verbose=0
    ).ravel()
    return judge(name, scores[name], seconds, model.count_params())


# %%
scores = {"XGBoost": tree_scores}
dlrm = mm.DLRMModel(
    schema,
    embeddings=embeddings(),
    bottom_block=mm.MLPBlock([64, 8]),
    top_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
auc = train_and_judge("DLRM", dlrm)

# %% tags=["nbval-check-output"]
record("auc_dlrm", auc)

# %% [markdown]
# ## DCN-v2
#
# A cross layer (Wang et al. 2021) computes `x0 * (W x + b) + x`: every coordinate of every feature
# meets every other one, and the network learns which meetings matter. Two layers cross up to three
# features.

# %%
dcn = mm.DCNModel(
    schema,
    depth=2,
    # always pass a deep block: the default one is a single instance that all models would share
    deep_block=mm.MLPBlock([64, 32]),
    input_block=mm.InputBlockV2(schema, categorical=embeddings()),
    prediction_tasks=mm.BinaryOutput("target"),
)
auc = train_and_judge("DCN-v2", dcn)

# %% tags=["nbval-check-output"]
record("auc_dcn", auc)

# %% [markdown]
# ## Reading the table

# %%
table = pd.DataFrame(results).T.sort_values("AUC")
if "oracle" in table.index:
    table["skill"] = (table["AUC"] - 0.5) / (table.loc["oracle", "AUC"] - 0.5)
table.drop(columns="seconds").round(4)

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
spread = [table["AUC"] - table["low"], table["high"] - table["AUC"]]
axis.errorbar(table["AUC"], table.index, xerr=spread, fmt="o", capsize=4)
axis.set(xlabel="AUC on the test month, with 95% interval")
axis.grid(axis="x", alpha=0.3)
plt.show()

# %% [markdown]
# **Skill** is the share of the way from chance (0.5) to the oracle that a model has gone. AUC alone
# makes every shop look hard; skill says how much is left to win.
#
# Intervals of two models on one test month overlap easily, although the models were asked about
# the *same rows* and share most of their luck. The right question is whether the **difference**
# is above zero.
#
# ### Exercise 2.2: better, or luckier?

# %% tags=["exercise-2.2"]
from sklearn.metrics import roc_auc_score


def is_better(target: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int) -> bool:
    """Return whether the first model's AUC is above the second's by more than luck.

    Draw the rows anew 100 times, with replacement. Each time compute both AUCs on the same rows
    and keep the difference. The first model is better if 97.5% of the differences are above 0.

    Args:
        target: (n,) 0 or 1.
        first: (n,) scores of the first model.
        second: (n,) scores of the second.
        seed: of the draws.
    """
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(100):
        rows = rng.integers(len(target), size=len(target))
        differences.append(
            roc_auc_score(target[rows], first[rows]) - roc_auc_score(target[rows], second[rows])
        )
    return bool(np.quantile(differences, 0.025) > 0)
    ### END SOLUTION


# %% tags=["check-2.2"]
check("2.2", is_better)

# %%
from itertools import combinations

by_auc = sorted(scores, key=lambda name: results[name]["AUC"], reverse=True)
for first, second in combinations(by_auc, 2):
    verdict = (
        "is" if is_better(target, scores[first], scores[second], seed=0) else "is not shown to be"
    )
    print(f"{first} {verdict} better than {second}")

# %% [markdown]
# ## Summary
#
# * Take features as of the moment, encode targets out of fold, and never encode the user.
# * One table, one budget, a floor, a ceiling, intervals: only then is "model A beats model B" a
#   sentence with a meaning.
# * The workflow is saved: labs 3 to 5 start from the tables it made.
#
# **To read.** Naumov et al., *Deep learning recommendation model* (2019). Wang et al., *DCN V2*
# (2021). Micci-Barreca, *A preprocessing scheme for high-cardinality categorical attributes*
# (2001), for target encoding.
