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
# * train DLRM, DCN-v2, Wide & Deep and DeepFM with Merlin Models, and XGBoost on Dask;
# * search sizes and regularisation on the validation month, and stop in time;
# * tell a better model from a luckier one, and a sharp one from an honest one;
# * choose a loss, and put one question, many classes or two tasks to a network.
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
# Merlin's models take their shape from a **schema**. TensorFlow is told to be repeatable: same
# seed, same data, same machine, same figures. It is also told to leave two things undone: to
# rewrite Merlin's Python before it traces a training step (AutoGraph looks for loops over tensors
# there, and there are none), and to tune how batches are read (ours lie in memory). A lab with many
# small models would wait longer for these two than for the training.

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
from courseware.exercises import check

check("2.1", encode_out_of_fold)

# %% [markdown]
# The package's `TargetEncoding` does the same for several columns. On later rows it gives one
# value a key, and needs no target. It encodes **items only**. The 2022 tutorial also encoded the
# user: that figure, stored with items, tells a model which rows are positive.
#
# What would the leak have looked like? We encode the product in both ways and let the encoding
# alone, with no model at all, predict.

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
# The first figure is what a model sees in training when the row's own label is in its feature. The
# third is what the feature is worth. Out of fold, training is honest about it.
#
# NVTabular has a `TargetEncoding` operator, out of fold as well. But it goes by fold at *transform*
# too, and a row's fold depends on its place in the table. Look what that does to test rows of one
# product:

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
    print(f"{name}: {values.mean():.1f} different values a product in the test month")

# %% [markdown]
# The same product on the third row of a request would be worth something else than on the first.
# And it cannot transform a request at all, which has no target column. So ours is used below.
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
# A shop with prices has three features more: what the person usually pays, the price, and the price
# **beside others of its category**, for which `JoinGroupby` keeps the category's mean. The named
# functions live in an importable module: a saved workflow refers to them by name, and a lambda
# would be pickled into it. (`JoinGroupby` gives a product without a category the mean `inf`; the
# function answers 0, "as usual".)

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
# so a feature has to be worth its keep. Whether the relative price is, we shall see below; the labs
# that serve go without it.

# %%
served = schema.without(["relative_price"])
with workspace.write("features/tables", producer="02-architectures") as folder:
    for name, frame in frames.items():
        write_table(Dataset(frame[served.column_names], schema=served), folder / name)

# %% [markdown]
# ## A floor and a ceiling
#
# The floor is **logistic regression** on the same features: a weight for each value of each
# category, people and products included, and one for each number. It adds up effects and knows no
# interactions: if a network cannot beat it, the network has learnt nothing about *this person with
# this product*. The ceiling is the **oracle**, the shop's own probability of each purchase.

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
    """Keep what there is to say of a model's probabilities for the test month."""
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
    # Newton's steps: five are enough, where the default solver is not there after a hundred.
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
# No features at all: a vector for each person and each product, moved until what somebody bought
# scores higher than something they did not (*Bayesian personalised ranking*, Rendle et al. 2009).
#
# A baseline that nobody tuned is easily beaten (Rendle et al. 2020). How strongly the vectors are
# pulled towards zero is **searched on the validation month**; the test month is not asked.

# %%
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import coo_matrix

bought = frames["train"][frames["train"]["target"] == 1]
shape = [schema[name].int_domain.max + 1 for name in ("user", "product")]
matrix = coo_matrix((np.ones(len(bought)), (bought["user"], bought["product"])), shape=shape)


def factorise(pull):
    """Factorise the purchases; return the model, and its margins for the rows of each split."""
    model = BayesianPersonalizedRanking(
        factors=16,
        regularization=pull,
        learning_rate=0.05,
        iterations=20,
        num_threads=1,  # several threads race, and each run would end elsewhere
        random_state=workspace.profile.seed,
    )
    model.fit(matrix.tocsr(), show_progress=False)
    return model, {
        name: np.sum(model.user_factors[rows["user"]] * model.item_factors[rows["product"]], axis=1)
        for name, rows in frames.items()
    }


found = {}
for pull in (0.002, 0.01, 0.05, 0.2):
    start = time.perf_counter()
    model, margins = factorise(pull)
    auc = roc_auc_score(frames["valid"]["target"], margins["valid"])
    found[auc] = model, margins, time.perf_counter() - start
    print(f"pull {pull}: AUC {auc:.4f} in validation")

