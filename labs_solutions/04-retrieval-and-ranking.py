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
# # 4. Train retrieval and ranking, and evaluate them together
#
# Lab 2 compared rankers on the rows of a log. In a pipeline, the ranker gets only the products that
# retrieval found, and the result is the ten products that are shown at the end. This lab trains
# both stages and evaluates **the pipeline** on the whole catalogue, compared with models without a
# neural network that were tuned with the same care.
#
# **After this lab you will be able to**
#
# * train a two-tower model with in-batch negatives and the log-Q correction;
# * measure recall over the catalogue, and say why in-batch recall is a different measure;
# * train a ranker on the candidates that it will get in the pipeline;
# * choose an index, find the weakest stage, and export everything for serving.
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
from courseware.records import record
from multistage.tensorflow_setup import create_weights, lean_tensorflow, quiet
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
lean_tensorflow()

train_set = Dataset(str(tables / "train"), engine="parquet")
valid_set = Dataset(str(tables / "valid"), engine="parquet")
schema = train_set.schema
user_schema = schema.select_by_tag(Tags.USER)
item_schema = schema.select_by_tag(Tags.ITEM)

# %% [markdown]
# ## Users and products as the models see them
#
# The workflow of lab 2 encodes any table that has its columns. `remove_inputs` removes the branches
# whose columns are missing: for a table of products, those of the user and of the context.

# %%
from multistage.features import TargetEncoding, user_history


def encode(frame):
    """Encode the columns that `frame` has with the workflow of lab 2."""
    workflow = nvt.Workflow.load(workflow_folder / "workflow")
    missing = [name for name in workflow.input_schema.column_names if name not in frame]
    return workflow.remove_inputs(missing).transform(Dataset(frame)).compute()


encoding = TargetEncoding.load(workflow_folder / "target_encoding.parquet")
items = encode(encoding.transform(data.catalog))[item_schema.column_names]
# An unknown user: code 2 is "unknown", and there is no history.
unknown = encode(pd.DataFrame({"user_id": [-1], "user_activity": [0.0], "user_price": [np.nan]}))
unknown = unknown[user_schema.column_names]


def encode_users(known, user_ids):
    """Return each user's row after the `known` interactions; for others the unknown user's row."""
    state = user_history(known)
    encoded = pd.concat([encode(state)[user_schema.column_names], unknown], ignore_index=True)
    row = pd.Series(np.arange(len(state)), index=state["user_id"]).reindex(user_ids)
    return encoded.iloc[row.fillna(len(state)).astype(int)].reset_index(drop=True)


unknown

# %% [markdown]
# ## Two towers
#
# One network encodes the user, another the product, and the dot product of their vectors is the
# score. The two networks are independent, so every product's vector can be computed **ahead of
# time**, and retrieval becomes a search for the vectors with the largest dot product.
#
# A log of purchases has no negatives. With **in-batch negatives**, the negatives of a user are the
# products that the other users of the batch bought. This is cheap, but biased.
#
# %% [markdown]
# ### Exercise 4.1: log-Q in a loss
#
# In a batch, user i's own product is in column i, and the other columns are the negatives. The
# negatives are not drawn uniformly: product j occurs as a negative with probability Q(j), and a
# best seller is in nearly every batch. Without a correction the model learns `score - log Q`
# instead of the score, and the scores of best sellers are too low for all users. Yi et al. (2019)
# correct this **inside the loss**: train on `s_ij - log Q(j)`, and serve `s_ij`.
#
# The loss is the cross-entropy of a softmax over each row. Logits divided by a small temperature
# grow into the hundreds, where `exp` alone overflows.


# %% tags=["exercise-4.1"]
def corrected_loss(logits: np.ndarray, probability: np.ndarray) -> float:
    """Return the loss of a batch with in-batch negatives and the log-Q correction.

    Args:
        logits: (batch, batch) dot products, float64; row i is a user, column j a product, and the
            product that user i bought is column i. They may be in the millions, of either sign,
            and one row's may be millions above another row's. A batch of one user is possible.
        probability: (batch,) the probability of meeting each column's product as a negative,
            float64, above 0 and at most 1. It may be as small as 1e-200, and they need not add up
            to 1.

    Returns:
        The mean over users of the cross-entropy (natural logarithm) of the softmax over each row,
        after every logit has been corrected for its product's probability. The result is exact: no
        logit is limited, no small number is added anywhere, and nothing is rounded to float32.
        Neither argument may be changed.
    """
    ### BEGIN SOLUTION
    corrected = logits - np.log(probability)
    highest = corrected.max(axis=1, keepdims=True)  # exp of what is left never overflows
    log_total = highest[:, 0] + np.log(np.exp(corrected - highest).sum(axis=1))
    return float(np.mean(log_total - np.diag(corrected)))
    ### END SOLUTION


# %% tags=["check-4.1"]
from courseware.exercises import check

check("4.1", corrected_loss)

# %% [markdown]
# In Merlin the correction is a block after the output. It needs the frequency of every code; a
# product that was never bought counts as bought once.

# %%
from merlin.models.tf.outputs.base import DotProduct
from merlin.models.tf.transforms.bias import PopularityLogitsCorrection

retrieval_schema = user_schema + item_schema


def purchases(*splits):
    """Return the encoded purchases of one or more splits, of products that training knows."""
    rows = pd.concat([split.compute() for split in splits], ignore_index=True)
    return rows[(rows["target"] == 1) & rows["product"].isin(items["product"])]


def popularity_of(rows):
    """Return how often each product code was bought, at least once."""
    counts = np.bincount(rows["product"], minlength=item_schema["product"].int_domain.max + 1)
    return np.maximum(counts, 1.0)


def tower(tower_schema):
    """Embeddings and numbers, then an MLP with 32 outputs."""
    embeddings = mm.Embeddings(
        tower_schema.select_by_tag(Tags.CATEGORICAL),
        dim=32,
        embeddings_regularizer=tf.keras.regularizers.l2(1e-4),
    )
    return mm.Encoder(
        mm.InputBlockV2(tower_schema, categorical=embeddings),
        mm.MLPBlock([64, 32], no_activation_last_layer=True),
    )


def purchase_loader(rows):
    """Load purchases in batches, in a new order in each epoch."""
    return mm.Loader(
        Dataset(rows[retrieval_schema.column_names], schema=retrieval_schema),
        batch_size=settings.retrieval_batch_size,
        shuffle=True,
        drop_last=True,  # RecallAt(10) fails on a last batch of fewer than ten rows
    )


positives = purchases(train_set)
loader = purchase_loader(positives)

tf.keras.utils.set_random_seed(settings.seed)
two_tower = mm.TwoTowerModelV2(
    tower(user_schema),
    tower(item_schema),
    outputs=mm.ContrastiveOutput(
        to_call=DotProduct(),
        negative_samplers="in-batch",
        schema=item_schema.select_by_tag(Tags.ITEM_ID),
        store_negative_ids=True,
        post=PopularityLogitsCorrection(popularity_of(positives), schema=item_schema),
    ),
)
two_tower.compile(
    optimizer=tf.keras.optimizers.legacy.Adam(settings.retrieval_learning_rate),
    metrics=[mm.RecallAt(10)],
)
create_weights(two_tower, loader.peek()[0])
# sorting a batch for the metric takes longer than the training step: do it for one in fifty
history = two_tower.fit(loader, epochs=settings.retrieval_epochs, train_metrics_steps=50, verbose=0)
in_batch_recall = history.history["recall_at_10"][-1]
print(f"in-batch recall@10, training: {in_batch_recall:.4f}")

