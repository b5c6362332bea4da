"""Checks of lab 5: filtering, fallbacks, sampling, and a latency budget."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from courseware.exercises.engine import Exercise, Wrong
from courseware.exercises.expect import array, same_type


def check_filter(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Two users who have seen different things, short rows, gaps; then random requests."""
    candidates = np.array([[10, 20, 30, 40], [30, 20, 10, 40], [50, 60, -1, -1]])
    seen = [np.array([10, 30]), np.array([40]), np.array([60, 70])]
    got = answer(candidates.copy(), [row.copy() for row in seen], 2)
    same_type(got, np.ndarray)
    if got.shape != (3, 2):
        raise Wrong("One row a user is wanted, `keep` wide.", (3, 2), got.shape)
    right = np.array([[20, 40], [30, 20], [50, -1]])
    union = np.array([[20, -1], [20, -1], [50, -1]])
    if np.array_equal(got, union):
        raise Wrong(
            "Candidates were removed that only another user has seen: filter each row by its own "
            "list.",
            right[1],
            got[1],
        )
    for row, mine in enumerate(seen):
        if np.isin(got[row], mine).any():
            raise Wrong(f"User {row} is offered what this user has seen.", right[row], got[row])
    if (got[2] == 0).any():
        raise Wrong("Empty places hold -1: 0 could be a product.", right[2], got[2])
    if np.array_equal(got, [[20, -1], [30, 20], [50, -1]]):
        raise Wrong(
            "A place is empty although a candidate is left: filter first, cut to `keep` after.",
            right[0],
            got[0],
        )
    if np.array_equal(got, [[20, 40], [10, 20], [50, -1]]):
        raise Wrong("The candidates keep their order, best first.", right[1], got[1])
    array(got, right, "The result for three users")

    nothing = answer(candidates.copy(), [candidates[0], candidates[0], candidates[2]], 3)
    array(nothing, np.full((3, 3), -1), "The result for users who have seen everything")
    for _ in range(5):
        users, width = int(rng.integers(1, 6)), int(rng.integers(3, 12))
        candidates = np.array([rng.permutation(30)[:width] for _ in range(users)])
        seen = [rng.permutation(30)[: rng.integers(0, 20)] for _ in range(users)]
        keep = int(rng.integers(1, width + 3))
        before = candidates.copy()
        got = answer(candidates, seen, keep)
        if not np.array_equal(candidates, before):
            raise Wrong("The array `candidates` was changed: make a new one.")
        array(got, _filter(before, seen, keep), f"The result for {users} users, keep={keep},")


def _filter(candidates: np.ndarray, seen: list[np.ndarray], keep: int) -> np.ndarray:
    rows = []
    for ids, mine in zip(candidates.tolist(), seen, strict=True):
        have = set(mine.tolist())
        left = [i for i in ids if i != -1 and i not in have][:keep]
        rows.append(left + [-1] * (keep - len(left)))
    return np.array(rows)