# %% [markdown]
# Too little, and each person's few purchases are learnt by heart; too much, and everybody is alike.
# The best goes into our table. Its scores are no probabilities, so a logistic curve over the
# validation month makes them some.

# %%
model, margins, seconds = found[max(found)]
curve = LogisticRegression().fit(margins["valid"][:, None], frames["valid"]["target"])
score = curve.predict_proba(margins["test"][:, None])[:, 1]
parameters = model.user_factors.size + model.item_factors.size
record("auc_bpr", judge("BPR", score, seconds, parameters))

# %% [markdown]
# ## XGBoost on Dask
#
# Boosted trees split numbers and know nothing of embeddings: to them a person's code is a number
# like any other. They still win competitions on tables. Merlin wraps XGBoost's Dask training, so
# the same lines run on one machine or many: the `Client` decides. Ours starts one worker within
# this notebook, and nothing listens beyond this machine; a cluster's address would go in its place.
# (`Distributed` can start workers by itself, but they live on when its block ends.)

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

# a tree's parameters: what each split asks, and what each leaf says
nodes = len(trees.booster.trees_to_dataframe())

# %% tags=["nbval-check-output"]
record("auc_xgboost", judge("XGBoost", tree_scores, seconds, nodes))

# %% [markdown]
# ## DCN-v2, stopped in time
#
# A network gives every category an **embedding**, a vector for each of its values. A cross layer
# (Wang et al. 2021) then computes `x0 * (W x + b) + x` over all of them: every coordinate of every
# feature meets every other one, and the network learns which meetings matter. Two layers cross up
# to three features.
#
# Forty rows a person are few to learn a vector from. Two things keep a network from learning them
# by heart: embeddings are pulled towards zero (L2), and training **stops** when the validation
# month stops improving. Our table fits in memory, so `fit` gets its columns as tensors; one that
# does not is read batch by batch with `mm.Loader`, as in lab 4.


# %%
inputs = schema.without(["target"]).column_names


def tensors(frame, columns):
    """Columns of a table as the models take them: each (rows, 1)."""
    return {name: tf.constant(frame[name].to_numpy()[:, None]) for name in columns}


def rows_of(frame):
    """The features and the target of a table, as tensors."""
    return tensors(frame, inputs), tf.constant(frame["target"].to_numpy("float32")[:, None])


def embeddings(dim, pull):
    """One table a category, `dim` numbers a value (one size, or a size each), pulled to zero."""
    return mm.Embeddings(categories, dim=dim, embeddings_regularizer=tf.keras.regularizers.l2(pull))


