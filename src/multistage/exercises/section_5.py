"""Exercises of lab 5: filtering, fallbacks, sampling, and a latency budget."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from courseware.exercises import Exercise, Wrong
from courseware.exercises.expect import CHANGED, keeping, same
from courseware.exercises.source import changed

Ids = list[np.ndarray]
NOTHING = np.array([], dtype=int)
# One number for a user and a product, user * 1_000 + product, means two pairs if ids are large.
LARGE = np.array([100, 500, 1_000, 1_024, 10_000, 65_536, 100_000, 1_000_000]) + 5

# 5.1


def filter_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Ids, int]]:
    """One user, gaps in the middle, product 0, nothing left, keep above width; random rows."""
    yield np.array([[10, 20, 30, 40]]), [np.array([30, 10])], 2
    yield np.array([[7, -1, 0, -1, 5, 3]]), [np.array([5, 90, 5])], 4
    yield np.array([[10, 20], [-1, -1]]), [np.array([20, 10]), NOTHING], 3
    candidates = np.array([[10, 20, 30, 40], [30, 20, 10, 40], [50, 60, -1, -1]])
    yield candidates, [np.array([30, 10]), np.array([40]), np.array([70, 60])], 2
    yield np.stack([LARGE, LARGE]), [NOTHING, np.array([5])], 8
    for most in 12 * [12] + 3 * [60]:
        users, width = int(rng.integers(1, 6)), int(rng.integers(most // 4, most))
        candidates = np.array([rng.permutation(most + 8)[:width] for _ in range(users)])
        candidates[rng.random(candidates.shape) < 0.2] = -1
        seen = [rng.integers(0, most + 8, rng.integers(0, most)) for _ in range(users)]
        yield candidates, seen, int(rng.integers(most // 12, width + 3))


# What the card says -> the edits of the lab's solution that make this mistake; so for the others.
FILTER_EDITS = {
    "Candidates were removed that only another user has seen: filter each row by its own list.": {
        "(ids, mine)]": "(ids, np.concatenate(seen))]"
    },
    "Nothing was filtered: a user is offered what this user has seen.": {
        " & ~np.isin(ids, mine)": ""
    },
    "The rows are of different lengths: fill each up to `keep` places with -1.": {
        "np.full((len(candidates), keep), -1, dtype=candidates.dtype)": "[]",
        "kept[row, : len(left)] = left": "kept.append(left)",
    },
    "One row per user is wanted, `keep` wide.": {"return kept": "return kept[kept != -1]"},
    "Empty places hold -1: 0 is a product.": {"keep), -1": "keep), 0"},
    "A place is empty although a candidate is left: filter first, cut to `keep` after.": {
        "zip(candidates": "zip(candidates[:, :keep]"
    },
    "The candidates keep their order, best first: here they are sorted by id.": {
        "ids[(ids != -1) & ~np.isin(ids, mine)]": "np.setdiff1d(ids, [*mine, -1])"
    },
    "The row ends at the first -1, but an empty place may stand anywhere: skip it.": {
        "(ids != -1)": "np.logical_and.accumulate(ids != -1)"
    },
    "Empty places of the input take places in the result: leave out -1 as well.": {
        "(ids != -1) & ": ""
    },
    CHANGED: {"left = ": "ids[np.isin(ids, mine)] = -1; left = "},
}

# 5.2


def fill_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Ids, np.ndarray]]:
    """Gaps, an unknown user, product 0, popular products that run out; then random rows."""
    yield np.array([[9, 2, -1, -1]]), [np.array([5])], np.array([5, 9, 4, 1, 3])
    yield np.array([[0, -1, -1, -1]]), [np.array([2])], np.array([3, 2, 0, 1])
    yield np.array([[4, -1], [-1, -1]]), [NOTHING, NOTHING], NOTHING
    candidates = np.array([[9, 2, -1, -1], [8, 7, 6, 5], [-1, -1, -1, -1]])
    yield candidates, [np.array([1]), np.array([1, 3]), NOTHING], np.array([3, 1, 2, 5, 4, 6, 0])
    yield np.full((2, 9), -1), [NOTHING, np.array([5, 5])], LARGE
    yield np.array([[50, -1]]), [np.arange(40)], np.arange(42)  # the first forty were all seen
    for most in 12 * [9] + 3 * [60]:
        users, width = int(rng.integers(1, 6)), int(rng.integers(most // 4, most))
        popular = rng.permutation(2 * most)[: rng.integers(3, 2 * most)]
        candidates = np.array([rng.permutation(2 * most)[:width] for _ in range(users)])
        for row in candidates:
            row[rng.integers(0, width + 1) :] = -1
        seen = [rng.integers(0, 2 * most, rng.integers(0, most)) for _ in range(users)]
        seen = [mine[~np.isin(mine, row)] for mine, row in zip(seen, candidates, strict=True)]
        yield candidates, seen, popular


FILL_EDITS = {
    "Candidates were replaced by popular products: fill the empty places only.": {
        "np.flatnonzero(ids == -1)": "np.arange(len(ids))"
    },
    "A gap was filled with a product that the user has seen.": {
        "np.concatenate([there, mine])": "there"
    },
    "A product stands twice in one row: the row's own candidates may be popular too.": {
        "np.concatenate([there, mine])": "mine"
    },
    "Gaps are left although popular products are there.": {"new[: len(places)]": "-1"},
    "The least popular products are taken: `popular` begins with the most popular one.": {
        "mine]))]": "mine]))][::-1]"
    },
    "The popular products are sorted by id: they stand in the right order already.": {
        "mine]))]": "mine]))]; new.sort()"
    },
    "A user misses what others have seen: look at each user's own list.": {
        "[there, mine]": "[there, *seen]"
    },
    "There may be more empty places than popular products that are left: the rest stays -1.": {
        "[: len(new)]": ""
    },
    CHANGED: {"candidates.copy()": "candidates"},
}

# 5.3

DRAWS = 4_000
INDICES = "Return indices into `logits`, whole numbers: not logits, and not noisy ones."
TWICE = "A candidate was drawn twice: draw without replacement."
OWN_CHANCE = "The same state of `rng` gave different draws: take all chance from `rng`."
NO_CHANCE = "The draw is always the same: nothing is drawn at random from `rng`."
ONE_NOISE = "The same noise for all candidates changes nothing: draw one number for each."
MULTIPLIED = "A low temperature makes the best candidate rarer: divide by the temperature."
NO_TEMPERATURE = "The temperature changes nothing: divide the logits by it, then add the noise."
FIRST = "Wrong probabilities of the first draw: they are softmax(logits / temperature)."
LATER = (
    "Wrong probabilities of a later draw: they are softmax(logits / temperature) among the "
    "candidates that are left."
)


def sample_cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Logits so far apart that chance cannot change the order."""
    yield np.array([0.5]), 2.0, 1, np.random.default_rng(2)
    yield np.array([900.0, 1_000.0, 100.0]), 1.0, 1, np.random.default_rng(1)
    for seed, (temperature, k) in enumerate([(1.0, 2), (1.0, 3), (0.5, 3), (3.0, 3), (0.5, 2)]):
        yield np.array([-1e4, 0.0, -2e4]), temperature, k, np.random.default_rng(seed)
    yield np.array([-4_000, -1_000, -3_000, -2_000]), 1.5, 3, np.random.default_rng(8)
    for seed in range(12):
        logits = rng.permutation(np.arange(1, 7) * 1_000.0) - 3_500
        yield logits, float(rng.uniform(0.3, 3)), 1 + seed % 6, np.random.default_rng(seed)


