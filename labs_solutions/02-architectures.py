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
# # 2. Popular architectures, compared under equal conditions
#
# A ranker answers one question: *how likely is it that this user buys this product now?* This lab
# prepares features with NVTabular, trains the best-known architectures on **the same table with the
# same budget**, and compares their metrics with a baseline and an upper bound.
#
# **After this lab you will be able to**
#
# * build an NVTabular workflow with tags and a schema, and save it for serving;
# * encode a target without leaking it;
# * train DLRM, DCN-v2, Wide & Deep and DeepFM with Merlin Models, and XGBoost on Dask;
# * search sizes and regularisation on the validation month, and stop training early;
# * test whether one model is better than another, and whether its probabilities are calibrated;
# * choose a loss, and train a network for a binary target, for many classes or for two tasks.
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
from multistage.tensorflow_setup import create_weights, lean_tensorflow, quiet
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
data = datasets.load(workspace, events)

# %% [markdown]
# Merlin's models take their inputs from a **schema**. TensorFlow is set to be deterministic: same
# seed, same data, same machine, same figures. `lean_tensorflow` switches two steps off: AutoGraph,
# which rewrites Merlin's Python before a training step is traced (it looks for loops over tensors,
# and there are none), and the tuning of how batches are read (ours are in memory). With many small
# models, these two steps would take longer than the training.

# %%
import merlin.models.tf as mm
import nvtabular as nvt
import tensorflow as tf
from merlin.io import Dataset
from merlin.schema import Tags
from nvtabular import ops

tf.keras.utils.set_random_seed(workspace.profile.seed)
tf.config.experimental.enable_op_determinism()
lean_tensorflow()

# %% [markdown]
# ## What was known, and when
#
# How active a user is, and how much they usually pay, are good features, if they hold only what was
# known **at that time**. A training row gets the user's state just before the row's time. A row of
# the test month gets the state at the end of training, which is what a feature store will serve.

# %%
from multistage.features import add_user_history, user_history

train = add_user_history(data.train)
state = user_history(data.train)
valid = data.valid.merge(state, on="user_id", how="left")
test = data.test.merge(state, on="user_id", how="left")
train[["user_id", "timestamp", "price", "user_activity", "user_price"]].tail(3)

# %% [markdown]
# ## Target encoding without a leak
#
# "Share of carts with this brand that were bought" is a strong feature, and it can leak the target:
# for a brand with three rows, the row's own label makes up a third of the feature. So the feature
# is computed **out of fold**: each training row gets the mean over the rows of the other folds.
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
        target: (n,) 0 or 1, with the same index: any labels, in any order; labels may repeat.
        fold: (n,) the fold of each row: any integers, for example 3 and 7.
        smoothing: how many rows the overall mean of `target` counts for; above 0.

    Returns:
        (n,) floats (32 or 64 bit) in the order of the rows: (sum + smoothing * mean) / (count +
        smoothing), where sum and count run over the rows of the same key in other folds, and mean
        over all rows. A key that occurs in one fold only gets the mean. The arguments are not
        changed, nor is their index.
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
from courseware.exercises import check

check("2.1", encode_out_of_fold)

# %% [markdown]
# The package's `TargetEncoding` does the same for several columns. On later rows it gives one value
# per key, and needs no target. It encodes **items only**. The 2022 tutorial also encoded the user,
# and stored this value with the items: such a value shows a model which rows are positive (lab 1).
#
# How large would the leak be? We encode the product in both ways and use the encoding itself as the
# prediction, without a model.

# %%
from sklearn.metrics import roc_auc_score

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
    print(f"AUC of the product's mean target, {name}: {roc_auc_score(target, score):.4f}")

# %% [markdown]
# The first AUC is what a model sees in training if the row's own label is in the feature. The third
# AUC shows how good the feature is on new rows. The second AUC, out of fold, is not higher than the
# third.
#
# NVTabular has a `TargetEncoding` operator, which is out of fold as well. But it also uses folds in
# *transform*, where a row's fold depends on its place in the table. So test rows of one product get
# different values:

# %%
from tempfile import TemporaryDirectory

columns = ["product_id", "target"]
with TemporaryDirectory() as folder:
    by_place = ["product_id"] >> ops.TargetEncoding("target", kfold=5, p_smooth=20, out_path=folder)
    stock_encoding = nvt.Workflow(by_place + nvt.ColumnSelector(columns))
    stock_encoding.fit(Dataset(data.train[columns]))
    stock_test = stock_encoding.transform(Dataset(data.test[columns])).compute()

for name, values in {
    "NVTabular's": stock_test.groupby("product_id")["TE_product_id_target"].nunique(),
    "ours": test.groupby("product_id")["product_id_te"].nunique(),
}.items():
    print(f"{name}: {values.mean():.1f} different values per product in the test month")

# %% [markdown]
# The same product would get another value in the third row of a request than in the first. And the
# operator cannot transform a request at all, because a request has no target column. So we use
# ours.
#
# ## An NVTabular workflow
#
# Columns are on the left, `>>` sends them through an operator, and tags say what the columns mean.
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
# A shop with prices has three more features: what the user usually pays, the price, and the price
# **relative to the mean of its category**, which `JoinGroupby` computes. The functions are defined
# in an importable module, because a saved workflow refers to them by name, while a lambda would be
# pickled into it. (`JoinGroupby` gives a product without a category the mean `inf`; the function
# then returns 0, "as usual".)

# %%
from multistage.features import relative_price

