"""Stage four: the order of the products."""

from pathlib import Path

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.serving.catalog import read_catalog
from multistage.serving.operators.base import NO_PRODUCT, ServingOperator
from multistage.serving.request import FallbackStatus


class OrderByScore(ServingOperator):
    """The ``k`` products with the highest scores, best first; equal scores by product id."""

    def adds(self) -> Schema:
        """Return ``ordered_ids`` and ``ordered_scores``, as wide as the largest ``k``."""
        return Schema(
            [
                ColumnSchema("ordered_ids", dtype="int64", dims=(None, None)),
                ColumnSchema("ordered_scores", dtype="float32", dims=(None, None)),
            ]
        )

    def run(self, table: TensorTable) -> dict[str, np.ndarray]:
        """Return ids and scores, shape (users, largest k); -1 and NaN beyond a user's own ``k``."""
        ids, scores = table["candidate_ids"].values, table["candidate_scores"].values
        k = table["k"].values
        width = min(int(k.max()), ids.shape[1])
        keys = np.where(ids == NO_PRODUCT, -np.inf, self.keys(table, ids, scores, width))
        order = np.lexsort((ids, -keys), axis=1)[:, :width]
        beyond = np.arange(width) >= k[:, None]
        users = np.arange(len(ids))[:, None]
        ids = np.where(beyond, NO_PRODUCT, ids[users, order])
        scores = np.where(beyond, np.nan, scores[users, order])
        return {"ordered_ids": ids, "ordered_scores": scores.astype("float32")}

    def keys(
        self, table: TensorTable, ids: np.ndarray, scores: np.ndarray, width: int
    ) -> np.ndarray:
        """Return what to order by, highest first, shape (users, candidates)."""
        return scores


class OrderBySampling(OrderByScore):
    """Draws without replacement, with probability proportional to ``exp(logit / temperature)``.

    Adding independent Gumbel noise to the scaled logits and taking the largest is such a draw
    (Kool et al., "Stochastic Beams and Where to Find Them", 2019). A low temperature comes close to
    the order by score, a high one to any order. The noise is a function of seed, user, product and
    time alone: the same request has the same answer, in any batch.
    """

    def __init__(
        self, temperature: float = 1.0, seed: int = 42, exports: Path | None = None
    ) -> None:
        """Sample at ``temperature``, above 0; see the class."""
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature, self.seed = temperature, seed
        super().__init__(exports)

    def keys(
        self, table: TensorTable, ids: np.ndarray, scores: np.ndarray, width: int
    ) -> np.ndarray:
        """Return scaled logits with noise; popular products keep their order."""
        clipped = np.clip(scores.astype("float64"), 1e-7, 1 - 1e-7)
        logits = np.log(clipped) - np.log1p(-clipped)
        when = table["time"].values.view("uint64")[:, None]
        user = table["user_id"].values.view("uint64")[:, None]
        uniform = _uniform(_mix(_mix(_mix(np.uint64(self.seed), user), when), ids.view("uint64")))
        noisy = logits / self.temperature - np.log(-np.log(uniform))
        personal = table["fallback_status"].values[:, None] == FallbackStatus.PERSONAL.value
        return np.where(personal, noisy, scores)


class OrderByDiversity(OrderByScore):
    """Maximal marginal relevance over categories (Carbonell and Goldstein, 1998).

    Products are chosen one after the other, by ``weight * relevance - (1 - weight) * redundancy``.
    Relevance is the score scaled to 0..1 among the user's candidates; redundancy is the share of
    the products chosen so far that have the same category.
    """

    artifacts = ("item_features",)

    def __init__(self, weight: float = 0.7, exports: Path | None = None) -> None:
        """Weight relevance by ``weight``: 1 is the order by score."""
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must lie between 0 and 1, not {weight}")
        self.weight = weight
        super().__init__(exports)

    def load(self, exports: Path) -> None:
        """Read the products' categories."""
        self._catalog = read_catalog(exports / "item_features")

    def keys(
        self, table: TensorTable, ids: np.ndarray, scores: np.ndarray, width: int
    ) -> np.ndarray:
        """Return falling keys for the products chosen, below 0 for the others."""
        category = self._catalog.category[self._catalog.positions(ids)]
        relevance = _to_unit(np.where(ids == NO_PRODUCT, np.nan, scores))
        keys = np.full(ids.shape, -1.0)
        left = ids != NO_PRODUCT
        chosen_like = np.zeros(ids.shape)
        rows = np.arange(len(ids))
        for place in range(width):
            redundancy = chosen_like / max(place, 1)
            value = self.weight * relevance - (1 - self.weight) * redundancy
            best = np.where(left, value, -np.inf).argmax(axis=1)
            open_rows = left[rows, best]
            keys[rows[open_rows], best[open_rows]] = width - place
            left[rows, best] = False
            chosen_like += (category == category[rows, best][:, None]) & open_rows[:, None]
        return keys


def _to_unit(scores: np.ndarray) -> np.ndarray:
    low = np.nanmin(scores, axis=1, keepdims=True, initial=np.inf, where=~np.isnan(scores))
    high = np.nanmax(scores, axis=1, keepdims=True, initial=-np.inf, where=~np.isnan(scores))
    span = np.where(high > low, high - low, 1.0)
    return np.nan_to_num((scores - np.where(np.isfinite(low), low, 0.0)) / span)


def _mix(state: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return 64 mixed bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (state ^ value) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Return numbers in the open interval (0, 1) from 64 random bits."""
    return ((bits >> np.uint64(11)).astype("float64") + 0.5) * 2.0**-53