# %% [markdown]
# ## Recall over the whole catalogue
#
# In the pipeline, retrieval searches the **whole catalogue**. A *top-k encoder* combines the query
# tower with the product vectors. `two_tower.to_top_k_encoder(products)` makes one in a single call,
# for catalogues of any size: it saves the product tower and lets Dask's workers load it, which
# takes seconds. Our catalogue fits in memory, so we compute its vectors with the tower and give
# them to the encoder, by product code. Models are compared on the **validation month**; the test
# month is used only when everything is chosen.

# %%
from multistage.evaluation import Holdout, bootstrap_interval, ndcg_at_k, recall_at_k

valid_task = Holdout.from_data(data, "valid")
valid_users = encode_users(data.train, valid_task.user_ids)


def tensors(rows):
    """Columns of a table that fits in memory, as a model expects them."""
    return {name: tf.constant(column) for name, column in rows.items()}


products = two_tower.candidate_encoder(tensors(items)).numpy()
by_code = Dataset(pd.DataFrame(products).set_index(items["product"]))
top_k = mm.TopKEncoder(two_tower.query_encoder, candidates=by_code, k=10)
found = top_k(tensors(valid_users.head(3)))
pd.DataFrame(found.identifiers).rename_axis("user").rename(columns=lambda place: place + 1)

# %% [markdown]
# The encoder returns product codes, and does not know which products a user has seen. To evaluate
# all models in the same way, we compute the vectors of both towers and score the catalogue:

# %%


def vectors_of(model, user_rows):
    """Return the vectors of users and of the whole catalogue, (n, 32) and (items, 32)."""
    towers = {model.query_encoder: user_rows, model.candidate_encoder: items}
    return tuple(tower(tensors(rows)).numpy() for tower, rows in towers.items())


def catalogue_scores(model):
    """Return (users, items) scores of the validation month's users."""
    users, products = vectors_of(model, valid_users)
    return users @ products.T


scores = catalogue_scores(two_tower)
retrieved = valid_task.top_k(scores, settings.candidates)
retrieval_recall = np.mean(recall_at_k(retrieved, valid_task.relevant, 100))
print(f"in-batch recall@10, training:       {in_batch_recall:.4f}")
print(
    "catalogue recall@10, validation:   ",
    f"{np.mean(recall_at_k(retrieved, valid_task.relevant, 10)):.4f}",
)
print(f"catalogue recall@100, validation:   {retrieval_recall:.4f}")

# %% [markdown]
# ### Exercise 4.2: recall over the catalogue
#
# In-batch recall measures whether the bought product scores above the few hundred other products of
# its batch. The task of the shop is harder: of **all** products that the user does not have yet,
# are the bought ones among the first k? The definition has three details.
#
# * Products that the user has seen are removed *before* the list is cut to k; otherwise they take
#   up places.
# * A list of k places can hold at most k of the bought products. So we divide by min(k, number
#   bought): then a perfect list has recall 1 for every user.
# * Each user counts once, however much they buy: the result is the mean of the users' recalls.


# %% tags=["exercise-4.2"]
def catalogue_recall(
    users: np.ndarray,
    products: np.ndarray,
    seen: list[np.ndarray],
    bought: list[np.ndarray],
    k: int,
) -> float:
    """Return recall@k over the whole catalogue.

    Args:
        users: (n, d) a vector for each user. It may not be changed.
        products: (m, d) a vector for each product; the score is the dot product of the two, of
            either sign and any size (1e200 is possible). No two scores of a user are equal, but
            they may be close. It may not be changed.
        seen: for each user, the positions of products that are never recommended to them,
            possibly none, possibly one of them twice, and not the same number for every user. It
            may be changed.
        bought: for each user, the positions of the products to be found: at least one, each
            once, none of them seen. It may be changed.
        k: how many products a user is shown, at least 1. It may be larger than the number of
            unseen products, and larger than m: then all unseen products are shown.

    Returns:
        The mean over users of (bought products among the k best unseen ones) divided by
        (the smaller of k and the number bought).
    """
    ### BEGIN SOLUTION
    recalls = []
    for vector, mine, wanted in zip(users, seen, bought, strict=True):
        scores = products @ vector
        scores[mine] = -np.inf
        best = np.argsort(-scores)[:k]
        recalls.append(np.isin(best, wanted).sum() / min(k, len(wanted)))
    return float(np.mean(recalls))
    ### END SOLUTION


# %% tags=["check-4.2"]
check("4.2", catalogue_recall)

# %% [markdown]
# Your function and the package's give the same result on the real data:

# %%
users, products = vectors_of(two_tower, valid_users)
print(
    "yours:      ",
    round(
        catalogue_recall(
            users,
            products,
            np.split(valid_task.seen.indices, valid_task.seen.indptr[1:-1]),
            np.split(valid_task.relevant.indices, valid_task.relevant.indptr[1:-1]),
            100,
        ),
        4,
    ),
)
print("multistage: ", round(retrieval_recall, 4))

# %% [markdown]
# ## Which negatives?
#
# A log of purchases shows what users bought, but not which products they saw and did not buy. Every
# retrieval model has to choose its negatives, and this choice matters more than the number of
# layers. We keep the towers, the data and the budget (one epoch on a quarter of the purchases), and
# change only the negatives.
#
# We evaluate on the validation month, over the whole catalogue: recall@100 for all purchases, for
# the **head** (the most bought fifth of the products), for the **tail** (the rest), and for
# **cold** users (not in training). The last column is the share of the head in the recommended
# products.

