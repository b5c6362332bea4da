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
# * give each category an embedding of a size that fits it;
# * tell a better model from a luckier one, and a sharp one from an honest one.
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
import time

from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

frames = {
    name: split.compute()
    for name, split in {"train": train_set, "valid": valid_set, "test": test_set}.items()
}
target = frames["test"]["target"].to_numpy()
numbers = schema.select_by_tag(Tags.CONTINUOUS).column_names
small = [
    c for c in schema.select_by_tag(Tags.CATEGORICAL).column_names if c not in ("user", "product")
]

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
# ## Matrix factorisation with BPR
#
# No features at all: a vector for each person and each product, moved until what somebody bought
# scores higher than something they did not (*Bayesian personalised ranking*, Rendle et al. 2009).
# Its scores are no probabilities, so a logistic curve over the validation month makes them some.

# %%
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import coo_matrix

bought = frames["train"][frames["train"]["target"] == 1]
shape = [schema[name].int_domain.max + 1 for name in ("user", "product")]
matrix = coo_matrix((np.ones(len(bought)), (bought["user"], bought["product"])), shape=shape)

start = time.perf_counter()
bpr = BayesianPersonalizedRanking(
    factors=16,
    learning_rate=0.05,
    regularization=0.02,
    iterations=20,
    num_threads=1,  # several threads race, and each run would end elsewhere
    random_state=workspace.profile.seed,
)
bpr.fit(matrix.tocsr(), show_progress=False)
margins = {
    name: np.sum(bpr.user_factors[frame["user"]] * bpr.item_factors[frame["product"]], axis=1)
    for name, frame in frames.items()
}
curve = LogisticRegression().fit(margins["valid"][:, None], frames["valid"]["target"])
record(
    "auc_bpr",
    judge(
        "BPR",
        curve.predict_proba(margins["test"][:, None])[:, 1],
        time.perf_counter() - start,
        bpr.user_factors.size + bpr.item_factors.size,
    ),
)

# %% [markdown]
# ## XGBoost on Dask
#
# Boosted trees split numbers and know nothing of embeddings. They still win competitions on
# tables. Merlin wraps XGBoost's Dask training, so the same three lines run on one machine or many.

# %%
from merlin.core.utils import Distributed
from merlin.models.xgb import XGBoost

with Distributed(n_workers=1, threads_per_worker=2):
    start = time.perf_counter()
    trees = XGBoost(
        schema.without(["user", "product"]),
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
batch, _ = mm.sample_batch(train_set, batch_size=64, prepare_features=True)


def embeddings(dim=8):
    """One table a category, `dim` numbers a value (one size, or a size each), pulled to zero."""
    return mm.Embeddings(
        schema.select_by_tag(Tags.CATEGORICAL),
        dim=dim,
        embeddings_regularizer=tf.keras.regularizers.l2(1e-4),
    )


def train_and_judge(name, model):
    """Train with early stopping on the validation month; judge on the test month."""
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-2), metrics=[tf.keras.metrics.AUC(name="auc")]
    )
    start = time.perf_counter()
    # With weights and optimizer built before, TensorFlow traces the training step once, not twice.
    model(batch)
    model.optimizer.build(model.trainable_variables)
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
    score = model.predict(mm.Loader(test_set, batch_size=8_192, shuffle=False), verbose=0)
    return judge(name, score, seconds, model.count_params())


# %%
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
# ## Wide & Deep, and how large an embedding should be
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
    deep_input_block=mm.InputBlockV2(schema, categorical=embeddings(sizes)),
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

# %%
from merlin.models.tf.blocks.interaction import FMPairwiseInteraction

vectors = tf.random.stateless_normal((4, 9, 8), seed=[1, 2])
difference = tf.abs(all_pairs(vectors) - FMPairwiseInteraction()(vectors))
print(f"largest difference to Merlin's block: {tf.reduce_max(difference):.0e}")

wide_input = mm.CategoryEncoding(schema.select_by_name(small), output_mode="one_hot")
deep_fm = mm.DeepFMModel(
    schema,
    embedding_dim=8,
    input_block=mm.InputBlockV2(schema, categorical=embeddings(), aggregation=None),
    # by default each of 8,000 people is one-hot here as well: slow, and a weight a person
    wide_input_block=mm.ParallelBlock({"small": wide_input}, is_input=True, aggregation="concat"),
    deep_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
record("auc_deep_fm", train_and_judge("DeepFM", deep_fm))

# %% [markdown]
# ## Reading the table

# %%
table = pd.DataFrame(results).T.sort_values("AUC").astype({"parameters": int})
if "oracle" in table.index:
    table["skill"] = (table["AUC"] - 0.5) / (table.loc["oracle", "AUC"] - 0.5)
table.drop(columns="seconds").round(4)

# %%
print(table["seconds"].round(0).astype(int).to_string())

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
# Look who stands where. XGBoost and logistic regression see the same features, but no person and no
# product as such: they know averages. BPR knows nothing *but* who bought what, and is far above
# them. The networks have both. What decides this table is not the name of the architecture but
# whether it can say "this person, this product".
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
# ### Exercise 2.4: better, or luckier?

# %% tags=["exercise-2.4"]
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


# %% tags=["check-2.4"]
check("2.4", is_better)

# %% [markdown]
# The best network against each other one. The package's `auc_difference` draws rows as you did, a
# hundred times faster, and gives the interval.

# %%
from multistage.evaluation import auc_difference

networks = ["DLRM", "DCN-v2", "Wide & Deep", "DeepFM"]
best = max(networks, key=lambda name: results[name]["AUC"])
for name in networks:
    if name != best:
        difference, low, high = auc_difference(target, scores[best], scores[name])
        verdict = "is better than" if low > 0 else "is not shown to be better than"
        print(f"{best} {verdict} {name}: {difference:+.4f}, 95% from {low:+.4f} to {high:+.4f}")

# %% [markdown]
# The interval is over rows of one test month, for one seed each. Another seed moves a network by a
# few thousandths: lab 3 trains over five.
#
# ## Summary
#
# * Take features as of the moment, encode targets out of fold, and never encode the user.
# * One table, one budget, a floor, a ceiling, intervals: only then is "model A beats model B" a
#   sentence with a meaning.
# * Give each category a size that fits it, and look at the probabilities, not only at their order.
# * The workflow is saved: labs 3 to 5 start from the tables it made.
#
# **To read.** Rendle et al., *BPR* (2009). Cheng et al., *Wide & deep learning* (2016). Guo et al.,
# *DeepFM* (2017). Naumov et al., *Deep learning recommendation model* (2019). Wang et al., *DCN V2*
# (2021). Micci-Barreca, *A preprocessing scheme for high-cardinality categorical attributes*
# (2001), for target encoding.