if data.has("price"):
    usual = float(np.log1p(data.train["price"]).mean())
    features += (
        ["user_price"] >> ops.FillMissing(usual) >> ops.Normalize() >> ops.AddMetadata(Tags.USER)
    )
    features += (
        ["price"] >> ops.LambdaOp(log_price) >> ops.Normalize() >> ops.AddMetadata(Tags.ITEM)
    )
    mean_price = ["cat_1"] >> ops.JoinGroupby(cont_cols=["price"], stats=["mean"])
    features += (
        ["price"]
        >> ops.LambdaOp(relative_price, dependency=[mean_price])
        >> ops.Rename(name="relative_price")
        >> ops.Normalize()
        >> ops.AddMetadata(Tags.ITEM)
    )

# %%
from multistage.features import fit_workflow, write_table

with workspace.write("features/workflow", producer="02-architectures") as folder:
    fit_workflow(nvt.Workflow(features), Dataset(train), folder)
    encoding.save(folder / "target_encoding.parquet")

workflow = nvt.Workflow.load(workspace.read("features/workflow") / "workflow")
frames = {
    name: workflow.transform(Dataset(rows)).compute()
    for name, rows in {"train": train, "valid": valid, "test": test}.items()
}
schema = workflow.output_schema
pd.DataFrame(
    {
        "tags": {c.name: ", ".join(sorted(t.value for t in c.tags)) for c in schema},
        "values": {c.name: c.int_domain.max + 1 if c.int_domain else "" for c in schema},
    }
)

# %% [markdown]
# Labs 3 to 5 start from these tables. A ranker that is served needs every feature at request time,
# so each feature must improve the ranking enough to justify this cost. Below we test the relative
# price; the tables for later labs do not contain it.

# %%
served = schema.without(["relative_price"])
with workspace.write("features/tables", producer="02-architectures") as folder:
    for name, frame in frames.items():
        write_table(Dataset(frame[served.column_names], schema=served), folder / name)

# %% [markdown]
# ## A baseline and an upper bound
#
# The baseline is **logistic regression** on the same features: a weight for each value of each
# category, users and products included, and one for each number. Logistic regression adds up
# effects and has no interactions: if a network is not better, the network has learned nothing about
# *this user with this product*. The upper bound is the **oracle**, the shop's true probability of
# each purchase.

# %%
import time

from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from multistage.evaluation import auc_interval

target = frames["test"]["target"].to_numpy()
categories = schema.select_by_tag(Tags.CATEGORICAL)
numbers = schema.select_by_tag(Tags.CONTINUOUS)

results, scores = {}, {}


def judge(name, score, seconds=0.0, parameters=0):
    """Keep the metrics of a model's probabilities for the test month."""
    scores[name] = np.asarray(score, dtype="float64").ravel()
    auc, low, high = auc_interval(target, scores[name])
    results[name] = {
        "AUC": auc,
        "low": low,
        "high": high,
        "log-loss": log_loss(target, scores[name]),
        "parameters": parameters,
        "seconds": seconds,
    }
    return auc


regression = make_pipeline(
    make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), categories.column_names),
        ("passthrough", numbers.column_names),
    ),
    # Newton's method converges in five steps; the default solver needs over a hundred.
    LogisticRegression(C=0.3, solver="newton-cg", tol=1e-3),
)
start = time.perf_counter()
regression.fit(frames["train"], frames["train"]["target"])
seconds = time.perf_counter() - start
score = regression.predict_proba(frames["test"])[:, 1]
record("auc_logistic", judge("logistic regression", score, seconds, regression[-1].coef_.size + 1))

if data.truth is not None:
    truth = data.truth.purchase_probability(
        data.test["user_id"], data.test["product_id"], data.test["timestamp"]
    )
    record("auc_oracle", judge("oracle", truth))

# %% [markdown]
# ## Matrix factorisation with BPR
#
# This model uses no features. It learns a vector for each user and each product, such that a
# product that the user bought scores higher than one that the user did not buy (*Bayesian
# personalised ranking*, Rendle et al. 2009).
#
# An untuned baseline is easy to beat (Rendle et al. 2020). So the strength of L2 regularisation is
# **searched on the validation month**; the test month is not used for it.

# %%
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import coo_matrix

bought = frames["train"][frames["train"]["target"] == 1]
shape = [schema[name].int_domain.max + 1 for name in ("user", "product")]
matrix = coo_matrix((np.ones(len(bought)), (bought["user"], bought["product"])), shape=shape)


def factorise(l2):
    """Factorise the purchases; return the model, and its margins for the rows of each split."""
    model = BayesianPersonalizedRanking(
        factors=16,
        regularization=l2,
        learning_rate=0.05,
        iterations=20,
        num_threads=1,  # with several threads, each run would give another model
        random_state=workspace.profile.seed,
    )
    model.fit(matrix.tocsr(), show_progress=False)
    return model, {
        name: np.sum(model.user_factors[rows["user"]] * model.item_factors[rows["product"]], axis=1)
        for name, rows in frames.items()
    }


found = {}
for l2 in (0.002, 0.01, 0.05, 0.2):
    start = time.perf_counter()
    model, margins = factorise(l2)
    auc = roc_auc_score(frames["valid"]["target"], margins["valid"])
    found[auc] = model, margins, time.perf_counter() - start
    print(f"L2 {l2}: AUC {auc:.4f} in validation")

