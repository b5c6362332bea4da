"""What beginners get wrong in lab 1."""

from itertools import pairwise

import numpy as np
import pandas as pd


def ndcg_divides_by_all_relevant(recommended, relevant, k):
    gained = sum(1 / np.log2(i + 2) for i, p in enumerate(recommended[:k]) if p in relevant)
    return gained / sum(1 / np.log2(i + 2) for i in range(len(relevant)))


def ndcg_ignores_places(recommended, relevant, k):
    return len(set(recommended[:k]) & relevant) / min(k, len(relevant))


def ndcg_forgets_k(recommended, relevant, k):
    gained = sum(1 / np.log2(i + 2) for i, p in enumerate(recommended) if p in relevant)
    return gained / sum(1 / np.log2(i + 2) for i in range(min(k, len(relevant))))


def ndcg_natural_logarithm(recommended, relevant, k):
    gained = sum(1 / np.log(i + 2) for i, p in enumerate(recommended[:k]) if p in relevant)
    return gained / sum(1 / np.log2(i + 2) for i in range(min(k, len(relevant))))


def ndcg_prints_only(recommended, relevant, k):
    print("0.5")


def ndcg_counts_places_from_zero(recommended, relevant, k):
    gained = sum(1 / np.log2(i + 3) for i, p in enumerate(recommended[:k]) if p in relevant)
    return gained / sum(1 / np.log2(i + 3) for i in range(min(k, len(relevant))))


def filter_cuts_first(ranked, seen, available, n):
    return [int(p) for p in ranked[:n] if p in available and p not in seen]


def filter_forgets_seen(ranked, seen, available, n):
    return [int(p) for p in dict.fromkeys(ranked) if p in available][:n]


def filter_forgets_available(ranked, seen, available, n):
    return [int(p) for p in dict.fromkeys(ranked) if p not in seen][:n]


def filter_keeps_repeats(ranked, seen, available, n):
    return [int(p) for p in ranked if p in available and p not in seen][:n]


def filter_loses_order(ranked, seen, available, n):
    return sorted({int(p) for p in ranked} & available - seen)[:n]


PAIR = ["user_id", "product_id"]


def _parts(rows, valid, test):
    time = rows["timestamp"]
    return {
        "train": rows[time < valid],
        "valid": rows[(time >= valid) & (time < test)],
        "test": rows[time >= test],
    }


def _last(rows):
    return rows.sort_values("timestamp").drop_duplicates(PAIR, keep="last")


def split_tidies_first(rows, valid, test):
    return _parts(_last(rows), valid, test)


def split_drops_unknown(rows, valid, test):
    parts = {name: _last(part) for name, part in _parts(rows, valid, test).items()}
    known = parts["train"]["user_id"]
    return {name: part[part["user_id"].isin(known)] for name, part in parts.items()}


def split_border_to_the_left(rows, valid, test):
    moment = pd.Timedelta(seconds=1)
    return {k: _last(p) for k, p in _parts(rows, valid + moment, test + moment).items()}


def split_keeps_repeats(rows, valid, test):
    return _parts(rows, valid, test)


def split_trusts_the_order(rows, valid, test):
    parts = _parts(rows, valid, test)
    return {name: part.drop_duplicates(PAIR, keep="last") for name, part in parts.items()}


def split_as_a_tuple(rows, valid, test):
    return tuple(_parts(rows, valid, test).values())


def _alive(stages, relevant):
    return [
        sum(len(set(p) & r) for p, r in zip(lists, relevant, strict=True))
        for lists in stages.values()
    ]


def loss_of_what_entered(stages, relevant):
    alive = [sum(map(len, relevant)), *_alive(stages, relevant)]
    lost = [1 - after / max(before, 1) for before, after in pairwise(alive)]
    return list(stages)[int(np.argmax(lost))], max(lost)


def loss_forgets_the_first_stage(stages, relevant):
    lost = -np.diff(_alive(stages, relevant)) / sum(map(len, relevant))
    return list(stages)[int(np.argmax(lost)) + 1], float(max(lost))


def loss_of_candidates(stages, relevant):
    sizes = [sum(map(len, lists)) for lists in stages.values()]
    lost = -np.diff([sizes[0], *sizes]) / sum(map(len, relevant))
    lost[-1] = 0
    return list(stages)[int(np.argmax(lost))], float(max(lost))


def loss_averaged_over_people(stages, relevant):
    def recall(lists):
        return np.mean([len(set(p) & r) / len(r) for p, r in zip(lists, relevant, strict=True)])

    lost = -np.diff([1.0, *(recall(lists) for lists in stages.values())])
    return list(stages)[int(np.argmax(lost))], float(max(lost))


def loss_name_only(stages, relevant):
    return "score"


WRONG = {
    "1.1": [
        ("divides by all relevant", ndcg_divides_by_all_relevant, "min(k, len(relevant))"),
        ("ignores places", ndcg_ignores_places, "second place must count less"),
        ("forgets k", ndcg_forgets_k, "Only the first k places count"),
        ("natural logarithm", ndcg_natural_logarithm, "NDCG of a perfect list is wrong"),
        ("prints only", ndcg_prints_only, "Did you forget to return it?"),
        ("places from zero", ndcg_counts_places_from_zero, "hit on the second place is wrong"),
    ],
    "1.2": [
        ("tidies first", split_tidies_first, "deleted a row of training"),
        ("drops unknown users", split_drops_unknown, "never saw must stay"),
        ("border to the left", split_border_to_the_left, "very first moment"),
        ("keeps repeats", split_keeps_repeats, "occur twice in one part"),
        ("trusts the order", split_trusts_the_order, "the latest stays"),
        ("a tuple", split_as_a_tuple, "wrong type"),
    ],
    "1.3": [
        ("cuts first", filter_cuts_first, "Not back-filled"),
        ("forgets seen", filter_forgets_seen, "already had came out"),
        ("forgets available", filter_forgets_available, "not for sale came out"),
        ("keeps repeats", filter_keeps_repeats, "came out twice"),
        ("loses the order", filter_loses_order, "in their order"),
    ],
    "1.4": [
        ("of what entered", loss_of_what_entered, "not of those that entered"),
        ("forgets the first stage", loss_forgets_the_first_stage, "first stage can lose"),
        ("candidates", loss_of_candidates, "only losing purchases is"),
        ("averaged over people", loss_averaged_over_people, "Count purchases, not people"),
        ("the name only", loss_name_only, "wrong type"),
    ],
}
