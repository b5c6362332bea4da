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
# # 1. Introduction: systems, not models
#
# A shop has a few milliseconds to choose ten products out of millions for the person who just
# opened its page. No single model does that. A chain of four stages does:
#
# ```mermaid
# flowchart LR
#     C[(catalogue)] --> R["retrieve<br/>cheap, wide net"] --> F["filter<br/>bought, unavailable"]
#     F --> S["score<br/>costly, precise"] --> O["order<br/>the whole list"] --> U([ten products])
# ```
#
# **After this lab you will be able to**
#
# * say what each of the four stages is for, and what it costs;
# * split a log in time and judge recommenders on what people did next;
# * compute recall and NDCG, and read them beside a baseline and a ceiling;
# * build a whole four-stage recommender from simple parts, and see where it loses purchases.
#
# About 30 minutes.

# %% tags=["parameters"]
# "store", "movielens", or "rees46" with events = "folder/*.csv.gz"
dataset = "store"
# "ci", "laptop" or "gpu"
profile = "laptop"
events = None

# %% [markdown]
# ## The shop
#
# The default data is a simulated shop. It looks like a real one (seven months of carts and
# purchases, a few favourites and a long tail, products that appear and people who turn up late),
# and it has one thing that no real log has: **it knows its own truth**. For each person and
# product it can tell how likely a purchase really was. So we can say not only which model is
# better, but how far all of them are from the best that is possible.

# %%
from multistage import datasets
from multistage.notebook import quiet, record
from multistage.workspace import Workspace

quiet()
workspace = Workspace.open(dataset, profile)
data = datasets.load(workspace, events)
data.train.head()

# %% [markdown]
# One row is one person and one product. `target` is 1 if the product was bought, 0 if it was left
# in the cart. Rows are split **in time**: we learn from `train`, choose between models on `valid`,
# and look at `test` once, at the end.

# %%
import pandas as pd

splits = {"train": data.train, "valid": data.valid, "test": data.test}
summary = pd.DataFrame(
    {
        name: {
            "rows": len(split),
            "users": split["user_id"].nunique(),
            "products": split["product_id"].nunique(),
            "bought": split["target"].mean(),
            "from users not in train": 1 - split["user_known"].mean(),
            "of products not in train": 1 - split["product_known"].mean(),
        }
        for name, split in splits.items()
    }
).T
summary.round(3)

# %%
record("interactions", sum(len(split) for split in splits.values()))

# %% [markdown]
# The last two columns matter. Some rows of `test` belong to people or products that training never
# saw. Many published pipelines drop such rows, and with them the hardest part of the job.
#
# Most products are rarely bought, as in every shop:

# %%
import matplotlib.pyplot as plt
import numpy as np

purchases = data.train[data.train["target"] == 1]
per_product = purchases["product_id"].value_counts()
share = per_product.cumsum() / per_product.sum()
per_hour = data.train.groupby(data.train["timestamp"].dt.hour)["target"].agg(["size", "mean"])

figure, (tail, hours) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
tail.plot(np.arange(1, len(share) + 1) / len(data.catalog), share)
tail.set(xlabel="share of the catalogue, best sellers first", ylabel="share of purchases")
hours.bar(per_hour.index, per_hour["size"], color="lightgrey")
hours.set(xlabel="hour of the day, UTC", ylabel="carts and purchases")
rate = hours.twinx()
rate.plot(per_hour.index, per_hour["mean"], color="tab:orange")
rate.set(ylabel="share bought (orange)", ylim=(0, 1))
plt.show()

# %% [markdown]
# ## The task, and what counts as good
#
# `Holdout` states the task once, for every recommender of this course: for each person who bought
# something in the test month, rank the catalogue as it was known at the end of training, without
# the products that the person already has a training row with. **Relevant** is what the person
# then bought.

# %%
from multistage.evaluation import Holdout

task = Holdout.from_data(data)
print(f"{len(task.user_ids):,} people, {len(task.product_ids):,} products")
print(f"{task.relevant.nnz / len(task.user_ids):.2f} purchases a person to find")
print(f"{1 - task.warm.mean():.1%} of the people are new")

# %% [markdown]
# Two figures judge a list. **Recall@k**: which share of what the person bought is among the first
# k? **NDCG@k** also asks *how high up*: a hit at rank r counts `1 / log2(r + 1)`, and the sum is
# divided by that of a perfect list.
#
# By hand: five products are recommended, and of the three relevant ones the second and fifth place
# hold one each. Then DCG is `1/log2(3) + 1/log2(6) = 0.631 + 0.387 = 1.018`; a perfect list would
# have three hits on top, `1 + 0.631 + 0.5 = 2.131`; NDCG@5 is 0.478.
#
# ### Exercise 1.1: NDCG@k


