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
# You have an idea for a better ranker. This lab takes a well-known model apart into blocks, proves
# that nothing was lost, and then changes one block at a time to see whether it helps.
#
# **After this lab you will be able to**
#
# * build a model from Merlin's blocks with `connect`, `ParallelBlock` and `Filter`;
# * prove that your version of a model *is* that model;
# * add a wide part of hashed crosses, and replace the interaction by a cross network;
# * say whether a change helped.
#
# About 40 minutes. It starts from the tables that lab 2 made.

# %% tags=["parameters"]
# "store", "movielens", or "rees46" with events = "folder/*.csv.gz"
dataset = "store"
# "ci", "laptop" or "gpu"
profile = "laptop"
events = None

# %%
from multistage.notebook import quiet, record
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
tables = workspace.read("features/tables")

# %%
import merlin.models.tf as mm
import tensorflow as tf
from merlin.io import Dataset
from merlin.schema import Tags

tf.keras.utils.set_random_seed(workspace.profile.seed)
tf.config.experimental.enable_op_determinism()

train_set, valid_set, test_set = (
    Dataset(str(tables / name), engine="parquet") for name in ("train", "valid", "test")
)
schema = train_set.schema
categories = schema.select_by_tag(Tags.CATEGORICAL)
numbers = schema.select_by_tag(Tags.CONTINUOUS)

# %% [markdown]
# ## One batch, and what blocks do to it
#
# A loader hands out batches as a dictionary, one tensor a column.

# %%
batch, target = mm.sample_batch(train_set, batch_size=4, prepare_features=True)
{name: tuple(values.shape) for name, values in batch.items()}

# %% [markdown]
# `Embeddings` turns each category into a vector; `ContinuousFeatures` picks the numbers, and
# `connect` puts the next block behind it. Numbers, so, become a vector too, of the same size.

# %%
embeddings = mm.Embeddings(categories, dim=8)
bottom = mm.ContinuousFeatures.from_schema(numbers).connect(mm.MLPBlock([64, 8]))
print({name: tuple(vector.shape) for name, vector in embeddings(batch).items()})
print("bottom:", tuple(bottom(batch).shape))

# %% [markdown]
# `ParallelBlock` runs blocks side by side and keeps their outputs by name. Stacked, they are one
# tensor of shape `(batch, vectors, size)`, and DLRM's interaction is the dot product of each pair
# of vectors in it.
#
# ### Exercise 3.1: DLRM's interaction


# %% tags=["exercise-3.1"]
def pairwise_dots(vectors: tf.Tensor) -> tf.Tensor:
    """Return the dot product of each pair of different vectors, each pair once.

    Args:
        vectors: (batch, n, size) float32.

    Returns:
        (batch, n * (n - 1) / 2) float32, in the order (0, 1), (0, 2), ..., (1, 2), ...
    """
    ### BEGIN SOLUTION
    products = tf.matmul(vectors, vectors, transpose_b=True)
    n = vectors.shape[1]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return tf.stack([products[:, i, j] for i, j in pairs], axis=1)
    ### END SOLUTION


# %% tags=["check-3.1"]
from multistage.exercises import check

check("3.1", pairwise_dots)

# %% [markdown]
# Merlin's own block does the same:

# %%
from merlin.models.tf.blocks.dlrm import DotProductInteractionBlock

vectors = embeddings(batch)
stacked = tf.stack([vectors[name] for name in sorted(vectors)], axis=1)
ours = pairwise_dots(stacked)
theirs = DotProductInteractionBlock()(vectors)
print(f"largest difference: {tf.reduce_max(tf.abs(ours - theirs)):.1e}")

# %% [markdown]
# ## DLRM from blocks
#
# The whole model in five lines: inputs side by side; the interaction, with a **shortcut** that
# passes the bottom vector around it; a top MLP; a binary output.


# %%
def inputs():
    """Embeddings and the bottom MLP, side by side."""
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
    )


def interaction():
    """All pairs of vectors; the bottom vector also passes around them."""
    return inputs().connect_with_shortcut(
        DotProductInteractionBlock(),
        shortcut_filter=mm.Filter("bottom_block"),
        aggregation="concat",
    )


def from_blocks():
    """DLRM."""
    return mm.Model(interaction().connect(mm.MLPBlock([64, 32])), mm.BinaryOutput("target"))


# %% [markdown]
# Is this DLRM? Looking alike is no proof. Same number of weights; and with the stock model's
# weights copied over, the same outputs.

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
blocks = from_blocks()
batch, target = mm.sample_batch(train_set, batch_size=1_024, prepare_features=True)
stock(batch), blocks(batch)  # builds both

