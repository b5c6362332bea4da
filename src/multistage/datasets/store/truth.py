"""What the simulated shop knows of itself: true probabilities of purchases."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from multistage.datasets.store.world import (
    BLOCK,
    FIRST_USER,
    StoreSettings,
    Users,
    World,
    sigmoid,
    time_effect,
)
from multistage.errors import CourseError


@dataclass(frozen=True)
class StoreTruth:
    """True probabilities of the simulated shop.

    It keeps the shop's settings and the ids of a catalogue, nothing drawn: the world is made
    anew from its seed when first asked.
    """

    settings: StoreSettings
    product_ids: np.ndarray  # int64, in the order of ``data.catalog.product_id``

    def save(self, file: Path) -> None:
        """Write to ``file`` (.npz, no pickles)."""
        np.savez(
            file,
            product_ids=self.product_ids,
            **{f"settings.{key}": np.array(value) for key, value in asdict(self.settings).items()},
        )

    @classmethod
    def load(cls, file: Path) -> "StoreTruth":
        """Read what :meth:`save` wrote."""
        with np.load(file, allow_pickle=False) as kept:
            settings = {
                key.removeprefix("settings."): kept[key].item()
                for key in kept.files
                if key.startswith("settings.")
            }
            # A file of an older shop may know other settings: it is told apart by its edition.
            known = {f.name for f in fields(StoreSettings)}
            settings = {key: value for key, value in settings.items() if key in known}
            return cls(StoreSettings(**{"edition": 0, **settings}), kept["product_ids"])

    @cached_property
    def _world(self) -> World:
        return World(self.settings)

    @cached_property
    def _users(self) -> Users:
        blocks = [self._world.users(block) for block in range(-(-self.settings.users // BLOCK))]
        return Users(
            *(np.concatenate([getattr(b, name) for b in blocks]) for name in Users.__annotations__)
        )

    def purchase_probability(
        self, user_ids: np.ndarray, product_ids: np.ndarray, timestamps: np.ndarray
    ) -> np.ndarray:
        """P(target = 1 | user, product in the cart, time), elementwise.

        Args:
            user_ids: (n,) int64.
            product_ids: (n,) int64.
            timestamps: (n,) times in UTC, pandas or numpy.

        Returns:
            (n,) float64.

        Raises:
            CourseError: if an id is none of the shop's.
        """
        world = self._world
        user = self._user_index(user_ids)
        product = _find(world.product_id, np.asarray(product_ids), "product")
        time = _seconds(timestamps)
        month = np.searchsorted(world.month_starts(), time, side="right") - 1
        month = np.clip(month, 0, self.settings.months - 1)
        fit = np.empty(len(user))
        for m in np.unique(month):
            rows = np.flatnonzero(month == m)
            taste = self._users.taste(m)
            fit[rows] = np.einsum("nd,nd->n", taste[user[rows]], world.vector[product[rows]])
        fit += self.settings.beta_price * self._users.budget[user] * world.price_level[product]
        logit = world.buy_logit(fit, self._users.buy_bias[user], product, month)
        return sigmoid(logit + time_effect(time))

    def purchase_intensity(self, user_ids: np.ndarray) -> np.ndarray:
        """Expected purchases in the last (test) month.

        The product of the user's expected carts, the intent's and the product's share of them,
        and the purchase probability at the mean hour.

        Args:
            user_ids: (n,) int64.

        Returns:
            (n, len(product_ids)) float32; its order by row is the best possible ranking.
        """
        world, users, month = self._world, self._users, self.settings.months - 1
        user = self._user_index(user_ids)
        column = _find(world.product_id, self.product_ids, "product")
        everything = np.arange(self.settings.products)
        taste = users.taste(month)
        result = np.empty((len(user), len(column)), np.float32)
        for begin in range(0, len(user), BLOCK):
            rows = user[begin : begin + BLOCK]
            fit = world.fit(taste[rows], users.budget[rows], everything)
            share = world.cart_share(taste[rows], fit, month)
            buy = sigmoid(world.buy_logit(fit, users.buy_bias[rows][:, None], everything, month))
            carts = self.settings.carts * users.rate[rows][:, None]
            result[begin : begin + BLOCK] = (carts * share * buy)[:, column]
        return result

    def _user_index(self, user_ids: np.ndarray) -> np.ndarray:
        index = np.asarray(user_ids, dtype=np.int64) - FIRST_USER
        wrong = (index < 0) | (index >= self.settings.users)
        if wrong.any():
            raise CourseError(
                f"The shop has no user {np.asarray(user_ids)[wrong][0]}: its {self.settings.users} "
                "user ids are those in its events."
            )
        return index


def _find(known: np.ndarray, asked: np.ndarray, what: str) -> np.ndarray:
    position = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    wrong = known[position] != asked
    if wrong.any():
        raise CourseError(f"The shop has no {what} {asked[wrong][0]}: use the ids of its events.")
    return position


def _seconds(timestamps: np.ndarray) -> np.ndarray:
    import pandas as pd

    return (
        pd.DatetimeIndex(pd.to_datetime(timestamps, utc=True))
        .tz_localize(None)
        .values.astype("datetime64[s]")
    )
