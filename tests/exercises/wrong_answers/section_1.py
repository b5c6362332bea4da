"""What beginners get wrong in lab 1."""

import numpy as np


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
        ("cuts first", filter_cuts_first, "Not back-filled"),
        ("forgets seen", filter_forgets_seen, "already had came out"),
        ("forgets available", filter_forgets_available, "not for sale came out"),
        ("keeps repeats", filter_keeps_repeats, "came out twice"),
        ("loses the order", filter_loses_order, "in their order"),
    ],
}
