"""Checks of lab 4: log-Q, catalogue recall, hard negatives, an index, the weakest stage."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises.engine import Exercise, Wrong
from courseware.exercises.expect import number, same_type

STAGES = ("retrieve", "filter", "score", "order")


def check_corrected_loss(answer: Callable[..., float], rng: np.random.Generator) -> None:
    """Known mistakes on one batch, random batches, logits at which an exponential overflows."""
    logits = np.array([[2.0, 1.0, -1.0], [0.5, 3.0, 0.0], [1.5, -0.5, 1.0]])
    probability = np.array([0.5, 0.1, 0.02])
    got = answer(logits.copy(), probability.copy())
    if np.ndim(got) > 0:
        raise Wrong(
            "One number for the batch is wanted: the mean over people.", "a number", np.shape(got)
        )
    same_type(got, (float, int, np.number), "The loss")
    right = _loss(logits, probability)
    log_q, own = np.log(probability), np.eye(3, dtype=bool)
    mistakes = {
        "The sign is wrong: a popular product is met too often as a negative, so its logit must "
        "become smaller. Subtract log Q.": _cross_entropy(logits + log_q),
        "The logarithm of the probability is subtracted, not the probability itself.": (
            _cross_entropy(logits - probability)
        ),
        "This is the loss without the correction. log Q of the row cancels in the row's softmax: "
        "the probability belongs to the product, which is the column.": _cross_entropy(logits),
        "Only the positives are corrected: a product has the same correction as somebody's "
        "negative.": _cross_entropy(logits - log_q * own),
        "Only the negatives are corrected: the positive is a column like the others.": (
            _cross_entropy(logits - log_q * ~own)
        ),
        "The softmax runs over the products of one person: over each row, not each column.": (
            _cross_entropy((logits - log_q).T)
        ),
        "This is the sum over people: take the mean, so that the batch size does not change the "
        "step.": 3 * right,
        "This is the mean logarithm of the right probability: a loss is its negative.": -right,
    }
    for said, value in mistakes.items():
        if np.isclose(got, value):
            raise Wrong(said, f"{right:.5g}", f"{got:.5g}")
    number(got, right, "The loss of three people")
    for _ in range(5):
        batch = int(rng.integers(2, 9))
        logits, probability = rng.normal(size=(batch, batch)), rng.uniform(0.001, 0.5, batch)
        before = logits.copy(), probability.copy()
        got = answer(logits, probability)
        if not np.array_equal(logits, before[0]) or not np.array_equal(probability, before[1]):
            raise Wrong("The inputs were changed: compute on a copy.")
        number(got, _loss(*before), f"The loss of a random batch of {batch}")
    for scale in (1_000.0, -1_000.0):
        logits = scale * (1 + rng.uniform(0, 1, (4, 4)))
        probability = rng.uniform(0.001, 0.5, 4)
        with np.errstate(all="ignore"):
            got = answer(logits.copy(), probability.copy())
        right = _loss(logits, probability)
        if not np.isfinite(got):
            raise Wrong(
                "With logits in the thousands an exponential leaves the range of floats: subtract "
                "each row's largest logit first.",
                f"{right:.5g}",
                got,
            )
        if not np.isclose(got, right):
            raise Wrong(
                "The loss is wrong for logits in the thousands: a small number added inside the "
                "logarithm, or a limit on the logits, changes it.",
                f"{right:.5g}",
                f"{got:.5g}",
            )


def _loss(logits: np.ndarray, probability: np.ndarray) -> float:
    return _cross_entropy(logits - np.log(probability))


def _cross_entropy(logits: np.ndarray) -> float:
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - np.diag(logits)))


def check_catalogue_recall(answer: Callable[..., float], rng: np.random.Generator) -> None:
    """Known mistakes on a fixed shop in which each has another value; then random shops."""
    shop = _shop(np.random.default_rng(1), people=40, size=80)
    users, products, seen, bought = shop
    k = 5
    got = answer(*_copied(shop), k)
    same_type(got, (float, int, np.number), "The recall")
    scores = users @ products.T
    best = _best(scores, seen, k)
    right = _recall(best, bought, k)
    everything = np.arange(len(products))
    in_batch = np.unique(np.concatenate(bought))
    elsewhere = np.setdiff1d(everything, in_batch)
    hits = [np.isin(row, own).sum() for row, own in zip(best, bought, strict=True)]
    places = [min(k, len(own)) for own in bought]
    nothing = [np.array([], dtype=int)] * len(users)
    mistakes = {
        "Seen products take places in the lists: take them out before the list is cut.": (
            _recall(_best(scores, nothing, k), bought, k)
        ),
        "Products are missing that only somebody else has seen: each person has an own list.": (
            _recall(_best(scores, [np.unique(np.concatenate(seen))] * len(users), k), bought, k)
        ),
        "Hits are divided by k: whoever bought fewer products can then never reach 1.": (
            float(np.mean(hits) / k)
        ),
        "Hits are divided by the number bought: whoever bought more than k can then never reach "
        "1.": float(np.mean([h / len(own) for h, own in zip(hits, bought, strict=True)])),
        "Hits are pooled over people, so big buyers count more: take each person's recall, then "
        "the mean.": sum(hits) / sum(places),
        "This is the share of people with at least one hit: count all hits.": float(
            np.mean(np.array(hits) > 0)
        ),
        "Only products that somebody bought are ranked, as within a batch: rank the whole "
        "catalogue.": _recall(
            _best(scores, [np.union1d(own, elsewhere) for own in seen], k), bought, k
        ),
        "The score is the dot product: do not divide by the lengths of the vectors.": _recall(
            _best(scores / np.linalg.norm(products, axis=1), seen, k), bought, k
        ),
        "The worst products are recommended: argsort puts the smallest score first.": _recall(
            _best(-scores, seen, k), bought, k
        ),
    }
    for said, value in mistakes.items():
        if np.isclose(got, value) and not np.isclose(value, right):
            raise Wrong(said, f"{right:.4f}", f"{got:.4f}")
    number(got, right, f"The recall@{k} of {len(users)} people")
    for _ in range(5):
        size = int(rng.integers(20, 60))
        shop = _shop(rng, people=int(rng.integers(2, 20)), size=size)
        k = int(rng.integers(1, 12))
        given = _copied(shop)
        got = answer(*given, k)
        if not all(_same(left, right) for left, right in zip(given, shop, strict=True)):
            raise Wrong("The inputs were changed: compute on a copy.")
        users, products, seen, bought = shop
        right = _recall(_best(users @ products.T, seen, k), bought, k)
        number(got, right, f"The recall@{k} over {size} products")


def _shop(rng: np.random.Generator, people: int, size: int) -> tuple[Any, ...]:
    """People who like, have seen and bought long vectors: all mistakes then show in the recall."""
    users = rng.normal(size=(people, 6)) + 0.5
    products = rng.normal(size=(size, 6)) * rng.uniform(0.3, 2, (size, 1))
    seen, bought = [], []
    for person in range(people):
        taste = np.argsort(-(products @ users[person]) + 2 * rng.normal(size=size))
        n_seen = int(rng.integers(0, 8))
        seen.append(taste[:n_seen])
        bought.append(taste[n_seen : n_seen + int(rng.integers(1, 11))])
    seen[0] = np.array([], dtype=int)
    return users, products, seen, bought


def _copied(shop: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        [row.copy() for row in part] if isinstance(part, list) else part.copy() for part in shop
    )


def _same(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(map(np.array_equal, left, right))


def _best(scores: np.ndarray, removed: list[np.ndarray], k: int) -> list[np.ndarray]:
    lists = []
    for row, out in zip(scores, removed, strict=True):
        order = np.argsort(-row, kind="stable")
        lists.append(order[~np.isin(order, out)][:k])
    return lists


def _recall(best: list[np.ndarray], bought: list[np.ndarray], k: int) -> float:
    pairs = zip(best, bought, strict=True)
    return float(np.mean([np.isin(row, own).sum() / min(k, len(own)) for row, own in pairs]))


def check_hard_negatives(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Never a purchase, an empty place or one twice; own candidates, evenly, by chance of rng."""
    people, k, n = 12, 24, 5
    candidates = np.stack([rng.permutation(200)[:k] for _ in range(people)])
    candidates[::2, -3:] = -1
    bought = [set(rng.choice(row[:-3], 6, replace=False).tolist()) for row in candidates]
    bought[1] = set()  # all candidates are allowed
    kept = candidates.copy()

    def draw(seed: int) -> np.ndarray:
        own = [set(b) for b in bought]
        got = answer(candidates, own, n, np.random.default_rng(seed))
        same_type(got, (np.ndarray,), "The result")
        if got.shape != (people, n):
            raise Wrong("n negatives a person are wanted.", (people, n), got.shape)
        if not np.array_equal(candidates, kept) or own != bought:
            raise Wrong("The inputs were changed: draw from a copy.")
        return got

    got = draw(1)
    if not np.issubdtype(got.dtype, np.integer):
        raise Wrong("Product ids are integers.", candidates.dtype, got.dtype)
    if (got == -1).any():
        raise Wrong("An empty place was drawn: -1 is no product.", "none", int((got == -1).sum()))
    for person, drawn in enumerate(got.tolist()):
        if false := set(drawn) & bought[person]:
            raise Wrong("A purchase was drawn as a negative: a false negative.", "none", false)
        if others := set(drawn) - set(kept[person].tolist()):
            raise Wrong("A negative is no candidate of its person.", "none", others)
        if len(set(drawn)) < n:
            raise Wrong(
                "A negative stands twice in a row: draw without replacement.",
                f"{n} different products",
                f"{len(set(drawn))} different products",
            )
    if not np.array_equal(got, draw(1)):
        raise Wrong("The same state of rng must give the same draw: draw from rng alone.")
    if np.array_equal(got, draw(2)):
        raise Wrong("Another seed gives the same negatives: draw by chance, from rng.")
    draws = [draw(seed) for seed in rng.integers(2**32, size=300)]
    for person in (0, 1, 2, 3):
        allowed = [p for p in kept[person].tolist() if p != -1 and p not in bought[person]]
        rows = np.array([got[person] for got in draws])
        share = np.array([(rows == product).any(axis=1).mean() for product in allowed])
        expected = n / len(allowed)
        if (share == 0).any():
            others = set.union(*bought).issuperset(np.array(allowed)[share == 0].tolist())
            raise Wrong(
                "What somebody else bought is never drawn: leave out the person's own purchases "
                "only."
                if others
                else "Some candidates are never drawn: draw from all that the person did not buy.",
                f"in {expected:.0%} of the draws",
                "in none of 300",
            )
        # six standard errors: a right answer is refused once in a hundred million
        if (np.abs(share - expected) > 6 * np.sqrt(expected * (1 - expected) / 300)).any():
            raise Wrong(
                "Some allowed candidates are drawn more often than others: draw evenly.",
                f"each in {expected:.0%} of the draws",
                f"in {share.min():.0%} to {share.max():.0%}",
            )
    few = answer(np.array([[5, -1, 7, 9]]), [{7}], 2, rng)
    if np.shape(few) != (1, 2) or set(few[0].tolist()) != {5, 9}:
        raise Wrong("Where exactly n candidates are allowed, all of them are drawn.", [5, 9], few)


