"""What beginners get wrong in lab 4."""

import numpy as np


def logq_adds(logits, probability):
    return logits + np.log(probability)


def logq_subtracts_the_probability(logits, probability):
    return logits - probability


def logq_on_rows(logits, probability):
    padded = np.resize(np.log(probability), len(logits))
    return logits - (
        padded[:, np.newaxis] if len(logits) == len(probability) else np.log(probability)
    )


def logq_on_positives_only(logits, probability):
    corrected = logits - np.log(probability)
    if logits.shape[0] != logits.shape[1]:
        return corrected
    return np.where(np.eye(len(logits), dtype=bool), corrected, logits)


def logq_base_ten(logits, probability):
    return logits - np.log10(probability)


def negatives_with_purchases(candidates, bought, n, rng):
    return np.stack([rng.choice(found, size=n) for found in candidates])


def negatives_from_everywhere(candidates, bought, n, rng):
    return rng.integers(10_000, 20_000, size=(len(candidates), n))


def negatives_always_the_first(candidates, bought, n, rng):
    allowed = [
        [p for p in found if p not in own] for found, own in zip(candidates, bought, strict=True)
    ]
    return np.array([np.resize(found, n) for found in allowed])


def negatives_in_place(candidates, bought, n, rng):
    for found, own in zip(candidates, bought, strict=True):
        allowed = [p for p in found if p not in own]
        found[:] = rng.choice(allowed, size=len(found))
    return candidates[:, :n].copy()


def negatives_own_chance(candidates, bought, n, rng):
    return np.stack(
        [
            np.random.default_rng().choice([p for p in found if p not in own], size=n)
            for found, own in zip(candidates, bought, strict=True)
        ]
    )


WRONG = {
    "4.1": [
        ("adds", logq_adds, "The sign is wrong"),
        ("the probability itself", logq_subtracts_the_probability, "not the probability"),
        ("on rows", logq_on_rows, "which is the column"),
        ("positives only", logq_on_positives_only, "not only those of the positives"),
        ("base ten", logq_base_ten, "wrong value"),
    ],
    "4.2": [
        ("with purchases", negatives_with_purchases, "false negative"),
        ("from everywhere", negatives_from_everywhere, "no candidate of its person"),
        ("always the first", negatives_always_the_first, "draw by chance"),
        ("in place", negatives_in_place, "The candidates were changed"),
        ("own chance", negatives_own_chance, "draw from rng alone"),
    ],
}