# %% tags=["exercise-1.1"]
def ndcg_at_k(recommended: list[int], relevant: set[int], k: int) -> float:
    """Return NDCG@k of one list.

    Args:
        recommended: product ids, best first; may be shorter or longer than k.
        relevant: the ids that count as hits; at least one.
        k: how many places of the list count.

    Returns:
        A number from 0 to 1. The perfect list has min(k, len(relevant)) hits on top.
    """
    ### BEGIN SOLUTION
    gained = sum(
        1 / np.log2(place + 1)
        for place, product in enumerate(recommended[:k], start=1)
        if product in relevant
    )
    best = sum(1 / np.log2(place + 1) for place in range(1, min(k, len(relevant)) + 1))
    return gained / best
    ### END SOLUTION


# %% tags=["check-1.1"]
from multistage.exercises import check

check("1.1", ndcg_at_k)

# %% [markdown]
# From here on we use the package's `ndcg_at_k`, the same formula for a whole matrix of people at
# once.
#
# ## A floor and a ceiling
#
# The floor is **popularity**: everybody gets the best sellers. It is surprisingly hard to beat.
# The ceiling is the **oracle**: the shop's own truth, ranking products by how likely this person
# was to buy them. It does not reach 1, because what people buy is partly chance.

# %%
from multistage.evaluation import baselines, bootstrap_interval, recall_at_k
from multistage.evaluation import ndcg_at_k as ndcg_of_lists

results = {}


def judge(name, scores):
    """Keep NDCG@10 with its interval, and recall@100, of a score for each person and product."""
    lists = task.top_k(scores, 100)
    ndcg = ndcg_of_lists(lists, task.relevant, 10)
    low, high = bootstrap_interval(ndcg)
    recall = recall_at_k(lists, task.relevant, 100).mean()
    results[name] = {"NDCG@10": ndcg.mean(), "low": low, "high": high, "recall@100": recall}
    return results[name]


judge("popularity", baselines.popularity(task.purchases, task.history))
judge("item-kNN", baselines.item_knn(task.purchases, task.history))
judge("EASE", baselines.ease(task.purchases, task.history))
judge("ALS", baselines.als(task.purchases, task.history))
if data.truth is not None:
    judge("oracle", data.truth.purchase_intensity(task.user_ids))
pd.DataFrame(results).T.round(3)

# %% tags=["nbval-check-output"]
record("popularity_ndcg_at_10", results["popularity"]["NDCG@10"])

# %% [markdown]
# `low` and `high` bound a 95% bootstrap interval over people: had we drawn other people from the
# same crowd, the mean would likely fall between them. Two methods whose intervals overlap widely
# are not told apart by this test, whatever the third digit says.
#
# ## Four stages in their simplest parts
#
# **Retrieve.** Cheap and wide: a hundred products for each person, by item-kNN, which only adds up
# a few rows of a similarity matrix. Its job is not to be right at the top. Its job is to *lose
# nothing*: what retrieval misses, no later stage can bring back.

# %%
knn = baselines.item_knn(task.purchases, task.history)
best_sellers = baselines.popularity(task.purchases, task.history)
# People without history have no neighbours: best sellers break the ties, and save the newcomers.
retrieval_scores = knn + 1e-6 * best_sellers
retrieved = np.argsort(-retrieval_scores, axis=1, kind="stable")[:, :100]
retrieved.shape

# %% [markdown]
# **Filter.** Rules, not taste. A product that the person already had, or that is not for sale any
# more, must never come out, however well it scores. Filtering eats candidates, so a good filter
# *back-fills*: it goes on down the ranking until it has enough.
#
# ### Exercise 1.2: a filter that holds, and back-fills


# %% tags=["exercise-1.2"]
def filter_candidates(ranked: np.ndarray, seen: set[int], available: set[int], n: int) -> list[int]:
    """Return the first n products of a ranking that may be shown.

    Args:
        ranked: product ids, best first; a product may occur twice.
        seen: ids that the person already had.
        available: ids that are for sale.
        n: how many to return.

    Returns:
        n different ids in the order of the ranking; fewer if the ranking holds fewer.
    """
    ### BEGIN SOLUTION
    allowed = []
    for product in ranked:
        product = int(product)
        if product in available and product not in seen and product not in allowed:
            allowed.append(product)
        if len(allowed) == n:
            break
    return allowed
    ### END SOLUTION