def check_choose_index(answer: Callable[..., str | None], rng: np.random.Generator) -> None:
    """One table asked six ways, each the trap of one mistake; then random tables."""
    measured = pd.DataFrame(
        {
            "recall": [1.0, 0.97, 0.95, 0.95, 0.99, 0.62],
            "ms": [9.0, 0.7, 0.9, 0.8, 0.3, 0.1],
            "mib": [122.0, 130.0, 128.0, 128.0, 300.0, 20.0],
        },
        index=["exact", "IVF64", "IVF32a", "IVF32b", "HNSW", "PQ"],
    )

    def ask(least: float, most: float) -> str | None:
        given = measured.copy()
        name = answer(given, least, most)
        if not given.equals(measured):
            raise Wrong("The table was changed: work on a copy.")
        if name is not None and (not isinstance(name, str) or name not in measured.index):
            raise Wrong("Return the name of the index, from the frame's index.", "a name", name)
        return name

    def expect(least: float, most: float, right: str | None, said: str, **other: str) -> None:
        name = ask(least, most)
        if name != right:
            raise Wrong(f"{other.get(name, said)} (recall {least:g}, {most:g} ms)", right, name)

    expect(
        0.96,
        1.0,
        "IVF64",
        "Two indexes meet both conditions.",
        PQ="It needs the least memory, but its recall is below what is needed.",
        exact="Its recall is enough, but a query takes longer than allowed.",
        HNSW="It is faster and finds more than is needed: take the smallest of those that fit.",
    )
    expect(0.98, 0.2, None, "No index is that good and that quick: return None, not a near miss.")
    expect(1.0, 10.0, "exact", "A recall that is just reached is enough.")
    expect(0.5, 0.1, "PQ", "A latency that is just kept is allowed.")
    expect(0.95, 1.0, "IVF32b", "Of equally small indexes take the faster.")
    expect(0.5, 10.0, "PQ", "Recall beyond what is needed buys nothing: the least memory counts.")
    for _ in range(20):
        rows = int(rng.integers(1, 9))
        measured = pd.DataFrame(
            {
                "recall": rng.integers(5, 11, rows) / 10,
                "ms": rng.permutation(rows) + 1.0,  # never equal: a tie in memory has one answer
                "mib": rng.integers(1, 4, rows) * 100.0,
            },
            index=[f"index {i}" for i in range(rows)],
        )
        least, most = float(rng.integers(5, 11) / 10), float(rng.integers(1, rows + 2))
        expect(least, most, _chosen(measured, least, most), "The wrong choice from a random table.")


