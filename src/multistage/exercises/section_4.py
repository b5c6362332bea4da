"""Checks of lab 4: the log-Q correction, and honest negatives."""

from collections.abc import Callable

import numpy as np

from multistage.exercises.engine import Exercise, Wrong
from multistage.exercises.expect import array, same_type


def check_corrected_logits(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Values first, then the property: corrected logits make sampled softmax unbiased."""
    for people, products in ((2, 3), (4, 4), (5, 2)):
        logits = rng.normal(size=(people, products))
        probability = rng.uniform(0.01, 0.5, products)
        got = answer(logits.copy(), probability.copy())
        same_type(got, (np.ndarray,), "The result")
        if got.shape != logits.shape:
            raise Wrong("The result has the wrong shape.", logits.shape, got.shape)
        if np.allclose(got, logits + np.log(probability)):
            raise Wrong(
                "The sign is wrong: a popular product was met too often, so its logit gets "
                "a larger bonus than it deserves. Subtract."
            )
        if np.allclose(got, logits - probability):
            raise Wrong("The logarithm of the probability is subtracted, not the probability.")
        if people == products and np.allclose(got, logits - np.log(probability)[:, np.newaxis]):
            raise Wrong("The probability belongs to the product, which is the column.")
        diagonal = logits - np.diag(np.log(probability[:people])) if people == products else None
        if diagonal is not None and np.allclose(got, diagonal):
            raise Wrong("Correct all logits, not only those of the positives.")
        array(got, logits - np.log(probability), "The corrected logits")


def check_sample_negatives(answer: Callable[..., np.ndarray], rng: np.random.Generator) -> None:
    """Never a purchase, always an own candidate, chance used, input untouched."""
    people, k, n = 40, 12, 6
    candidates = np.stack([rng.permutation(500)[:k] for _ in range(people)])
    # for the first person all candidates but one were bought
    bought = [set(candidates[0, 1:].tolist())]
    bought += [set(rng.choice(row, 4).tolist()) for row in candidates[1:]]
    kept = candidates.copy()
    got = answer(candidates, [set(b) for b in bought], n, np.random.default_rng(1))
    same_type(got, (np.ndarray,), "The result")
    if got.shape != (people, n):
        raise Wrong("n negatives a person are wanted.", (people, n), got.shape)
    if not np.array_equal(candidates, kept):
        raise Wrong("The candidates were changed: draw from a copy.")
    for person in range(people):
        drawn = {int(p) for p in got[person]}
        if drawn & bought[person]:
            raise Wrong(
                "A purchase was drawn as a negative: a false negative.",
                "none",
                len(drawn & bought[person]),
            )
        if not drawn <= set(kept[person].tolist()):
            raise Wrong("A negative is no candidate of its person.")
    again = answer(kept.copy(), [set(b) for b in bought], n, np.random.default_rng(1))
    other = answer(kept.copy(), [set(b) for b in bought], n, np.random.default_rng(2))
    if not np.array_equal(got, again):
        raise Wrong("The same state of rng must give the same draw: draw from rng alone.")
    if np.array_equal(got, other):
        raise Wrong("Another seed gives the same negatives: draw by chance, from rng.")


EXERCISES = [
    Exercise(
        id="4.1",
        title="log-Q",
        hints=(
            "Subtract np.log(probability).",
            "Columns are products: the same correction for every row.",
        ),
        check=check_corrected_logits,
    ),
    Exercise(
        id="4.2",
        title="negatives without false ones",
        hints=(
            "For each person, leave out what they bought: np.isin(found, list(bought[person])).",
            "rng.choice(allowed, size=n) draws with replacement.",
        ),
        check=check_sample_negatives,
    ),
]
