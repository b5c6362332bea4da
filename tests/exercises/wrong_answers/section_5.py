"""Answers to the exercises of lab 5 that must be refused, each with its own message."""

from itertools import product

import numpy as np


def _filter_by_union(candidates, seen, keep):
    everything = np.concatenate(seen)
    kept = np.full((len(candidates), keep), -1)
    for row, ids in enumerate(candidates):
        left = ids[(ids != -1) & ~np.isin(ids, everything)][:keep]
        kept[row, : len(left)] = left
    return kept


def _filter_nothing(candidates, seen, keep):
    return candidates[:, :keep]


def _filter_as_lists(candidates, seen, keep):
    rows = zip(candidates, seen, strict=True)
    return [ids[~np.isin(ids, mine)][:keep].tolist() for ids, mine in rows]


def _filter_flat(candidates, seen, keep):
    return candidates[~np.isin(candidates, np.concatenate(seen))]


def _filter_with_zeros(candidates, seen, keep):
    kept = np.zeros((len(candidates), keep), dtype=int)
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        left = ids[(ids != -1) & ~np.isin(ids, mine)][:keep]
        kept[row, : len(left)] = left
    return kept


def _filter_after_cutting(candidates, seen, keep):
    kept = np.full((len(candidates), keep), -1)
    for row, (ids, mine) in enumerate(zip(candidates[:, :keep], seen, strict=True)):
        left = ids[(ids != -1) & ~np.isin(ids, mine)]
        kept[row, : len(left)] = left
    return kept


def _filter_sorted(candidates, seen, keep):
    kept = np.full((len(candidates), keep), -1)
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        left = np.setdiff1d(ids, [*mine, -1])[:keep]
        kept[row, : len(left)] = left
    return kept


def _filter_in_place(candidates, seen, keep):
    for row, mine in enumerate(seen):
        left = candidates[row][(candidates[row] != -1) & ~np.isin(candidates[row], mine)]
        candidates[row] = -1
        candidates[row, : len(left)] = left
    kept = np.full((len(candidates), keep), -1)
    kept[:, : candidates.shape[1]] = candidates[:, :keep]
    return kept


def _fill_everything(candidates, seen, popular):
    width = candidates.shape[1]
    return np.array([popular[~np.isin(popular, mine)][:width] for mine in seen])


def _fill_seen(candidates, seen, popular):
    filled = candidates.copy()
    for row, ids in enumerate(candidates):
        new = popular[~np.isin(popular, ids)]
        places = np.flatnonzero(ids == -1)[: len(new)]
        filled[row, places] = new[: len(places)]
    return filled


def _fill_twice(candidates, seen, popular):
    filled = candidates.copy()
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        new = popular[~np.isin(popular, mine)]
        places = np.flatnonzero(ids == -1)[: len(new)]
        filled[row, places] = new[: len(places)]
    return filled


def _fill_nothing(candidates, seen, popular):
    return candidates.copy()


def _fill_least_popular(candidates, seen, popular):
    filled = candidates.copy()
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        new = popular[~np.isin(popular, [*ids, *mine])][::-1]
        places = np.flatnonzero(ids == -1)[: len(new)]
        filled[row, places] = new[: len(places)]
    return filled


def _fill_by_union(candidates, seen, popular):
    filled = candidates.copy()
    everything = np.concatenate(seen)
    for row, ids in enumerate(candidates):
        new = popular[~np.isin(popular, [*ids, *everything])]
        places = np.flatnonzero(ids == -1)[: len(new)]
        filled[row, places] = new[: len(places)]
    return filled


def _fill_until_it_breaks(candidates, seen, popular):
    filled = candidates.copy()
    for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
        new = popular[~np.isin(popular, [*ids, *mine])]
        gaps = ids == -1
        filled[row, gaps] = new[: gaps.sum()]
    return filled


def _sample_best(logits, temperature, k, rng):
    return np.argsort(-logits)[:k]


def _sample_multiplied(logits, temperature, k, rng):
    return np.argsort(-(logits * temperature + rng.gumbel(size=len(logits))))[:k]


def _sample_like_stock(logits, temperature, k, rng):
    weights = np.exp(logits / temperature) / np.sum(logits)
    return np.argsort(-np.log(rng.uniform(size=len(logits))) / weights)[:k]


def _sample_with_replacement(logits, temperature, k, rng):
    weights = np.exp((logits - logits.max()) / temperature)
    return rng.choice(len(logits), size=k, p=weights / weights.sum())


def _sample_unseeded(logits, temperature, k, rng):
    return np.argsort(-(logits / temperature + np.random.gumbel(size=len(logits))))[:k]


def _sample_with_normal_noise(logits, temperature, k, rng):
    return np.argsort(-(logits / temperature + rng.normal(size=len(logits))))[:k]


def _sample_worst(logits, temperature, k, rng):
    return np.argsort(logits / temperature + rng.gumbel(size=len(logits)))[:k]