# %% [markdown]
# With too little regularisation the model memorises each user's few purchases; with too much, all
# users get similar vectors. We judge the best model on the test month. BPR scores are not
# probabilities: we calibrate them on the validation month (Platt scaling).

# %%
model, margins, seconds = found[max(found)]
curve = LogisticRegression().fit(margins["valid"][:, None], frames["valid"]["target"])
score = curve.predict_proba(margins["test"][:, None])[:, 1]
parameters = model.user_factors.size + model.item_factors.size
record("auc_bpr", judge("BPR", score, seconds, parameters))

# %% [markdown]
# ## XGBoost on Dask
#
# Boosted trees split the range of a number, and they have no embeddings: they read a user's code
# like any other number. Still, they often win competitions on tabular data. Merlin wraps XGBoost's
# Dask training, so the same code runs on one machine or many, depending on the `Client`. Ours
# starts one worker within this notebook, and no port is open to other machines; for a cluster, give
# its address instead. (`Distributed` can start workers by itself, but they keep running when its
# block ends.)

# %%
from dask.distributed import Client
from merlin.core.utils import Distributed
from merlin.models.xgb import XGBoost

train_set, valid_set, test_set = (Dataset(frame, schema=schema) for frame in frames.values())
here = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}

with Client(**here) as client, Distributed(client):
    start = time.perf_counter()
    trees = XGBoost(
        schema,
        objective="binary:logistic",
        eval_metric="auc",
        max_depth=6,
        eta=0.3,
        tree_method="hist",
        device=workspace.profile.tree_device,
        seed=workspace.profile.seed,
        verbosity=0,
    )
    trees.fit(
        train_set,
        evals=[(valid_set, "valid")],
        num_boost_round=100,
        early_stopping_rounds=10,
        verbose_eval=False,
    )
    seconds = time.perf_counter() - start
    tree_scores = trees.predict(test_set)

# the parameters of a tree: one per split and one per leaf
nodes = len(trees.booster.trees_to_dataframe())

# %% tags=["nbval-check-output"]
record("auc_xgboost", judge("XGBoost", tree_scores, seconds, nodes))

# %% [markdown]
# ## DCN-v2 with early stopping
#
# A network gives every category an **embedding**, a vector for each of its values. A cross layer
# (Wang et al. 2021) then computes `x0 * (W x + b) + x` over all of them: every coordinate of every
# feature is multiplied with every other one, and the network learns which of these pairs matter.
# Two layers combine up to three features.
#
# With about forty rows per user, a vector for each user overfits easily. Two methods limit
# overfitting: L2 regularisation of the embeddings, and **early stopping** when the AUC on the
# validation month stops improving. Our table fits in memory, so `fit` gets its columns as tensors;
# a larger table is read batch by batch with `mm.Loader`, as in lab 4.


# %%
inputs = schema.without(["target"]).column_names


def tensors(frame, columns):
    """Columns of a table as the models expect them: each (rows, 1)."""
    return {name: tf.constant(frame[name].to_numpy()[:, None]) for name in columns}


def rows_of(frame):
    """The features and the target of a table, as tensors."""
    return tensors(frame, inputs), tf.constant(frame["target"].to_numpy("float32")[:, None])


def embeddings(dim, l2):
    """One embedding table per category, of dimension `dim` (for all, or one each), with L2."""
    return mm.Embeddings(categories, dim=dim, embeddings_regularizer=tf.keras.regularizers.l2(l2))


def cross_network(dim, l2):
    """DCN-v2 with two cross layers."""
    return mm.DCNModel(
        schema,
        depth=2,
        # always pass a deep block: the default one is a single instance that all models would share
        deep_block=mm.MLPBlock([64, 32]),
        input_block=mm.InputBlockV2(schema, categorical=embeddings(dim, l2)),
        prediction_tasks=mm.BinaryOutput("target"),
    )


class ValidationAUC(tf.keras.callbacks.Callback):
    """After each epoch, the AUC on the validation rows."""

    def __init__(self, rows):
        super().__init__()
        self.features, self.bought = rows

    def on_epoch_end(self, epoch, logs):
        logs["val_auc"] = roc_auc_score(np.ravel(self.bought), np.ravel(self.model(self.features)))


def fit(model, train_rows, valid_rows, batch_size=workspace.profile.batch_size):
    """Train until the validation rows stop improving; return the AUC there after each epoch."""
    features, bought = train_rows
    tf.keras.utils.set_random_seed(workspace.profile.seed)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
    # With weights and optimizer built before, TensorFlow traces the training step once, not twice;
    # and Keras's older Adam is one operation per weight, where the newer one has to trace nine.
    create_weights(model, features)
    stop = tf.keras.callbacks.EarlyStopping(
        "val_auc", mode="max", patience=1, restore_best_weights=True
    )
    history = model.fit(
        features,
        bought,
        batch_size=batch_size,
        epochs=workspace.profile.epochs,
        callbacks=[ValidationAUC(valid_rows), stop],
        verbose=0,
    )
    return history.history["val_auc"]


# %% [markdown]
# Which embedding dimension, and how much L2 regularisation? We **search** over four settings, on
# one user in eight, so that the lab stays short. We sample users with all their rows, because the
# best regularisation depends on the number of rows per user.

# %%
sampled = {name: frame["user"] % 8 == 0 for name, frame in frames.items()}
eighth = {name: frame[sampled[name]] for name, frame in frames.items()}
few_train, few_valid = rows_of(eighth["train"]), rows_of(eighth["valid"])

