"""What beginners get wrong in lab 4."""

from itertools import pairwise

import numpy as np


def _loss(corrected):
    highest = corrected.max(axis=1, keepdims=True)
    log_total = highest[:, 0] + np.log(np.exp(corrected - highest).sum(axis=1))
    return np.mean(log_total - np.diag(corrected))


def loss_adds(logits, probability):
    return _loss(logits + np.log(probability))


def loss_of_the_probability(logits, probability):
    return _loss(logits - probability)


def loss_corrected_by_row(logits, probability):
    return _loss(logits - np.log(probability)[:, np.newaxis])


def loss_corrects_positives(logits, probability):
    return _loss(logits - np.diag(np.log(probability)))


def loss_corrects_negatives(logits, probability):
    log_q = np.log(probability)
    return _loss(logits - log_q + np.diag(log_q))


def loss_over_columns(logits, probability):
    return _loss((logits - np.log(probability)).T)


def loss_summed(logits, probability):
    return len(logits) * _loss(logits - np.log(probability))


def loss_a_person(logits, probability):
    corrected = logits - np.log(probability)
    return np.logaddexp.reduce(corrected, axis=1) - np.diag(corrected)


def loss_negative(logits, probability):
    return -_loss(logits - np.log(probability))


def loss_base_ten(logits, probability):
    return _loss(logits - np.log10(probability))


def loss_in_place(logits, probability):
    logits -= np.log(probability)
    return _loss(logits)


def loss_overflows(logits, probability):
    odds = np.exp(logits) / probability
    return -np.mean(np.log(np.diag(odds) / odds.sum(axis=1)))


def loss_with_a_limit(logits, probability):
    return _loss(np.clip(logits, -500, 500) - np.log(probability))


def _recalls(users, products, seen, bought, k):
    for vector, mine, wanted in zip(users, seen, bought, strict=True):
        scores = products @ vector
        scores[mine] = -np.inf
        yield np.isin(np.argsort(-scores)[:k], wanted).sum(), len(wanted)


def catalogue_recall(users, products, seen, bought, k):
    found = _recalls(users, products, seen, bought, k)
    return np.mean([hits / min(k, wanted) for hits, wanted in found])


def recall_cut_before_the_filter(users, products, seen, bought, k):
    recalls = []
    for vector, mine, wanted in zip(users, seen, bought, strict=True):
        best = np.argsort(-(products @ vector))[:k]
        best = best[~np.isin(best, mine)]
        recalls.append(np.isin(best, wanted).sum() / min(k, len(wanted)))
    return np.mean(recalls)


def recall_without_anybodys_seen(users, products, seen, bought, k):
    return catalogue_recall(users, products, [np.concatenate(seen)] * len(users), bought, k)


def recall_by_k(users, products, seen, bought, k):
    return np.mean([hits / k for hits, _ in _recalls(users, products, seen, bought, k)])


def recall_by_number_bought(users, products, seen, bought, k):
    return np.mean([hits / many for hits, many in _recalls(users, products, seen, bought, k)])


def recall_pooled(users, products, seen, bought, k):
    found = list(_recalls(users, products, seen, bought, k))
    return sum(hits for hits, _ in found) / sum(min(k, wanted) for _, wanted in found)


def recall_as_hit_rate(users, products, seen, bought, k):
    return np.mean([hits > 0 for hits, _ in _recalls(users, products, seen, bought, k)])


def recall_within_the_batch(users, products, seen, bought, k):
    rows = np.unique(np.concatenate(bought))
    position = {row: place for place, row in enumerate(rows)}
    batch_seen = [np.array([position[s] for s in own if s in position], dtype=int) for own in seen]
    batch_bought = [np.array([position[b] for b in own]) for own in bought]
    return catalogue_recall(users, products[rows], batch_seen, batch_bought, k)


def recall_by_cosine(users, products, seen, bought, k):
    unit = products / np.linalg.norm(products, axis=1, keepdims=True)
    return catalogue_recall(users, unit, seen, bought, k)


def recall_of_the_worst(users, products, seen, bought, k):
    return catalogue_recall(-users, products, seen, bought, k)


def recall_in_place(users, products, seen, bought, k):
    result = catalogue_recall(users, products, seen, bought, k)
    products /= np.linalg.norm(products)
    return result


