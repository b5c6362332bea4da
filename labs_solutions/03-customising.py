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
# # 3. Customising and extending Merlin Models
#
# You have an idea for a better recommender. This lab rebuilds a well-known model from blocks,
# checks that it equals the original, and then changes one part at a time: a block, a layer, a loss,
# a sampler, a metric. For each change it tests: **is the model better?**
#
# **After this lab you will be able to**
#
# * build a model from Merlin's blocks with `connect`, `ParallelBlock` and `Filter`;
# * check that a model that you rebuilt equals the original;
# * test changes over five seeds, and say which differences are significant;
# * write your own layer, loss, negative sampler and metric, and save them so that they load in
#   another process.
#
# About 40 minutes. It starts from the tables that lab 2 made.

# %% tags=["parameters"]
# "store", "movielens", or "rees46" with events = "folder/*.csv.gz"
dataset = "store"
# "ci", "laptop" or "gpu"
profile = "laptop"
events = None

# %%
from multistage import datasets
from courseware.records import record
from multistage.tensorflow_setup import lean_tensorflow, quiet
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
data = datasets.load(workspace, events)
tables = workspace.read("features/tables")

# %%
import merlin.models.tf as mm
import numpy as np
import pandas as pd
import tensorflow as tf
from merlin.io import Dataset
from merlin.schema import Tags

tf.keras.utils.set_random_seed(workspace.profile.seed)
tf.config.experimental.enable_op_determinism()
lean_tensorflow()

train_set, test_set = (Dataset(str(tables / name), engine="parquet") for name in ("train", "test"))
schema = train_set.schema
categories = schema.select_by_tag(Tags.CATEGORICAL)
numbers = schema.select_by_tag(Tags.CONTINUOUS)

# %% [markdown]
# ## Blocks, applied to one batch
#
# A loader yields each batch as a dictionary with one tensor per column. A block takes such a
# dictionary and returns another one, or a single tensor.

# %%
batch, target = mm.sample_batch(train_set, batch_size=4, prepare_features=True)
print({name: tuple(values.shape) for name, values in batch.items()})

# %% [markdown]
# `Embeddings` turns each category into a vector. `ContinuousFeatures` selects the numbers, and
# **`connect`** appends the next block: here an MLP whose output is a vector of the same size as the
# embeddings.

# %%
embeddings = mm.Embeddings(categories, dim=8)
bottom = mm.ContinuousFeatures.from_schema(numbers).connect(mm.MLPBlock([64, 8]))
print("embeddings:", {name: tuple(vector.shape) for name, vector in embeddings(batch).items()})
print("bottom:    ", tuple(bottom(batch).shape))

# %% [markdown]
# **`ParallelBlock`** applies several blocks to the same input and returns their outputs by name. An
# **aggregation** combines the outputs into one tensor, and a **`Filter`** selects some of the
# outputs. `InputBlockV2` is a `ParallelBlock` with an aggregation: it concatenates all features of
# a schema.

# %%
side_by_side = mm.ParallelBlock({"embeddings": embeddings, "bottom": bottom})
together = mm.ParallelBlock({"embeddings": embeddings, "bottom": bottom}, aggregation="concat")
vectors = side_by_side(batch)
ready_made = mm.InputBlockV2(
    schema.excluding_by_tag(Tags.TARGET), categorical=mm.Embeddings(categories, dim=8)
)
shapes = {
    "ParallelBlock": {name: tuple(vector.shape) for name, vector in vectors.items()},
    "... aggregation='concat'": tuple(together(batch).shape),
    "Filter('bottom')": {n: tuple(v.shape) for n, v in mm.Filter("bottom")(vectors).items()},
    "InputBlockV2": tuple(ready_made(batch).shape),
    "BinaryOutput": tuple(mm.BinaryOutput("target")(together(batch)).shape),
}
for block, shape in shapes.items():
    print(f"{block:25}", shape)

# %% [markdown]
# Stacked, the vectors are one tensor of shape `(batch, vectors, size)`, and DLRM's interaction is
# the dot product of each pair of vectors in it.
#
# ### Exercise 3.1: DLRM's interaction


# %% tags=["exercise-3.1"]
def pairwise_dots(vectors: tf.Tensor) -> tf.Tensor:
    """Return the dot product of each pair of different vectors, each pair once.

    Args:
        vectors: (batch, n, size) float32; n is at least 2. Inside a model n and size are fixed,
            the batch is not.

    Returns:
        (batch, n * (n - 1) / 2) float32, in the order (0, 1), (0, 2), ..., (1, 2), ... Inside a
        model NumPy fails: use TensorFlow's functions.
    """
    ### BEGIN SOLUTION
    products = tf.matmul(vectors, vectors, transpose_b=True)
    n = vectors.shape[1]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return tf.stack([products[:, i, j] for i, j in pairs], axis=1)
    ### END SOLUTION


# %% tags=["check-3.1"]
from courseware.exercises import check

check("3.1", pairwise_dots)

# %% [markdown]
# Merlin's own block does the same:

# %%
from merlin.models.tf.blocks.dlrm import DotProductInteractionBlock

stacked = tf.stack([vectors[name] for name in sorted(vectors)], axis=1)
ours = pairwise_dots(stacked)
theirs = DotProductInteractionBlock()(vectors)
print(f"{theirs.shape[1]} products; largest difference: {tf.reduce_max(tf.abs(ours - theirs)):.1e}")

# %% [markdown]
# ## DLRM from blocks
#
# The whole model consists of three functions: the inputs in parallel; the interaction, with a
# **shortcut** that concatenates the bottom vector to its output; a top MLP and a binary output.