search = {}
for dim in (4, 8):
    for l2 in (1e-5, 1e-4):
        search[dim, l2] = max(fit(cross_network(dim, l2), few_train, few_valid, 1_024))

DIM, L2 = max(search, key=search.get)
print(f"chosen: embedding dimension {DIM}, L2 {L2:g}")
pd.Series(search).unstack().rename_axis(index="embedding dimension", columns="L2").round(4)

# %% [markdown]
# Users have too few rows for dimension 8: dimension 4 does better at both regularisation strengths.
# The stronger regularisation does better at both dimensions, most of all at 8. We use the best
# setting for the four networks below; with more time, search for each network separately. (The
# studies at the end of this lab train for fewer epochs and use dimension 8, which learns faster.)
#
# Now the whole table:

# %%
train_rows, valid_rows, test_rows = map(rows_of, frames.values())


def train_and_judge(name, model):
    """Train with early stopping on the validation month; judge on the test month."""
    start = time.perf_counter()
    kept = fit(model, train_rows, valid_rows)
    seconds = time.perf_counter() - start
    print(f"{name}, AUC in validation by epoch:", *(f"{auc:.4f}" for auc in kept))
    return judge(name, model(test_rows[0]), seconds, model.count_params())


crossed = cross_network(DIM, L2)
auc = train_and_judge("DCN-v2", crossed)

# %% tags=["nbval-check-output"]
record("auc_dcn", auc)

# %% [markdown]
# Which features does the network depend on, and does the relative price help? **Shuffle** one
# column of the validation rows, so that it carries no information, and measure how much AUC is lost
# (*permutation importance*, Breiman 2001).

# %%
features, bought = valid_rows
rng = np.random.default_rng(workspace.profile.seed)
complete = roc_auc_score(np.ravel(bought), np.ravel(crossed(features)))
lost = {}
for name in ("user", "product", "product_id_te", "hour", "price", "relative_price"):
    if name in features:
        shuffled = tf.gather(features[name], rng.permutation(len(bought)))
        score = np.ravel(crossed(features | {name: shuffled}))
        lost[name] = complete - roc_auc_score(np.ravel(bought), score)
pd.Series(lost, name="AUC lost in validation").to_frame().round(4)

# %% [markdown]
# The network depends most on the user and the product. Of the two prices, it depends more on the
# relative one. But a network can use a column that it does not need: the two prices hold similar
# information, and the network knows each product and its category. Trained on all users without the
# relative price, it reached an AUC of 0.8636 in validation, and 0.8657 with it. Labs 4 and 5 leave
# this feature out: the AUC is only 0.002 lower, and there is one feature less to compute at request
# time.
#
# ## DLRM
#
# DLRM (Naumov et al. 2019) sends the numbers through a bottom MLP to a vector of the same size as
# the embeddings, takes the **dot product of every pair** of vectors, and feeds these dot products
# into a top MLP. So the pair user × brand is always among the inputs of the top MLP.

