"""Exercises of lab 4: log-Q, catalogue recall, hard negatives, an index, the weakest stage."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from courseware.exercises import Exercise, Wrong
from courseware.exercises.expect import CHANGED, keeping, same
from courseware.exercises.source import changed

TINY = 1e-10  # less than anybody rounds away, more than the error of a sum

# 4.1

OVERFLOW = (
    "An exponential leaves the range of floats, or a probability becomes 0 before its logarithm is "
    "taken: log(sum(exp(x))) is highest + log(sum(exp(x - highest))), with each row's own highest."
)


def loss_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One user, small batches, logits far apart, rare products; then random batches."""
    for logits, probability in (
        ([[3.0]], [0.2]),
        ([[2.0, 1.0], [0.5, 3.0]], [0.5, 0.1]),
        ([[5000.0, 4000.0], [0.0, -5.0]], [0.5, 0.25]),
        ([[-5000.0, -4000.0], [0.5, 3.0]], [0.5, 0.25]),
        ([[2.0, 1.0], [0.5, 3.0]], [1.0, 1e-12]),
        ([[2.0, 1.0], [0.5, 3.0]], [1e-100, 1e-200]),
        ([[2e6 + 0.3, 2e6], [0.1 - 2e6, -2e6]], [0.5, 0.25]),
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


# What the card says -> the edits of the lab's solution that make this mistake; so for the others.
LOSS_EDITS = {
    "The sign is wrong: a popular product is met too often as a negative, so its logit must become "
    "smaller. Subtract log Q.": {"logits - ": "logits + "},
    "The probability itself is subtracted: subtract its logarithm.": {
        "np.log(probability)": "probability"
    },
    "This is the loss without the correction. log Q of the row cancels in the row's softmax: the "
    "probability belongs to the product, which is the column.": {" - np.log(probability)": ""},
    "Only the positives are corrected: a product has the same correction as somebody's negative.": {
        "np.log(probability)": "np.diag(np.log(probability))"
    },
    "Only the negatives are corrected: the positive is a column like the others.": {
        "np.log(probability)": "np.log(probability) * (1 - np.eye(len(logits)))"
    },
    "The softmax runs over the products of one user: over each row, not each column.": {
        "logits - np.log(probability)": "(logits - np.log(probability)).T"
    },
    "This is the sum over users: take the mean, so that the batch size does not change the step.": {
        "np.mean": "np.sum"
    },
    "This is one loss per user: one number for the batch is wanted, their mean.": {
        "float(np.mean(log_total - np.diag(corrected)))": "log_total - np.diag(corrected)"
    },
    "This is the mean logarithm of the right probability: a loss is its negative.": {
        "log_total - np.diag(corrected)": "np.diag(corrected) - log_total"
    },
    "The logarithm has base 10: np.log is the natural one.": {
        "np.log(probability)": "np.log10(probability)"
    },
    CHANGED: {"corrected = logits -": "corrected = logits; corrected -="},
    OVERFLOW: {"corrected.max(axis=1, keepdims=True)": "np.zeros((len(logits), 1))"},
    "The largest logit of the whole batch is subtracted: in a row that is far below it all "
    "exponentials become 0. Subtract each row's own largest logit.": {
        "corrected.max(axis=1, keepdims=True)": "np.full((len(logits), 1), corrected.max())"
    },
    "A limit on the logits changes the loss where they are in the thousands: subtract each row's "
    "largest logit instead.": {"logits - ": "np.clip(logits, -500, 500) - "},
    "A small number inside the logarithm changes the loss where the right probability is small: "
    "subtract each row's largest logit instead.": {
        "log_total - np.diag(": "-np.log(1e-9 + np.exp(-log_total + np.diag(",
        "corrected)))": "corrected)))))",
    },
}

# 4.2


def recall_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Two shops to read, scores of every size, k around the number of products; random shops."""
    products = np.array([[3.0, 0.0], [2.0, 0.5], [1.0, 2.0], [0.0, 3.0]])
    for k in (1, 3):
        yield np.array([[1.0, 0.0]]), products, [np.array([0])], [np.array([1, 3])], k
    yield np.array([[1.0, 0.0]]), products, [np.array([3])], [np.array([1])], 1
    users, nothing = np.array([[1.0, 0.2], [0.1, 1.0]]), np.array([], dtype=int)
    bought = [np.array([2, 3]), np.array([3, 0, 1])]
    yield users, products, [np.array([0, 1, 0]), nothing], bought, 2
    close = np.array([[1.0, 0.0], [1 + TINY, 5.0]])
    yield np.array([[1.0, 0.0]]), close, [nothing], [np.array([1])], 1
    for scale in (-1e3, -1e200, 1e200):
        for k in (2, 3, 4, 6):
            yield scale * users, products, [np.array([0]), nothing], bought, k
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


HITS = "np.isin(best, wanted).sum()"
RECALL_EDITS = {
    "Seen products take places in the lists: take them out before the list is cut.": {
        "scores[mine] = -np.inf": "pass"
    },
    "Seen products are not always taken out: where all scores are negative, 0 is the best score. "
    "Use -np.inf.": {"-np.inf": "0.0"},
    "Seen products are not always taken out: scores may be below any number. Use -np.inf.": {
        "-np.inf": "-1e9"
    },
    "Products are missing that only somebody else has seen: filter by each user's own list.": {
        "scores[mine]": "scores[np.concatenate(seen)]"
    },
    "Hits are divided by k: whoever bought fewer products can then never reach 1.": {
        "min(k, len(wanted))": "k"
    },
    "Hits are divided by the number bought: whoever bought more than k can then never reach 1.": {
        "min(k, len(wanted))": "len(wanted)"
    },
    "Hits are pooled over users, so big buyers count more: take each user's recall, then the "
    "mean.": {
        f"{HITS} / min(k, len(wanted))": f"({HITS}, min(k, len(wanted)))",
        "np.mean(recalls)": "np.divide(*np.sum(recalls, axis=0))",
    },
    "This is the share of users with at least one hit: count all hits.": {
        f"{HITS} / min(k, len(wanted))": "np.isin(best, wanted).any()"
    },
    "Only products that somebody bought are ranked, as within a batch: rank the whole catalogue.": {
        "scores[mine] =": "scores[~np.isin(np.arange(len(scores)), np.concatenate(bought))]"
        " = scores[mine] ="
    },
    "The score is the dot product: do not divide by the lengths of the vectors.": {
        "products @ vector": "products @ vector / np.linalg.norm(products, axis=1)"
    },
    "The worst products are recommended: argsort puts the smallest score first.": {
        "products @ vector": "-products @ vector"
    },
    CHANGED: {"recalls = []": "recalls = []; users *= 2"},
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
    candidates[candidates >= 30] *= 100_000
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


CHOICE = "rng.choice(allowed, size=n, replace=False)"
NEGATIVES_EDITS = {
    PURCHASE: {" & ~np.isin(found, list(bought[user]))": ""},
    EMPTY: {"(found != -1) & ": ""},
    FOREIGN: {"choice(allowed,": "choice(np.arange(100, 999),"},
    TWICE: {", replace=False": ""},
    NEVER_OTHERS: {"bought[user]": "set().union(*bought)"},
    NO_CHANCE: {CHOICE: "allowed[:n]"},
    NEVER: {"choice(allowed,": "choice(allowed[:n],"},
    UNEVEN: {CHOICE: "allowed[np.argsort(rng.exponential(np.arange(1, len(allowed) + 1)))[:n]]"},
    TOGETHER: {CHOICE: "np.roll(allowed, rng.integers(len(allowed)))[:n]"},
    CHANGED: {"return negatives": "candidates += 1; return negatives"},
    OWN_CHANCE: {"rng.choice": "np.random.default_rng().choice"},
    "One too many is drawn for each user: n negatives are wanted.": {
        ", n)": ", n + 1)",
        "size=n": "size=n + 1",
    },
    WHOLE: {"candidates.dtype": "float"},
}

# 4.4


def index_cases(rng: np.random.Generator) -> Iterator[tuple[pd.DataFrame, float, float]]:
    """One table asked for each edge, an empty table, near misses; then random tables."""
    fractions = pd.DataFrame(
        {"recall": [0.9496, 0.951, 0.951], "ms": [0.2, 1.4, 1.6], "mib": [10.5, 20.75, 20.25]},
        index=["a", "b", "c"],
    )
    for asked in ((0.95, 2.0), (0.95, 1.5), (0.95, 1.0), (0.9496, 0.2)):
        yield fractions, *asked
    yield fractions[:0], 0.5, 10.0
    near = pd.DataFrame(
        {"recall": [0.9 - TINY, 0.9], "ms": [2.0 + TINY, 1.0], "mib": [20.0, 20.0 + TINY]},
        index=pd.Index(["a", "b"], name="type"),
    )
    for asked in ((0.5, 3.0), (0.9, 3.0), (0.5, 2.0)):
        yield near, *asked
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
    if got is None and expected is not None:
        return "The result is None, but an index meets both conditions."
    if isinstance(got, str) and expected is None:
        return "No index meets both conditions here: return None."
    return same(got, expected, what="The name of the index")


INDEX_EDITS = {
    "It needs the least memory, but its recall is below what is needed.": {
        '(measured["recall"] >= least_recall) & ': ""
    },
    "Its recall is enough, but a query takes longer than allowed.": {
        ' & (measured["ms"] <= most_ms)': ""
    },
    "The fastest is chosen: being faster than needed buys nothing, take the smallest of those that "
    "fit.": {'"mib", "ms"': '"ms"'},
    "A recall that is just reached is enough.": {">=": ">"},
    "A latency that is just kept is allowed.": {"<=": "<"},
    "Of equally small indexes take the faster.": {'["mib", "ms"]': '"mib", kind="stable"'},
    "No index is that good and that quick: return None, not a near miss.": {
        "return None": 'return measured["recall"].idxmax()'
    },
    "The smallest index of all is chosen, and the conditions are checked afterwards: a larger one "
    "may meet them.": {
        "fitting = m": 'measured = measured.sort_values(["mib", "ms"])[:1]\n    fitting = m'
    },
    "The smallest index with enough recall is chosen, and its latency is checked afterwards: a "
    "larger one may meet both conditions.": {
        ' & (measured["ms"] <= most_ms)]': (
            ']\n    fitting = fitting[fitting["mib"] == fitting["mib"].min()]'
            '\n    fitting = fitting[fitting["ms"] <= most_ms]'
        )
    },
    "Return the name of the index, not its position.": {
        "return fitting": "return measured.index.get_loc(fitting",
        ".index[0]": ".index[0])",
    },
    CHANGED: {"fitting = m": 'measured.sort_values(["mib", "ms"], inplace=True)\n    fitting = m'},
}

# 4.5

STAGES = ("retrieve", "filter", "score", "order")


def stage_cases(rng: np.random.Generator) -> Iterator[tuple[dict[str, float]]]:
    """Losses, no gain, ties and near ties, stages missing, keys in any order; random figures."""
    yield ({"as it is": 0.4, "score": 0.4},)
    yield ({"as it is": 0.1, "order": 0.0},)
    yield ({"as it is": 0.4, "filter": 0.39, "order": 0.35},)
    yield ({"as it is": 0.0, "retrieve": 0.2, "order": 0.3},)
    yield ({"as it is": 0.2, "retrieve": 0.4, "order": 0.40004},)
    yield ({"as it is": 0.2, "retrieve": 0.4, "order": 0.4 + TINY},)
    yield ({"score": 0.2512, "order": 0.2514, "as it is": 0.2, "filter": 0.249},)
    yield ({"as it is": 0.2, "retrieve": 0.35, "filter": 0.21, "score": 0.6, "order": 0.22},)
    yield ({"as it is": 0.3, "retrieve": 0.5, "filter": 0.26, "score": 0.49, "order": 0.31},)
    yield ({"as it is": 0.4, "retrieve": 0.45, "filter": 0.4, "score": 0.42, "order": 0.2},)
    yield ({"order": 0.5, "score": 0.5, "as it is": 0.2, "filter": 0.3, "retrieve": 0.4},)
    for _ in range(30):
        names = rng.permutation(["as it is", *rng.permutation(STAGES)[: rng.integers(1, 5)]])
        figures = rng.choice([0.0, 0.2, 0.249, 0.2512, 0.2514, 0.75, 1.0], len(names))
        yield (dict(zip(names.tolist(), figures.tolist(), strict=True)),)


def same_stage(got: Any, expected: str, *arguments: Any) -> str:
    """Compare names; None may come of an answer that waits for a gain."""
    said = same(got, expected, what="The stage")
    return f"{said} A stage is wanted even where none gains." if got is None else said


GAIN = 'ndcg[stage] - ndcg["as it is"]'
STAGE_EDITS = {
    "A small figure means that the oracle changed little: this stage is fine as it is.": {
        "max(": "min("
    },
    '"as it is" is the pipeline, not a stage, even where nothing beats it.': {
        "max(measured": "max(ndcg"
    },
    "Not the first stage that gains is wanted, but the one that gains most.": {GAIN: f"{GAIN} > 0"},
    "Compare each swap with the pipeline as it is, not with the swap before it.": {
        '["as it is"]': '[["as it is", *measured][measured.index(stage)]]'
    },
    "The largest change is chosen, but a replacement may lose NDCG as well: a gain has a sign.": (
        {GAIN: f"abs({GAIN})"}
    ),
    "Of stages that gain the same, take the first in the order of the pipeline: the order of the "
    "dict means nothing.": {
        '("retrieve", "filter", "score", "order") if stage in ndcg': ('ndcg if stage != "as it is"')
    },
    "A stage that is missing was not measured: it has no gain, not even 0.": {
        " if stage in ndcg": "",
        GAIN: 'ndcg.get(stage, ndcg["as it is"])',
    },
    "Return the name of the stage, not its gain.": {
        f"max(measured, key=lambda stage: {GAIN})": f"max({GAIN} for stage in measured)"
    },
    "Where no replacement gains, the stage that loses least is wanted: do not start from a gain of "
    "0.": {"return max": 'if max(ndcg, key=ndcg.get) == "as it is": return None\n    return max'},
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
        mistakes={said: changed("4.1", edits) for said, edits in LOSS_EDITS.items()},
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
        mistakes={said: changed("4.2", edits) for said, edits in RECALL_EDITS.items()},
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
        mistakes={said: changed("4.3", edits) for said, edits in NEGATIVES_EDITS.items()},
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
        mistakes={said: changed("4.4", edits) for said, edits in INDEX_EDITS.items()},
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
        mistakes={said: changed("4.5", edits) for said, edits in STAGE_EDITS.items()},
        same=same_stage,
    ),
]