def _sample_one_noise(logits, temperature, k, rng):
    return np.argsort(-(logits / temperature + rng.gumbel()))[:k]


def _sample_overflowing(logits, temperature, k, rng):
    weights = np.exp(logits / temperature)
    return np.argsort(-np.log(rng.uniform(size=len(logits))) / weights)[:k]


def _sample_scores(logits, temperature, k, rng):
    return np.sort(logits / temperature + rng.gumbel(size=len(logits)))[::-1][:k]


def _sample_noise_scaled(logits, temperature, k, rng):
    return np.argsort(-(logits + rng.gumbel(size=len(logits))) / temperature)[:k]


def _budget_ignored(stages, budget):
    return {stage: max(options, key=lambda o: options[o][1]) for stage, options in stages.items()}


def _budget_cheapest(stages, budget):
    return {stage: min(options, key=lambda o: options[o][0]) for stage, options in stages.items()}


def _budget_greedy(stages, budget):
    chosen = _budget_cheapest(stages, budget)
    left = budget - sum(stages[s][o][0] for s, o in chosen.items())
    for stage in sorted(stages, key=lambda s: -max(gain for _, gain in stages[s].values())):
        now = stages[stage][chosen[stage]][0]
        for option, (cost, gain) in stages[stage].items():
            if gain > stages[stage][chosen[stage]][1] and cost - now <= left:
                left -= cost - now
                chosen[stage] = option
                break
    return chosen


def _search(stages, budget, fits, key, otherwise=None):
    best = None
    for names in product(*stages.values()):
        pairs = [stages[s][n] for s, n in zip(stages, names, strict=True)]
        cost, gain = sum(c for c, _ in pairs), sum(g for _, g in pairs)
        if fits(cost, budget) and (best is None or key(cost, gain) > best[0]):
            best = key(cost, gain), dict(zip(stages, names, strict=True))
    return best[1] if best else otherwise


def _budget_strict(stages, budget):
    return _search(stages, budget, lambda c, b: c < b, lambda c, g: (g, -c))


def _budget_dearest_tie(stages, budget):
    return _search(stages, budget, lambda c, b: c <= b, lambda c, g: (g, c))


def _budget_empty(stages, budget):
    return _search(stages, budget, lambda c, b: c <= b, lambda c, g: (g, -c), {})


def _budget_ratio(stages, budget):
    return _search(stages, budget, lambda c, b: c <= b, lambda c, g: g / max(c, 1e-9))


WRONG = {
    "5.1": [
        ("filters by the union of all users", _filter_by_union, "only another user has seen"),
        ("filters nothing", _filter_nothing, "is offered what this user has seen"),
        ("returns lists", _filter_as_lists, "wrong type"),
        ("flattens the users", _filter_flat, "One row a user"),
        ("pads with zeros", _filter_with_zeros, "Empty places hold -1"),
        ("cuts before filtering", _filter_after_cutting, "cut to `keep` after"),
        ("sorts by id", _filter_sorted, "keep their order"),
        ("changes its input", _filter_in_place, "was changed"),
    ],
    "5.2": [
        ("replaces everything", _fill_everything, "were not empty"),
        ("offers what was seen", _fill_seen, "that the user has seen"),
        ("repeats a product", _fill_twice, "twice in one row"),
        ("fills nothing", _fill_nothing, "Gaps are left"),
        ("takes the least popular", _fill_least_popular, "take it first"),
        ("leaves out what others have seen", _fill_by_union, "misses what others have seen"),
        ("breaks where products run out", _fill_until_it_breaks, "It raised ValueError"),
    ],
    "5.3": [
        ("takes the best", _sample_best, "nothing is drawn at random"),
        ("multiplies by the temperature", _sample_multiplied, "divide by the temperature"),
        ("divides by the sum", _sample_like_stock, "divide by their sum"),
        ("draws with replacement", _sample_with_replacement, "twice"),
        ("uses a global generator", _sample_unseeded, "take all chance from"),
        ("adds normal noise", _sample_with_normal_noise, "Wrong probabilities"),
        ("takes the smallest", _sample_worst, "sorted the other way"),
        ("one noise for all", _sample_one_noise, "one number for each"),
        ("overflows", _sample_overflowing, "overflow"),
        ("returns scores", _sample_scores, "indices into"),
        ("scales the noise too", _sample_noise_scaled, "temperature changes nothing"),
    ],
    "5.4": [
        ("ignores the budget", _budget_ignored, "exceeds the budget"),
        ("always the cheapest", _budget_cheapest, "spend them"),
        ("greedy by stage", _budget_greedy, "compare whole"),
        ("strictly below", _budget_strict, "use all of the budget"),
        ("the dearest of equals", _budget_dearest_tie, "Of equally good"),
        ("an empty choice", _budget_empty, "return None"),
        ("best ratio", _budget_ratio, "gain a millisecond"),
    ],
}