# %%
dlrm = mm.DLRMModel(
    schema,
    embeddings=embeddings(DIM, L2),
    bottom_block=mm.MLPBlock([64, DIM]),
    top_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
auc = train_and_judge("DLRM", dlrm)

# %% tags=["nbval-check-output"]
record("auc_dlrm", auc)

# %% [markdown]
# ## Wide & Deep, and a size for each embedding
#
# Wide & Deep (Cheng et al. 2016) adds the logits of two parts. The deep part generalises over
# embeddings. The wide part memorises single pairs of values, here brand × category, hashed into a
# thousand bins.
#
# DLRM needs vectors of the same size, for its dot products. A deep part does not need this: a
# weekday can have a smaller embedding than a user. A common rule uses the fourth root of the number
# of values.
#
# ### Exercise 2.2: a size for each embedding


# %% tags=["exercise-2.2"]
def embedding_size(values: int, multiplier: float = 2.0) -> int:
    """Return how many numbers a category's values get.

    Args:
        values: how many different values the category has; at least 1.
        multiplier: larger for larger tables; any number above 0.

    Returns:
        An int: `multiplier` times the fourth root of `values`, rounded up to a multiple of 4 (short
        vectors are read in blocks), but never more than `values` rounded up to a multiple of 4:
        more numbers than values is a one-hot code with a detour.
    """
    ### BEGIN SOLUTION
    wanted = min(multiplier * values**0.25, values)
    return 4 * int(np.ceil(wanted / 4))
    ### END SOLUTION


# %% tags=["check-2.2"]
check("2.2", embedding_size)

# %%
sizes = {
    column.name: embedding_size(column.int_domain.max + 1)
    for column in schema.select_by_tag(Tags.CATEGORICAL)
}
print(sizes)

pair = schema.select_by_name([c for c in ("brand", "cat_1", "cat_0", "hour") if c in sizes][:2])
wide_and_deep = mm.WideAndDeepModel(
    schema,
    wide_schema=pair,
    wide_preprocess=mm.HashedCross(pair, num_bins=1_000, sparse=True),
    deep_schema=schema,
    deep_input_block=mm.InputBlockV2(schema, categorical=embeddings(sizes, L2)),
    deep_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
record("auc_wide_and_deep", train_and_judge("Wide & Deep", wide_and_deep))

# %% [markdown]
# ## DeepFM
#
# DeepFM (Guo et al. 2017) puts a factorisation machine (Rendle 2010) beside the deep part, over the
# same embeddings. A factorisation machine multiplies each pair of vectors, coordinate by
# coordinate, and adds up the results. With n vectors there are n (n - 1) / 2 pairs. With the
# following identity, n steps are enough:
#
# $$\sum_{i<j} v_i \odot v_j = \tfrac{1}{2}\Big[\big(\sum_i v_i\big)^2 - \sum_i v_i^2\Big]$$
#
# ### Exercise 2.3: the pairs of a factorisation machine


# %% tags=["exercise-2.3"]
def all_pairs(vectors: tf.Tensor) -> tf.Tensor:
    """Return the sum of the elementwise products of each pair of different vectors.

    Args:
        vectors: (batch, n, size) float32; n is at least 1.

    Returns:
        (batch, size) float32, without a loop over pairs; zeros if n is 1. It runs inside a model,
        so use TensorFlow's functions: NumPy's fail there, or have no gradient.
    """
    ### BEGIN SOLUTION
    square_of_sum = tf.square(tf.reduce_sum(vectors, axis=1))
    sum_of_squares = tf.reduce_sum(tf.square(vectors), axis=1)
    return 0.5 * (square_of_sum - sum_of_squares)
    ### END SOLUTION


# %% tags=["check-2.3"]
check("2.3", all_pairs)

# %% [markdown]
# Merlin has a block for it, and a `DeepFMModel` that uses the block. But the two do not fit
# together: the block sums over axis 1, and the model stacks the features along the *last* axis.
# With three features of dimension four:

# %%
from merlin.models.tf.blocks.interaction import FMPairwiseInteraction
from merlin.models.tf.core.aggregation import StackFeatures

three = {name: tf.random.stateless_normal((2, 4), seed=[1, i]) for i, name in enumerate("abc")}
right = all_pairs(tf.stack(list(three.values()), axis=1))
block = FMPairwiseInteraction()(tf.stack(list(three.values()), axis=1))
in_the_model = FMPairwiseInteraction().prepare(aggregation=StackFeatures(axis=-1))(three)
print(f"ours and Merlin's block differ by {tf.reduce_max(tf.abs(right - block)):.0e}")
print(f"pairs of features: {right.shape}; as DeepFMModel stacks them: {in_the_model.shape}")

# %% [markdown]
# The result has three numbers instead of four: Merlin's `DeepFMModel` multiplies the *coordinates
# of one vector* with each other, and never two different features. It still trains, and its AUC
# looks good, because the deep part learns enough. So we build the DeepFM of this table from
# Merlin's blocks and your `all_pairs`: a weight for each value and each number (first order), the
# pairs of embeddings (second order), and the deep part, in parallel; the output adds them up.


# %%
class Pairs(tf.keras.layers.Layer):
    """The pairs of a dictionary's embeddings, (batch, dim)."""

    def call(self, inputs):
        return all_pairs(tf.stack([inputs[name] for name in categories.column_names], axis=1))


vectors = mm.InputBlockV2(schema, categorical=embeddings(DIM, L2), aggregation=None)
deep_fm = mm.Model(
    mm.ParallelBlock(
        {
            "first order": mm.InputBlockV2(schema, categorical=embeddings(1, L2)),
            "pairs and deep": vectors.connect(
                mm.ParallelBlock(
                    {"pairs": Pairs(), "deep": mm.MLPBlock([64, 32])}, aggregation="concat"
                )
            ),
        },
        is_input=True,
        aggregation="concat",
    ),
    mm.BinaryOutput("target"),
)
record("auc_deep_fm", train_and_judge("DeepFM", deep_fm))

# %% [markdown]
# ## Reading the table

# %%
table = pd.DataFrame(results).T.sort_values("AUC")
if "oracle" in table.index:
    table["skill"] = (table["AUC"] - 0.5) / (table.loc["oracle", "AUC"] - 0.5)
costs = ["parameters", "seconds"]
table.drop(columns=costs).round(4)

# %%
table[costs].drop("oracle", errors="ignore").round(1).astype({"parameters": int})

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
spread = [table["AUC"] - table["low"], table["high"] - table["AUC"]]
axis.errorbar(table["AUC"], table.index, xerr=spread, fmt="o", capsize=4)
axis.set(xlabel="AUC on the test month, with 95% interval")
axis.grid(axis="x", alpha=0.3)
plt.show()

# %% [markdown]
# **Skill** is (AUC - 0.5) / (AUC of the oracle - 0.5): 0 for random scores, 1 for the oracle. An
# AUC alone does not show how much better a model could be; skill does.
#
# Compare the models. Logistic regression has a weight for each user and each product, and XGBoost
# has their codes; neither can represent "this user with this product", and both are at the bottom.
# BPR uses *only* who bought what, with a vector for each user and product, and is far above them.
# The networks use such vectors and the features. What matters most in this table is not the
# architecture but whether the model has interactions between users and products.
#
# **On MovieLens** (`dataset = "movielens"`: real ratings, no price, no brand) the differences are
# small. There DeepFM and DCN-v2 are best with 0.778, logistic regression follows with 0.771 (0.007
# less than DeepFM, 95% from 0.004 to 0.010), and XGBoost has 0.751, all on the same features. How
# good a film is and how generous a user is are two effects that add up, and they explain most of a
# rating; the interactions that a network learns add less than 0.01, and Wide & Deep, with 0.773, is
# hardly better than logistic regression. BPR falls to 0.610: it learns who watches what, and that
# says little about how much they like it.
#
# ## Are the probabilities calibrated?
#
# AUC depends only on the order. A shop that multiplies a probability by a price needs probabilities
# that are **calibrated**: of all carts that got 30%, about 30% should be bought. Log-loss measures
# both the order and the calibration: it is lower for calibrated probabilities.

# %%
figure, axis = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
axis.plot([0, 1], [0, 1], color="lightgrey")
for name in ["logistic regression", "BPR", "DLRM", "DCN-v2", "oracle"]:
    if name in scores:
        tenth = pd.qcut(scores[name], 10, labels=False, duplicates="drop")
        means = pd.DataFrame({"predicted": scores[name], "bought": target}).groupby(tenth).mean()
        axis.plot(means["predicted"], means["bought"], "o-", ms=3, label=name)
axis.set(xlabel="predicted probability, by tenths", ylabel="share bought")
axis.legend()
plt.show()

# %% [markdown]
# A line flatter than the diagonal means that the model is overconfident; a short line means that it
# gives all carts similar probabilities.
#
# ## Which differences are significant?
#
# The intervals of two models on one test month often overlap, even if one model is better. The
# models are evaluated on the *same rows*, so most of the random variation is common to both. The
# right question is whether the **difference** is above zero.
#
# This needs hundreds of AUCs. An AUC is the probability that a row that was bought scores above one
# that was not, so it can be computed from ranks (Mann and Whitney 1947). On a thousand rows that is
# eight times as fast as scikit-learn's function, which validates its arguments each time.


# %%
from scipy.stats import rankdata


def auc_of(target, score):
    """The area under the ROC curve, from the ranks of the rows with target 1."""
    ones, zeros = np.sum(target == 1), np.sum(target == 0)
    return (rankdata(score)[target == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros)


# %% [markdown]
# ### Exercise 2.4: a significance test for two AUCs


# %% tags=["exercise-2.4"]
def is_better(target: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int) -> bool:
    """Return whether the first model's AUC is above the second's by more than luck.

    Draw the rows anew 100 times, with replacement. Each time compute both AUCs on the same rows
    and keep the difference. The first model is better if at least 97.5% of the differences are
    above 0. The arguments are not changed.

    Args:
        target: (n,) 0 or 1; enough of both that every draw holds both.
        first: (n,) scores of the first model, on any scale; some may be equal.
        second: (n,) scores of the second, perhaps on another scale.
        seed: of the draws; the same seed gives the same verdict.
    """
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(100):
        rows = rng.integers(len(target), size=len(target))
        drawn = target[rows]
        differences.append(auc_of(drawn, first[rows]) - auc_of(drawn, second[rows]))
    return bool(np.quantile(differences, 0.025) > 0)
    ### END SOLUTION


# %% tags=["check-2.4"]
check("2.4", is_better)

# %% [markdown]
# Now we compare the best network with the baseline and the other networks. The package's
# `auc_difference` draws rows as you did, sorts them only once, and returns the interval.

# %%
from multistage.evaluation import auc_difference

networks = ["DLRM", "DCN-v2", "Wide & Deep", "DeepFM"]
best = max(networks, key=lambda name: results[name]["AUC"])
for name in ["logistic regression", *networks]:
    if name != best:
        difference, low, high = auc_difference(target, scores[best], scores[name])
        verdict = "is better than" if low > 0 else "is not shown to be better than"
        print(f"{best} {verdict} {name}: {difference:+.4f}, 95% from {low:+.4f} to {high:+.4f}")

# %% [markdown]
# The interval is over rows of one test month, with one seed per model. Another seed changes a
# network's AUC by a few thousandths: lab 3 trains with five seeds. And the networks have not
# converged after five epochs: with eight, each gains another 0.001 to 0.003 on the test month, in
# the same order.
#
# ## Two towers with four losses
#
# So far a model scored one pair at a time. A **retrieval** model ranks the whole catalogue, and
# there are several losses to choose from. We train two towers, one for the user's vector and one
# for the product's. In a batch of purchases, the products of the other rows are the negatives of a
# row. Four losses that make the positive score higher than the negatives:
#
# * **BCE**: each cell of the batch is a binary target of its own;
# * **BPR**: the positive scores higher than each negative, pair by pair;
# * **BPR-max** (Hidasi and Karatzoglou 2018): the same, weighted towards the highest negatives;
# * **softmax**: the positive is the right class among all products of the batch.
#
# There are hundreds of negatives per positive, so our BCE gives both sides the same total weight.
# It is a class because Merlin silently ignores a plain function given as `loss`.
#
# This study and the following ones use the same **one user in eight** as the search above.

# %%
from dataclasses import replace

from merlin.models.tf.outputs.base import DotProduct

from multistage.evaluation import Holdout, bootstrap_interval, ndcg_at_k

few = replace(
    data, **{name: getattr(data, name)[rows.to_numpy()] for name, rows in sampled.items()}
)
task = Holdout.from_data(few)

# The codes of the task's users and of the catalogue's products, from their rows in training.
codes = frames["train"].set_axis(data.train["product_id"])
catalogue = codes[~codes.index.duplicated()].loc[task.product_ids]
codes = frames["train"].set_axis(data.train["user_id"])
codes = codes.loc[~codes.index.duplicated(), "user"]
users = codes.reindex(task.user_ids, fill_value=2).to_frame()  # 2: unknown

user = schema.select_by_tag(Tags.USER_ID)
product = schema.select_by_tag(Tags.ITEM).select_by_tag(Tags.CATEGORICAL)
purchases = eighth["train"][eighth["train"]["target"] == 1]
times_bought = np.bincount(purchases["product"], minlength=product["product"].int_domain.max + 1)
log_popularity = np.log(np.maximum(times_bought, 1))[catalogue["product"]]


class BalancedBCE(tf.keras.losses.Loss):
    """Binary cross-entropy where a row's positive weighs as much as all its negatives."""

    def call(self, y_true, y_pred):
        each = tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)
        negative = 1 - y_true
        positives = tf.reduce_sum(y_true * each, -1) / tf.reduce_sum(y_true, -1)
        return positives + tf.reduce_sum(negative * each, -1) / tf.reduce_sum(negative, -1)


def tower(tower_schema):
    """Embeddings of dimension 16, and one layer with 32 outputs."""
    l2 = tf.keras.regularizers.l2(1e-5)
    table = mm.Embeddings(tower_schema, dim=16, embeddings_regularizer=l2)
    return mm.Encoder(
        mm.InputBlockV2(tower_schema, categorical=table),
        mm.MLPBlock([32], no_activation_last_layer=True),
    )


def catalogue_scores(loss):
    """Train two towers with `loss`; return the score of each user for each product."""
    tf.keras.utils.set_random_seed(workspace.profile.seed)
    towers = mm.TwoTowerModelV2(
        tower(user),
        tower(product),
        outputs=mm.ContrastiveOutput(
            to_call=DotProduct(),
            negative_samplers="in-batch",
            schema=product.select_by_tag(Tags.ITEM_ID),
        ),
    )
    towers.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), loss=loss, metrics=[])
    columns = user.column_names + product.column_names
    rows = tensors(purchases, columns)
    create_weights(towers, rows)
    towers.fit(rows, batch_size=512, epochs=2, verbose=0)
    queries = towers.query_encoder(tensors(users, user.column_names))
    products = towers.candidate_encoder(tensors(catalogue, product.column_names))
    return np.asarray(queries) @ np.asarray(products).T