# %%
def inputs(aggregation=None):
    """Embeddings and the bottom MLP, in parallel."""
    return mm.ParallelBlock(
        {
            "embeddings": mm.Embeddings(
                categories, dim=8, embeddings_regularizer=tf.keras.regularizers.l2(1e-4)
            ),
            "bottom_block": mm.ContinuousFeatures.from_schema(numbers).connect(
                mm.MLPBlock([64, 8])
            ),
        },
        is_input=True,
        aggregation=aggregation,
    )


def interaction(vectors):
    """All pairs of vectors, and the bottom vector through a shortcut."""
    return vectors.connect_with_shortcut(
        DotProductInteractionBlock(),
        shortcut_filter=mm.Filter("bottom_block"),
        aggregation="concat",
    )


def from_blocks():
    """DLRM."""
    return mm.Model(interaction(inputs()).connect(mm.MLPBlock([64, 32])), mm.BinaryOutput("target"))


# %% [markdown]
# The next figure is drawn from the model itself: `draw` walks over its blocks.

# %%
import matplotlib.pyplot as plt

from multistage.customising import draw

blocks = from_blocks()
draw(blocks)
plt.show()

# %% [markdown]
# Check that the rebuilt DLRM equals the stock one: it must have the same number of weights, and
# with the stock model's weights it must give the same outputs.

# %%
stock = mm.DLRMModel(
    schema,
    embeddings=mm.Embeddings(
        categories, dim=8, embeddings_regularizer=tf.keras.regularizers.l2(1e-4)
    ),
    bottom_block=mm.MLPBlock([64, 8]),
    top_block=mm.MLPBlock([64, 32]),
    prediction_tasks=mm.BinaryOutput("target"),
)
batch, target = mm.sample_batch(train_set, batch_size=1_024, prepare_features=True)
stock(batch), blocks(batch)  # builds both

blocks.set_weights(stock.get_weights())
difference = float(tf.reduce_max(tf.abs(stock(batch) - blocks(batch))))
assert stock.count_params() == blocks.count_params()
assert difference < 1e-5
print(f"{blocks.count_params():,} weights each, largest difference {difference:.0e}")

# %% [markdown]
# ## Test each change over five seeds
#
# The AUC of one run depends on its seed: other initial weights and another order of the rows give
# another AUC. So each variation is trained with **five seeds**, on the same rows, for the same
# number of epochs, and is compared with DLRM **seed by seed**: both models with the same seed.
#
# To make this fast, we take one user in eight (with all their rows), keep the rows in memory, and
# let TensorFlow trace each model only once. Tracing takes as long as several epochs; setting the
# initial weights for another seed takes almost no time.

# %%
SEEDS = range(5)
ONE_IN = 8  # one user in eight
EPOCHS = 2
BATCH = 1_024


def in_memory(dataset):
    """The rows of one user in eight: features as tensors of shape (n, 1), and the target."""
    rows = dataset.compute()
    rows = Dataset(rows[rows["user"] % ONE_IN == 0], schema=schema)
    return mm.sample_batch(rows, batch_size=rows.num_rows, shuffle=False, prepare_features=True)


features, bought = in_memory(train_set)
test_features, test_bought = in_memory(test_set)
test_target = test_bought.numpy().ravel()
print(f"{len(bought):,} rows to train on, {len(test_target):,} of the test month")

# %%
from sklearn.metrics import roc_auc_score


def start_again(model, build, seed, example):
    """Give a compiled model the initial weights of `build` with this seed, and a new optimizer."""
    tf.keras.utils.set_random_seed(seed)
    fresh = build()
    fresh(example)  # a model has weights once it has seen a batch
    model.set_weights(fresh.get_weights())
    for state in model.optimizer.variables:
        state.assign(tf.zeros_like(state))