def _chosen(measured: pd.DataFrame, least: float, most: float) -> str | None:
    fitting = [
        (row.mib, row.ms, name)
        for name, row in measured.iterrows()
        if row.recall >= least and row.ms <= most
    ]
    return min(fitting)[2] if fitting else None


def check_weakest_stage(answer: Callable[..., str], rng: np.random.Generator) -> None:
    """Cases by hand, a trap each: the smallest figure, a loss, no gain, a tie, stages missing."""
    _ask(
        answer,
        {"as it is": 0.2, "retrieve": 0.35, "filter": 0.21, "score": 0.6, "order": 0.22},
        "score",
        {
            "as it is": '"as it is" is the pipeline, not a stage of it.',
            "filter": "A small figure means that the oracle changed little: this stage is fine as "
            "it is.",
            "retrieve": "Not the first stage that gains, but the one that gains most.",
        },
        "Another stage gains more when an oracle replaces it.",
    )
    _ask(
        answer,
        {"as it is": 0.3, "retrieve": 0.5, "filter": 0.26, "score": 0.49, "order": 0.31},
        "retrieve",
        {"score": "Compare each swap with the pipeline as it is, not with the swap before it."},
        "Another stage gains more when an oracle replaces it.",
    )
    _ask(
        answer,
        {"as it is": 0.4, "retrieve": 0.45, "filter": 0.4, "score": 0.42, "order": 0.2},
        "retrieve",
        {"order": "This replacement loses NDCG: a gain has a sign."},
        "A replacement may lose NDCG as well.",
    )
    _ask(
        answer,
        {"as it is": 0.4, "filter": 0.39, "order": 0.35},
        "filter",
        {"as it is": '"as it is" is the pipeline, not a stage, even where nothing beats it.'},
        "Where no replacement gains, the stage that loses least is wanted; stages that are missing "
        "were not measured.",
    )
    _ask(
        answer,
        {"order": 0.5, "score": 0.5, "as it is": 0.2, "filter": 0.3, "retrieve": 0.4},
        "score",
        {"order": "Two stages gain the same: take the first in the order of the pipeline."},
        "The order of the dict means nothing.",
    )
    for _ in range(20):
        stages = rng.permutation(STAGES)[: rng.integers(1, 5)].tolist()
        ndcg = {stage: float(rng.integers(2, 10)) / 10 for stage in [*stages, "as it is"]}
        best = max(ndcg[stage] for stage in stages)
        right = next(stage for stage in STAGES if stage in stages and ndcg[stage] == best)
        _ask(answer, ndcg, right, {}, f"The wrong stage for {ndcg}.")