# %%
times_bought = np.asarray(valid_task.purchases.sum(axis=0)).ravel()
is_head = np.zeros(len(times_bought))
is_head[np.argsort(-times_bought, kind="stable")[: len(times_bought) // 5]] = 1
of_head = valid_task.relevant.multiply(is_head).tocsr()
of_tail = valid_task.relevant - of_head
for part in (of_head, of_tail):
    part.eliminate_zeros()


def judge(scores):
    """Recall@100 over the catalogue, in parts."""
    best = valid_task.top_k(scores, 100)
    recall = recall_at_k(best, valid_task.relevant, 100)
    return {
        "recall@100": recall.mean(),
        "head": np.nanmean(recall_at_k(best, of_head, 100)),
        "tail": np.nanmean(recall_at_k(best, of_tail, 100)),
        "cold": recall[~valid_task.warm].mean() if (~valid_task.warm).any() else np.nan,
        "share of head": is_head[best].mean(),
    }


# %% [markdown]
# ### Estimate the frequencies from a stream
#
# The log-Q correction needs Q(j), the probability that product j is in a batch. We counted it from
# a table. That is not possible when training reads an endless stream. Yi et al. (2019) count how
# many steps have passed **since this product was last seen**. The inverse of a moving average of
# this gap is the frequency. This method needs only two numbers per product. It also follows changes
# in popularity; a total count does not.

# %%
n_codes = item_schema["product"].int_domain.max + 1


def streaming_probability(stream, rate=0.02):
    """Q of each code, from a moving average of the gaps between its appearances."""
    last, seen = np.zeros(n_codes), np.zeros(n_codes)
    gap = np.full(n_codes, float(len(stream)))  # if never seen: once in the stream
    for step, code in enumerate(stream, start=1):
        seen[code] += 1
        weight = max(rate, 1 / seen[code])  # a plain average first, then a moving one
        gap[code] += weight * (step - last[code] - gap[code])
        last[code] = step
    return 1 / gap


purchases_in_time = data.train[data.train["target"] == 1].sort_values("timestamp", kind="stable")
code_of = pd.Series(items["product"].to_numpy(), index=data.catalog["product_id"])
stream = code_of.reindex(purchases_in_time["product_id"]).dropna().to_numpy("int64")
streamed = streaming_probability(stream)

ratio = pd.Series(streamed * len(stream) / popularity_of(positives)).loc[items["product"]]
fifth = pd.Series(np.argsort(np.argsort(-times_bought, kind="stable")) * 5 // len(times_bought) + 1)
ratio.groupby(fifth.to_numpy()).quantile([0.1, 0.5, 0.9]).unstack().rename_axis(
    "streamed / counted, by fifth of popularity"
).round(2)

# %% [markdown]
# A ratio of 1 means that both frequencies agree. In the head, where the correction matters most,
# the estimate is close to the count. For the rarest products the estimate is computed from a few
# gaps only. It also differs where a product's sales have changed, because it follows these changes.
#
# ### Negatives that are not in the batch
#
# Merlin has two samplers for its contrastive output. `"in-batch"` takes the products of the batch
# with their vectors. `PopularityBasedSamplerV2` draws *codes*, and low codes more often, because
# Categorify gives low codes to frequent products; `min_id=3` excludes padding, nulls and unknowns.
# But a tower needs the product's features to compute a vector: the sampler alone works for models
# with an embedding table, and fails on two towers. So we add the vectors. We also add a cache,
# which keeps the vectors of the previous batches. These vectors need no computation, but are
# slightly out of date.

# %%
from merlin.models.tf.outputs.sampling.base import Candidate, CandidateSampler

catalogue = items.set_index("product", drop=False).reindex(range(n_codes), fill_value=0)


def with_vectors(codes, item_tower):
    """Codes of shape (n, 1) and the vectors that the tower gives them now."""
    features = {name: tf.gather(column.to_numpy(), codes) for name, column in catalogue.items()}
    return Candidate(codes, {}).with_embedding(item_tower(features))


class PopularSampler(mm.PopularityBasedSamplerV2):
    """Merlin's sampler of codes, for a model whose products have towers."""

    def __init__(self, n, item_tower):
        super().__init__(max_id=n_codes, min_id=3, max_num_samples=n)
        self.item_tower = item_tower

    def sample(self):
        return with_vectors(super().sample().id, self.item_tower)


class UniformSampler(CandidateSampler):
    """Draws all products of the catalogue with the same probability."""

    def __init__(self, n, item_tower):
        super().__init__(max_num_samples=n)
        self.item_tower = item_tower

    def add(self, items):
        pass

    def sample(self):
        codes = tf.random.uniform((self.max_num_samples, 1), 3, n_codes, tf.int64)
        return with_vectors(codes, self.item_tower)


class BatchesBefore(CandidateSampler):
    """A cache: the products of the previous batches, with the vectors that they had then."""

    def __init__(self, n, item_tower):
        super().__init__(max_num_samples=n)
        self.codes = tf.Variable(tf.zeros((n, 1), tf.int64), trainable=False)
        self.vectors = tf.Variable(tf.zeros((n, 32)), trainable=False)
        self.filled = tf.Variable(0, trainable=False)

    def add(self, items):
        codes = tf.concat([self.codes, tf.reshape(items.id, (-1, 1))], axis=0)
        vectors = tf.concat([self.vectors, tf.stop_gradient(items.embedding)], axis=0)
        self.codes.assign(codes[-self.max_num_samples :])
        self.vectors.assign(vectors[-self.max_num_samples :])
        self.filled.assign(tf.minimum(self.filled + tf.shape(items.id)[0], self.max_num_samples))

    def sample(self):
        empty = self.max_num_samples - self.filled
        codes, vectors = self.codes.read_value(), self.vectors.read_value()
        return Candidate(codes[empty:], {}).with_embedding(vectors[empty:])

    def call(self, items, training=False, **_):
        before = self.sample()  # read the cache before this batch is added
        if training:
            self.add(items)
        return before


# %%
from functools import partial

trial = positives[retrieval_schema.column_names].sample(frac=0.25, random_state=settings.seed)
trial_batch = min(settings.retrieval_batch_size, len(trial) // 8)
retrieval_set = Dataset(trial, schema=retrieval_schema)
n_sampled = len(items) // 3


def train(samplers, post=None, logq=False, unit_length=False, temperature=1.0):
    """Two towers after one epoch on the trial; `samplers` makes negatives from the item tower."""
    tf.keras.utils.set_random_seed(settings.seed)
    query, candidate = tower(user_schema), tower(item_schema)
    if unit_length:
        query.post, candidate.post = mm.L2Norm(), mm.L2Norm()
    model = mm.TwoTowerModelV2(
        query,
        candidate,
        outputs=mm.ContrastiveOutput(
            to_call=DotProduct(),
            negative_samplers=samplers(candidate),
            schema=item_schema.select_by_tag(Tags.ITEM_ID),
            store_negative_ids=True,
            post=post,
            logq_sampling_correction=logq,
            logits_temperature=temperature,
        ),
    )
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])  # judged afterwards
    loader = mm.Loader(retrieval_set, batch_size=trial_batch, shuffle=True, drop_last=True)
    create_weights(model, loader.peek()[0])
    model.fit(loader, epochs=1, train_metrics_steps=0, verbose=0)
    return model


logq_correction = partial(PopularityLogitsCorrection, schema=item_schema)
uniform = np.where(np.arange(n_codes) < 3, 0, 1 / (n_codes - 3))
mixture = trial_batch * streamed / streamed.sum() + n_sampled * uniform

negatives = {
    "in-batch": train(lambda item_tower: "in-batch"),
    "in-batch, log-Q": train(lambda item_tower: "in-batch", logq_correction(streamed)),
    "popular, log-Q": train(lambda item_tower: PopularSampler(n_sampled, item_tower), logq=True),
    "in-batch and uniform, log-Q": train(
        lambda item_tower: ["in-batch", UniformSampler(n_sampled, item_tower)],
        logq_correction(mixture),
    ),
    "in-batch and cached, log-Q": train(
        lambda item_tower: ["in-batch", BatchesBefore(2 * trial_batch, item_tower)],
        logq_correction(streamed),
    ),
    "unit length, log-Q": train(
        lambda item_tower: "in-batch", logq_correction(streamed), unit_length=True
    ),
    "unit length, temperature 0.1, log-Q": train(
        lambda item_tower: "in-batch",
        # Merlin divides by the temperature after the correction, so scale the correction down
        logq_correction(streamed, reg_factor=0.1),
        unit_length=True,
        temperature=0.1,
    ),
}

# %%
found = {name: judge(catalogue_scores(model)) for name, model in negatives.items()}
found["what users bought"] = {"share of head": of_head.sum() / valid_task.relevant.sum()}
pd.DataFrame(found).T.round(4)

# %% [markdown]
# Compare the head with the tail. Without the correction, popular products occur as negatives so
# often that their scores become too low: the share of the head in the lists is far below its share
# of the purchases, and the lists are full of rare products. With log-Q the scores estimate what
# users buy. The share of the head rises, after this short training even above its share of the
# purchases, because a model learns popularity first; recall in the tail falls. A shop that wants to
# recommend more rare products can choose a point between the two with `reg_factor`.
#
# In two rows, every vector has **length one**. A score is then a cosine between -1 and 1, and a
# softmax over such scores is nearly flat: even after long training, no product can get a much
# higher probability than another. Dividing by a **temperature** of 0.1 scales the scores to ±10,
# and the towers learn. With unit vectors, no product scores high only because its vector is long,
# and any index for distances can serve them. Here, vectors of free length have higher recall, in
# the head and in the tail.
#
# ## Which architecture?
#
# We train three architectures on the purchases. **Matrix factorisation** has one input for the
# user, their code. The **two towers** also use the features of user and product. **YouTube DNN**
# (Covington et al. 2016) represents a user by the last ten products that they bought. YouTube DNN
# has no parameters per user, so it also works for a new user with one purchase. We train it on
# twice as many purchases as the others: its only input for a product is the code, and from a
# quarter of the purchases it learned little more than the best sellers.
#
# Each row of histories ends with the purchase to predict. Histories of fewer than ten purchases
# begin with code 2, "unknown". So the model also learns what a user without a history buys first.

# %%
from merlin.schema import ColumnSchema, Schema

N_LAST = 10
baskets = (
    purchases_in_time.assign(product=code_of.reindex(purchases_in_time["product_id"]).to_numpy())
    .dropna(subset=["product"])
    .astype({"product": "int64"})
    .groupby("user_id")["product"]
    .agg(list)
)
histories = pd.DataFrame(
    {
        "history": [
            [*[2, *codes[:i]][-N_LAST:], codes[i]] for codes in baskets for i in range(len(codes))
        ]
    }
)
so_far = pd.DataFrame(
    {"history": [[2, *baskets.get(user, [])][-N_LAST:] for user in valid_task.user_ids]}
)
history_schema = Schema(
    [
        ColumnSchema(
            "history",
            dtype=np.int64,
            is_list=True,
            is_ragged=True,
            tags=[Tags.CATEGORICAL, Tags.ITEM, Tags.ITEM_ID, Tags.LIST],
            properties={
                "domain": {"name": "history", "min": 0, "max": n_codes - 1},
                "value_count": {"min": 1, "max": N_LAST + 1},
            },
        )
    ]
)
histories.iloc[:3]

# %%
tf.keras.utils.set_random_seed(settings.seed)
factorisation = mm.MatrixFactorizationModelV2(
    retrieval_schema,
    dim=32,
    embeddings_l2_batch_regularization=1e-5,
    outputs=mm.ContrastiveOutput(
        to_call=DotProduct(),
        negative_samplers="in-batch",
        schema=item_schema.select_by_tag(Tags.ITEM_ID),
        store_negative_ids=True,
        post=logq_correction(streamed),
    ),
)
factorisation.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
loader = mm.Loader(retrieval_set, batch_size=trial_batch, shuffle=True, drop_last=True)
create_weights(factorisation, loader.peek()[0])
trained = factorisation.fit(loader, epochs=1, train_metrics_steps=0, verbose=0)

# %%
tf.keras.utils.set_random_seed(settings.seed)
youtube = mm.YoutubeDNNRetrievalModelV2(
    history_schema,
    inputs=mm.InputBlockV2(
        history_schema,
        categorical=mm.Embeddings(history_schema, dim=32, sequence_combiner="mean"),
    ),
    top_block=mm.MLPBlock([64, 32], no_activation_last_layer=True),
    num_sampled=n_sampled,
    min_sampled_id=3,
)
youtube.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
predict_last = mm.SequencePredictLast(schema=history_schema, target="history")
trained = youtube.fit(
    mm.Loader(
        Dataset(histories.sample(frac=0.5, random_state=settings.seed), schema=history_schema),
        batch_size=trial_batch,
        shuffle=True,
        drop_last=True,
    ),
    pre=predict_last,
    epochs=1,
    train_metrics_steps=0,
    verbose=0,
)

# %% [markdown]
# The factorisation is evaluated by its vectors, like the towers. YouTube DNN has a network for
# users only; its product vectors are the weights of its output layer, which `to_top_k_encoder`
# uses. These weights include the three reserved codes, which we drop.

# %%
position = pd.Series(np.arange(len(items)), index=items["product"])
k = min(300, len(items))
encoder = youtube.to_top_k_encoder(k=k, batch_size=4_096)
encoder.compile()
user_set = Dataset(so_far, schema=history_schema)
found = encoder.predict(mm.Loader(user_set, batch_size=4_096, shuffle=False), verbose=0)
row, column = np.repeat(np.arange(len(so_far)), k), position.reindex(found.identifiers.ravel())
known = column.notna().to_numpy()
youtube_scores = np.full((len(so_far), len(items)), -np.inf)
youtube_scores[row[known], column[known].astype(int)] = found.scores.ravel()[known]

architectures = {
    "most bought": judge(np.tile(times_bought, (len(valid_task.user_ids), 1))),
    "matrix factorisation": judge(catalogue_scores(factorisation)),
    "two towers": judge(catalogue_scores(negatives["in-batch, log-Q"])),
    "YouTube DNN": judge(youtube_scores),
}

# %% [markdown]
# All four were evaluated over the catalogue. For comparison, the second cell shows what a training
# log shows: in-batch recall@10 of the towers that we trained first, with batches of 128 and of
# 1,024 purchases. This recall depends on the batch size, although the model is the same.

# %%
pd.DataFrame(architectures).T.round(4)

# %%
pairs = Dataset(positives[retrieval_schema.column_names].head(4_096), schema=retrieval_schema)
for size in (128, 1_024):
    loader = mm.Loader(pairs, batch_size=size, shuffle=False, drop_last=True)
    own = two_tower.evaluate(loader, return_dict=True, verbose=0)
    print(f"in-batch recall@10, batches of {size:>5,}: {own['recall_at_10']:.4f}")

# %% [markdown]
# ## A second source of candidates
#
# Two towers represent a user by 32 numbers. EASE (Steck 2019) has no such bottleneck: it learns one
# weight for each pair of products, in closed form, and a user's score for a product is the sum of
# the weights from the products that the user has. It is strong, but its L2 regularisation must be
# tuned: Dacrema et al. (2019) found that many published networks were better only than untuned
# baselines.

# %%
from multistage.evaluation import baselines
from multistage.features import EASE
from multistage.features.candidates import fuse, list_features

tuned = {}
for strength in (100.0, 200.0, 400.0, 800.0):
    ease = baselines.ease(valid_task.purchases, valid_task.history, strength)
    ranked = valid_task.top_k(ease, 100)
    tuned[strength] = {
        "NDCG@10": ndcg_at_k(ranked, valid_task.relevant, 10).mean(),
        "recall@100": recall_at_k(ranked, valid_task.relevant, 100).mean(),
    }
tuned = pd.DataFrame(tuned).T.rename_axis("regularisation")
ease_strength = float(tuned["NDCG@10"].idxmax())
tuned.round(4)

# %% [markdown]
# We compute EASE scores from three histories: all products that a user bought, their last five
# purchases, and all products that they touched (with weights learned from all rows). Together with
# the towers and popularity, each product has five **retrieval scores**.

# %%
from multistage.evaluation.holdout import indicator


def fit_ease(known, task):
    """Return EASE fitted on purchases, and on all products that users touched."""
    users = np.unique(known["user_id"])
    touched = indicator(known, users, task.product_ids)
    return (
        EASE.fit(task.purchases, ease_strength),
        EASE.fit(touched, ease_strength),
    )


def retrieval_scores(known, task, tower_scores, ease_models):
    """Return each source's (users, items) scores."""
    by_purchases, by_touched = ease_models
    bought = known[known["target"] == 1].sort_values("timestamp", kind="stable")
    recent = indicator(bought.groupby("user_id").tail(5), task.user_ids, task.product_ids)
    return {
        "tower": tower_scores,
        "bought": by_purchases.scores(task.history),
        "recent": by_purchases.scores(recent),
        "touched": by_touched.scores(task.seen),
        "popular": np.log1p(baselines.popularity(task.purchases, task.history)),
    }


ease_models = fit_ease(data.train, valid_task)
valid_sources = retrieval_scores(data.train, valid_task, scores, ease_models)


def retrieve(task, sources, k=settings.candidates):
    """Return the k best of both sources of candidates: the towers and EASE."""
    lists = [task.top_k(sources[source], k) for source in ("tower", "bought")]
    return fuse(lists, k)[0]


candidates = retrieve(valid_task, valid_sources)
pd.DataFrame(
    {
        name: {
            "recall@100": recall_at_k(ranked, valid_task.relevant, 100).mean(),
            "NDCG@10": ndcg_at_k(ranked, valid_task.relevant, 10).mean(),
        }
        for name, ranked in {
            "two towers": retrieved,
            "EASE": valid_task.top_k(valid_sources["bought"], 100),
            "both, fused": candidates,
        }.items()
    }
).T.round(4)

# %% [markdown]
# ## A ranker for the pipeline
#
# The ranker of lab 2 learned from carts: *bought, given that it was in the cart*. In the pipeline
# nothing is in a cart yet. The question is *which of these hundred products will this user buy?* So
# the ranker has to learn from lists of candidates, and the **retrieval scores** are among its
# features.
#
# These scores must not come from retrieval's own training purchases, where a retrieval model looks
# far better than on new ones. So the ranker learns from the validation month, which retrieval has
# not seen. The time of the request is each user's first event in that month.
#
# %% [markdown]
# ### Exercise 4.3: hard negatives without false ones
#
# A product drawn from the whole catalogue is an easy negative: it mostly has the wrong category or
# the wrong price. In the pipeline the ranker must choose among a hundred products that retrieval
# already found plausible. So draw the negatives from these candidates. But the candidates also
# contain **products that the user did buy**. Such a false negative would teach the ranker to give
# low scores to exactly the products that it should find.


# %% tags=["exercise-4.3"]
def hard_negatives(
    candidates: np.ndarray, bought: list[set[int]], n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw n different negatives per user from what retrieval found for them.

    Args:
        candidates: (users, k) product ids, from 0 to millions, none twice in a row; -1 marks an
            empty place, anywhere in a row. At least n of each user's candidates were not bought.
            It may not be changed.
        bought: for each user, the products they bought, possibly none: no negatives of theirs. The
            sets may be changed.
        n: how many to draw for each user, at least 1, without replacement.
        rng: the only source of chance; the same state gives the same draw.

    Returns:
        (users, n) product ids, as an array of integers. In each row n different candidates of this
        user, none of them bought by this user; every set of n allowed ones has the same chance. The
        order within a row does not matter. What other users bought does not matter either.
    """
    ### BEGIN SOLUTION
    negatives = np.empty((len(candidates), n), dtype=candidates.dtype)
    for user, found in enumerate(candidates):
        allowed = found[(found != -1) & ~np.isin(found, list(bought[user]))]
        negatives[user] = rng.choice(allowed, size=n, replace=False)
    return negatives
    ### END SOLUTION


# %% tags=["check-4.3"]
check("4.3", hard_negatives)

# %% [markdown]
# The table has one row per user and candidate: features of the user, the time and the product, and
# for each of the five sources the candidate's score (in standard deviations of its list) and rank.
# The *codes* of user and product are left out: the retrieval scores already describe this user with
# this product, and one month of purchases is too little data to learn this again.

# %%
from merlin.schema import ColumnSchema, Schema

sources = list(valid_sources)
list_columns = [f"{source}_{what}" for source in sources for what in ("score", "rank")]
ranker_schema = schema.without(["user", "product"]) + Schema(
    [ColumnSchema(name, dtype="float32", tags=[Tags.CONTINUOUS]) for name in list_columns]
)
ranker_inputs = ranker_schema.without(["target"]).column_names


def moments(split, task):
    """Return hour and weekday of the request of each user of the task."""
    first = split.groupby("user_id")["timestamp"].min().loc[task.user_ids]
    return encode(pd.DataFrame({"timestamp": first.to_numpy()}))


def ranking_rows(task, user_rows, moment_rows, source_scores, lists):
    """Return a row for each user and place of `lists`, with target 1 for what was bought."""
    there = lists >= 0
    position = np.maximum(lists, 0)
    of_lists = {
        name: np.take_along_axis(scores, position, axis=1) for name, scores in source_scores.items()
    }
    bought = np.take_along_axis(task.relevant.toarray(), position, axis=1) * there
    user = np.repeat(np.arange(len(lists)), lists.shape[1])
    rows = pd.concat(
        [
            user_rows.iloc[user].reset_index(drop=True),
            moment_rows.iloc[user].reset_index(drop=True),
            items.iloc[position.ravel()].reset_index(drop=True),
            pd.DataFrame({n: v.ravel() for n, v in list_features(of_lists, there).items()}),
        ],
        axis=1,
    )
    return rows.assign(target=bought.ravel().astype("int8"))[ranker_schema.column_names]


valid_moments = moments(data.valid, valid_task)
hard_rows = ranking_rows(valid_task, valid_users, valid_moments, valid_sources, candidates)
print(f"{len(hard_rows):,} rows, {hard_rows['target'].mean():.1%} of them bought")

# %% [markdown]
# Compare them with **random** negatives, drawn from the whole catalogue as in most tutorials. We
# train the same ranker on both: the bought products, and the same number of negatives per user,
# drawn from real candidates or from random lists. Half of the users are kept out of training to
# compare the two.

# %%
rng = np.random.default_rng(settings.seed)
random_lists = valid_task.top_k(
    rng.random(valid_task.relevant.shape) + valid_task.relevant.toarray(), settings.candidates
)
random_rows = ranking_rows(valid_task, valid_users, valid_moments, valid_sources, random_lists)
aside = rng.random(len(candidates)) < 0.5
rows_of = valid_task.relevant
bought = [set(row) for row in np.split(rows_of.indices, rows_of.indptr[1:-1])]


def training_rows(rows, lists, selected):
    """Return the rows of the selected users: what they bought, and a few drawn negatives."""
    enough = [len(set(row) - {-1} - mine) for row, mine in zip(lists, bought, strict=True)]
    chosen = selected & (np.array(enough) >= settings.negatives)
    negatives = np.full((len(lists), settings.negatives), -2)
    negatives[chosen] = hard_negatives(
        lists[chosen], [bought[i] for i in np.flatnonzero(chosen)], settings.negatives, rng
    )
    drawn = np.any(lists[:, :, None] == negatives[:, None, :], axis=2).ravel()
    return rows[np.repeat(chosen, lists.shape[1]) & (drawn | (rows["target"] == 1).to_numpy())]


def train_ranker(rows):
    """Train a small DLRM on rows of users and candidates."""
    tf.keras.utils.set_random_seed(settings.seed)
    model = mm.DLRMModel(
        ranker_schema,
        embeddings=mm.Embeddings(
            ranker_schema.select_by_tag(Tags.CATEGORICAL),
            dim=16,
            embeddings_regularizer=tf.keras.regularizers.l2(1e-4),
        ),
        bottom_block=mm.MLPBlock([64, 16]),
        top_block=mm.MLPBlock([64, 32]),
        prediction_tasks=mm.BinaryOutput("target"),
    )
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(7e-3), metrics=[])
    features, bought = tensors(rows[ranker_inputs]), tf.constant(rows["target"].to_numpy())
    create_weights(model, features)
    model.fit(features, bought, batch_size=1_024, epochs=settings.ranking_epochs, verbose=0)
    return model


def score_rows(model, rows):
    """Return the ranker's probability of each row."""
    return model.predict(tensors(rows[ranker_inputs]), batch_size=16_384, verbose=0).ravel()


rankers = {
    "random negatives": train_ranker(training_rows(random_rows, random_lists, ~aside)),
    "retrieved negatives": train_ranker(training_rows(hard_rows, candidates, ~aside)),
}

# %%
from sklearn.metrics import roc_auc_score


def order(lists, score):
    """Return each list in the order of its (flat) scores, the best first."""
    score = np.where(lists >= 0, score.reshape(lists.shape), -np.inf)
    return np.take_along_axis(lists, np.argsort(-score, axis=1, kind="stable"), axis=1)


rows_aside = np.repeat(aside, settings.candidates)
relevant_aside = valid_task.relevant[aside]
judged = {
    "retrieval's own order": {
        "AUC on random negatives": np.nan,
        "AUC on real candidates": np.nan,
        "NDCG@10 on real candidates": ndcg_at_k(candidates[aside], relevant_aside, 10).mean(),
    }
}
for name, ranker in rankers.items():
    on_random = score_rows(ranker, random_rows[rows_aside])
    on_retrieved = score_rows(ranker, hard_rows[rows_aside])
    judged[name] = {
        "AUC on random negatives": roc_auc_score(random_rows["target"][rows_aside], on_random),
        "AUC on real candidates": roc_auc_score(hard_rows["target"][rows_aside], on_retrieved),
        "NDCG@10 on real candidates": ndcg_at_k(
            order(candidates[aside], on_retrieved), relevant_aside, 10
        ).mean(),
    }
pd.DataFrame(judged).T.round(4)

# %% [markdown]
# The first column is the AUC that most tutorials print. It is high for both rankers: a product that
# retrieval would never find is easy to tell apart from one that was bought. The last column is the
# quality of the pipeline's lists. The 0.828 of the 2022 tutorial was measured as in the first
# column.

# %%
queries, vectors = vectors_of(two_tower, valid_users)
# %% [markdown]
# ## Which index?
#
# So far every product was scored for every user: this is **exact** search. FAISS has three methods
# that search fewer vectors, or compressed vectors:
#
# * **IVF** sorts the vectors into lists around centres that it learns, and searches the `nprobe`
#   lists nearest to the query;
# * **HNSW** links each vector to its neighbours, and searches this graph with a queue of `efSearch`
#   candidates;
# * **PQ** splits each vector into pieces and stores, for each piece, the number of the most similar
#   entry of a small codebook. Here it compresses the vectors in the lists of IVF.
#
# All three search by *distance*, but we rank by inner product, where a long vector can have a high
# score although it is far away. One more coordinate solves this: it gives all products the same
# length, and then the nearest vector is the one with the largest inner product (Bachrach et al.
# 2014).

# %%
import time

import faiss

threads = faiss.omp_get_max_threads()
faiss.omp_set_num_threads(1)  # as in a server, where each request has one thread
exact = faiss.IndexFlatIP(vectors.shape[1])
exact.add(vectors)
asked = np.ascontiguousarray(queries[:500])
nearest = exact.search(asked, 100)[1]

squares = np.square(vectors).sum(axis=1)
# the new coordinate, and one of zeros so that PQ can cut the vectors into pairs
longer = np.c_[vectors, np.sqrt(squares.max() - squares), np.zeros_like(squares)]
longer_asked = np.c_[asked, np.zeros((len(asked), 2), "float32")]

most = len(vectors) // 39  # FAISS asks for 39 vectors for every centre that it learns
lists = min(most, 2 * int(np.sqrt(len(vectors))))
bits = min(8, int(np.log2(most)))


def index_row(factory, metric, products, queries, setting=""):
    """Build an index and return its recall against exact search, its latency and its memory."""
    index = faiss.index_factory(products.shape[1], factory, metric)
    index.train(products)
    index.add(products)
    faiss.ParameterSpace().set_index_parameters(index, setting)
    shares, seconds = [], []
    for query, right in zip(queries, nearest, strict=True):
        start = time.perf_counter()
        found = index.search(query[np.newaxis], 100)[1][0]
        seconds.append(time.perf_counter() - start)
        shares.append(np.isin(right, found).mean())
    return {
        "recall": np.mean(shares),
        "ms": 1_000 * np.median(seconds),
        "mib": faiss.serialize_index(index).nbytes / 2**20,
    }


inner = (faiss.METRIC_INNER_PRODUCT, vectors, asked)
distance = (faiss.METRIC_L2, longer, longer_asked)
measured = pd.DataFrame(
    {
        "exact": index_row("Flat", *inner),
        "HNSW, inner product": index_row("HNSW16,Flat", *inner, "efSearch=200"),
        "HNSW": index_row("HNSW16,Flat", *distance, "efSearch=200"),
        "IVF, 8 lists": index_row(f"IVF{lists},Flat", *distance, "nprobe=8"),
        "IVF, 16 lists": index_row(f"IVF{lists},Flat", *distance, "nprobe=16"),
        "PQ, 16 lists": index_row(f"IVF{lists},PQ17x{bits}np", *distance, "nprobe=16"),
    }
).T
faiss.omp_set_num_threads(threads)
measured.round(3)

# %% [markdown]
# At this size, use **exact search**: it takes a few hundredths of a millisecond for the whole
# catalogue, finds all the right products and needs no tuning. IVF saves hardly any time, and HNSW
# is slower than exact search. The two rows of HNSW show the effect of the extra coordinate, with
# the same graph and the same `efSearch`: by inner product it misses some of the right products, by
# distance almost none.
#
# For larger catalogues the result is different. `python benchmarks/index.py` measures the same at
# 1,500, 100,000 and 1,000,000 simulated vectors with the statistics of this lab's vectors, on one
# core:
#
# ![Recall against latency of four indexes at three catalogue sizes](images/index-choice.png)
#
# At one million products exact search takes 15 ms and 122 MiB. IVF finds 0.965 of the same hundred
# in 0.41 ms, and 0.991 in 0.83 ms; HNSW 0.978 in 0.64 ms, with twice the memory and three
# minutes to build; PQ needs a fifth of the memory, and its recall does not exceed 0.73.
#
# **The rule.** First decide how much recall may be lost and how many milliseconds a search may
# take; then take the simplest index that meets both. Begin with exact search. Then try IVF, which
# needs little more memory and has one parameter to tune. HNSW has the same recall and latency as
# IVF here, with twice the memory: use it only if it is better on your own vectors. PQ is for cases
# where memory is the limit, and either a recall of 0.73 is enough or the full vectors are available
# to score the results again.

# %% [markdown]
# ### Exercise 4.4: choose an index
#
# The pipeline determines how much recall may be lost and how long a search may take. An index must
# meet both conditions; a value that is far better than required has no benefit. Among the indexes
# that meet them, take the one that needs the least memory, because every replica of the server
# holds its own copy.


# %% tags=["exercise-4.4"]
def choose_index(measured: pd.DataFrame, least_recall: float, most_ms: float) -> str | None:
    """Choose an index for a recall and a latency budget.

    Args:
        measured: one row per index, in no particular order, its name (a str, each once) in the
            frame's index, which may have a name as well; columns `recall` (against exact search, 0
            to 1), `ms` (per query) and `mib` (memory), all of them fractional numbers that are
            compared as they are, without rounding. No two rows are equal in both `mib` and `ms`.
            It may be empty. It may not be changed.
        least_recall: the recall that is needed; exactly this is enough.
        most_ms: milliseconds that a query may take; exactly this is allowed.

    Returns:
        The name of the index with the least memory among those that meet both conditions; if
        several need equally little memory, the fastest of them; None if no index meets both.
    """
    ### BEGIN SOLUTION
    fitting = measured[(measured["recall"] >= least_recall) & (measured["ms"] <= most_ms)]
    if fitting.empty:
        return None
    return fitting.sort_values(["mib", "ms"]).index[0]
    ### END SOLUTION


# %% tags=["check-4.4"]
check("4.4", choose_index)

# %% [markdown]
# ## Evaluate the pipeline once on the test month
#
# Everything is chosen: epochs, regularisation, which ranker. Now retrieval is fitted again on **all
# data known when the test month begins**, training and validation together, and so are the models
# that we compare it with. The towers continue from their current weights for one more epoch, as in
# a shop's nightly training. The ranker is trained again on all users, including the half kept
# aside. Its training lists are still those of the validation month: their retrieval scores come
# from models that had not seen that month.

# %%
known = data.with_validation()
task = Holdout.from_data(known)
everything = purchase_loader(purchases(train_set, valid_set))
two_tower.fit(everything, epochs=1, train_metrics_steps=0, verbose=0)
test_users = encode_users(known.train, task.user_ids)
users, products = vectors_of(two_tower, test_users)
ease_models = fit_ease(known.train, task)
test_sources = retrieval_scores(known.train, task, users @ products.T, ease_models)
retrieved = retrieve(task, test_sources)

ranker = train_ranker(training_rows(hard_rows, candidates, np.full(len(candidates), True)))
test_moments = moments(data.test, task)


def rank(lists, who):
    """Return the candidate lists of some users, given by position, as the ranker orders them."""
    selected = {name: scores[who] for name, scores in test_sources.items()}
    users, times = test_users.iloc[who], test_moments.iloc[who]
    rows = ranking_rows(task.of(who), users, times, selected, lists)
    return order(lists, score_rows(ranker, rows))


all_users = np.arange(len(task.user_ids))
ranked = rank(retrieved, all_users)

# the ranker can only reorder what it is given
assert np.array_equal(
    recall_at_k(ranked, task.relevant, settings.candidates),
    recall_at_k(retrieved, task.relevant, settings.candidates),
)
assert (
    recall_at_k(ranked, task.relevant, 10).mean()
    <= recall_at_k(retrieved, task.relevant, settings.candidates).mean()
)

# %% tags=["nbval-check-output"]
towers_alone = task.top_k(test_sources["tower"], 100)
record("retrieval_recall_at_100", recall_at_k(towers_alone, task.relevant, 100).mean())

# %% [markdown]
# For comparison, on the same task and with the same products left out: models without a neural
# network, also tuned on the validation month; each half of retrieval alone; and the oracle.

# %%
als_settings = {}
for factors, strength in ((16, 5.0), (16, 20.0), (32, 20.0)):
    als = baselines.als(valid_task.purchases, valid_task.history, factors, strength, alpha=2.0)
    als_settings[factors, strength] = ndcg_at_k(
        valid_task.top_k(als, 10), valid_task.relevant, 10
    ).mean()
factors, strength = max(als_settings, key=als_settings.get)
known_users = pd.Index(np.unique(known.train["user_id"]))

peers = {
    "popularity": baselines.popularity(task.purchases, task.history),
    "BPR": baselines.bpr(task.purchases, known_users.get_indexer(task.user_ids)),
    "ALS": baselines.als(task.purchases, task.history, factors, strength, alpha=2.0),
    "item-kNN": baselines.item_knn(task.purchases, task.history, neighbours=100),
    "EASE": baselines.ease(task.purchases, task.history, ease_strength),
    "two towers alone": test_sources["tower"],
}
if data.truth is not None:
    peers["oracle"] = data.truth.purchase_intensity(task.user_ids)
lists = {name: task.top_k(scores, 100) for name, scores in peers.items()}
lists |= {"retrieval alone": retrieved, "two stages": ranked}

results, ndcg = {}, {}
for name, recommended in lists.items():
    ndcg[name] = ndcg_at_k(recommended, task.relevant, 10)
    low, high = bootstrap_interval(ndcg[name])
    results[name] = {
        "NDCG@10": ndcg[name].mean(),
        "low": low,
        "high": high,
        "recall@10": recall_at_k(recommended, task.relevant, 10).mean(),
        "recall@100": recall_at_k(recommended, task.relevant, 100).mean(),
        "NDCG@10, warm": ndcg[name][task.warm].mean(),
        "NDCG@10, cold": ndcg[name][~task.warm].mean() if (~task.warm).any() else np.nan,
    }
pd.DataFrame(results).T.sort_values("NDCG@10").round(4)

# %% tags=["nbval-check-output"]
record("two_stage_ndcg_at_10", results["two stages"]["NDCG@10"])
record("popularity_ndcg_at_10", results["popularity"]["NDCG@10"])
record("bpr_ndcg_at_10", results["BPR"]["NDCG@10"])
record("als_ndcg_at_10", results["ALS"]["NDCG@10"])
record("knn_ndcg_at_10", results["item-kNN"]["NDCG@10"])
record("ease_ndcg_at_10", results["EASE"]["NDCG@10"])
if "oracle" in results:
    record("oracle_ndcg_at_10", results["oracle"]["NDCG@10"])

# %% [markdown]
# All models were evaluated on the same users, so compare them **user by user**. Some users are easy
# to predict and others are hard. This affects both models in the same way, so it cancels in the
# difference.

# %%
compared = {}
for name in ("popularity", "BPR", "ALS", "item-kNN", "EASE", "two towers alone", "retrieval alone"):
    gain = ndcg["two stages"] - ndcg[name]
    low, high = bootstrap_interval(gain)
    compared[name] = {"gain": gain.mean(), "low": low, "high": high, "real": low > 0}
pd.DataFrame(compared).T.rename_axis("two stages less")

# %%
others = [name for name in compared if name != "retrieval alone"]
best_peer = max(others, key=lambda name: results[name]["NDCG@10"])
for bound in ("gain", "low", "high"):
    record(f"best_peer_{bound}", compared[best_peer][bound])

# %% [markdown]
# The last row tests the second stage: the ranker's order must be better than the order of retrieval
# itself. EASE is simple and almost as good as the pipeline. It is useful as a second source of
# candidates, as a fallback, and as a baseline for every new model.
#
# ## Where is the loss?
#
# First the waterfall: the share of held-out purchases that is left after each stage.

# %%
from multistage.evaluation import waterfall

unfiltered = fuse(
    [
        np.argsort(-test_sources[source], axis=1, kind="stable")[:, : settings.candidates]
        for source in ("tower", "bought")
    ],
    settings.candidates,
)[0]
stages = {
    "catalogue": np.tile(np.arange(len(items)), (len(retrieved), 1)),
    "retrieved and filtered": retrieved,
    "scored: the best 20": ranked[:, :20],
    "ordered: the ten shown": ranked[:, :10],
}
waterfall(stages, task.relevant).round(4)

# %% [markdown]
# Then replace one stage at a time by an **oracle** that knows the test month, and by **chance**, a
# random choice (for the filter: no filter). The stage with the largest gain from the oracle is the
# one to work on. Two thousand users are enough to see it.

# %%
import matplotlib.pyplot as plt

some = all_users[:: max(1, len(all_users) // 2_000)]
few = task.of(some)
relevant = few.relevant.toarray() > 0
found, best = retrieved[some], ranked[some]
sold = np.isin(task.product_ids, data.test["product_id"])  # still on offer in the test month


def put_first(lists, relevant):
    """Return lists with the relevant products first, otherwise in their order."""
    there = np.take_along_axis(relevant, np.maximum(lists, 0), axis=1) & (lists >= 0)
    return np.take_along_axis(lists, np.argsort(~there, axis=1, kind="stable"), axis=1)


def shuffled(lists):
    """Return lists in a random order."""
    return np.random.default_rng(0).permuted(lists, axis=1)


fused = np.zeros(relevant.shape)
rows, places = np.nonzero(found >= 0)
fused[rows, found[rows, places]] = settings.candidates - places
on_offer = np.where(sold & (fused > 0), fused, -np.inf)
oracle = {
    "retrieve": rank(few.top_k(fused + 1e6 * relevant, settings.candidates), some),
    "filter": rank(few.top_k(on_offer, settings.candidates), some),
    "score": put_first(best, relevant),
    "order": put_first(best[:, :10], relevant),
}
chance = {
    "retrieve": rank(shuffled(stages["catalogue"][some])[:, : settings.candidates], some),
    "filter": rank(unfiltered[some], some),
    "score": shuffled(found),
    "order": shuffled(best[:, :10]),
}
swaps = pd.DataFrame(
    {
        name: {stage: ndcg_at_k(lists, few.relevant, 10).mean() for stage, lists in kind.items()}
        for name, kind in {"oracle": oracle, "chance": chance}.items()
    }
)
as_it_is = ndcg["two stages"][some].mean()
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
for place, (_, row) in enumerate(swaps[::-1].iterrows()):
    axis.plot([row["chance"], row["oracle"]], [place, place], color="tab:gray", alpha=0.4)
axis.plot(swaps["chance"][::-1], range(4), "o", color="tab:red", label="chance")
axis.plot(swaps["oracle"][::-1], range(4), "o", color="tab:green", label="oracle")
axis.axvline(as_it_is, color="black", linestyle=":", label="as it is")
axis.set(yticks=range(4), yticklabels=list(swaps.index[::-1]), xlabel="NDCG@10 of the pipeline")
axis.legend()
plt.show()
swaps.round(4)

# %% [markdown]
# ### Exercise 4.5: find the weakest stage
#
# Replace one stage at a time by an oracle, leave the other three as they are, and measure again.
# The gain in NDCG is what that stage loses today, and the stage with the largest gain is the one to
# work on next. Each replacement is compared with the pipeline **as it is**, never with another
# replacement.


# %% tags=["exercise-4.5"]
def weakest_stage(ndcg: dict[str, float]) -> str:
    """Return the stage that costs the pipeline most.

    Args:
        ndcg: NDCG@10, from 0 to 1, of the pipeline under "as it is", and under "retrieve",
            "filter", "score" and "order" that of the same pipeline with this one stage replaced by
            an oracle. The keys may stand in any order. At least one of the four is there; one that
            is missing was not measured. The dict may be changed.

    Returns:
        The stage whose replacement gains most, even if the most is a gain of 0 or a loss. Where
        several stages have exactly the same NDCG (not only rounded), the first of them in the order
        of the pipeline: retrieve, filter, score, order.
    """
    ### BEGIN SOLUTION
    measured = [stage for stage in ("retrieve", "filter", "score", "order") if stage in ndcg]
    return max(measured, key=lambda stage: ndcg[stage] - ndcg["as it is"])
    ### END SOLUTION


# %% tags=["check-4.5"]
check("4.5", weakest_stage)

# %%
weakest_stage({"as it is": as_it_is} | swaps["oracle"].to_dict())

# %% [markdown]
# These oracles know the future: the oracle for "score" places every future purchase first, which no
# model can do, because purchases are partly random. The realistic upper bound is the oracle in the
# table above, which knows only the shop's true purchase probabilities.
#
# ## Export
#
# Save what lab 5 serves. Each artifact is a folder with a manifest: the checksums of its files,
# their columns, the data set, the seed and the versions of the packages.

# %%
import faiss

producer = "04-retrieval-and-ranking"
with workspace.write("export/query_tower", producer) as folder:
    two_tower.query_encoder.save(str(folder), include_optimizer=False)
with workspace.write("export/ranker", producer) as folder:
    ranker.save(str(folder), include_optimizer=False)

product_ids = task.product_ids
products = products.astype("float32")
with workspace.write("export/item_embeddings", producer) as folder:
    pd.DataFrame({"product_id": product_ids, "embedding": list(products)}).to_parquet(
        folder / "item_embeddings.parquet"
    )

index = faiss.IndexIDMap(faiss.IndexFlatIP(products.shape[1]))
index.add_with_ids(products, product_ids)
with workspace.write("export/index", producer) as folder:
    faiss.write_index(index, str(folder / "index.faiss"))

with workspace.write("export/ease", producer) as folder:
    for name, weights in zip(("bought", "touched"), ease_models, strict=True):
        weights.save(folder / f"{name}.npz")

# %% [markdown]
# Save the features as the models read them. The users' features are for the feature store, with the
# products that each user has bought and seen, in the order of time. The products' features are a
# snapshot that belongs to the index. We also save the codes of hours and weekdays, and, for unknown
# users, the best sellers.

# %%
import json

state = user_history(known.train)
in_time = known.train.sort_values("timestamp", kind="stable")
bought = in_time[in_time["target"] == 1].groupby("user_id")["product_id"].agg(list)
seen = in_time.groupby("user_id")["product_id"].agg(list)
user_features = pd.concat(
    [state[["user_id"]], encode_users(known.train, state["user_id"])], axis=1
).assign(
    seen=state["user_id"].map(seen),
    bought=[bought.get(user, []) for user in state["user_id"]],
    event_timestamp=known.train["timestamp"].max(),
)
with workspace.write("export/user_features", producer) as folder:
    user_features.to_parquet(folder / "user_features.parquet")

recent = known.train["timestamp"] > known.train["timestamp"].max() - pd.Timedelta(days=60)
item_features = pd.concat([data.catalog[["product_id"]], items], axis=1).assign(
    available=data.catalog["product_id"].isin(known.train.loc[recent, "product_id"]),
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
# * Evaluate retrieval over the catalogue, not inside a batch. Without the log-Q correction,
#   in-batch negatives make the scores of best sellers too low.
# * Two sources of candidates are fused, and the ranker gets the scores of all sources as features.
# * Train and evaluate a ranker on the candidates that it will get in the pipeline.
# * Evaluate the pipeline as a whole, user by user, beside tuned baselines and an upper bound.
#
# **To read.** Yi et al., *Sampling-bias-corrected neural modeling* (2019). Covington et al.,
# *YouTube recommendations* (2016). Steck, *Embarrassingly shallow autoencoders* (2019). Cormack,
# Clarke and Büttcher, *Reciprocal rank fusion* (2009). Dacrema et al., *Are we really making much
# progress?* (2019), on untuned baselines.