def trial(build):
    """Train a model with each seed; return its AUC on the test month, one per seed."""
    example = {name: values[:2] for name, values in features.items()}
    model = build()
    model(example)
    model.compile(optimizer=tf.keras.optimizers.Adam(2e-2), metrics=[])
    model.optimizer.build(model.trainable_variables)
    aucs = []
    for seed in SEEDS:
        start_again(model, build, seed, example)
        model.fit(features, bought, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        aucs.append(roc_auc_score(test_target, model(test_features).numpy().ravel()))
    return np.array(aucs)


# %% [markdown]
# To judge an AUC we need a baseline and an upper bound. The baseline is one column alone: the share
# of the product's earlier carts that were bought. The upper bound is the shop's true probability of
# each purchase, if the data set has one.

# %%
baseline = roc_auc_score(test_target, test_features["product_id_te"].numpy().ravel())
print(f"baseline, the product's mean target: {baseline:.4f}")
upper_bound = None
if data.truth is not None:
    chosen = (test_set.compute()["user"] % ONE_IN == 0).to_numpy()
    asked = data.test[chosen]
    upper_bound = roc_auc_score(
        test_target,
        data.truth.purchase_probability(asked["user_id"], asked["product_id"], asked["timestamp"]),
    )
    print(f"upper bound, the shop's own probabilities: {upper_bound:.4f}")

# %% tags=["nbval-check-output"]
results = {"DLRM": trial(from_blocks)}
record("auc_blocks", results["DLRM"].mean())

# %% [markdown]
# ## A wide part: hashed crosses
#
# A wide part (Cheng et al. 2016) memorises combinations: "this category at this hour" gets a weight
# of its own. There may be very many combinations, so they are **hashed** into bins, and
# combinations in the same bin share a weight.
#
# How many bins are needed? With n values hashed into m bins, a value is alone in its bin with
# probability `(1 - 1/m) ** (n - 1)`.
#
# ### Exercise 3.2: the number of hash bins


# %% tags=["exercise-3.2"]
def bins_for(n_values: int, colliding: float) -> int:
    """Return the smallest number of bins that keeps collisions rare.

    Args:
        n_values: how many different values are hashed; at least 1.
        colliding: the largest accepted share of values that share their bin with another one,
            between 0 and 1, both excluded.

    Returns:
        The smallest m for which 1 - (1 - 1/m) ** (n_values - 1) <= colliding, as an int (Python's
        or NumPy's); 1 for a single value. Where only the rounding of floats decides between two
        neighbours, either is right.
    """
    ### BEGIN SOLUTION
    if n_values == 1:
        return 1
    # (1 - 1/m) ** (n - 1) >= 1 - colliding, solved for m
    m = 1 / (1 - (1 - colliding) ** (1 / (n_values - 1)))
    for bins in (int(m) - 1, int(m), int(m) + 1):
        if bins >= 1 and 1 - (1 - 1 / bins) ** (n_values - 1) <= colliding:
            return bins
    return int(m) + 2
    ### END SOLUTION


# %% tags=["check-3.2"]
check("3.2", bins_for)

# %%
crossed = schema.select_by_name(["cat_0", "cat_1", "hour"])
seen_together = train_set.compute()[crossed.column_names].drop_duplicates()
bins = bins_for(len(seen_together), colliding=0.2)
print(f"{len(seen_together):,} combinations of {', '.join(crossed.column_names)}: {bins:,} bins")

# %% [markdown]
# The wide part and the deep part run in parallel, and one output reads both. `HashedCross` returns
# a one-hot vector of the bin; the output's weight for it is the weight of the combination.


# %%
def with_wide_part():
    """DLRM beside a hashed cross of three features."""
    deep = interaction(inputs()).connect(mm.MLPBlock([64, 32]))
    wide = mm.HashedCross(crossed, num_bins=bins)
    return mm.Model(
        mm.ParallelBlock({"deep": deep, "wide": wide}, aggregation="concat"),
        mm.BinaryOutput("target"),
    )


draw(with_wide_part())
plt.show()

# %% tags=["nbval-check-output"]
results["+ wide part"] = trial(with_wide_part)
record("auc_wide", results["+ wide part"].mean())

# %% [markdown]
# ## A cross network for the dot product
#
# A dot product gives all coordinates the same weight. A cross network learns which coordinates to
# multiply: a layer computes `x0 * (W x + b) + x` (Wang et al. 2021). With Merlin's blocks, this is
# one line of code.


# %%
def with_cross_network():
    """DLRM with a cross network instead of its interaction."""
    crossing = mm.CrossBlock(depth=2, inputs=inputs())
    return mm.Model(crossing.connect(mm.MLPBlock([64, 32])), mm.BinaryOutput("target"))


# %% tags=["nbval-check-output"]
results["cross network"] = trial(with_cross_network)
record("auc_cross", results["cross network"].mean())

# %% [markdown]
# The same paper found that `W` is nearly of low rank, and that different parts of the data need
# different ranks. In its **mixture of low-rank experts**, each layer has a few small experts and a
# gate that weights them:
#
# `x = sum_i gate_i(x) * x0 * (U_i g(C_i g(V_i x)) + b) + x`
#
# Merlin implements low rank (`CrossBlock(low_rank_dim=...)`) but not the mixture, so we write this
# layer. A Keras layer that others can use follows three rules: weights are created in `build`, when
# the input's size is known; `get_config` returns the arguments of `__init__`; and
# `register_keras_serializable` gives the class a name under which a saved model finds it. Keras
# refuses a name that is already registered. A notebook's cell may run more than once, so we remove
# the old name first.


# %%
def serializable(cls):
    """Register a class as `lab3>Name`; replace an earlier one of that name."""
    tf.keras.utils.get_custom_objects().pop(f"lab3>{cls.__name__}", None)
    return tf.keras.utils.register_keras_serializable(package="lab3")(cls)


# %%
@serializable
class CrossMixture(tf.keras.layers.Layer):
    """A cross network whose layers are mixtures of low-rank experts (Wang et al. 2021).

    Args:
        depth: how many layers; each adds one to the number of features in a product.
        experts: in each layer.
        rank: the size of an expert's inner space.

    Input and output: (batch, size) floats.
    """

    def __init__(self, depth=2, experts=4, rank=8, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.experts, self.rank = depth, experts, rank

    def build(self, input_shape):
        size, experts, rank = input_shape[-1], self.experts, self.rank
        shapes = {
            "gate": (size, experts),
            "down": (experts, size, rank),
            "turn": (experts, rank, rank),
            "up": (experts, rank, size),
        }
        self.layers = [
            {name: self.add_weight(f"{name}_{i}", shape) for name, shape in shapes.items()}
            | {"bias": self.add_weight(f"bias_{i}", (size,), initializer="zeros")}
            for i in range(self.depth)
        ]
        super().build(input_shape)

    def call(self, inputs):
        x = inputs
        for layer in self.layers:
            gate = tf.nn.softmax(x @ layer["gate"])
            inner = tf.tanh(tf.einsum("bd,edr->ber", x, layer["down"]))
            inner = tf.tanh(tf.einsum("ber,ers->bes", inner, layer["turn"]))
            outer = tf.einsum("bes,esd->bed", inner, layer["up"]) + layer["bias"]
            x = inputs * tf.einsum("be,bed->bd", gate, outer) + x
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        sizes = {"depth": self.depth, "experts": self.experts, "rank": self.rank}
        return {**super().get_config(), **sizes}


def with_mixture():
    """DLRM with a mixture of low-rank experts instead of its interaction."""
    crossing = inputs(aggregation="concat").connect(CrossMixture())
    return mm.Model(crossing.connect(mm.MLPBlock([64, 32])), mm.BinaryOutput("target"))


# %% tags=["nbval-check-output"]
results["mixture of experts"] = trial(with_mixture)
record("auc_mixture", results["mixture of experts"].mean())

# %% [markdown]
# ## Your own layer: gates on fields
#
# Which columns matter depends on the row: for a new user the brand is more useful than the user's
# own vector. SENet (Hu et al. 2018; for recommenders FiBiNET, Huang et al. 2019) **squeezes** each
# vector to one number, feeds these numbers into a small network, and **re-weights** the vectors by
# the network's output.
#
# Our version takes and returns a dictionary, so it fits between any two blocks. Its gates start at
# exactly 1: before training the layer changes nothing, which makes it safe to insert and easy to
# test.


# %%
@serializable
class FieldGates(tf.keras.layers.Layer):
    """Weight each field's vector by a gate between 0 and 2 that depends on all fields.

    Args:
        reduction: the hidden layer has this many times fewer units than there are fields.

    Input and output: a dictionary of (batch, size) floats, all of one size.
    """

    def __init__(self, reduction=3, **kwargs):
        super().__init__(**kwargs)
        self.reduction = reduction

    def build(self, input_shape):
        fields = len(input_shape)
        hidden = max(1, fields // self.reduction)
        self.squeeze = self.add_weight("squeeze", (fields, hidden))
        self.excite = self.add_weight("excite", (hidden, fields), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        names = sorted(inputs)
        vectors = tf.stack([inputs[name] for name in names], axis=1)
        summary = tf.reduce_mean(vectors, axis=2)
        gates = 2 * tf.sigmoid(tf.tanh(summary @ self.squeeze) @ self.excite)
        gated = vectors * gates[:, :, None]
        return {name: gated[:, i] for i, name in enumerate(names)}

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "reduction": self.reduction}


def with_gates():
    """DLRM with gates on its vectors."""
    gated = inputs().connect(FieldGates())
    return mm.Model(interaction(gated).connect(mm.MLPBlock([64, 32])), mm.BinaryOutput("target"))


# %% tags=["nbval-check-output"]
results["+ field gates"] = trial(with_gates)
record("auc_gates", results["+ field gates"].mean())

# %% [markdown]
# ## Which changes helped?
#
# For each seed we compute the variation's AUC minus DLRM's. Five differences give a mean and a 95%
# interval (Student's t with four degrees of freedom). If the interval is above zero, the change
# helped. If it contains zero, an effect is **not shown**.

# %%
from scipy import stats


def interval(values):
    """Mean and 95% interval of the mean, from a few values, one per seed."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return np.mean(values), np.mean(values) - half, np.mean(values) + half


rows = {}
for name, aucs in results.items():
    mean, low, high = interval(aucs - results["DLRM"])
    verdict = "helped" if low > 0 else "hurt" if high < 0 else "not shown"
    rows[name] = [aucs.mean(), mean, low, high, verdict if name != "DLRM" else ""]
table = pd.DataFrame.from_dict(
    rows, orient="index", columns=["AUC", "difference", "low", "high", "did it help?"]
)
if upper_bound is not None:
    table.insert(1, "skill", (table["AUC"] - 0.5) / (upper_bound - 0.5))
table.round(4)

# %%
variations = table.drop(index="DLRM")
figure, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
for place, name in enumerate(variations.index):
    axis.plot(results[name] - results["DLRM"], [place] * len(SEEDS), "o", color="0.75", zorder=1)
spread = [
    variations["difference"] - variations["low"],
    variations["high"] - variations["difference"],
]
axis.errorbar(variations["difference"], range(len(variations)), xerr=spread, fmt="D", capsize=4)
axis.axvline(0, color="0.4", linewidth=0.8)
axis.set_yticks(range(len(variations)), variations.index)
axis.set(xlabel="AUC minus DLRM's: five seeds, mean and 95% interval")
axis.margins(y=0.2)
plt.show()

# %% [markdown]
# This result has three limits. First, the interval covers the randomness of training, but not the
# choice of the test month: another month may give another result. Second, four variations were
# tried, and with enough variations one looks good by chance. Third, the budget was small: a
# variation that needs more rows can look bad here. If you have half an hour, set `ONE_IN = 1` and
# `EPOCHS = 4` and run the test again.
#
# ## Your own loss: learning from a biased log
#
# A retrieval model learns from what users bought. But users could only buy **what the old
# recommender showed them**, and the old recommender preferred best sellers. A model trained on such
# a log learns a mixture of what users like and what they were shown, and cannot separate the two.
#
# Here we use the shop's true probabilities to simulate such a log. An old policy writes it: it
# shows a user one product at a time, mostly by popularity, sometimes a random one; the user buys it
# with the *true* probability. Then we can measure what no real log shows: how good are the ten
# products that a new model *would have* shown?

# %%
rng = np.random.default_rng(workspace.profile.seed)
known_users = data.train["user_id"].unique()
users = np.sort(rng.choice(known_users, size=min(1_000, len(known_users)), replace=False))
known_products = data.catalog["product_id"].to_numpy()
shelf = np.sort(rng.choice(known_products, size=min(300, len(known_products)), replace=False))

if data.truth is not None:
    pairs = pd.MultiIndex.from_product([users, shelf])
    user, product = (pairs.get_level_values(level).to_numpy() for level in (0, 1))
    noon = data.test["timestamp"].min().normalize() + pd.Timedelta("12h")
    reward = data.truth.purchase_probability(user, product, pd.DatetimeIndex([noon] * len(pairs)))
    reward = reward.reshape(len(users), len(shelf))
else:
    print("This data set has no true probabilities: we simulate some, of rank four.")
    taste, kind = rng.normal(size=(len(users), 4)), rng.normal(size=(len(shelf), 4))
    reward = 1 / (1 + np.exp(1.5 - taste @ kind.T))

popularity = data.train["product_id"].value_counts().reindex(shelf).fillna(0).to_numpy() + 1.0
shown_by_old = 0.9 * popularity / popularity.sum() + 0.1 / len(shelf)  # (products,), sums to 1

best = np.sort(reward, axis=1)[:, -10:].mean()
print(f"{len(users):,} users, {len(shelf)} products; mean true reward of")
print(f"  a product at random  {reward.mean():.3f}")
print(f"  the old policy       {(reward @ shown_by_old).mean():.3f}")
print(f"  each user's best ten {best:.3f}")
record("random_reward", reward.mean())
record("best_reward", best)

# %% [markdown]
# The usual correction is **importance weighting**. A purchase counts more if the new policy would
# show the product often and the old one rarely showed it: `weight = new / old`, both probabilities
# of *this* product for *this* user. With these weights the loss is unbiased, but its variance is
# high: one purchase can have a weight of 0.02 / 0.0003 = 67. So the weight is **capped**, which
# adds a little bias and removes much of the variance. The weight is a constant and is not learned:
# no gradient goes through it.
#
# ### Exercise 3.3: the off-policy weight


# %% tags=["exercise-3.3"]
def off_policy_weight(log_new: tf.Tensor, log_old: tf.Tensor, cap: float) -> tf.Tensor:
    """Return how much more often the new policy would have shown what the old one showed.

    Args:
        log_new: (batch,) float32, logarithms of the new policy's probabilities; they may be very
            negative, so subtract before you leave the logarithm.
        log_old: (batch,) float32, logarithms of the old policy's probabilities.
        cap: the largest weight; positive.

    Returns:
        (batch,) float32: new / old, at most `cap`, up to rounding. For the gradient it is a
        constant: none goes back to `log_new` or `log_old`. It runs inside a loss, so use
        TensorFlow's functions.
    """
    ### BEGIN SOLUTION
    weight = tf.exp(log_new - log_old)
    return tf.stop_gradient(tf.minimum(weight, cap))
    ### END SOLUTION


# %% tags=["check-3.3"]
check("3.3", off_policy_weight)

# %% [markdown]
# A Keras loss gets only `y_true` and `y_pred`, so `y_true` must also hold the probabilities of the
# old policy: a row of `y_true` is zero except for the bought product, where it holds **one over the
# old policy's probability**.


# %%
@serializable
class OffPolicyLoss(tf.keras.losses.Loss):
    """Policy gradient from the log of another policy, with capped importance weights.

    `y_true`: (batch, products), 1 / (old probability) at the rewarded product, 0 elsewhere.
    `y_pred`: (batch, products), logits of the new policy.

    Args:
        cap: the largest weight.
    """

    def __init__(self, cap=10.0, name="off_policy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.cap = cap

    def call(self, y_true, y_pred):
        y_true = tf.cast(y_true, y_pred.dtype)
        log_policy = tf.nn.log_softmax(y_pred)
        log_new = tf.reduce_sum(tf.where(y_true > 0, log_policy, 0), axis=1)
        log_old = -tf.math.log(tf.reduce_sum(y_true, axis=1))
        return -off_policy_weight(log_new, log_old, self.cap) * log_new

    def get_config(self):
        return {**super().get_config(), "cap": self.cap}


# %% [markdown]
# The retrieval model is small: one vector per user, and Merlin's `CategoricalOutput` over the 300
# products of `shelf`. Merlin only needs a schema, which we write by hand.

# %%
from merlin.schema import ColumnSchema, Schema


def column(name, size, tag):
    """An integer column with values 0 to size - 1."""
    domain = {"domain": {"min": 0, "max": size - 1, "name": name}}
    return ColumnSchema(name, dtype=np.int64, tags=[tag, Tags.CATEGORICAL], properties=domain)


user_schema = Schema([column("user", len(users), Tags.USER_ID)])
shown = column("shown", len(shelf), Tags.ITEM_ID)
all_users = {"user": tf.range(len(users), dtype=tf.int64)[:, None]}


def nominator():
    """A policy: for each user, a logit for each product."""
    return mm.Model(
        mm.InputBlockV2(user_schema, categorical=mm.Embeddings(user_schema, dim=8)),
        mm.CategoricalOutput(shown),
    )


def write_log(seed, showings=200):
    """Let the old policy show products to all users; return who bought what."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(len(users)), showings)
    what = rng.choice(len(shelf), size=len(who), p=shown_by_old)
    buys = rng.random(len(who)) < reward[who, what]
    return who[buys], what[buys]


# %% [markdown]
# In a two-stage system (Ma et al. 2020) the model only *nominates* candidates, and a ranker picks
# from them. A nomination is useful only if the ranker picks it, so the new policy's probability of
# showing a product is `nominated * picked`. The ranker is given and is not trained here. We
# estimate `picked`: we draw slates from the nominator and let the ranker choose.

# %%
noise = rng.normal(scale=1.0, size=reward.shape)
ranker = np.log(reward / (1 - reward)) + noise  # a good but not perfect ranker


def picked(logits, slate=20, draws=4, seed=0):
    """(users, products): the probability that the ranker picks a product from a slate."""
    rng = np.random.default_rng(seed)
    others = np.zeros((draws, len(users)))
    for i in range(draws):
        slates = np.argpartition(-logits - rng.gumbel(size=logits.shape), slate, axis=1)[:, :slate]
        others[i] = np.exp(np.take_along_axis(ranker, slates, axis=1)).sum(axis=1)
    own = np.exp(ranker)
    return np.mean([own / (own + other[:, None]) for other in others], axis=0)


def best_ten(scores):
    """Mean true reward of each user's ten products with the best scores."""
    ten = np.argsort(-scores, axis=1)[:, :10]
    return np.take_along_axis(reward, ten, axis=1).mean()


def ranked_ten(logits):
    """The same for the ten that the ranker picks from each user's thirty nominations."""
    nominated = logits >= np.sort(logits, axis=1)[:, [-30]]
    return best_ten(np.where(nominated, ranker, -np.inf))


# %%
ROUNDS, EPOCHS_PER_ROUND, CAP = 2, 3, 10.0


def compiled(loss):
    """A nominator to train with this loss."""
    model = nominator()
    model(all_users)
    model.compile(optimizer=tf.keras.optimizers.Adam(0.04), loss=loss, metrics=[])
    model.optimizer.build(model.trainable_variables)
    return model


def learn_from_logs(model, correction):
    """Train the nominator with each seed, on a log of its own; return the logits of each."""
    found = []
    for seed in SEEDS:
        start_again(model, nominator, seed, all_users)
        who, what = write_log(seed)
        for _ in range(ROUNDS):
            weights = correction(model(all_users).numpy())[who, what]
            y_true = tf.one_hot(what, len(shelf)) * tf.constant(weights, tf.float32)[:, None]
            log = {"user": tf.constant(who)[:, None]}
            model.fit(log, y_true, batch_size=2_048, epochs=EPOCHS_PER_ROUND, verbose=0)
        found.append(model(all_users).numpy())
    return found


def as_logged(logits):
    """No correction: every purchase counts the same."""
    return np.ones_like(logits)


def one_stage(logits):
    """One over the old policy's probability."""
    return np.ones_like(logits) / shown_by_old


def two_stages(logits):
    """The same, times the probability that the ranker picks the product."""
    return picked(logits) / shown_by_old


with_weights = compiled(OffPolicyLoss(CAP))
learned = {
    "naive": learn_from_logs(
        compiled(tf.keras.losses.CategoricalCrossentropy(from_logits=True)), as_logged
    ),
    "corrected": learn_from_logs(with_weights, one_stage),
    "corrected, two stages": learn_from_logs(with_weights, two_stages),
}

# %% [markdown]
# We evaluate with the true probabilities: the mean true reward of each user's top ten, for the
# nominator alone, and for the ten that the ranker picks from its thirty nominations.

# %%
columns = {"top ten": best_ten, "ranker's ten of thirty": ranked_ten}
rows = {}
for name, seeds in learned.items():
    for judge in columns.values():
        mean, low, high = interval([judge(logits) for logits in seeds])
        rows.setdefault(name, []).extend([mean, low, high])
judged = pd.DataFrame.from_dict(
    rows,
    orient="index",
    columns=pd.MultiIndex.from_product([columns, ["mean", "low", "high"]]),
)
judged.round(3)

# %% tags=["nbval-check-output"]
alone = judged["top ten"]
record("naive_reward", alone.loc["naive", "mean"])
record("off_policy_reward", alone.loc["corrected", "mean"])
record("off_policy_gap", alone.loc["corrected", "low"] - alone.loc["naive", "high"])

# %% [markdown]
# The last figure is the distance between the two **intervals**: if it is above zero, they do not
# overlap. The log, the model and the number of steps are the same; only the weights differ. How
# popular are the products in the top ten of each model?

# %%
order = np.argsort(-popularity)
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
for name in ("naive", "corrected"):
    ten = np.argsort(-learned[name][0], axis=1)[:, :10]
    share = np.bincount(ten.ravel(), minlength=len(shelf))[order] / ten.size
    axis.plot(np.cumsum(share), label=f"{name} top ten")
axis.plot(np.cumsum(shown_by_old[order]), "--", color="0.5", label="the old policy")
axis.plot(np.linspace(0, 1, len(shelf)), ":", color="0.7", label="all products alike")
axis.set(xlabel="products, most popular first", ylabel="share of showings")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Your own negative sampler
#
# A model that learns from purchases alone needs products that were *not* bought. Uniform negatives
# are too easy. With negatives drawn by popularity, the model learns scores that are too low for
# best sellers. A **mixture** of both is the usual choice (Yang et al. 2020). The bought product
# must never be its own negative: the same pair would then have target 1 in one row and target 0 in
# the next.
#
# ### Exercise 3.4: a sampler that never draws the positive


# %% tags=["exercise-3.4"]
def draw_negatives(positives: tf.Tensor, weights: tf.Tensor, n: int, seed: int) -> tf.Tensor:
    """Draw negatives for each row: any product but the row's own positive.

    Args:
        positives: (batch,) int64, the bought product of each row.
        weights: (products,) float32, how often a product should be drawn, not normalised: they may
            be very large or very small, and their sum infinite in float32; 0 for codes that stand
            for no product.
        n: negatives per row, perhaps more than there are products.
        seed: an int within int32, or a scalar int32 tensor; it may be negative. The same seed
            gives the same draws. Another seed gives others; that they overlap is allowed.

    Returns:
        (batch, n) int64, in the order drawn. Each is drawn anew, with replacement, from all
        products other than the row's positive, in proportion to their weights. It may run inside a
        traced function, where the batch has no fixed size and NumPy fails: use TensorFlow's
        functions.
    """
    ### BEGIN SOLUTION
    own = tf.one_hot(positives, len(weights), on_value=True, off_value=False)
    allowed = tf.where(own, tf.zeros((), weights.dtype), weights[None, :])
    # the logarithm of 0 is minus infinity: never drawn
    return tf.random.stateless_categorical(tf.math.log(allowed), n, seed=(seed, 0))
    ### END SOLUTION


# %% tags=["check-3.4"]
check("3.4", draw_negatives)

# %% [markdown]
# To use `draw_negatives` **in the loader**, we put it into a layer, which `Loader.map` calls with
# each batch. For each row the layer returns `1 + n` rows. The layer counts its calls and derives
# the seed from this count; otherwise every batch would get the same draws.


# %%
@serializable
class MixedNegatives(tf.keras.layers.Layer):
    """Add negatives to batches of positives.

    Args:
        weights: how often each product is drawn, one number per code.
        per_positive: negatives per row.
        item: the column of the product; all other columns are repeated.
        seed: of the draws.

    Input: columns of shape (batch,) or (batch, 1), and their targets. Output: the same for
    batch * (1 + per_positive) rows: the positives with target 1, then the negatives with 0.
    """

    def __init__(self, weights, per_positive=4, item="product", seed=0, **kwargs):
        super().__init__(**kwargs)
        self.weights_by_code = [float(weight) for weight in weights]
        self.per_positive, self.item, self.seed = per_positive, item, seed
        self.calls = self.add_weight("calls", (), tf.int64, initializer="zeros", trainable=False)

    def call(self, inputs, targets=None):
        positives = tf.reshape(inputs[self.item], [-1])
        step = tf.cast(self.calls, tf.int32) + 1_000_003 * self.seed
        self.calls.assign_add(1)
        weights = tf.constant(self.weights_by_code)
        drawn = draw_negatives(positives, weights, self.per_positive, step)
        outputs = {}
        for name, values in inputs.items():
            added = tf.repeat(values, self.per_positive, axis=0)
            if name == self.item:
                added = tf.reshape(tf.cast(drawn, values.dtype), tf.shape(added))
            outputs[name] = tf.concat([values, added], axis=0)
        zeros = tf.zeros_like(tf.repeat(targets, self.per_positive, axis=0))
        return outputs, tf.concat([tf.ones_like(targets), zeros], axis=0)

    def get_config(self):
        kept = {"per_positive": self.per_positive, "item": self.item, "seed": self.seed}
        return {**super().get_config(), "weights": self.weights_by_code, **kept}


# %%
pairs = schema.select_by_name(["user", "product", "target"])
purchases = train_set.compute().query("target == 1")[pairs.column_names].head(20_000)
codes = schema["product"].int_domain.max + 1
counts = np.bincount(train_set.compute()["product"], minlength=codes)
real = np.arange(codes) >= 3  # 0 padding, 1 null, 2 unknown
weights = 0.5 * counts * real / (counts * real).sum() + 0.5 * real / real.sum()

sampler = MixedNegatives(weights)
loader = mm.Loader(Dataset(purchases, schema=pairs), batch_size=2_000).map(sampler)
drawn = np.zeros(codes)
clashes = 0
for rows, targets in loader:
    product, label = (tf.reshape(x, [-1]).numpy() for x in (rows["product"], targets))
    drawn += np.bincount(product[label == 0], minlength=codes)
    clashes += np.sum(product[label == 0] == np.repeat(product[label == 1], 4))
print(f"{int(drawn.sum()):,} negatives, {clashes} of them the row's own positive")
head = np.isin(np.arange(codes), np.argsort(-counts)[: codes // 10])
for name, share in {
    "uniform": real / real.sum(),
    "popular": counts * real / (counts * real).sum(),
    "mixed, expected": weights,
    "mixed, drawn": drawn / drawn.sum(),
}.items():
    print(f"{name:15} {share[head].sum():.3f} of the negatives are from the most popular tenth")

# %% [markdown]
# ## Your own metric
#
# **Coverage**: which share of the products is in the top ten of at least one user? A Keras metric
# has three methods: `update_state` is called for each batch, `result` at any time, `reset_state`
# before the next epoch. The result must be **exact**: it must not depend on how the rows are split
# into batches. A mean over batches is not exact, because a single batch covers fewer products than
# all rows together.
#
# Keep all state in variables made by `add_weight`: they are saved, and they work inside a graph.
# Note that the `reset_state` that a metric inherits in Keras 2.12 resets only scalars and fails on
# a vector. So our metric defines its own `reset_state`.
#
# ### Exercise 3.5: a metric whose state resets


# %% tags=["exercise-3.5"]
@serializable
class Coverage(tf.keras.metrics.Metric):
    """The share of products that are in the top k of any row since the last reset.

    Args:
        k: how many products a row is shown, at most `products`.
        products: how many there are.
    """

    def __init__(self, k, products, name="coverage", **kwargs):
        super().__init__(name=name, **kwargs)
        self.k, self.products = k, products
        self.seen = self.add_weight("seen", shape=(products,), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Mark in `self.seen`, with 1, the k best of each row of y_pred: (batch, products) float32.

        Scores may be of any size, and very close. Of equal ones the product with the lower code
        comes first. `y_true` and `sample_weight` are not used, and may be None. In `fit` this is
        traced: the batch has no fixed size and NumPy fails, so use TensorFlow's functions.
        """
        ### BEGIN SOLUTION
        best = tf.reshape(tf.math.top_k(y_pred, self.k).indices, [-1, 1])
        ones = tf.ones(tf.shape(best)[0], self.seen.dtype)
        self.seen.assign(tf.tensor_scatter_nd_update(self.seen, best, ones))
        ### END SOLUTION

    def result(self):
        return tf.reduce_mean(self.seen)

    def reset_state(self):
        self.seen.assign(tf.zeros_like(self.seen))

    def get_config(self):
        return {**super().get_config(), "k": self.k, "products": self.products}


# %% tags=["check-3.5"]
check("3.5", Coverage)

# %%
metric = Coverage(10, len(shelf))
coverage = {}
for name, seeds in learned.items():
    covered = []
    for logits in seeds:
        metric.reset_state()
        for rows in np.array_split(logits, 7):
            metric.update_state(None, tf.constant(rows))
        covered.append(float(metric.result()))
    coverage[name], low, high = interval(covered)
    print(f"{name:22} coverage {coverage[name]:.3f} ({low:.3f} to {high:.3f})")

# %% tags=["nbval-check-output"]
record("naive_coverage", coverage["naive"])
record("off_policy_coverage", coverage["corrected"])

# %% [markdown]
# ## Make it work for others
#
# A custom part is finished when it works in another process, on another machine. This takes three
# steps.
#
# **1. Merlin's own tests.** `testing_utils` holds the functions with which Merlin tests its layers:
# `assert_serialization` for `get_config`, `layer_test` for shapes, types, saving and loading in a
# model, `model_test` for a whole model.

# %%
from merlin.models.tf.utils import testing_utils

tf.keras.utils.disable_interactive_logging()
for part in (FieldGates(2), CrossMixture(2, 3, 4), MixedNegatives([0, 1, 2]), Coverage(10, 50)):
    copy = testing_utils.assert_serialization(part)
    assert copy.get_config() == part.get_config()
    print(f"{type(part).__name__}: rebuilt from its config")
output = testing_utils.layer_test(
    CrossMixture, kwargs={"experts": 2, "rank": 3}, input_shape=(16, 5), input_dtype="float32"
)
print("CrossMixture: passed Merlin's layer_test, output", output.shape)

# %% [markdown]
# **2. A module.** Another process does not have this notebook. We write the source of the cells to
# a module, as in your own repository; a saved model finds its classes there.

# %%
import linecache
import subprocess
import sys
import tempfile
from pathlib import Path


def cell_of(function):
    """The text of the cell that defined a function."""
    return "".join(linecache.getlines(function.__code__.co_filename))


parts = [serializable]
parts += [off_policy_weight, OffPolicyLoss.call, draw_negatives, MixedNegatives.call]
parts += [FieldGates.call, CrossMixture.call, Coverage.result]
module = "\n\n".join(["import tensorflow as tf", *map(cell_of, parts)])

# %% [markdown]
# **3. Save here, load in another process.** We save a model with our layers, our loss and our
# metric. A new Python process, which has only the module, loads the model and predicts.

# %%
script = """
import sys
import numpy as np, tensorflow as tf, parts
model = tf.keras.models.load_model(sys.argv[1])
inputs = {name: np.linspace(-1, 1, 12).reshape(3, 4) for name in ("brand", "user")}
print(type(model.loss).__name__, model.loss.cap)
print(model.predict(inputs, verbose=0).sum(axis=1).round(6).tolist())
"""
small = {name: tf.keras.Input((4,), name=name) for name in ("brand", "user")}
crossed_small = CrossMixture(experts=2, rank=3)(
    tf.keras.layers.Concatenate()(list(FieldGates()(small).values()))
)
small_model = tf.keras.Model(small, tf.keras.layers.Dense(6)(crossed_small))
small_model.compile(loss=OffPolicyLoss(cap=5.0), metrics=[Coverage(2, 6)])
example = {name: np.linspace(-1, 1, 12).reshape(3, 4) for name in small}
small_model.fit(example, np.eye(6)[:3] * 20, verbose=0)

with tempfile.TemporaryDirectory() as folder:
    Path(folder, "parts.py").write_text(module)
    small_model.save(Path(folder, "model"))
    there = subprocess.run(
        [sys.executable, "-c", script, str(Path(folder, "model"))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
here = small_model.predict(example, verbose=0).sum(axis=1).round(6).tolist()
print("there:", *there.splitlines(), sep="\n  ")
print(f"here:\n  {here}")
assert str(here) in there

# %% [markdown]
# Such a change also needs a unit test with a case computed by hand; tests with inputs in `float32`
# and `float64`; columns selected by **tags and schema** (`select_by_tag(Tags.CATEGORICAL)`) instead
# of names, so that it works on other tables; and the table of five seeds.
#
# ## Summary
#
# * Models consist of blocks: `connect` puts them in sequence, `ParallelBlock` in parallel.
# * Before you change a rebuilt model, check that it equals the original.
# * Test one change at a time, over five seeds, paired. Often the result is "not shown".
# * A log depends on what users were shown. Capped importance weights correct for this.
# * A layer, a loss, a sampler, a metric: each is a small class with `get_config`. It is finished
#   when another process can load it.
#
# **To read.** Cheng et al., *Wide & deep learning* (2016). Naumov et al., *DLRM* (2019). Wang et
# al., *DCN V2* (2021). Hu et al., *Squeeze-and-excitation networks* (2018); Huang et al., *FiBiNET*
# (2019). Chen et al., *Top-K off-policy correction* (2019); Ma et al., *Off-policy learning in
# two-stage recommender systems* (2020). Yang et al., *Mixed negative sampling* (2020).