def check_fill(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Gaps, an unknown user, a shop that runs out; then random requests."""
    popular = np.arange(1, 9)
    candidates = np.array([[9, 2, -1, -1], [8, 7, 6, 5], [-1, -1, -1, -1]])
    seen = [np.array([1]), np.array([1, 2]), np.array([], dtype=int)]
    got = answer(candidates.copy(), [row.copy() for row in seen], popular.copy())
    same_type(got, np.ndarray)
    if got.shape != candidates.shape:
        raise Wrong("The result has the shape of `candidates`.", candidates.shape, got.shape)
    right = np.array([[9, 2, 3, 4], [8, 7, 6, 5], [1, 2, 3, 4]])
    if not np.array_equal(got[1], right[1]) or not np.array_equal(got[0, :2], [9, 2]):
        raise Wrong("Places that were not empty have changed: fill the gaps only.", right, got)
    if (got[0] == 1).any():
        raise Wrong("A gap was filled with a product that the user has seen.", right[0], got[0])
    there = got[0][got[0] != -1]
    if len(set(there)) < len(there):
        raise Wrong("A product stands twice in one row.", right[0], got[0])
    if (got == -1).any():
        raise Wrong("Gaps are left although popular products are there.", right, got)
    if np.array_equal(got[0, 2:], [8, 7]):
        raise Wrong("`popular` begins with the most popular product: take it first.", 3, got[0, 2])
    if np.array_equal(got[2], [3, 4, 5, 6]):
        raise Wrong(
            "A new user misses what others have seen: look at each user's own list.",
            right[2],
            got[2],
        )
    array(got, right, "The result for three users")

    few = answer(np.full((1, 4), -1), [np.array([2])], np.array([1, 2, 3]))
    array(few, np.array([[1, 3, -1, -1]]), "The result where popular products run out")
    for _ in range(5):
        users, width = int(rng.integers(1, 6)), int(rng.integers(2, 9))
        popular = rng.permutation(20)[: rng.integers(3, 20)]
        seen = [rng.permutation(20)[: rng.integers(0, 12)] for _ in range(users)]
        candidates = np.array([rng.permutation(20)[:width] for _ in range(users)])
        for row in candidates:
            row[rng.integers(0, width + 1) :] = -1
        before = candidates.copy()
        got = answer(candidates, seen, popular)
        if not np.array_equal(candidates, before):
            raise Wrong("The array `candidates` was changed: make a new one.")
        array(got, _fill(before, seen, popular), f"The result for {users} users")


def _fill(candidates: np.ndarray, seen: list[np.ndarray], popular: np.ndarray) -> np.ndarray:
    rows = []
    for ids, mine in zip(candidates.tolist(), seen, strict=True):
        there = [i for i in ids if i != -1]
        not_offered = {*there, *mine.tolist()}
        row = there + [i for i in popular.tolist() if i not in not_offered]
        rows.append((row + [-1] * len(ids))[: len(ids)])
    return np.array(rows)


DRAWS = 4_000


def check_sample(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Shape, no repetition, extremes, the distribution of the first and of the second draw."""
    logits = np.array([1.0, 0.0, -1.0, -3.0])
    got = np.asarray(answer(logits.copy(), 1.0, 3, np.random.default_rng(1)))
    if got.shape != (3,):
        raise Wrong("`k` indices are wanted.", (3,), got.shape)
    if not np.issubdtype(got.dtype, np.integer):
        raise Wrong("Return indices into `logits`, not the numbers themselves.", "integers", got)
    first = _draws(answer, logits, 1.0, 2, rng)
    if any(len(set(pair)) < 2 for pair in first.tolist()):
        raise Wrong("A candidate was drawn twice: draw without replacement.")
    again = [
        np.asarray(answer(logits.copy(), 1.0, 4, np.random.default_rng(7))).tolist()
        for _ in range(6)
    ]
    if any(one != again[0] for one in again):
        raise Wrong("The same `rng` gave different draws: take all chance from `rng`.")
    if (first[:, 0] == first[0, 0]).all():
        before = (one := np.random.default_rng(1)).bit_generator.state
        answer(logits.copy(), 1.0, 1, one)
        raise Wrong(
            "The first draw is always the same candidate: nothing is drawn at random."
            if one.bit_generator.state == before
            else "The same noise for all candidates changes nothing: draw one number for each."
        )

    if _is_turned(first[:, 0]):
        positive = _draws(answer, logits + 4.0, 1.0, 1, rng)[:, 0]
        raise Wrong(
            "The worst candidate is drawn most often: is it sorted the other way?"
            if _is_turned(positive)
            else "Where the logits add up to less than 0 the worst candidate is drawn most often: "
            "do not divide by their sum."
        )
    hot = _draws(answer, logits, 3.0, 1, rng)[:, 0]
    cold = _draws(answer, logits, 0.3, 1, rng)[:, 0]
    best = [float((draws == 0).mean()) for draws in (cold, hot)]
    if best[0] < best[1]:
        raise Wrong(
            "A low temperature makes the best candidate rarer: divide by the temperature.",
            "0.97 of draws at 0.3, 0.41 at 3",
            f"{best[0]:.2f} at 0.3, {best[1]:.2f} at 3",
        )
    if abs(best[0] - best[1]) < 0.1:
        raise Wrong(
            "The temperature changes nothing: divide the logits by it before noise is added.",
            "0.97 of draws at 0.3, 0.41 at 3",
            f"{best[0]:.2f} at 0.3, {best[1]:.2f} at 3",
        )
    # Mean zero, and negative: a division by the sum would turn the order round.
    for temperature in (1.0, 0.5, 3.0):
        for shift in (0.0, -5.0):
            draws = _draws(answer, logits + shift, temperature, 1, rng)[:, 0]
            _compare(draws, logits / temperature, temperature, shift)
    after_best = first[first[:, 0] == 0][:, 1] - 1
    _compare(after_best, logits[1:], 1.0, 0.0, "the second draw, after the best was taken")

    huge = np.array([900.0, 1_000.0, 100.0])
    with np.errstate(all="ignore"):
        top = np.asarray(answer(huge.copy(), 1.0, 1, np.random.default_rng(3)))
    if top.tolist() != [1]:
        raise Wrong(
            "With logits 900, 1000, 100 the second must win: did an exponential overflow?",
            [1],
            top,
        )


def _is_turned(draws: np.ndarray) -> bool:
    return (draws == 3).mean() > (draws == 0).mean()


def _draws(
    answer: Callable[..., np.ndarray],
    logits: np.ndarray,
    temperature: float,
    k: int,
    rng: np.random.Generator,
) -> np.ndarray:
    draws = [answer(logits.copy(), temperature, k, rng) for _ in range(DRAWS)]
    return np.array(draws).reshape(DRAWS, k)


def _compare(
    draws: np.ndarray, scaled: np.ndarray, temperature: float, shift: float, what: str = "the first"
) -> None:
    wanted = np.exp(scaled - scaled.max())
    wanted /= wanted.sum()
    got = np.bincount(draws, minlength=len(wanted)) / len(draws)
    # Five standard errors: a right answer is refused once in a million draws of this check.
    if (np.abs(got - wanted) > 5 * np.sqrt(wanted * (1 - wanted) / len(draws)) + 0.002).any():
        moved = f", all logits moved by {shift:g}" if shift else ""
        raise Wrong(
            f"Wrong probabilities of {what} draw at temperature {temperature:g}{moved}: they are "
            "softmax(logits / temperature).",
            np.round(wanted, 3),
            np.round(got, 3),
        )


def check_budget(answer: Callable[..., dict[str, str]], rng: np.random.Generator) -> None:
    """A case where greed fails, the edges, then random stages against all combinations."""

    def choose(stages: dict[str, dict[str, tuple[float, float]]], budget: float) -> Any:
        return answer(copy.deepcopy(stages), budget)

    stages = {
        "retrieve": {"100": (1.0, 0.0), "500": (3.0, 0.03)},
        "score": {"small": (1.0, 0.0), "large": (4.0, 0.04)},
        "order": {"plain": (0.0, 0.0), "diverse": (2.0, 0.02)},
    }
    if choose(stages, 2.0) is None:
        raise Wrong("To use all of the budget is allowed: 2 ms are enough for the first options.")
    got = choose(stages, 6.0)
    same_type(got, dict)
    if set(got) != set(stages):
        raise Wrong("One option is wanted for every stage.", sorted(stages), sorted(got))
    cost, _ = _price(stages, got)
    if cost > 6.0:
        raise Wrong("The choice exceeds the budget.", "at most 6 ms", f"{cost:g} ms")
    right = {"retrieve": "500", "score": "small", "order": "diverse"}
    if cost == 2.0:
        raise Wrong("4 of 6 ms are left: spend them, a gain counts.", right, got)
    if _price(stages, got)[1] < 0.05 - 1e-9:
        raise Wrong(
            "There is a better choice within 6 ms: all stages share the budget, so compare whole "
            "combinations.",
            right,
            got,
        )
    if choose(stages, 1.9) is not None:
        raise Wrong("No combination fits into 1.9 ms: return None.", None, choose(stages, 1.9))
    alone = {"score": {"small": (1.0, 0.01), "large": (5.0, 0.04)}}
    if choose(alone, 10.0) != {"score": "large"}:
        raise Wrong(
            "There is a better choice within 10 ms: gain counts, not gain a millisecond.",
            "large",
            choose(alone, 10.0),
        )
    tie = {"score": {"slow": (3.0, 0.1), "quick": (1.0, 0.1)}}
    if choose(tie, 5.0) != {"score": "quick"}:
        raise Wrong("Of equally good choices take a cheapest one.", "quick", choose(tie, 5.0))
    for _ in range(5):
        stages = {
            f"stage {s}": {
                f"option {o}": (float(rng.integers(1, 9)), float(rng.integers(0, 9)))
                for o in range(rng.integers(1, 5))
            }
            for s in range(rng.integers(1, 5))
        }
        budget = float(rng.integers(4, 25))
        got, best = choose(stages, budget), _best(stages, budget)
        if (got is None) != (best is None):
            raise Wrong(f"The wrong answer for a budget of {budget:g} ms.", best, got)
        if got is not None and _price(stages, got) != best:
            raise Wrong(
                f"Not the best choice for a budget of {budget:g} ms (milliseconds, gain).",
                best,
                _price(stages, got),
            )


def _price(
    stages: dict[str, dict[str, tuple[float, float]]], chosen: dict[str, str]
) -> tuple[float, float]:
    prices = [stages[stage][option] for stage, option in chosen.items()]
    return sum(cost for cost, _ in prices), sum(gain for _, gain in prices)


def _best(
    stages: dict[str, dict[str, tuple[float, float]]], budget: float
) -> tuple[float, float] | None:
    fitting = [
        _price(stages, dict(zip(stages, names, strict=True))) for names in product(*stages.values())
    ]
    fitting = [price for price in fitting if price[0] <= budget]
    return max(fitting, key=lambda price: (price[1], -price[0]), default=None)


EXERCISES = [
    Exercise(
        id="5.1",
        title="filter each user's candidates",
        hints=(
            "Go through the rows of candidates and the lists of seen products together, with zip.",
            "np.isin(ids, mine) says for each candidate whether this user has seen it. Keep the "
            "others, in their order, and no -1.",
            "Begin with np.full((users, keep), -1) and write what is left into each row's start.",
        ),
        check=check_filter,
    ),
    Exercise(
        id="5.2",
        title="an answer for everybody",
        hints=(
            "For each row: which products are there already, and which has the user seen? A "
            "popular product that is in neither may fill a gap.",
            "The gaps of a row are np.flatnonzero(ids == -1). There may be more of them than "
            "popular products.",
        ),
        check=check_fill,
    ),
    Exercise(
        id="5.3",
        title="Gumbel top-k",
        hints=(
            "logits / temperature + rng.gumbel(size=len(logits)): one noisy number a candidate.",
            "The k largest of them, in falling order, are the draws: np.argsort sorts the other "
            "way round. No exponential is needed.",
        ),
        check=check_sample,
    ),
    Exercise(
        id="5.4",
        title="spend a latency budget",
        hints=(
            "A few options a stage make few combinations: try them all. "
            "combinations(*stages.values()) goes through the names.",
            "Keep the best so far by the pair (gain, -milliseconds): Python compares pairs from "
            "left to right, so that a tie goes to the cheaper one.",
            "Start with None, and look only at combinations whose sum is at most the budget.",
        ),
        check=check_budget,
    ),
]
