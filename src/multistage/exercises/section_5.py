"""Exercises of lab 5: filtering, fallbacks, sampling, and a latency budget."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from courseware.exercises import Exercise, Wrong
from courseware.exercises.expect import CHANGED, keeping, same

Ids = list[np.ndarray]
NOTHING = np.array([], dtype=int)

# 5.1


def filter_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Ids, int]]:
    """One user, gaps in the middle, product 0, nothing left, keep above width; random rows."""
    yield np.array([[10, 20, 30, 40]]), [np.array([30, 10])], 2
    yield np.array([[7, -1, 0, -1, 5, 3]]), [np.array([5, 90, 5])], 4
    yield np.array([[10, 20], [-1, -1]]), [np.array([20, 10]), NOTHING], 3
    candidates = np.array([[10, 20, 30, 40], [30, 20, 10, 40], [50, 60, -1, -1]])
    yield candidates, [np.array([30, 10]), np.array([40]), np.array([70, 60])], 2
    for _ in range(12):
        users, width = int(rng.integers(1, 6)), int(rng.integers(3, 12))
        candidates = np.array([rng.permutation(20)[:width] for _ in range(users)])
        candidates[rng.random(candidates.shape) < 0.2] = -1
        seen = [rng.integers(0, 20, rng.integers(0, 12)) for _ in range(users)]
        yield candidates, seen, int(rng.integers(1, width + 3))


def _rows(lists: Any, keep: int, fill: int = -1) -> np.ndarray:
    """Cut each list to ``keep`` entries, or fill it up with ``fill``."""
    return np.array([[*left[:keep], *[fill] * (keep - len(left))] for left in lists])


def _unseen(candidates: Any, seen: Ids) -> list[list[int]]:
    return [[i for i in ids if i not in mine] for ids, mine in zip(candidates, seen, strict=True)]


def _left(candidates: np.ndarray, seen: Ids) -> list[list[int]]:
    return [[i for i in ids if i != -1] for ids in _unseen(candidates.tolist(), seen)]


def _stops_at_a_gap(candidates: np.ndarray, seen: Ids, keep: int) -> np.ndarray:
    ids = [row[: row.index(-1)] if -1 in row else row for row in candidates.tolist()]
    return _rows(_unseen(ids, seen), keep)


def _filter_in_place(candidates: np.ndarray, seen: Ids, keep: int) -> np.ndarray:
    left = _left(candidates, seen)
    candidates[:] = _rows(left, candidates.shape[1])
    return _rows(left, keep)


FILTER_MISTAKES = {
    "Candidates were removed that only another user has seen: filter each row by its own list.": (
        lambda ids, seen, keep: _rows(_left(ids, [np.concatenate(seen)] * len(seen)), keep)
    ),
    "Nothing was filtered: a user is offered what this user has seen.": (
        lambda ids, seen, keep: ids[:, :keep]
    ),
    "The rows are of different lengths: fill each up to `keep` places with -1.": (
        lambda ids, seen, keep: [row[:keep] for row in _unseen(ids.tolist(), seen)]
    ),
    "One row per user is wanted, `keep` wide.": (
        lambda ids, seen, keep: ids[~np.isin(ids, np.concatenate(seen))]
    ),
    "Empty places hold -1: 0 is a product.": (
        lambda ids, seen, keep: _rows(_left(ids, seen), keep, fill=0)
    ),
    "A place is empty although a candidate is left: filter first, cut to `keep` after.": (
        lambda ids, seen, keep: _rows(_left(ids[:, :keep], seen), keep)
    ),
    "The candidates keep their order, best first: here they are sorted by id.": (
        lambda ids, seen, keep: _rows(map(sorted, _left(ids, seen)), keep)
    ),
    "The row ends at the first -1, but an empty place may stand anywhere: skip it.": (
        _stops_at_a_gap
    ),
    "Empty places of the input take places in the result: leave out -1 as well.": (
        lambda ids, seen, keep: _rows(_unseen(ids.tolist(), seen), keep)
    ),
    CHANGED: _filter_in_place,
}

# 5.2


def fill_cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Ids, np.ndarray]]:
    """Gaps, an unknown user, product 0, popular products that run out; then random rows."""
    yield np.array([[9, 2, -1, -1]]), [np.array([5])], np.array([5, 9, 4, 1, 3])
    yield np.array([[0, -1, -1, -1]]), [np.array([2])], np.array([3, 2, 0, 1])
    yield np.array([[4, -1], [-1, -1]]), [NOTHING, NOTHING], NOTHING
    candidates = np.array([[9, 2, -1, -1], [8, 7, 6, 5], [-1, -1, -1, -1]])
    yield candidates, [np.array([1]), np.array([1, 3]), NOTHING], np.array([3, 1, 2, 5, 4, 6, 0])
    for _ in range(12):
        users, width = int(rng.integers(1, 6)), int(rng.integers(2, 9))
        popular = rng.permutation(20)[: rng.integers(3, 20)]
        candidates = np.array([rng.permutation(20)[:width] for _ in range(users)])
        for row in candidates:
            row[rng.integers(0, width + 1) :] = -1
        seen = [np.setdiff1d(rng.integers(0, 20, rng.integers(0, 12)), row) for row in candidates]
        yield candidates, seen, popular


def _offered(candidates: Any, seen: Any, popular: np.ndarray) -> list[np.ndarray]:
    """For each row, the popular products that it does not hold and that were not seen."""
    rows = zip(candidates, seen, strict=True)
    return [popular[~np.isin(popular, [*ids, *mine])] for ids, mine in rows]


def _filled(candidates: np.ndarray, offered: list[np.ndarray]) -> np.ndarray:
    rows = zip(candidates, offered, strict=True)
    return _rows([[*ids[ids != -1], *new] for ids, new in rows], candidates.shape[1])


def _breaks_when_popular_runs_out(ids: np.ndarray, seen: Ids, popular: np.ndarray) -> np.ndarray:
    filled = ids.copy()
    for row, new in enumerate(_offered(ids, seen, popular)):
        gaps = ids[row] == -1
        filled[row, gaps] = new[: gaps.sum()]
    return filled


def _fill_in_place(ids: np.ndarray, seen: Ids, popular: np.ndarray) -> np.ndarray:
    ids[:] = _filled(ids, _offered(ids, seen, popular))
    return ids


FILL_MISTAKES = {
    "Candidates were replaced by popular products: fill the empty places only.": (
        lambda ids, seen, popular: np.array(
            [popular[~np.isin(popular, mine)][: ids.shape[1]] for mine in seen]
        )
    ),
    "A gap was filled with a product that the user has seen.": (
        lambda ids, seen, popular: _filled(ids, _offered(ids, [[]] * len(ids), popular))
    ),
    "A product stands twice in one row: the row's own candidates may be popular too.": (
        lambda ids, seen, popular: _filled(ids, _offered([[]] * len(ids), seen, popular))
    ),
    "Gaps are left although popular products are there.": lambda ids, seen, popular: ids.copy(),
    "The least popular products are taken: `popular` begins with the most popular one.": (
        lambda ids, seen, popular: _filled(ids, _offered(ids, seen, popular[::-1]))
    ),
    "The popular products are sorted by id: they stand in the right order already.": (
        lambda ids, seen, popular: _filled(ids, _offered(ids, seen, np.sort(popular)))
    ),
    "A user misses what others have seen: look at each user's own list.": (
        lambda ids, seen, popular: _filled(
            ids, _offered(ids, [np.concatenate(seen)] * len(ids), popular)
        )
    ),
    "There may be more empty places than popular products that are left: the rest stays -1.": (
        _breaks_when_popular_runs_out
    ),
    CHANGED: _fill_in_place,
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
SECOND = (
    "Wrong probabilities of the second draw: they are softmax(logits / temperature) among the "
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
    """Chance from rng alone, and the distributions of the first and of the second draw."""

    def draw(logits: np.ndarray, temperature: float, k: int = 1) -> np.ndarray:
        draws = [answer(logits.copy(), temperature, k, rng) for _ in range(DRAWS)]
        return np.array(draws).reshape(DRAWS, k)

    logits = np.array([1.0, 0.4, -0.7, -2.6])
    one, *again = (answer(logits.copy(), 1.0, 4, np.random.default_rng(7)) for _ in range(6))
    if any(same(other, one) for other in again):
        raise Wrong(OWN_CHANCE)
    pairs = draw(logits, 1.0, k=2)
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise Wrong(TWICE)
    if (pairs == pairs[0]).all():
        own = np.random.default_rng(1)
        before = own.bit_generator.state
        answer(logits.copy(), 1.0, 1, own)
        raise Wrong(NO_CHANCE if own.bit_generator.state == before else ONE_NOISE)
    draws = {temperature: draw(logits, temperature)[:, 0] for temperature in (0.3, 1.5, 3.0)}
    draws[1.0] = pairs[:, 0]
    cold, usual, hot = (float((draws[t] == 0).mean()) for t in (0.3, 1.0, 3.0))
    without = abs(cold - usual) < 0.05 and abs(hot - usual) < 0.05 and usual < 0.9
    if without or cold < hot - 0.05:
        raise Wrong(
            NO_TEMPERATURE if without else MULTIPLIED,
            "the best candidate in 0.88 of draws at temperature 0.3, in 0.37 at 3",
            f"in {cold:.2f} at 0.3, in {hot:.2f} at 3",
        )
    for temperature, first in draws.items():
        _compare(FIRST, first, logits, temperature)
    # Whether the mean is above 0 does not matter; many equal logits show the tail of the noise.
    for others in (logits - 5, np.array([3.0, *[0.0] * 20])):
        _compare(FIRST, draw(others, 1.0)[:, 0], others, 1.0)
    _compare(SECOND, pairs[pairs[:, 0] == 0][:, 1] - 1, logits[1:], 1.0)


def _compare(message: str, draws: np.ndarray, logits: np.ndarray, temperature: float) -> None:
    wanted = np.exp((logits - logits.max()) / temperature)
    wanted /= wanted.sum()
    got = np.bincount(draws, minlength=len(wanted)) / len(draws)
    # Five standard errors: of a million right answers one is refused.
    if (np.abs(got - wanted) > 5 * np.sqrt(wanted * (1 - wanted) / len(draws)) + 0.002).any():
        given = {"logits": logits, "temperature": temperature}
        raise Wrong(message, np.round(wanted, 3), np.round(got, 3), given)


def _noisy(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    return logits / temperature + rng.gumbel(size=len(logits))


def _right_draws(logits: np.ndarray, temperature: float, k: int, rng: Any) -> np.ndarray:
    return np.argsort(-_noisy(logits, temperature, rng))[:k]


def _race(weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    return np.argsort(-np.log(rng.uniform(size=len(weights))) / weights)[:k]


def _with_replacement(logits: np.ndarray, temperature: float, k: int, rng: Any) -> np.ndarray:
    weights = np.exp((logits - logits.max()) / temperature)
    return rng.choice(len(logits), size=k, p=weights / weights.sum())


def _best_after_the_first(logits: np.ndarray, temperature: float, k: int, rng: Any) -> np.ndarray:
    first = np.argmax(_noisy(logits, temperature, rng))
    others = np.argsort(-logits)
    return np.array([first, *others[others != first]])[:k]


def _sample_in_place(logits: np.ndarray, temperature: float, k: int, rng: Any) -> np.ndarray:
    draws = _right_draws(logits, temperature, k, rng)
    logits[draws] = 0.25
    return draws


SAMPLE_MISTAKES = {
    NO_CHANCE: lambda logits, t, k, rng: np.argsort(-logits)[:k],
    MULTIPLIED: lambda logits, t, k, rng: _right_draws(logits, 1 / t, k, rng),
    "Where the logits add up to less than 0 the order is turned round: do not divide by their "
    "sum.": lambda logits, t, k, rng: _race(np.exp(logits / t) / np.sum(logits), k, rng),
    TWICE: _with_replacement,
    OWN_CHANCE: lambda logits, t, k, rng: _right_draws(logits, t, k, np.random.default_rng()),
    FIRST: lambda logits, t, k, rng: np.argsort(-logits / t - rng.normal(size=len(logits)))[:k],
    SECOND: _best_after_the_first,
    "The worst candidate is drawn most often: np.argsort puts the smallest first.": (
        lambda logits, t, k, rng: np.argsort(_noisy(logits, t, rng))[:k]
    ),
    "The draws stand in the wrong order: the first draw, the largest of all, stands first.": (
        lambda *given: _right_draws(*given)[::-1]
    ),
    "The draws are sorted by index: keep the order drawn.": (
        lambda *given: np.sort(_right_draws(*given))
    ),
    ONE_NOISE: lambda logits, t, k, rng: np.argsort(-(logits / t + rng.gumbel()))[:k],
    "An exponential of a large logit leaves the range of floats: Gumbel noise is added to the "
    "scaled logits, no exponential is needed.": (
        lambda logits, t, k, rng: _race(np.exp(logits / t), k, rng)
    ),
    INDICES: lambda logits, t, k, rng: np.sort(_noisy(logits, t, rng))[::-1][:k],
    NO_TEMPERATURE: lambda logits, t, k, rng: _right_draws(logits, 1, k, rng),
    CHANGED: _sample_in_place,
}

# 5.4

Stages = dict[str, dict[str, tuple[float, float]]]
Choice = dict[str, str]


def budget_cases(rng: np.random.Generator) -> Iterator[tuple[Stages, float]]:
    """One stage, ties, nothing that fits, gains below 0, fractions; then random stages.

    Milliseconds and gains are eighths, or powers of two below, so that every sum is exact.
    """
    for options, budget in (
        ({"small": (1.0, 0.25), "large": (5.0, 0.5)}, 10.0),
        ({"slow": (3.0, 0.25), "quick": (1.0, 0.25), "slower": (4.0, 0.25)}, 5.0),
        ({"dear": (1.75, 0.25), "cheap": (1.25, 0.25)}, 5.0),
        ({"small": (1.5, -0.25), "large": (2.75, -0.125)}, 2.5),
        ({"worse": (1.0, -0.5), "better": (2.5, 0.25)}, 2.5),
        ({"plain": (0.0, 0.0), "diverse": (0.5, 0.25)}, 0.0),
        ({"a": (1.0, 0.25), "b": (1.5, 0.25 + 1 / 512), "c": (2 + 1 / 256, 0.5)}, 2.0),
    ):
        yield {"score": options}, budget
    # The best upgrade per millisecond leaves too little for the better one.
    yield {"a": {"x": (0.0, 0.0), "y": (1.0, 0.25)}, "b": {"x": (0.0, 0.0), "y": (4.0, 0.75)}}, 4.0
    yield {"a": {"x": (0.5, 0.0), "y": (0.75, 0.25)}, "b": {"z": (0.5, 0.0)}}, 1.125
    stages = {
        "retrieve": {"100": (1.0, 0.0), "500": (3.0, 0.375)},
        "score": {"small": (1.0, 0.0), "large": (4.0, 0.5)},
        "order": {"plain": (0.0, 0.0), "diverse": (2.0, 0.25)},
    }
    for budget in (6.0, 2.0, 1.875, 1.0, 20.0):
        yield stages, budget
    yield {stage: {"plain": (0.5, 0.0), "good": (1.375, 0.125)} for stage in "abcd"}, 5.375
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
    said = same(got, expected)
    if said and got is None:
        return f"{said} None is right only if nothing fits into the budget."
    if not said or not isinstance(got, dict):
        return said
    if set(got) != set(stages):
        return "One option is wanted for every stage."
    if any(option not in stages[stage] for stage, option in got.items()):
        return "A stage has no option of this name."
    milliseconds, gain = _price(stages, got)
    if milliseconds > budget:
        return f"The choice exceeds the budget: it takes {milliseconds:g} ms."
    best = _price(stages, expected)
    if not np.isclose(gain, best[1]):
        return "There is a better choice within the budget."
    if not np.isclose(milliseconds, best[0]):
        return "Another choice gains as much in less time: of equally good ones take a cheapest."
    return ""


def _price(stages: Stages, chosen: Choice) -> tuple[float, float]:
    prices = [stages[stage][option] for stage, option in chosen.items()]
    return sum(cost for cost, _ in prices), sum(gain for _, gain in prices)


def _cheapest(stages: Stages) -> Choice:
    return {stage: min(options, key=lambda o: options[o][0]) for stage, options in stages.items()}


def _search(
    stages: Stages,
    budget: float,
    key: Callable[[float, float], Any] = lambda cost, gain: (gain, -cost),
    fits: Callable[[float, float], bool] = lambda cost, budget: cost <= budget,
) -> Choice | None:
    """Return the first choice that fits and has the largest ``key(milliseconds, gain)``."""
    choices = [dict(zip(stages, names, strict=True)) for names in product(*stages.values())]
    fitting = [choice for choice in choices if fits(_price(stages, choice)[0], budget)]
    return max(fitting, key=lambda choice: key(*_price(stages, choice)), default=None)


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


def _from_0(stages: Stages, budget: float) -> Choice | None:
    best = _search(stages, budget, lambda cost, gain: gain)
    return best if best and _price(stages, best)[1] > 0 else None


BUDGET_MISTAKES = {
    "The choice exceeds the budget: the best option of each stage is chosen, whatever it takes.": (
        lambda stages, budget: {s: max(o, key=lambda name: o[name][1]) for s, o in stages.items()}
    ),
    "The cheapest options are always chosen: spend the milliseconds that are left, since only the "
    "gain counts.": lambda stages, budget: _cheapest(stages),
    "There is a better choice: all stages share the budget, so compare whole combinations, not one "
    "stage after the other.": _stage_by_stage,
    "There is a better choice: the best upgrade per millisecond may leave too little for a better "
    "one. Compare whole combinations.": _best_upgrade_first,
    "To use all of the budget is allowed: the sum may be equal to it.": (
        lambda stages, budget: _search(stages, budget, fits=lambda cost, budget: cost < budget)
    ),
    "Of equally good choices take a cheapest one, not the dearest.": (
        lambda stages, budget: _search(stages, budget, lambda cost, gain: (gain, cost))
    ),
    "Of equally good choices take a cheapest one, not the first.": (
        lambda stages, budget: _search(stages, budget, lambda cost, gain: gain)
    ),
    "No combination fits into the budget: return None, not an empty choice.": (
        lambda stages, budget: _search(stages, budget) or {}
    ),
    "Gain counts, not gain per millisecond: the budget is there to be spent.": (
        lambda stages, budget: _search(stages, budget, lambda cost, gain: gain / max(cost, 1e-9))
    ),
    "The best gain starts at 0, but all gains may be 0 or below: start with None.": _from_0,
    "Milliseconds are fractional numbers: do not cut off what stands after the point.": (
        lambda stages, budget: _search(
            stages, budget, fits=lambda cost, budget: int(cost) <= int(budget)
        )
    ),
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
        mistakes=FILTER_MISTAKES,
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
        mistakes=FILL_MISTAKES,
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
        mistakes=SAMPLE_MISTAKES,
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
        mistakes=BUDGET_MISTAKES,
        same=same_choice,
    ),
]