losses = {
    "BCE": BalancedBCE(),
    "BPR": "bpr",
    "BPR-max": "bpr-max",
    "softmax": "categorical_crossentropy",
}
ndcg = {"popularity alone": np.tile(log_popularity, (len(users), 1))}
for name, loss in losses.items():
    ndcg[name] = catalogue_scores(loss) + log_popularity
ndcg = {name: ndcg_at_k(task.top_k(score, 10), task.relevant, 10) for name, score in ndcg.items()}
pd.DataFrame.from_dict(
    {name: [each.mean(), *bootstrap_interval(each)] for name, each in ndcg.items()},
    orient="index",
    columns=["NDCG@10", "low", "high"],
).round(4)

# %% [markdown]
# In training, a product occurs as a negative about as often as it is bought, so with each of the
# losses the model learns scores that are too low for best sellers. We correct this by adding the
# logarithm of its popularity to a product's score (Menon et al. 2021). Lab 4 shows what happens
# without the correction, and applies it inside the loss.

# %%
winner = max(losses, key=lambda name: ndcg[name].mean())
for name in losses:
    if name != winner:
        low, high = bootstrap_interval(ndcg[winner] - ndcg[name])
        verdict = "is better than" if low > 0 else "is not shown to be better than"
        print(f"{winner} {verdict} {name}: the difference is between {low:+.4f} and {high:+.4f}")