blocks.set_weights(stock.get_weights())
difference = float(tf.reduce_max(tf.abs(stock(batch) - blocks(batch))))
assert stock.count_params() == blocks.count_params()
assert difference < 1e-5
print(f"{blocks.count_params():,} weights each, largest difference {difference:.0e}")

# %% [markdown]
# ## Train it
#
# The same budget for each variation, the same seed, early stopping on the validation month, one
# look at the test month.

# %%
from multistage.evaluation import auc_interval

truth = test_set.compute()["target"].to_numpy()
results = {}


def train_and_judge(name, build):
    """Build the model with the seed, train it, and keep its AUC on the test month."""
    tf.keras.utils.set_random_seed(workspace.profile.seed)
    model = build()
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-2), metrics=[tf.keras.metrics.AUC(name="auc")]
    )
    model.fit(
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
    score = model.predict(mm.Loader(test_set, batch_size=8_192, shuffle=False), verbose=0)
    auc, low, high = auc_interval(truth, score)
    results[name] = {"AUC": auc, "low": low, "high": high, "parameters": model.count_params()}
    return auc


# %% tags=["nbval-check-output"]
record("auc_blocks", train_and_judge("blocks", from_blocks))

# %% [markdown]
# ## A wide part: hashed crosses
#
# A wide part (Cheng et al. 2016) memorises combinations: "this brand in this category" gets a
# weight of its own. There may be very many combinations, so they are **hashed** into bins, and two
# that fall into one bin share a weight.
#
# How many bins? With n values thrown into m bins, a value is alone in its bin with probability
# `(1 - 1/m) ** (n - 1)`.
#
# ### Exercise 3.2: bins enough


# %% tags=["exercise-3.2"]
def bins_for(n_values: int, colliding: float) -> int:
    """Return the smallest number of bins that keeps collisions rare.

    Args:
        n_values: how many different values are hashed; at least 1.
        colliding: the largest accepted share of values that share their bin with another one,
            between 0 and 1, both excluded.

    Returns:
        The smallest m for which 1 - (1 - 1/m) ** (n_values - 1) <= colliding.
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
# The wide part and the deep part run side by side, and one output reads both. `HashedCross` gives a
# one-hot vector of the bin; the output's weight for it is the weight of the combination.


# %%
def with_wide_part():
    """DLRM beside a hashed cross of three features."""
    deep = interaction().connect(mm.MLPBlock([64, 32]))
    wide = mm.HashedCross(crossed, num_bins=bins)
    return mm.Model(
        mm.ParallelBlock({"deep": deep, "wide": wide}, aggregation="concat"),
        mm.BinaryOutput("target"),
    )


# %% tags=["nbval-check-output"]
record("auc_wide", train_and_judge("wide", with_wide_part))

# %% [markdown]
# ## A cross network for the dot product
#
# Dot products weigh all coordinates alike. A cross network learns which coordinates should meet. In
# blocks, it is one line: `CrossBlock` concatenates its inputs and crosses them.


# %%
def with_cross_network():
    """DLRM with a cross network in the place of its interaction."""
    crossing = mm.CrossBlock(depth=2, inputs=inputs())
    return mm.Model(crossing.connect(mm.MLPBlock([64, 32])), mm.BinaryOutput("target"))


# %% tags=["nbval-check-output"]
record("auc_cross", train_and_judge("cross", with_cross_network))

# %% [markdown]
# ## Did it help?

# %%
import matplotlib.pyplot as plt
import pandas as pd

table = pd.DataFrame(results).T
figure, axis = plt.subplots(figsize=(7, 2), layout="constrained")
spread = [table["AUC"] - table["low"], table["high"] - table["AUC"]]
axis.errorbar(table["AUC"], table.index, xerr=spread, fmt="o", capsize=4)
axis.set(xlabel="AUC on the test month, with 95% interval")
axis.margins(y=0.3)
plt.show()
table.round(4)

# %% [markdown]
# Compare the intervals before you believe the order: one training run with one seed moves by
# itself. An interval that contains the stock model's figure says "not shown", whatever the paper
# says.
#
# ## Summary
#
# * Models are blocks: `connect` puts one behind the other, `ParallelBlock` side by side.
# * Prove that your starting point equals the original before you change it.
# * Change one block at a time, with the same budget, and read the interval.
#
# **To read.** Cheng et al., *Wide & deep learning* (2016). Naumov et al., *DLRM* (2019). Wang et
# al., *DCN V2* (2021).