# %% tags=["check-1.2"]
check("1.2", filter_candidates)

# %% [markdown]
# Now for everybody. A product counts as for sale if anybody put it into a cart in the last 60 days
# of training.

# %%
recent = data.train["timestamp"] > data.train["timestamp"].max() - pd.Timedelta(days=60)
on_sale = np.isin(task.product_ids, data.train.loc[recent, "product_id"].unique())
available = set(np.flatnonzero(on_sale))

ranking = np.argsort(-retrieval_scores, axis=1, kind="stable")
filtered = np.full((len(ranking), 100), -1)
for person, ranked in enumerate(ranking):
    kept = filter_candidates(ranked[:300], set(task.seen[person].indices), available, 100)
    filtered[person, : len(kept)] = kept
left = (filtered >= 0).sum(axis=1)
print(f"{left.min()} to {left.max()} candidates a person")

# %% [markdown]
# **Score.** Costly and precise: only the candidates are scored, by EASE, a model of all item
# pairs. With 100 candidates out of a catalogue of a million, a scorer may be ten thousand times
# slower a product than retrieval and still be the smaller part of the bill.

# %%
ease_scores = baselines.ease(task.purchases, task.history) + 1e-6 * best_sellers
candidate_scores = np.where(
    filtered >= 0, np.take_along_axis(ease_scores, np.maximum(filtered, 0), axis=1), -np.inf
)
by_score = np.argsort(-candidate_scores, axis=1, kind="stable")
scored = np.take_along_axis(filtered, by_score, axis=1)

# %% [markdown]
# **Order.** The list as a whole: ten washing machines are a poor page even if each is a good guess.
# The simplest rule: at most four products of one category among the ten.

# %%
category = data.catalog["cat_1"].fillna("unknown").to_numpy()


def order(candidates, n=10, most=4):
    """Take the best candidates in turn, with at most `most` of one category."""
    chosen, count = [], {}
    for product in candidates[candidates >= 0]:
        if count.get(category[product], 0) < most:
            chosen.append(product)
            count[category[product]] = count.get(category[product], 0) + 1
        if len(chosen) == n:
            break
    return chosen + [-1] * (n - len(chosen))


ordered = np.array([order(candidates) for candidates in scored])

pipeline = ndcg_of_lists(ordered, task.relevant, 10)
plain = ndcg_of_lists(scored, task.relevant, 10)
print(f"NDCG@10: ordered {pipeline.mean():.4f}, by score alone {plain.mean():.4f}")

# %% tags=["nbval-check-output"]
record("pipeline_ndcg_at_10", pipeline.mean())

# %% [markdown]
# ## The stage waterfall
#
# Where did the purchases go? For each stage: how many candidates does a person have left, and
# which share of all held-out purchases is still among them?

# %%
from multistage.evaluation import waterfall

stages = waterfall(
    {"retrieve": retrieved, "filter": filtered, "score": scored[:, :10], "order": ordered},
    task.relevant,
)
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
axis.barh(stages.index[::-1], stages["surviving"][::-1], color="tab:blue")
for place, (_name, stage) in enumerate(stages[::-1].iterrows()):
    axis.text(stage["surviving"], place, f" {stage['surviving']:.1%} of {stage['candidates']:.0f}")
axis.set(xlabel="held-out purchases that survive", xlim=(0, 1))
plt.show()
stages.round(3)

# %% [markdown]
# Read it from the top. What retrieval lost is lost for good: that is the ceiling of everything
# after it. Filtering can even *gain*, because back-filling replaces products that nobody would buy
# again. The step from filter to score is the largest: from a hundred down to ten. That is where a
# better ranker pays, and labs 2 and 3 are about rankers. Lab 4 mends retrieval, and puts a figure
# on which stage to mend first.
#
# ## Summary
#
# * A recommender is a chain: retrieve wide, filter by rule, score precisely, order as a whole.
# * Judge on what people did *later*, over the whole catalogue, beside a floor and a ceiling.
# * Simple parts go far: this pipeline has no neural network in it.
#
# **To read.** Järvelin and Kekäläinen, *Cumulated gain-based evaluation of IR techniques* (2002).
# Covington, Adams and Sargin, *Deep neural networks for YouTube recommendations* (2016), for the
# two-stage design. Steck, *Embarrassingly shallow autoencoders* (2019), for EASE.