def cross_network(dim, pull):
    """DCN-v2 with two cross layers."""
    return mm.DCNModel(
        schema,
        depth=2,
        # always pass a deep block: the default one is a single instance that all models would share
        deep_block=mm.MLPBlock([64, 32]),
        input_block=mm.InputBlockV2(schema, categorical=embeddings(dim, pull)),
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
    # and Keras's older Adam is one operation a weight, where the newer one has to trace nine.
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
# How many numbers a value, and how strong a pull? A **search** over four settings, on one person in
# eight, so that the lab stays short: whole people, because the pull answers to the rows each has.

# %%
sampled = {name: frame["user"] % 8 == 0 for name, frame in frames.items()}
eighth = {name: frame[sampled[name]] for name, frame in frames.items()}
few_train, few_valid = rows_of(eighth["train"]), rows_of(eighth["valid"])

search = {}
for dim in (4, 8):
    for pull in (1e-5, 1e-4):
        search[dim, pull] = max(fit(cross_network(dim, pull), few_train, few_valid, 1_024))

DIM, PULL = max(search, key=search.get)
print(f"chosen: {DIM} numbers a value, pull {PULL:g}")
pd.Series(search).unstack().rename_axis(index="numbers a value", columns="pull").round(4)

# %% [markdown]
# The few rows that a person has do not fill eight numbers: four do better with either pull, and the
# stronger pull does better with either size, most of all with eight. The best setting is that of
# the four networks below; each could be searched for itself, if you have the time. (Side studies at
# the end train more briefly and take eight numbers, which learn faster.)
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


crossed = cross_network(DIM, PULL)
auc = train_and_judge("DCN-v2", crossed)

# %% tags=["nbval-check-output"]
record("auc_dcn", auc)

# %% [markdown]
# What does the network live on, and was the relative price worth its column? **Shuffle** one column
# of the validation rows, so that it says nothing any more, and see how much is lost (*permutation
# importance*, Breiman 2001).

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
# The network lives on who asks for what. Of the two prices it reads the relative one. That it leans
# on a column does not mean that it would miss it: the two say much the same, and the network knows
# each product and its category. Trained on all people without the relative price, it reached 0.8636
# in validation, beside 0.8657 with it. The labs that serve go without: two thousandths, for one
# feature less to keep at hand.
#
# ## DLRM
#
# DLRM (Naumov et al. 2019) sends the numbers through a bottom MLP to a vector of the same size as
# the embeddings, takes the **dot product of every pair** of vectors, and lets a top MLP read the
# products. The pair person × brand is in there by construction.

# %%
dlrm = mm.DLRMModel(
    schema,
    embeddings=embeddings(DIM, PULL),
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
# Wide & Deep (Cheng et al. 2016) adds two logits. The deep one generalises over embeddings; the
# wide one memorises pairs that matter as such, here brand × category, hashed into a thousand bins.
#
# DLRM needs vectors of one size, for its dot products. A deep part does not: a weekday needs fewer
# numbers than a person. A common rule takes the fourth root of the number of values.
#
# ### Exercise 2.2: a size for each embedding


# %% tags=["exercise-2.2"]
def embedding_size(values: int, multiplier: float = 2.0) -> int:
    """Return how many numbers a category's values get.

    Args:
        values: how many different values the category has; at least 1.
        multiplier: larger for larger tables.

    Returns:
        `multiplier` times the fourth root of `values`, rounded up to a multiple of 4 (short
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
    deep_input_block=mm.InputBlockV2(schema, categorical=embeddings(sizes, PULL)),
    deep_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
record("auc_wide_and_deep", train_and_judge("Wide & Deep", wide_and_deep))

# %% [markdown]
# ## DeepFM
#
# DeepFM (Guo et al. 2017) puts a factorisation machine (Rendle 2010) beside the deep part, over the
# same embeddings. A factorisation machine adds up the products of all pairs of vectors, coordinate
# by coordinate. With n vectors that is n (n - 1) / 2 pairs; one identity makes it n steps:
#
# $$\sum_{i<j} v_i \odot v_j = \tfrac{1}{2}\Big[\big(\sum_i v_i\big)^2 - \sum_i v_i^2\Big]$$
#
# ### Exercise 2.3: the pairs of a factorisation machine


# %% tags=["exercise-2.3"]
def all_pairs(vectors: tf.Tensor) -> tf.Tensor:
    """Return the sum of the elementwise products of each pair of different vectors.

    Args:
        vectors: (batch, n, size) float32.

    Returns:
        (batch, size) float32, without a loop over pairs.
    """
    ### BEGIN SOLUTION
    square_of_sum = tf.square(tf.reduce_sum(vectors, axis=1))
    sum_of_squares = tf.reduce_sum(tf.square(vectors), axis=1)
    return 0.5 * (square_of_sum - sum_of_squares)
    ### END SOLUTION


# %% tags=["check-2.3"]
check("2.3", all_pairs)

# %% [markdown]
# Merlin has a block for it, and a ready `DeepFMModel` around that. They do not quite fit together:
# the block adds up over axis 1, and the model stacks the features along the *last* axis. With three
# features of four numbers:

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
# Three numbers came out where four were to: Merlin's `DeepFMModel` multiplies the *coordinates of
# one vector* with each other, and no feature ever meets another. It trains, and its figure looks
# fine, because the deep part beside it does the work. So the DeepFM of this table is built from
# Merlin's blocks and your `all_pairs`: a weight for each value and each number (first order), the
# pairs of embeddings (second order), and the deep part, side by side; the output adds them up.


# %%
class Pairs(tf.keras.layers.Layer):
    """The pairs of a dictionary's embeddings, (batch, dim)."""

    def call(self, inputs):
        return all_pairs(tf.stack([inputs[name] for name in categories.column_names], axis=1))


vectors = mm.InputBlockV2(schema, categorical=embeddings(DIM, PULL), aggregation=None)
deep_fm = mm.Model(
    mm.ParallelBlock(
        {
            "first order": mm.InputBlockV2(schema, categorical=embeddings(1, PULL)),
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
# **Skill** is the share of the way from chance (0.5) to the oracle that a model has gone. AUC alone
# makes every shop look hard; skill says how much is left to win.
#
# Look who stands where. Logistic regression has a weight for each person and each product, and
# XGBoost their codes; neither can say "this person, this product", and they stand together at the
# bottom. BPR knows nothing *but* who bought what, with a vector each, and is far above them. The
# networks have both. What decides this table is not the name of the architecture but whether people
# and products meet in it.
#
# **On MovieLens** (`dataset = "movielens"`: real ratings, no price, no brand) the gap is small.
# There DeepFM and DCN-v2 are best with 0.778, logistic regression follows with 0.771 (0.007 less
# than DeepFM, 95% from 0.004 to 0.010), and XGBoost has 0.751, all on the same features. How good a
# film is and how generous a person is are two effects that simply add up, and they are most of what
# there is to know about a rating; what a network knows beyond is worth less than a hundredth, and
# Wide & Deep, with 0.773, is hardly ahead. BPR falls to 0.610: it learns who watches what, and that
# says little of how they like it.
#
# ## Are the probabilities honest?
#
# AUC only asks for the order. A shop that multiplies a probability by a price needs it to be
# *true*: of all carts that were given 30%, about 30% should be bought. Log-loss punishes what is
# not.

# %%
figure, axis = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
axis.plot([0, 1], [0, 1], color="lightgrey")
for name in ["logistic regression", "BPR", "DLRM", "DCN-v2", "oracle"]:
    if name in scores:
        tenth = pd.qcut(scores[name], 10, labels=False, duplicates="drop")
        means = pd.DataFrame({"said": scores[name], "was": target}).groupby(tenth).mean()
        axis.plot(means["said"], means["was"], "o-", ms=3, label=name)
axis.set(xlabel="probability said, by tenths", ylabel="share bought")
axis.legend()
plt.show()

# %% [markdown]
# A line that is flatter than the diagonal is a model too sure of itself; a short line is one that
# cannot tell carts apart.
#
# ## Which differences are real?
#
# Intervals of two models on one test month overlap easily, although the models were asked about
# the *same rows* and share most of their luck. The right question is whether the **difference**
# is above zero.
#
# It takes hundreds of AUCs. An AUC is the chance that a row that was bought scores above one that
# was not, so it can be counted from ranks (Mann and Whitney 1947). On a thousand rows that is eight
# times as fast as scikit-learn's, which looks at its arguments anew each time.


# %%
from scipy.stats import rankdata


def auc_of(target, score):
    """The area under the ROC curve, from the ranks of the rows with target 1."""
    ones, zeros = np.sum(target == 1), np.sum(target == 0)
    return (rankdata(score)[target == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros)


# %% [markdown]
# ### Exercise 2.4: better or just luckier


# %% tags=["exercise-2.4"]
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
        drawn = target[rows]
        differences.append(auc_of(drawn, first[rows]) - auc_of(drawn, second[rows]))
    return bool(np.quantile(differences, 0.025) > 0)
    ### END SOLUTION


# %% tags=["check-2.4"]
check("2.4", is_better)

# %% [markdown]
# The best network against the floor and the other networks. The package's `auc_difference` draws
# rows as you did, sorts them once, and gives the interval.

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
# The interval is over rows of one test month, for one seed each. Another seed moves a network by a
# few thousandths: lab 3 trains over five. And five epochs end before the networks do: with eight,
# each gains another 0.001 to 0.003 on the test month, in the same order.
#
# ## One pair of towers, four losses
#
# So far a model was asked about one pair at a time. A **retrieval** model is asked to order the
# whole catalogue, and there the loss is a choice. Two towers, a vector for the person and one for
# the product; in a batch of purchases, the products of the others serve as what this person did
# *not* buy. Four ways to say that the own product should score higher:
#
# * **BCE**: each cell of the batch is a yes or a no of its own;
# * **BPR**: the own product beats each other one, pair by pair;
# * **BPR-max** (Hidasi and Karatzoglou 2018): it beats above all those others that score highest;
# * **softmax**: it is the one to pick out of all of them.
#
# A hundred no's to one yes would drown the yes, so our BCE gives both sides the same weight. It is
# a class because Merlin passes over a plain function given as `loss`, without a word.
#
# This is a side study, and those that follow are too: on the same **one person in eight**.

# %%
from dataclasses import replace

from merlin.models.tf.outputs.base import DotProduct

from multistage.evaluation import Holdout, bootstrap_interval, ndcg_at_k

few = replace(
    data, **{name: getattr(data, name)[rows.to_numpy()] for name, rows in sampled.items()}
)
task = Holdout.from_data(few)

# The codes of the task's people and of the catalogue's products, from their rows in training.
codes = frames["train"].set_axis(data.train["product_id"])
catalogue = codes[~codes.index.duplicated()].loc[task.product_ids]
codes = frames["train"].set_axis(data.train["user_id"])
codes = codes.loc[~codes.index.duplicated(), "user"]
people = codes.reindex(task.user_ids, fill_value=2).to_frame()  # 2: unknown

person = schema.select_by_tag(Tags.USER_ID)
product = schema.select_by_tag(Tags.ITEM).select_by_tag(Tags.CATEGORICAL)
purchases = eighth["train"][eighth["train"]["target"] == 1]
times_bought = np.bincount(purchases["product"], minlength=product["product"].int_domain.max + 1)
log_popularity = np.log(np.maximum(times_bought, 1))[catalogue["product"]]


class BalancedBCE(tf.keras.losses.Loss):
    """Binary cross-entropy where one yes weighs as much as all no's of a row."""

    def call(self, y_true, y_pred):
        each = tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)
        no = 1 - y_true
        yes_part = tf.reduce_sum(y_true * each, -1) / tf.reduce_sum(y_true, -1)
        return yes_part + tf.reduce_sum(no * each, -1) / tf.reduce_sum(no, -1)


def tower(tower_schema):
    """Embeddings of sixteen numbers, and one layer down to 32."""
    pulled = tf.keras.regularizers.l2(1e-5)
    table = mm.Embeddings(tower_schema, dim=16, embeddings_regularizer=pulled)
    return mm.Encoder(
        mm.InputBlockV2(tower_schema, categorical=table),
        mm.MLPBlock([32], no_activation_last_layer=True),
    )


def catalogue_scores(loss):
    """Train two towers with `loss`; return the score of each person for each product."""
    tf.keras.utils.set_random_seed(workspace.profile.seed)
    towers = mm.TwoTowerModelV2(
        tower(person),
        tower(product),
        outputs=mm.ContrastiveOutput(
            to_call=DotProduct(),
            negative_samplers="in-batch",
            schema=product.select_by_tag(Tags.ITEM_ID),
        ),
    )
    towers.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), loss=loss, metrics=[])
    columns = person.column_names + product.column_names
    rows = tensors(purchases, columns)
    create_weights(towers, rows)
    towers.fit(rows, batch_size=512, epochs=2, verbose=0)
    queries = towers.query_encoder(tensors(people, person.column_names))
    products = towers.candidate_encoder(tensors(catalogue, product.column_names))
    return np.asarray(queries) @ np.asarray(products).T


losses = {
    "BCE": BalancedBCE(),
    "BPR": "bpr",
    "BPR-max": "bpr-max",
    "softmax": "categorical_crossentropy",
}
ndcg = {"popularity alone": np.tile(log_popularity, (len(people), 1))}
for name, loss in losses.items():
    ndcg[name] = catalogue_scores(loss) + log_popularity
ndcg = {name: ndcg_at_k(task.top_k(score, 10), task.relevant, 10) for name, score in ndcg.items()}
pd.DataFrame.from_dict(
    {name: [each.mean(), *bootstrap_interval(each)] for name, each in ndcg.items()},
    orient="index",
    columns=["NDCG@10", "low", "high"],
).round(4)

# %% [markdown]
# Every product was met as a "no" about as often as it is bought, and each of the losses learns to
# hold that against best sellers. So the logarithm of its popularity is added back to a product's
# score (Menon et al. 2021); lab 4 shows what happens without, and does it inside the loss.

# %%
winner = max(losses, key=lambda name: ndcg[name].mean())
for name in losses:
    if name != winner:
        low, high = bootstrap_interval(ndcg[winner] - ndcg[name])
        verdict = "is better than" if low > 0 else "is not shown to be better than"
        print(f"{winner} {verdict} {name}: the difference is between {low:+.4f} and {high:+.4f}")

# %% [markdown]
# All four are far above popularity, and three of them cannot be told apart on so few people.
# BPR-max looks at the strongest rivals only, which it was made for: catalogues so large that most
# rivals are too easy to learn from. With the few hundred of a batch, that throws something away.
#
# ## One question, many classes, two tasks
#
# **Binary** was the question so far: bought or not. The same blocks answer others, by another
# output. **Multi-class**: which *category* does this person buy from next? The classes stand in the
# schema already, as the values of a column; `CategoricalOutput` gives each a probability.

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
            embeddings_regularizer=tf.keras.regularizers.l2(PULL),
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
said = np.argmax(classifier(tensors(next_buy["test"], who.column_names)), axis=1)

was = next_buy["test"][category].to_numpy()
common = next_buy["train"][category].mode()[0]
favourite = next_buy["train"].groupby("user")[category].agg(lambda codes: codes.mode()[0])
guesses = {
    "the most common category": np.full(len(was), common),
    "each person's own most common": next_buy["test"]["user"].map(favourite).fillna(common),
    "the network": said,
}
if data.truth is not None:
    buyers, row = np.unique(few.test.loc[few.test["target"] == 1, "user_id"], return_inverse=True)
    category_of = catalogue[category].reindex(data.truth.product_ids).to_numpy()
    expected = pd.DataFrame(data.truth.purchase_intensity(buyers).T).groupby(category_of).sum()
    guesses["the oracle"] = expected.idxmax().to_numpy()[row]
for name, guess in guesses.items():
    print(f"next category, share guessed right by {name}: {np.mean(guess == was):.3f}")

# %% [markdown]
# A person's favourite is a strong guess: most people keep to what they like. The network does
# better because it also knows what people of that kind turn to, and comes most of the way to the
# oracle, which knows each person's true tastes and still misses more often than not. A next
# purchase is largely chance.
#
# **Two tasks.** A product is first put into the cart, then bought. One network can answer both, and
# the rarer answer may profit from the commoner. If the tasks pull at the same weights in different
# directions, both suffer; so *customised gate control* (Tang et al. 2020, one layer of PLE) gives
# each task an **expert** of its own beside a shared one, and a **gate** that mixes them by row.
#
# Everything in our table was in a cart. For the cart task, each row gets a twin: the same person
# and moment with somebody else's product, neither put into the cart nor bought.

# %%
item_columns = schema.select_by_tag(Tags.ITEM).column_names
rng = np.random.default_rng(workspace.profile.seed)


def with_twins(rows):
    """Rows with `cart` 1, and as many with the product of another row and `cart` 0."""
    twins = rows.copy()
    twins[item_columns] = rows[item_columns].iloc[rng.permutation(len(rows))].to_numpy()
    twins = twins.astype(rows.dtypes)
    return pd.concat([rows.assign(cart=1), twins.assign(cart=0, target=0)], ignore_index=True)


shown = {name: with_twins(eighth[name]) for name in ("train", "test")}
shown_train, shown_test = (tensors(rows, inputs) for rows in shown.values())


def expert():
    """What a single model has, and each expert too."""
    return mm.MLPBlock([64, 32])


def task_scores(*tasks):
    """Train one model for one or two tasks; return its scores of the test rows by task."""
    tf.keras.utils.set_random_seed(workspace.profile.seed)
    outputs = [mm.BinaryOutput(name) for name in tasks]
    features = mm.InputBlockV2(schema.without(["target"]), categorical=embeddings(8, PULL))
    if len(tasks) == 1:
        model = mm.Model(features, expert(), outputs[0])
    else:
        outputs = mm.ParallelBlock(*outputs)
        experts = mm.CGCBlock(outputs, expert(), num_task_experts=1, num_shared_experts=1)
        model = mm.Model(features, experts, outputs)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
    wanted = {n: tf.constant(shown["train"][n].to_numpy("float32")[:, None]) for n in tasks}
    create_weights(model, shown_train)
    model.fit(
        shown_train,
        wanted if len(tasks) > 1 else wanted[tasks[0]],
        batch_size=2_048,
        epochs=4,
        verbose=0,
    )
    said = model(shown_test)
    return (
        {name: np.ravel(said[f"{name}/binary_output"]) for name in tasks}
        if len(tasks) > 1
        else {tasks[0]: np.ravel(said)}
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
# The cart task gains most: what people buy tells what they like, and alone it learnt too little of
# that from "in the cart or not". Purchases gain a little. Read it with two grains of salt: the pair
# has three experts to a single model's one, and four epochs were not enough for either to finish.
# What nobody can take away: **one** model to serve in place of two.
#
# ## Summary
#
# * Take features as of the moment, encode targets out of fold, and never encode the user.
# * One table, one budget, a floor, a ceiling, intervals: only then is "model A beats model B" a
#   sentence with a meaning.
# * Search sizes and pull on the validation month, stop in time, and look at the probabilities, not
#   only at their order.
# * A loss and an output are choices too; measure them on the catalogue, not on the batch.
# * The workflow is saved: labs 3 to 5 start from the tables it made.
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
