"""Exercises of lab 4: log-Q, catalogue recall, hard negatives, an index, the weakest stage."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises import Exercise, Wrong
from courseware.exercises.expect import CHANGED, keeping, same

# 4.1

OVERFLOW = (
    "With logits in the thousands an exponential leaves the range of floats, or all of a row's "
    "become 0: subtract each row's own largest logit first."
)


def loss_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One user, small batches, logits far apart, a rare product; then random batches."""
    for logits, probability in (
        ([[3.0]], [0.2]),
        ([[2.0, 1.0], [0.5, 3.0]], [0.5, 0.1]),
        ([[5000.0, 4000.0], [0.0, -5.0]], [0.5, 0.25]),
        ([[-5000.0, -4000.0], [0.5, 3.0]], [0.5, 0.25]),
        ([[2.0, 1.0], [0.5, 3.0]], [1.0, 1e-12]),
        ([[2.0, 1.0, -1.0], [0.5, 3.0, 0.0], [1.5, -0.5, 1.0]], [0.5, 0.1, 0.02]),
    ):
        yield np.array(logits), np.array(probability)
    for scale in (1, 1, 1, 1_000, -1_000):
        batch = int(rng.integers(3, 9))
        yield scale * rng.uniform(0.2, 2, (batch, batch)), rng.uniform(0.001, 0.5, batch)


def same_loss(got: Any, expected: float, logits: np.ndarray, probability: np.ndarray) -> str:
    """Compare as numbers; name an overflow, whichever way it came about."""
    said = same(got, expected, what="The loss")
    overflow = said and np.ptp(logits) > 500 and isinstance(got, float) and not np.isfinite(got)
    return OVERFLOW if overflow else said