# %% [markdown]
# All four are far above popularity, and the differences between three of them are not significant
# on so few users. BPR-max learns mostly from the highest-scoring negatives. It was designed for
# large catalogues, where most negatives are too easy to learn from. With the few hundred negatives
# of a batch, this weighting discards useful information.
#
# ## Binary, multi-class and two tasks
#
# The target so far was **binary**: bought or not. With another output, the same blocks can learn
# other targets. **Multi-class**: from which *category* does this user buy next? The classes are in
# the schema already, as the values of a column; `CategoricalOutput` gives each a probability.

# %%
category = "cat_1"
next_buy = {name: rows[rows["target"] == 1] for name, rows in eighth.items()}
who = schema.select_by_tag(Tags.USER) + schema.select_by_tag(Tags.CONTEXT)

tf.keras.utils.set_random_seed(workspace.profile.seed)
classifier = mm.Model(
    mm.InputBlockV2(
        who,
        categorical=mm.Embeddings(
            who.select_by_tag(Tags.CATEGORICAL),
            dim=8,
            embeddings_regularizer=tf.keras.regularizers.l2(L2),
        ),
    ),
    mm.MLPBlock([64, 32]),
    mm.CategoricalOutput(schema.select_by_name([category])),
)
classifier.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
classes = tf.one_hot(next_buy["train"][category], schema[category].int_domain.max + 1)
buyers_then = tensors(next_buy["train"], who.column_names)
create_weights(classifier, buyers_then)
classifier.fit(buyers_then, classes, batch_size=1_024, epochs=5, verbose=0)
predicted = np.argmax(classifier(tensors(next_buy["test"], who.column_names)), axis=1)

actual = next_buy["test"][category].to_numpy()
common = next_buy["train"][category].mode()[0]
favourite = next_buy["train"].groupby("user")[category].agg(lambda codes: codes.mode()[0])
guesses = {
    "the most common category": np.full(len(actual), common),
    "each user's own most common": next_buy["test"]["user"].map(favourite).fillna(common),
    "the network": predicted,
}
if data.truth is not None:
    buyers, row = np.unique(few.test.loc[few.test["target"] == 1, "user_id"], return_inverse=True)
    category_of = catalogue[category].reindex(data.truth.product_ids).to_numpy()
    expected = pd.DataFrame(data.truth.purchase_intensity(buyers).T).groupby(category_of).sum()
    guesses["the oracle"] = expected.idxmax().to_numpy()[row]