def same_draws(got: Any, expected: Any, *arguments: Any) -> str:
    """Compare; name values in place of indices, and what was drawn twice."""
    if np.shape(got) == np.shape(expected):
        drawn = np.asarray(got)
        if drawn.dtype.kind == "f":
            return INDICES
        if len(set(drawn.ravel().tolist())) < drawn.size:
            return TWICE
    return same(got, expected)


def judge_sample(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Chance from rng alone, and the distributions of the first three draws."""

    def draw(logits: np.ndarray, temperature: float, k: int = 3) -> np.ndarray:
        draws = [answer(logits.copy(), temperature, k, rng) for _ in range(DRAWS)]
        return np.array(draws).reshape(DRAWS, k)

    logits = np.array([1.0, 0.4, -0.7, -2.6])
    one, *again = (answer(logits.copy(), 1.0, 4, np.random.default_rng(7)) for _ in range(6))
    if any(same(other, one) for other in again):
        raise Wrong(OWN_CHANCE)
    usual = draw(logits, 1.0)
    if any(len(set(drawn)) < 3 for drawn in usual.tolist()):
        raise Wrong(TWICE)
    if (usual == usual[0]).all():
        own = np.random.default_rng(1)
        before = own.bit_generator.state
        answer(logits.copy(), 1.0, 1, own)
        raise Wrong(NO_CHANCE if own.bit_generator.state == before else ONE_NOISE)
    draws = {1.0: usual} | {temperature: draw(logits, temperature) for temperature in (0.3, 3.0)}
    cold, middle, hot = (float((draws[t][:, 0] == 0).mean()) for t in (0.3, 1.0, 3.0))
    without = abs(cold - middle) < 0.05 and abs(hot - middle) < 0.05 and middle < 0.9
    if without or cold < hot - 0.05:
        raise Wrong(
            NO_TEMPERATURE if without else MULTIPLIED,
            "the best candidate in 0.88 of draws at temperature 0.3, in 0.37 at 3",
            f"in {cold:.2f} at 0.3, in {hot:.2f} at 3",
        )
    for temperature, drawn in draws.items():
        _compare(drawn, logits, temperature)
    for temperature in (1e-12, 1e3):
        _compare(draw(logits * temperature, temperature), logits * temperature, temperature)
    # Only differences of logits matter; many equal ones show the tail of the noise.
    for others in (logits - 1e7, np.array([3.0, *[0.0] * 20])):
        _compare(draw(others, 1.0, k=1), others, 1.0)


def _compare(draws: np.ndarray, logits: np.ndarray, temperature: float) -> None:
    """Compare each draw's distribution where the likeliest candidates were drawn before it."""
    likeliest = np.argsort(-logits)
    for place in range(draws.shape[1]):
        left = np.sort(likeliest[place:])
        drawn = draws[(draws[:, :place] == likeliest[:place]).all(axis=1), place]
        got = (drawn[:, np.newaxis] == left).mean(axis=0)
        wanted = np.exp((logits[left] - logits.max()) / temperature)
        wanted /= wanted.sum()
        # Five standard errors: of a million right answers one is refused.
        error = np.sqrt(wanted * (1 - wanted) / len(drawn))
        if (np.abs(got - wanted) > 5 * error + 0.002).any():
            given = {"logits": logits, "temperature": temperature}
            raise Wrong(LATER if place else FIRST, np.round(wanted, 3), np.round(got, 3), given)


SAMPLE_EDITS = {
    NO_CHANCE: {" + rng.gumbel(size=len(logits))": ""},
    MULTIPLIED: {"/ temperature": "* temperature"},
    "Where the logits add up to less than 0 the order is turned round: do not divide by their "
    "sum.": {
        "logits / temperature + rng.gumbel": (
            "np.exp(logits / temperature) / logits.sum() / rng.exponential"
        )
    },
    TWICE: {
        "size=len(logits)": "size=(k, len(logits))",
        "np.argsort(-noisy)[:k]": "noisy.argmax(axis=1)",
    },
    OWN_CHANCE: {"rng.gumbel": "np.random.default_rng().gumbel"},
    FIRST: {"gumbel": "normal"},
    LATER: {"-noisy": "np.where(noisy == noisy.max(), -np.inf, -logits)"},
    "The worst candidate is drawn most often: np.argsort puts the smallest first.": {
        "-noisy": "noisy"
    },
    "The draws stand in the wrong order: the first draw, the largest of all, stands first.": {
        "[:k]": "[:k][::-1]"
    },
    "The draws are sorted by index: keep the order drawn.": {
        "np.argsort(-noisy)[:k]": "np.sort(np.argsort(-noisy)[:k])"
    },
    ONE_NOISE: {"size=len(logits)": ""},
    "An exponential of a large logit leaves the range of floats: Gumbel noise is added to the "
    "scaled logits, no exponential is needed.": {
        "logits / temperature + rng.gumbel": "np.exp(logits / temperature) / rng.exponential"
    },
    INDICES: {"np.argsort(-noisy)": "np.sort(noisy)[::-1]"},
    NO_TEMPERATURE: {" / temperature": ""},
    CHANGED: {"return": "logits[0] += 1; return"},
}

# 5.4

Stages = dict[str, dict[str, tuple[float, float]]]
Choice = dict[str, str]
TINY = 2.0**-30


def budget_cases(rng: np.random.Generator) -> Iterator[tuple[Stages, float]]:
    """One stage, ties, nothing that fits, gains below 0, fractions; then random stages.

    Milliseconds and gains are eighths, or powers of two below, so that every sum is exact.
    """
    for options, budget in (
        ({"small": (1.0, 0.25), "large": (5.0, 0.5)}, 10.0),
        ({"slow": (3.0, 0.25), "quick": (1.0, 0.25), "slower": (4.0, 0.25)}, 5.0),
        ({"dear": (1.5 + TINY, 0.25), "cheap": (1.5, 0.25)}, 5.0),
        ({"small": (1.5, -0.25), "large": (2.75, -0.125)}, 2.5),
        ({"worse": (1.0, -0.5), "better": (2.5, 0.25)}, 2.5),
        ({"plain": (0.0, 0.0), "diverse": (0.5, 0.25)}, 0.0),
        ({"a": (1.0, 0.25), "b": (1.5, 0.25 + TINY), "c": (2 + TINY, 0.5)}, 2.0),
    ):
        yield {"score": options}, budget
    # The best upgrade per millisecond leaves too little for the better one.
    yield {"a": {"x": (0.0, 0.0), "y": (1.0, 0.25)}, "b": {"x": (0.0, 0.0), "y": (4.0, 0.75)}}, 4.0
    yield {"a": {"x": (1.0, -1.5)}, "b": {"x": (0.5, -2.0)}}, 2.0  # nothing gains
    yield {"a": {"x": (0.5, 0.0), "y": (0.75, 0.25)}, "b": {"z": (0.5, 0.0)}}, 1.125
    stages = {
        "retrieve": {"100": (1.0, 0.0), "500": (3.0, 0.375)},
        "score": {"small": (1.0, 0.0), "large": (4.0, 0.5)},
        "order": {"plain": (0.0, 0.0), "diverse": (2.0, 0.25)},
    }
    for budget in (6.0, 2.0, 1.875, 1.0, 20.0):
        yield stages, budget
    yield {stage: {"plain": (0.5, 0.0), "good": (1.375, 0.125)} for stage in "abcd"}, 5.375
    # Whoever keeps only the best few choices of the first stage has no time left for the second.
    many = {str(100 * n): (float(n), n / 64) for n in range(1, 30)}
    yield {"retrieve": many, "score": {"small": (1.0, 0.0), "large": (29.0, 0.75)}}, 30.0
    for _ in range(40):
        stages = {
            f"stage {s}": {
                f"option {o}": (int(rng.integers(0, 40)) / 8, int(rng.integers(-8, 24)) / 64)
                for o in range(rng.integers(1, 5))
            }
            for s in range(rng.integers(1, 5))
        }
        costs = [[cost for cost, _ in options.values()] for options in stages.values()]
        least, most = sum(map(min, costs)), sum(map(max, costs))
        yield stages, least + int(rng.integers(-1, 8 * (most - least) + 2)) / 8


def same_choice(got: Any, expected: Any, stages: Stages, budget: float) -> str:
    """Accept any choice with the best gain at the least milliseconds."""
    if got is None and expected is not None:
        return "The result is None, but there is a choice that fits into the budget."
    if isinstance(got, dict) and expected is None:
        return "Even the cheapest options exceed the budget here: return None."
    said = same(got, expected)
    if not said or not isinstance(got, dict):
        return said
    if set(got) != set(stages):
        return "One option is wanted for every stage."
    if any(option not in stages[stage] for stage, option in got.items()):
        return "A stage has no option of this name."
    milliseconds, gain = _price(stages, got)
    least, best = _price(stages, expected)
    if milliseconds > budget:
        return f"The choice exceeds the budget: it takes {milliseconds} ms."
    if gain < best:
        return "There is a better choice within the budget."
    if milliseconds > least:
        return "Another choice gains as much in less time: of equally good ones take a cheapest."
    return ""


def _price(stages: Stages, chosen: Choice) -> tuple[float, float]:
    prices = [stages[stage][option] for stage, option in chosen.items()]
    return sum(cost for cost, _ in prices), sum(gain for _, gain in prices)


def _cheapest(stages: Stages) -> Choice:
    return {stage: min(options, key=lambda o: options[o][0]) for stage, options in stages.items()}


def _stage_by_stage(stages: Stages, budget: float) -> Choice | None:
    chosen = _cheapest(stages)
    left = budget - _price(stages, chosen)[0]
    for stage in sorted(stages, key=lambda s: -max(gain for _, gain in stages[s].values())):
        now = stages[stage][chosen[stage]][0]
        for option, (cost, gain) in stages[stage].items():
            if gain > stages[stage][chosen[stage]][1] and cost - now <= left:
                left -= cost - now
                chosen[stage] = option
                break
    return chosen


def _best_upgrade_first(stages: Stages, budget: float) -> Choice | None:
    chosen = _cheapest(stages)
    if _price(stages, chosen)[0] > budget:
        return None
    while True:
        upgrades = []
        for stage, options in stages.items():
            cost, gain = options[chosen[stage]]
            left = budget - _price(stages, chosen)[0] + cost
            for option, (more, better) in options.items():
                if better > gain and more <= left:
                    upgrades.append(((better - gain) / max(more - cost, 1e-9), stage, option))
        if not upgrades:
            return chosen
        _, stage, option = max(upgrades)
        chosen[stage] = option


OTHER_SEARCHES = {
    "There is a better choice: all stages share the budget, so compare whole combinations, not one "
    "stage after the other.": _stage_by_stage,
    "There is a better choice: the best upgrade per millisecond may leave too little for a better "
    "one. Compare whole combinations.": _best_upgrade_first,
}
GAIN = "sum(gain for _, gain in costs)"
BUDGET_EDITS = {
    "The choice exceeds the budget: the best option of each stage is chosen, whatever it takes.": {
        "milliseconds <= budget and ": ""
    },
    "The cheapest options are always chosen: spend the milliseconds that are left, since only the "
    "gain counts.": {GAIN: "0"},
    "To use all of the budget is allowed: the sum may be equal to it.": {"<=": "<"},
    "Of equally good choices take a cheapest one, not the dearest.": {
        "-milliseconds": "milliseconds"
    },
    "Of equally good choices take a cheapest one, not the first.": {"-milliseconds": "0"},
    "No combination fits into the budget: return None, not an empty choice.": {
        "return best": "return best or {}"
    },
    "Gain counts, not gain per millisecond: the budget is there to be spent.": {
        GAIN: f"{GAIN} / max(milliseconds, 1e-9)"
    },
    "The best gain starts at 0, but all gains may be 0 or below: start with None.": {
        "= None, None": "= None, 0",
        f"({GAIN}, -milliseconds)": GAIN,
    },
    "Milliseconds are fractional numbers: do not cut off what stands after the point.": {
        "milliseconds <= budget": "int(milliseconds) <= int(budget)"
    },
    "Each option is (milliseconds, gain): here the two are exchanged.": {
        "cost for cost, _": "cost for _, cost",
        "gain for _, gain": "gain for gain, _",
    },
}

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
        cases=filter_cases,
        mistakes={said: changed("5.1", edits) for said, edits in FILTER_EDITS.items()},
        use=keeping(0),
    ),
    Exercise(
        id="5.2",
        title="fill empty places with popular products",
        hints=(
            "For each row: which products are there already, and which has the user seen? A "
            "popular product that is in neither may fill a gap.",
            "The gaps of a row are np.flatnonzero(ids == -1). There may be more of them than "
            "popular products.",
        ),
        cases=fill_cases,
        mistakes={said: changed("5.2", edits) for said, edits in FILL_EDITS.items()},
        use=keeping(0, 2),
    ),
    Exercise(
        id="5.3",
        title="Gumbel top-k",
        hints=(
            "logits / temperature + rng.gumbel(size=len(logits)): one noisy number per candidate.",
            "The k largest of them, in falling order, are the draws: np.argsort sorts the other "
            "way round. No exponential is needed.",
        ),
        cases=sample_cases,
        mistakes={said: changed("5.3", edits) for said, edits in SAMPLE_EDITS.items()},
        use=keeping(0),
        same=same_draws,
        judge=judge_sample,
    ),
    Exercise(
        id="5.4",
        title="spend a latency budget",
        hints=(
            "A few options per stage make few combinations: try them all. "
            "combinations(*stages.values()) goes through the names.",
            "Keep the best so far by the pair (gain, -milliseconds): Python compares pairs from "
            "left to right, so that a tie goes to the cheaper one.",
            "Start with None, and look only at combinations whose sum is at most the budget.",
        ),
        cases=budget_cases,
        mistakes=OTHER_SEARCHES
        | {said: changed("5.4", edits) for said, edits in BUDGET_EDITS.items()},
        same=same_choice,
    ),
]