def _ask(
    answer: Callable[..., str], ndcg: dict[str, float], right: str, said: dict[str, str], else_: str
) -> None:
    got = answer(dict(ndcg))
    same_type(got, (str,), "The stage")
    if got != right:
        raise Wrong(said.get(got, else_), right, got)


EXERCISES = [
    Exercise(
        id="4.1",
        title="log-Q in a loss",
        hints=(
            "Columns are products: logits - np.log(probability) subtracts the same number all "
            "along a column. From all of it, the diagonal too.",
            "The cross-entropy of row i is log(sum(exp(row i))) minus the row's own logit, "
            "np.diag(corrected)[i].",
            "log(sum(exp(x))) is highest + log(sum(exp(x - highest))), whatever the size of x.",
        ),
        check=check_corrected_loss,
    ),
    Exercise(
        id="4.2",
        title="recall over the catalogue",
        hints=(
            "One person at a time: scores = products @ vector is one number for each product.",
            "scores[mine] = -np.inf takes seen products out, before np.argsort(-scores)[:k].",
            "np.isin(best, wanted).sum() counts hits; divide by min(k, len(wanted)), and take the "
            "mean at the very end.",
        ),
        check=check_catalogue_recall,
    ),
    Exercise(
        id="4.3",
        title="hard negatives without false ones",
        hints=(
            "For each person, keep what may be drawn: found != -1, and not "
            "np.isin(found, list(bought[person])).",
            "rng.choice(allowed, size=n, replace=False) draws n different ones.",
        ),
        check=check_hard_negatives,
    ),
    Exercise(
        id="4.4",
        title="choose an index",
        hints=(
            'measured[(measured["recall"] >= least_recall) & ...] keeps the rows that fit.',
            'sort_values(["mib", "ms"]) sorts by memory, and ties by latency; .index[0] is the '
            "first one's name. There may be no row: .empty says so.",
        ),
        check=check_choose_index,
    ),
    Exercise(
        id="4.5",
        title="find the weakest stage",
        hints=(
            'The gain of a stage is ndcg[stage] - ndcg["as it is"].',
            "Go through the four names in the order of the pipeline, not through the dict; max "
            "with a key keeps the first of equals.",
        ),
        check=check_weakest_stage,
    ),
]