for name, guess in guesses.items():
    print(f"next category, share guessed right by {name}: {np.mean(guess == actual):.3f}")

# %% [markdown]
# The category that a user bought most often is a strong baseline. The network is better, because it
# also learns what similar users buy, and it comes close to the oracle. The oracle knows each user's
# true preferences, and its guess is still wrong more often than right: the next purchase is largely
# random.
#
# **Two tasks.** A product is first put into the cart, then bought. One network can predict both,
# and the rarer target may profit from the more common one. But the two tasks may need different
# weights. So *customised gate control* (Tang et al. 2020, one layer of PLE) gives each task an
# **expert** of its own beside a shared one, and a **gate** that weights the experts for each row.
#
# All rows of our table were put into a cart. For the cart task we add a negative for each row: the
# same user and time with the product of another row, neither put into the cart nor bought.

# %%
item_columns = schema.select_by_tag(Tags.ITEM).column_names
rng = np.random.default_rng(workspace.profile.seed)


def with_negatives(rows):
    """Rows with `cart` 1, and as many with the product of another row and `cart` 0."""
    negatives = rows.copy()
    negatives[item_columns] = rows[item_columns].iloc[rng.permutation(len(rows))].to_numpy()
    negatives = negatives.astype(rows.dtypes)
    return pd.concat([rows.assign(cart=1), negatives.assign(cart=0, target=0)], ignore_index=True)


shown = {name: with_negatives(eighth[name]) for name in ("train", "test")}
shown_train, shown_test = (tensors(rows, inputs) for rows in shown.values())


def expert():
    """The hidden layers of a single model, and of each expert."""
    return mm.MLPBlock([64, 32])


def task_scores(*tasks):
    """Train one model for one or two tasks; return its scores of the test rows by task."""
    tf.keras.utils.set_random_seed(workspace.profile.seed)
    outputs = [mm.BinaryOutput(name) for name in tasks]
    features = mm.InputBlockV2(schema.without(["target"]), categorical=embeddings(8, L2))
    if len(tasks) == 1:
        model = mm.Model(features, expert(), outputs[0])
    else:
        outputs = mm.ParallelBlock(*outputs)
        experts = mm.CGCBlock(outputs, expert(), num_task_experts=1, num_shared_experts=1)
        model = mm.Model(features, experts, outputs)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
    targets = {n: tf.constant(shown["train"][n].to_numpy("float32")[:, None]) for n in tasks}
    create_weights(model, shown_train)
    model.fit(
        shown_train,
        targets if len(tasks) > 1 else targets[tasks[0]],
        batch_size=2_048,
        epochs=4,
        verbose=0,
    )
    output = model(shown_test)
    return (
        {name: np.ravel(output[f"{name}/binary_output"]) for name in tasks}
        if len(tasks) > 1
        else {tasks[0]: np.ravel(output)}
    )


alone = {**task_scores("cart"), **task_scores("target")}
together = task_scores("cart", "target")
for name, answer in {"cart": "put into the cart", "target": "bought"}.items():
    truth_of = shown["test"][name].to_numpy()
    one, two = (roc_auc_score(truth_of, scored[name]) for scored in (alone, together))
    gain, low, high = auc_difference(truth_of, together[name], alone[name])
    print(f"{answer}: AUC {one:.4f} alone, {two:.4f} with two tasks, ", end="")
    print(f"{gain:+.4f}, 95% from {low:+.4f} to {high:+.4f}")

# %% [markdown]
# The cart task gains most: purchases show what users prefer, and from carts alone the model learned
# too little about these preferences. The purchase task gains a little. The comparison has two
# limits: the model with two tasks has three experts where a single model has one, and neither had
# converged after four epochs. One gain is certain: **one** model to serve instead of two.
#
# ## Summary
#
# * Features hold only what was known at the time; encode targets out of fold, and never encode the
#   user.
# * Compare models on one table, with one budget, a baseline, an upper bound and intervals:
#   otherwise "model A is better than model B" means little.
# * Search dimensions and regularisation on the validation month, stop early, and check the
#   calibration of the probabilities, not only their order.
# * The loss and the output are choices too; measure them on the catalogue, not on the batch.
# * The workflow is saved: labs 3 to 5 start from the tables that it made.
#
# **To read.** Rendle et al., *BPR* (2009). Cheng et al., *Wide & deep learning* (2016). Guo et al.,
# *DeepFM* (2017). Hidasi and Karatzoglou, *Recurrent neural networks with top-k gains* (2018), for
# BPR-max. Naumov et al., *Deep learning recommendation model* (2019). Rendle et al., *Neural
# collaborative filtering vs. matrix factorization revisited* (2020), for tuned baselines. Tang et
# al., *Progressive layered extraction* (2020). Wang et al., *DCN V2* (2021). Menon et al.,
# *Long-tail learning via logit adjustment* (2021). Breiman, *Random forests* (2001), for
# permutation importance. Mann and Whitney, *On a test of whether one of two random variables is
# stochastically larger than the other* (1947), for the AUC from ranks. Micci-Barreca, *A
# preprocessing scheme for high-cardinality categorical attributes* (2001), for target encoding.