def _allowed(candidates, bought):
    return [
        np.array([p for p in found if p != -1 and p not in own])
        for found, own in zip(candidates.tolist(), bought, strict=True)
    ]


def _even(allowed, n, rng):
    return np.stack([rng.choice(found, size=n, replace=False) for found in allowed])


def negatives_with_purchases(candidates, bought, n, rng):
    return _even([found[found != -1] for found in candidates], n, rng)


def negatives_from_empty_places(candidates, bought, n, rng):
    allowed = [
        [p for p in found if p not in own]
        for found, own in zip(candidates.tolist(), bought, strict=True)
    ]
    return _even(allowed, n, rng)


def negatives_from_everywhere(candidates, bought, n, rng):
    return _even([np.arange(10_000, 20_000)] * len(candidates), n, rng)


def negatives_twice(candidates, bought, n, rng):
    return np.stack([rng.choice(found, size=n) for found in _allowed(candidates, bought)])


def negatives_nobody_bought(candidates, bought, n, rng):
    return _even(_allowed(candidates, [set.union(*bought)] * len(bought)), n, rng)


def negatives_always_the_hardest(candidates, bought, n, rng):
    return np.stack([found[:n] for found in _allowed(candidates, bought)])


def negatives_the_hardest_mixed(candidates, bought, n, rng):
    return _even([found[:n] for found in _allowed(candidates, bought)], n, rng)


def negatives_the_hardest_more_often(candidates, bought, n, rng):
    rows = []
    for found in _allowed(candidates, bought):
        weights = 1 / np.arange(1, len(found) + 1)
        rows.append(rng.choice(found, size=n, replace=False, p=weights / weights.sum()))
    return np.stack(rows)


def negatives_in_place(candidates, bought, n, rng):
    for person, found in enumerate(_allowed(candidates, bought)):
        candidates[person, :n] = rng.choice(found, size=n, replace=False)
    return candidates[:, :n].copy()


def negatives_of_own_chance(candidates, bought, n, rng):
    return _even(_allowed(candidates, bought), n, np.random.default_rng())


def negatives_too_many(candidates, bought, n, rng):
    return _even(_allowed(candidates, bought), n + 1, rng)


def _fitting(measured, least_recall, most_ms):
    return measured[(measured["recall"] >= least_recall) & (measured["ms"] <= most_ms)]


def _first(measured, *columns):
    return None if measured.empty else measured.sort_values(list(columns)).index[0]


def index_of_any_recall(measured, least_recall, most_ms):
    return _first(_fitting(measured, 0, most_ms), "mib", "ms")


def index_of_any_latency(measured, least_recall, most_ms):
    return _first(_fitting(measured, least_recall, np.inf), "mib", "ms")


def index_that_is_fastest(measured, least_recall, most_ms):
    return _first(_fitting(measured, least_recall, most_ms), "ms")


def index_more_than_recall(measured, least_recall, most_ms):
    fitting = _fitting(measured, least_recall, most_ms)
    return _first(fitting[fitting["recall"] > least_recall], "mib", "ms")


def index_below_the_latency(measured, least_recall, most_ms):
    fitting = _fitting(measured, least_recall, most_ms)
    return _first(fitting[fitting["ms"] < most_ms], "mib", "ms")


def index_first_of_a_tie(measured, least_recall, most_ms):
    fitting = _fitting(measured, least_recall, most_ms)
    return None if fitting.empty else fitting["mib"].idxmin()


def index_next_best(measured, least_recall, most_ms):
    fitting = _fitting(measured, least_recall, most_ms)
    return measured["recall"].idxmax() if fitting.empty else _first(fitting, "mib", "ms")


def index_as_a_position(measured, least_recall, most_ms):
    name = _first(_fitting(measured, least_recall, most_ms), "mib", "ms")
    return None if name is None else measured.index.get_loc(name)


STAGES = ("retrieve", "filter", "score", "order")


def stage_of_the_smallest_figure(ndcg):
    return min((stage for stage in STAGES if stage in ndcg), key=ndcg.get)


def stage_as_it_is(ndcg):
    return max(ndcg, key=ndcg.get)


def stage_first_that_gains(ndcg):
    return next((stage for stage in STAGES if ndcg.get(stage, 0) > ndcg["as it is"]), "order")


def stage_by_steps(ndcg):
    measured = [name for name in ("as it is", *STAGES) if name in ndcg]
    steps = {stage: ndcg[stage] - ndcg[before] for before, stage in pairwise(measured)}
    return max(steps, key=steps.get)