def _losses(logits: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(logits, axis=1) - np.diag(logits)


def _loss(logits: np.ndarray) -> float:
    return float(np.mean(_losses(logits)))


def _in_place(logits: np.ndarray, q: np.ndarray) -> float:
    logits -= np.log(q)
    return _loss(logits)


def _overflowing(logits: np.ndarray, q: np.ndarray) -> float:
    odds = np.exp(logits) / q
    return float(-np.mean(np.log(np.diag(odds) / odds.sum(axis=1))))


def _highest_of_all(logits: np.ndarray, q: np.ndarray) -> float:
    corrected = logits - np.log(q)
    corrected = corrected - corrected.max()
    return float(np.mean(np.log(np.exp(corrected).sum(axis=1)) - np.diag(corrected)))


LOSS_MISTAKES = {
    "The sign is wrong: a popular product is met too often as a negative, so its logit must become "
    "smaller. Subtract log Q.": lambda logits, q: _loss(logits + np.log(q)),
    "The probability itself is subtracted: subtract its logarithm.": (
        lambda logits, q: _loss(logits - q)
    ),
    "This is the loss without the correction. log Q of the row cancels in the row's softmax: the "
    "probability belongs to the product, which is the column.": lambda logits, q: _loss(logits),
    "Only the positives are corrected: a product has the same correction as somebody's negative.": (
        lambda logits, q: _loss(logits - np.diag(np.log(q)))
    ),
    "Only the negatives are corrected: the positive is a column like the others.": (
        lambda logits, q: _loss(logits - np.log(q) + np.diag(np.log(q)))
    ),
    "The softmax runs over the products of one user: over each row, not each column.": (
        lambda logits, q: _loss((logits - np.log(q)).T)
    ),
    "This is the sum over users: take the mean, so that the batch size does not change the step.": (
        lambda logits, q: float(np.sum(_losses(logits - np.log(q))))
    ),
    "This is one loss per user: one number for the batch is wanted, their mean.": (
        lambda logits, q: _losses(logits - np.log(q))
    ),
    "This is the mean logarithm of the right probability: a loss is its negative.": (
        lambda logits, q: -_loss(logits - np.log(q))
    ),
    "The logarithm has base 10: np.log is the natural one.": (
        lambda logits, q: _loss(logits - np.log10(q))
    ),
    CHANGED: _in_place,
    OVERFLOW: _overflowing,
    "The largest logit of the whole batch is subtracted: in a row that is far below it all "
    "exponentials become 0. Subtract each row's own largest logit.": _highest_of_all,
    "A limit on the logits changes the loss where they are in the thousands: subtract each row's "
    "largest logit instead.": lambda logits, q: _loss(np.clip(logits, -500, 500) - np.log(q)),
    "A small number inside the logarithm changes the loss where the right probability is small: "
    "subtract each row's largest logit instead.": (
        lambda logits, q: float(-np.mean(np.log(np.exp(-_losses(logits - np.log(q))) + 1e-9)))
    ),
}

# 4.2


def recall_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Two shops to read, all scores negative, k around the number of products; random shops."""
    products = np.array([[3.0, 0.0], [2.0, 0.5], [1.0, 2.0], [0.0, 3.0]])
    for k in (1, 3):
        yield np.array([[1.0, 0.0]]), products, [np.array([0])], [np.array([1, 3])], k
    yield np.array([[1.0, 0.0]]), products, [np.array([3])], [np.array([1])], 1
    users, nothing = np.array([[1.0, 0.2], [0.1, 1.0]]), np.array([], dtype=int)
    bought = [np.array([2]), np.array([3, 0, 1])]
    yield users, products, [np.array([0, 1, 0]), nothing], bought, 2
    for k in (2, 3, 4, 6):
        yield -1_000 * users, products, [np.array([0]), nothing], bought, k
    for number in range(12):
        n_users, size = int(rng.integers(2, 12)), int(rng.integers(20, 60))
        users = rng.normal(size=(n_users, 4)) - 0.5
        products = rng.normal(size=(size, 4)) * rng.uniform(0.3, 2, (size, 1))
        seen, bought = [], []
        for vector in users:
            liked = np.argsort(-(products @ vector) + 2 * rng.normal(size=size))
            n_seen = int(rng.integers(0, 8))
            seen.append(liked[:n_seen])
            bought.append(liked[n_seen : n_seen + int(rng.integers(1, 11))])
        yield users, products, seen, bought, size - 1 if number == 11 else 1 + number


def _hits(
    users: Any, products: Any, seen: Any, bought: Any, k: int, seen_score: float = -np.inf
) -> list[tuple[int, int]]:
    """For each user, the hits among the k best unseen products and the number bought."""
    hits = []
    for vector, mine, wanted in zip(users, seen, bought, strict=True):
        scores = products @ vector
        scores[mine] = seen_score
        hits.append((int(np.isin(np.argsort(-scores)[:k], wanted).sum()), len(wanted)))
    return hits


def _recall(users: Any, products: Any, seen: Any, bought: Any, k: int, **named: float) -> float:
    hits = _hits(users, products, seen, bought, k, **named)
    return float(np.mean([found / min(k, many) for found, many in hits]))


def _unfiltered(users: Any, products: Any, seen: Any, bought: Any, k: int) -> float:
    return _recall(users, products, [[] for _ in users], bought, k)


def _within_the_batch(users: Any, products: Any, seen: Any, bought: Any, k: int) -> float:
    rows = np.unique(np.concatenate(bought))
    position = {row: place for place, row in enumerate(rows)}
    batch_seen = [[position[s] for s in own if s in position] for own in seen]
    batch_bought = [[position[b] for b in own] for own in bought]
    return _recall(users, products[rows], batch_seen, batch_bought, k)


def _pooled(*shop: Any) -> float:
    hits = _hits(*shop)
    return sum(found for found, _ in hits) / sum(min(shop[-1], many) for _, many in hits)


def _recall_in_place(users: Any, products: Any, *others: Any) -> float:
    recall = _recall(users, products, *others)
    products /= np.linalg.norm(products)
    return recall


RECALL_MISTAKES = {
    "Seen products take places in the lists: take them out before the list is cut.": _unfiltered,
    "Seen products are not always taken out: where all scores are negative, 0 is the best score. "
    "Use -np.inf.": lambda *shop: _recall(*shop, seen_score=0.0),
    "Products are missing that only somebody else has seen: filter by each user's own list.": (
        lambda users, products, seen, *others: _recall(
            users, products, [np.concatenate(seen)] * len(users), *others
        )
    ),
    "Hits are divided by k: whoever bought fewer products can then never reach 1.": (
        lambda *shop: float(np.mean([found / shop[-1] for found, _ in _hits(*shop)]))
    ),
    "Hits are divided by the number bought: whoever bought more than k can then never reach 1.": (
        lambda *shop: float(np.mean([found / many for found, many in _hits(*shop)]))
    ),
    "Hits are pooled over users, so big buyers count more: take each user's recall, then the "
    "mean.": _pooled,
    "This is the share of users with at least one hit: count all hits.": (
        lambda *shop: float(np.mean([found > 0 for found, _ in _hits(*shop)]))
    ),
    "Only products that somebody bought are ranked, as within a batch: rank the whole catalogue.": (
        _within_the_batch
    ),
    "The score is the dot product: do not divide by the lengths of the vectors.": (
        lambda users, products, *others: _recall(
            users, products / np.linalg.norm(products, axis=1, keepdims=True), *others
        )
    ),
    "The worst products are recommended: argsort puts the smallest score first.": (
        lambda users, *others: _recall(-users, *others)
    ),
    CHANGED: _recall_in_place,
}

# 4.3

EMPTY = "An empty place was drawn: -1 is no product."
PURCHASE = "A purchase was drawn as a negative: a false negative."
FOREIGN = "A negative is no candidate of its user."
TWICE = "A negative stands twice in a row: draw without replacement."
WHOLE = "Product ids are whole numbers: return an array of integers."
OWN_CHANCE = "The same state of rng must give the same draw: draw from rng alone."
NO_CHANCE = "Another seed gives the same negatives: draw by chance, from rng."
NEVER_OTHERS = "What somebody else bought is never drawn: leave out the user's own purchases only."
NEVER = "Some candidates are never drawn: draw from all that the user did not buy."
UNEVEN = "Some allowed candidates are drawn more often than others: draw evenly."
TOGETHER = "Some candidates are drawn together too often or too rarely: draw one by one."
DRAWS = 3_000


def negatives_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Exactly n allowed, gaps in the middle, product 0, nothing bought; then random rows."""
    yield np.array([[5, -1, 7, 9]]), [{7}], 2, np.random.default_rng(1)
    yield np.array([[3, 0, 8], [-1, 4, 0]]), [{8, 3}, {2}], 1, np.random.default_rng(2)
    yield np.array([[3, 0, 8, 6], [-1, 4, -1, 0]]), [{8, 6}, set()], 2, np.random.default_rng(3)
    for seed in range(6):
        candidates, bought = _random_candidates(rng, users=int(rng.integers(1, 9)))
        yield candidates, bought, 5, np.random.default_rng(seed)


def _random_candidates(rng: np.random.Generator, users: int) -> tuple[np.ndarray, list[set[int]]]:
    """Return candidates with gaps, and purchases: of the candidates and of other products."""
    candidates = np.stack([rng.permutation(40)[:24] for _ in range(users)])
    bought = [set(row[row < 20][:6].tolist()) | {50} for row in candidates]
    bought[0] = set()
    for row in candidates[::2]:
        row[rng.choice(24, 3, replace=False)] = -1
    return candidates, bought


def same_negatives(
    got: Any, expected: Any, candidates: np.ndarray, bought: list[set[int]], n: int, rng: Any
) -> str:
    """Accept any draw of n different candidates that are allowed."""
    if np.shape(got) != np.shape(expected):
        return same(got, expected)
    if np.asarray(got).dtype.kind not in "iu":
        return WHOLE
    rows = np.asarray(got).tolist()
    for drawn, found, own in zip(rows, candidates.tolist(), bought, strict=True):
        if -1 in drawn:
            return EMPTY
        if set(drawn) & own:
            return PURCHASE
        if not set(drawn) <= set(found):
            return FOREIGN
        if len(set(drawn)) < n:
            return TWICE
    return ""


def judge_negatives(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Chance comes from rng alone; allowed candidates, and pairs of them, come equally often."""
    candidates, bought = _random_candidates(rng, users=4)
    n = 5

    def draw(seed: int) -> np.ndarray:
        own = [set(products) for products in bought]
        return np.asarray(answer(candidates.copy(), own, n, np.random.default_rng(seed)))

    if any(not np.array_equal(draw(1), draw(1)) for _ in range(5)):
        raise Wrong(OWN_CHANCE)
    if all(np.array_equal(draw(1), draw(seed)) for seed in range(2, 7)):
        raise Wrong(NO_CHANCE)
    draws = [draw(seed) for seed in range(DRAWS)]
    for user, allowed in enumerate(_allowed(candidates, bought)):
        rows = np.array([drawn[user] for drawn in draws])
        taken = (rows[:, :, np.newaxis] == allowed).any(axis=1).astype(float)
        share, expected = taken.mean(axis=0), n / len(allowed)
        wanted = f"each in {expected:.0%} of draws"
        if never := set(np.array(allowed)[share == 0].tolist()):
            others = set(allowed) & set.union(*bought)
            said = NEVER_OTHERS if never == others else NEVER
            raise Wrong(said, wanted, f"{len(never)} of {len(allowed)} in none")
        if _uneven(share, expected):
            raise Wrong(UNEVEN, wanted, f"in {share.min():.0%} to {share.max():.0%}")
        pairs = (taken.T @ taken / DRAWS)[np.triu_indices(len(allowed), 1)]
        together = expected * (n - 1) / (len(allowed) - 1)
        if _uneven(pairs, together):
            wanted = f"each pair in {together:.1%} of draws"
            raise Wrong(TOGETHER, wanted, f"in {pairs.min():.1%} to {pairs.max():.1%}")


def _uneven(shares: np.ndarray, expected: float) -> bool:
    """Whether a share is six standard errors away: for a right answer once in a million checks."""
    return bool(np.any(np.abs(shares - expected) > 6 * np.sqrt(expected * (1 - expected) / DRAWS)))


def _allowed(candidates: np.ndarray, bought: list[set[int]]) -> list[list[int]]:
    rows = zip(candidates.tolist(), bought, strict=True)
    return [[p for p in found if p != -1 and p not in own] for found, own in rows]


def _even(allowed: list[Any], n: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([rng.choice(found, size=n, replace=False) for found in allowed])


def _empty_places_too(candidates: Any, bought: Any, n: int, rng: Any) -> np.ndarray:
    rows = zip(candidates.tolist(), bought, strict=True)
    return _even([[p for p in found if p not in own] for found, own in rows], n, rng)


def _first_more_often(candidates: Any, bought: Any, n: int, rng: Any) -> np.ndarray:
    rows = []
    for found in _allowed(candidates, bought):
        weights = 1 / np.arange(1, len(found) + 1)
        rows.append(rng.choice(found, size=n, replace=False, p=weights / weights.sum()))
    return np.stack(rows)


def _neighbours(candidates: Any, bought: Any, n: int, rng: Any) -> np.ndarray:
    rows = _allowed(candidates, bought)
    return np.stack([np.roll(found, rng.integers(len(found)))[:n] for found in rows])


def _negatives_in_place(candidates: Any, bought: Any, n: int, rng: Any) -> np.ndarray:
    candidates[:, :n] = _even(_allowed(candidates, bought), n, rng)
    return candidates[:, :n].copy()


NEGATIVES_MISTAKES = {
    PURCHASE: lambda found, bought, n, rng: _even([c[c != -1] for c in found], n, rng),
    EMPTY: _empty_places_too,
    FOREIGN: lambda found, bought, n, rng: _even([range(100, 999)] * len(found), n, rng),
    TWICE: lambda found, bought, n, rng: np.stack(
        [rng.choice(allowed, size=n) for allowed in _allowed(found, bought)]
    ),
    NEVER_OTHERS: lambda found, bought, n, rng: _even(
        _allowed(found, [set.union(*bought)] * len(bought)), n, rng
    ),
    NO_CHANCE: lambda found, bought, n, rng: np.stack([a[:n] for a in _allowed(found, bought)]),
    NEVER: lambda found, bought, n, rng: _even([a[:n] for a in _allowed(found, bought)], n, rng),
    UNEVEN: _first_more_often,
    TOGETHER: _neighbours,
    CHANGED: _negatives_in_place,
    OWN_CHANCE: lambda found, bought, n, rng: _even(
        _allowed(found, bought), n, np.random.default_rng()
    ),
    "One too many is drawn for each user: n negatives are wanted.": (
        lambda found, bought, n, rng: _even(_allowed(found, bought), n + 1, rng)
    ),
    WHOLE: lambda found, bought, n, rng: _even(_allowed(found, bought), n, rng) / 1,
}

# 4.4


def index_cases(rng: np.random.Generator) -> Iterator[tuple[pd.DataFrame, float, float]]:
    """One table asked for each edge, an empty table, fractions; then random tables."""
    fractions = pd.DataFrame(
        {"recall": [0.9496, 0.951, 0.951], "ms": [0.2, 1.4, 1.6], "mib": [10.5, 20.75, 20.25]},
        index=["a", "b", "c"],
    )
    for asked in ((0.95, 2.0), (0.95, 1.5), (0.95, 1.0), (0.9496, 0.2)):
        yield fractions, *asked
    yield fractions[:0], 0.5, 10.0
    measured = pd.DataFrame(
        {
            "recall": [1.0, 0.97, 0.95, 0.95, 0.99, 0.62],
            "ms": [9.0, 0.7, 0.9, 0.8, 0.3, 0.1],
            "mib": [122.0, 130.0, 128.0, 128.0, 300.0, 20.0],
        },
        index=["exact", "IVF64", "IVF32a", "IVF32b", "HNSW", "PQ"],
    )
    for asked in ((0.96, 1.0), (0.98, 0.2), (1.0, 10.0), (0.5, 0.1), (0.95, 1.0), (0.5, 10.0)):
        yield measured, *asked
    for _ in range(30):
        rows = int(rng.integers(1, 9))
        measured = pd.DataFrame(
            {
                "recall": rng.choice([0.7, 0.904, 0.949, 0.951, 1.0], rows),
                "ms": (rng.permutation(rows) + 1) * 0.375,
                "mib": rng.choice([20.25, 20.375, 20.75, 2_000.5], rows),
            },
            index=[f"index {i}" for i in rng.permutation(rows)],
        )
        yield measured, float(rng.choice(measured["recall"])), float(rng.choice(measured["ms"]))


def same_name(got: Any, expected: Any, *arguments: Any) -> str:
    """Compare names; None may be meant."""
    said = same(got, expected, what="The name of the index")
    if said and got is None:
        return f"{said} None is right only if no index meets both conditions."
    if said and expected is None and isinstance(got, str):
        return "No index meets both conditions here: return None."
    return said


def _fitting(measured: pd.DataFrame, least_recall: float, most_ms: float) -> pd.DataFrame:
    return measured[(measured["recall"] >= least_recall) & (measured["ms"] <= most_ms)]


def _first(measured: pd.DataFrame, *columns: str) -> str | None:
    return None if measured.empty else measured.sort_values([*columns], kind="stable").index[0]


def _smallest(measured: pd.DataFrame) -> str | None:
    return _first(measured, "mib", "ms")


def _near_miss(measured: pd.DataFrame, *asked: float) -> str | None:
    fitting = _fitting(measured, *asked)
    return measured["recall"].idxmax() if fitting.empty else _smallest(fitting)


def _position(measured: pd.DataFrame, *asked: float) -> int | None:
    name = _smallest(_fitting(measured, *asked))
    return None if name is None else measured.index.get_loc(name)


def _index_in_place(measured: pd.DataFrame, *asked: float) -> str | None:
    measured.sort_values(["mib", "ms"], inplace=True)
    return _smallest(_fitting(measured, *asked))


INDEX_MISTAKES = {
    "It needs the least memory, but its recall is below what is needed.": (
        lambda measured, recall, ms: _smallest(_fitting(measured, 0, ms))
    ),
    "Its recall is enough, but a query takes longer than allowed.": (
        lambda measured, recall, ms: _smallest(_fitting(measured, recall, np.inf))
    ),
    "The fastest is chosen: being faster than needed buys nothing, take the smallest of those that "
    "fit.": lambda *asked: _first(_fitting(*asked), "ms"),
    "A recall that is just reached is enough.": (
        lambda measured, recall, ms: _smallest(_fitting(measured, recall + 1e-9, ms))
    ),
    "A latency that is just kept is allowed.": (
        lambda measured, recall, ms: _smallest(_fitting(measured, recall, ms - 1e-9))
    ),
    "Of equally small indexes take the faster.": lambda *asked: _first(_fitting(*asked), "mib"),
    "No index is that good and that quick: return None, not a near miss.": _near_miss,
    "The smallest index of all is chosen, and the conditions are checked afterwards: a larger one "
    "may meet them.": lambda measured, *asked: _smallest(
        _fitting(measured.sort_values(["mib", "ms"])[:1], *asked)
    ),
    "Return the name of the index, not its position.": _position,
    CHANGED: _index_in_place,
}

# 4.5

STAGES = ("retrieve", "filter", "score", "order")
AS_IT_IS = "as it is"


def stage_cases(rng: np.random.Generator) -> Iterator[tuple[dict[str, float]]]:
    """Losses, no gain, ties, stages missing, NDCG 0, keys in any order; then random figures."""
    yield ({"as it is": 0.4, "score": 0.4},)
    yield ({"as it is": 0.1, "order": 0.0},)
    yield ({"as it is": 0.4, "filter": 0.39, "order": 0.35},)
    yield ({"as it is": 0.0, "retrieve": 0.2, "order": 0.3},)
    yield ({"score": 0.2512, "order": 0.2514, "as it is": 0.2, "filter": 0.249},)
    yield ({"as it is": 0.2, "retrieve": 0.35, "filter": 0.21, "score": 0.6, "order": 0.22},)
    yield ({"as it is": 0.3, "retrieve": 0.5, "filter": 0.26, "score": 0.49, "order": 0.31},)
    yield ({"as it is": 0.4, "retrieve": 0.45, "filter": 0.4, "score": 0.42, "order": 0.2},)
    yield ({"order": 0.5, "score": 0.5, "as it is": 0.2, "filter": 0.3, "retrieve": 0.4},)
    for _ in range(30):
        names = rng.permutation([AS_IT_IS, *rng.permutation(STAGES)[: rng.integers(1, 5)]])
        figures = rng.choice([0.0, 0.2, 0.249, 0.2512, 0.2514, 0.75, 1.0], len(names))
        yield (dict(zip(names.tolist(), figures.tolist(), strict=True)),)


def same_stage(got: Any, expected: str, *arguments: Any) -> str:
    """Compare names; None may come of an answer that waits for a gain."""
    said = same(got, expected, what="The stage")
    return f"{said} A stage is wanted even where none gains." if got is None else said


def _measured(ndcg: dict[str, float]) -> list[str]:
    return [stage for stage in STAGES if stage in ndcg]


def _from_0(ndcg: dict[str, float]) -> str | None:
    gains = {stage: ndcg[stage] - ndcg[AS_IT_IS] for stage in _measured(ndcg)}
    weakest = max(gains, key=gains.get)
    return weakest if gains[weakest] > 0 else None


def _by_steps(ndcg: dict[str, float]) -> str:
    names = [AS_IT_IS, *_measured(ndcg)]
    return max(pairwise(names), key=lambda pair: ndcg[pair[1]] - ndcg[pair[0]])[1]


STAGE_MISTAKES = {
    "A small figure means that the oracle changed little: this stage is fine as it is.": (
        lambda ndcg: min(_measured(ndcg), key=ndcg.get)
    ),
    '"as it is" is the pipeline, not a stage, even where nothing beats it.': (
        lambda ndcg: max(ndcg, key=ndcg.get)
    ),
    "Not the first stage that gains is wanted, but the one that gains most.": (
        lambda ndcg: next((s for s in STAGES if ndcg.get(s, 0) > ndcg[AS_IT_IS]), "order")
    ),
    "Compare each swap with the pipeline as it is, not with the swap before it.": _by_steps,
    "The largest change is chosen, but a replacement may lose NDCG as well: a gain has a sign.": (
        lambda ndcg: max(_measured(ndcg), key=lambda stage: abs(ndcg[stage] - ndcg[AS_IT_IS]))
    ),
    "Of stages that gain the same, take the first in the order of the pipeline: the order of the "
    "dict means nothing.": lambda ndcg: max((s for s in ndcg if s != AS_IT_IS), key=ndcg.get),
    "A stage that is missing was not measured: it has no gain, not even 0.": (
        lambda ndcg: max(STAGES, key=lambda stage: ndcg.get(stage, ndcg[AS_IT_IS]))
    ),
    "Return the name of the stage, not its gain.": (
        lambda ndcg: max(ndcg[stage] for stage in _measured(ndcg)) - ndcg[AS_IT_IS]
    ),
    "Where no replacement gains, the stage that loses least is wanted: do not start from a gain of "
    "0.": _from_0,
}

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
        cases=loss_cases,
        mistakes=LOSS_MISTAKES,
        use=keeping(0, 1),
        same=same_loss,
    ),
    Exercise(
        id="4.2",
        title="recall over the catalogue",
        hints=(
            "One user at a time: scores = products @ vector is one number for each product.",
            "scores[mine] = -np.inf takes seen products out, before np.argsort(-scores)[:k].",
            "np.isin(best, wanted).sum() counts hits; divide by min(k, len(wanted)), and take the "
            "mean at the very end.",
        ),
        cases=recall_cases,
        mistakes=RECALL_MISTAKES,
        use=keeping(0, 1),
    ),
    Exercise(
        id="4.3",
        title="hard negatives without false ones",
        hints=(
            "For each user, keep what may be drawn: found != -1, and not "
            "np.isin(found, list(bought[user])).",
            "rng.choice(allowed, size=n, replace=False) draws n different ones.",
        ),
        cases=negatives_cases,
        mistakes=NEGATIVES_MISTAKES,
        use=keeping(0),
        same=same_negatives,
        judge=judge_negatives,
    ),
    Exercise(
        id="4.4",
        title="choose an index",
        hints=(
            'measured[(measured["recall"] >= least_recall) & ...] keeps the rows that fit.',
            'sort_values(["mib", "ms"]) sorts by memory, and ties by latency; .index[0] is the '
            "first one's name. There may be no row: .empty says so.",
        ),
        cases=index_cases,
        mistakes=INDEX_MISTAKES,
        use=keeping(0),
        same=same_name,
    ),
    Exercise(
        id="4.5",
        title="find the weakest stage",
        hints=(
            'The gain of a stage is ndcg[stage] - ndcg["as it is"].',
            "Go through the four names in the order of the pipeline, not through the dict; max "
            "with a key keeps the first of equals.",
        ),
        cases=stage_cases,
        mistakes=STAGE_MISTAKES,
        same=same_stage,
    ),
]