def stage_that_changes_most(ndcg):
    return max((s for s in STAGES if s in ndcg), key=lambda s: abs(ndcg[s] - ndcg["as it is"]))


def stage_by_the_order_of_the_dict(ndcg):
    return max((name for name in ndcg if name != "as it is"), key=ndcg.get)


def stage_zero_where_missing(ndcg):
    return max(STAGES, key=lambda stage: ndcg.get(stage, ndcg["as it is"]))


def stage_as_its_gain(ndcg):
    return max(ndcg[stage] for stage in STAGES if stage in ndcg) - ndcg["as it is"]


WRONG = {
    "4.1": [
        ("adds", loss_adds, "The sign is wrong"),
        ("the probability itself", loss_of_the_probability, "not the probability itself"),
        ("not corrected, or by row", loss_corrected_by_row, "without the correction"),
        ("positives only", loss_corrects_positives, "Only the positives"),
        ("negatives only", loss_corrects_negatives, "Only the negatives"),
        ("over columns", loss_over_columns, "not each column"),
        ("a sum", loss_summed, "take the mean"),
        ("a loss a person", loss_a_person, "One number for the batch"),
        ("negative", loss_negative, "a loss is its negative"),
        ("base ten", loss_base_ten, "The loss of three people is wrong"),
        ("in place", loss_in_place, "The inputs were changed"),
        ("overflows", loss_overflows, "leaves the range of floats"),
        ("with a limit", loss_with_a_limit, "a limit on the logits"),
    ],
    "4.2": [
        ("cut before the filter", recall_cut_before_the_filter, "before the list is cut"),
        ("without anybody's", recall_without_anybodys_seen, "only somebody else has seen"),
        ("divided by k", recall_by_k, "divided by k"),
        ("divided by the number bought", recall_by_number_bought, "divided by the number bought"),
        ("pooled", recall_pooled, "pooled over people"),
        ("a hit rate", recall_as_hit_rate, "count all hits"),
        ("within the batch", recall_within_the_batch, "as within a batch"),
        ("cosine", recall_by_cosine, "The score is the dot product"),
        ("the worst", recall_of_the_worst, "The worst products"),
        ("in place", recall_in_place, "The inputs were changed"),
    ],
    "4.3": [
        ("with purchases", negatives_with_purchases, "false negative"),
        ("from empty places", negatives_from_empty_places, "An empty place was drawn"),
        ("from everywhere", negatives_from_everywhere, "no candidate of its person"),
        ("with replacement", negatives_twice, "stands twice in a row"),
        ("nobody's purchases", negatives_nobody_bought, "own purchases only"),
        ("always the hardest", negatives_always_the_hardest, "draw by chance"),
        ("the hardest, mixed", negatives_the_hardest_mixed, "Some candidates are never"),
        ("the hardest more often", negatives_the_hardest_more_often, "draw evenly"),
        ("in place", negatives_in_place, "The inputs were changed"),
        ("own chance", negatives_of_own_chance, "draw from rng alone"),
        ("one too many", negatives_too_many, "n negatives a person"),
    ],
    "4.4": [
        ("any recall", index_of_any_recall, "recall is below"),
        ("any latency", index_of_any_latency, "takes longer than allowed"),
        ("the fastest", index_that_is_fastest, "take the smallest of those that fit"),
        ("more than the recall", index_more_than_recall, "just reached"),
        ("below the latency", index_below_the_latency, "just kept"),
        ("the first of a tie", index_first_of_a_tie, "take the faster"),
        ("a near miss", index_next_best, "not a near miss"),
        ("a position", index_as_a_position, "Return the name"),
    ],
    "4.5": [
        ("the smallest figure", stage_of_the_smallest_figure, "A small figure means"),
        ("as it is", stage_as_it_is, "not a stage, even where nothing beats it"),
        ("the first that gains", stage_first_that_gains, "Not the first stage that gains"),
        ("by steps", stage_by_steps, "not with the swap before it"),
        ("the largest change", stage_that_changes_most, "a gain has a sign"),
        ("the order of the dict", stage_by_the_order_of_the_dict, "order of the pipeline"),
        ("zero where missing", stage_zero_where_missing, "were not measured"),
        ("its gain", stage_as_its_gain, "wrong type"),
    ],
}
