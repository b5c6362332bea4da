"""The simulated shop's world: its products, its users, and what makes them buy.

Everything here is a function of :class:`StoreSettings` (the seed among them); nothing depends on
how many events are drawn, by how many workers or in what order.

Products. Leaves :math:`c` of a three-level category tree and brands :math:`b` have vectors in a
space of :math:`d` tastes. A product :math:`i` has the unit vector

.. math:: q_i \\propto w_c\\, v_{c(i)} + w_b\\, v_{b(i)} + w_e\\, \\epsilon_i

so that nearly all of it is explained by what can be observed. It has an appeal :math:`a_i` (long
tail), a quality :math:`g_i`, a price level :math:`z_i` (log price, standardised in its leaf), a
launch month, and in some months a discount :math:`r_{im}`.

Users. A user :math:`u` belongs to one of a few segments; taste, budget and the months since the
first give

.. math:: p_{um} \\propto s_{k(u)} + \\eta_u + \\tfrac{m}{6}\\, \\delta_u, \\qquad \\|p_{um}\\| = 1

Fit of user and product: :math:`f_{uim} = p_{um}\\cdot q_i + \\lambda\\, y_u z_i`, with budget
:math:`y_u`: this is of rank :math:`d + 1`, and what a factorisation has to find.

Choices, each a logit (McFadden 1974), in a session of user :math:`u` in month :math:`m`:

* intent: leaf :math:`c` with probability :math:`\\propto h_c \\exp(\\beta_c\\, p_{um}\\cdot v_c)`;
* cart: product :math:`i` of that leaf, launched by then, with probability
  :math:`\\propto a_i \\exp(\\beta_a f_{uim})`; a mere view has half of :math:`\\beta_a`;
* purchase of what is in the cart, at time :math:`t`, with probability
  :math:`\\sigma(\\beta_0 + \\beta_f f_{uim} + g_i + e_u + \\gamma r_{im} + \\tau(t))`,
  where :math:`\\tau` has a daily and a weekly wave and :math:`\\beta_0` is set so that the asked
  share of carts is bought.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd

FIRST_USER = 1_515_915_625_000_000_000  # 64-bit, as the electronics store's ids are
BLOCK = 1_000  # users that share random streams: part of what the seed means, not a setting

_TREE = {
    "electronics": (
        0.44,
        ("smartphone", "clocks", "tablet", "audio.headphone", "audio.subwoofer", "video.tv"),
    ),
    "appliances": (
        0.17,
        (
            "kitchen.refrigerators",
            "kitchen.washer",
            "kitchen.kettle",
            "kitchen.blender",
            "environment.vacuum",
            "environment.air_heater",
            "iron",
        ),
    ),
    "computers": (0.12, ("notebook", "desktop", "components.memory", "peripherals.mouse")),
    "apparel": (0.07, ("shoes", "shoes.keds", "shirt", "costume", "jacket")),
    "furniture": (0.06, ("living_room.sofa", "bedroom.bed", "kitchen.table", "bathroom.bath")),
    "auto": (0.05, ("accessories.player", "accessories.alarm", "tires")),
    "construction": (0.04, ("tools.drill", "tools.saw", "tools.light")),
    "kids": (0.03, ("carriage", "toys", "skates", "swing")),
    "sport": (0.02, ("bicycle", "trainer", "tent")),
}


@dataclass(frozen=True)
class StoreSettings:
    """Size and character of the simulated shop.

    ``edition`` changes with the code that draws it, so that data of an older shop are known to be.
    """

    users: int = 8_000
    products: int = 1_500
    seed: int = 42
    months: int = 7
    start: str = "2019-10-01"
    view_share: float = 0.5  # of all events; REES46's own is about 0.98
    cart_sessions: float = 8.0  # per user and month, with something put into the cart
    carts: float = 1.35  # per cart session
    session_views: float = 3.4  # per session, on average
    buy_share: float = 0.42  # of what is put into carts
    late_users: float = 0.015  # first come in one of the last two months
    new_products: float = 0.1  # launched after the first month
    missing_brand: float = 0.14
    missing_category: float = 0.33
    tastes: int = 3
    segments: int = 4
    personal: float = 0.06  # length of the personal part of a taste, a segment's being 1
    drift: float = 0.05
    beta_intent: float = 1.5
    beta_cart: float = 0.8
    beta_buy: float = 4.3
    beta_price: float = 0.5  # lambda
    edition: int = 4


class World:
    """Products and parameters, drawn once from the settings' seed."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        rng = self.rng(0)
        self._draw_categories(rng)
        self._draw_products(rng)
        self.segment_taste = _spread(rng, settings.segments, settings.tastes)
        self.segment_budget = np.linspace(-1, 1, settings.segments)[
            rng.permutation(settings.segments)
        ]
        self.intercept = 0.0
        self.intercept = self._calibrate()

    def rng(self, *key: int) -> np.random.Generator:
        """Return the random stream ``key`` of this shop."""
        return np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=key))

    def _draw_categories(self, rng: np.random.Generator) -> None:
        d = self.settings.tastes
        codes, share, vectors = [], [], []
        tops = _spread(rng, len(_TREE), d)
        for (top, (weight, leaves)), vector in zip(_TREE.items(), tops, strict=True):
            middles: dict[str, np.ndarray] = {}
            within = 1.0 / np.arange(1, len(leaves) + 1) ** 1.2
            for leaf, part in zip(leaves, within / within.sum(), strict=True):
                middle = leaf.split(".")[0]
                if middle not in middles:
                    middles[middle] = _unit(vector + 0.8 * _unit(rng.normal(size=d)))
                codes.append(f"{top}.{leaf}")
                share.append(weight * part)
                vectors.append(_unit(middles[middle] + 0.4 * _unit(rng.normal(size=d))))
        self.leaf_code = np.array(codes, dtype=object)
        self.leaf_share = np.array(share)
        self.leaf_vector = np.array(vectors)
        self.leaf_log_price = rng.normal(5.0, 1.1, len(codes))
        self.leaf_id = 2_053_013_550_000_000_000 + np.arange(len(codes)) * 1_000_003
        self.leaf_coded = np.ones(len(codes), bool)
        missing = 0.0
        for leaf in rng.permutation(len(codes)):
            if missing + share[leaf] <= self.settings.missing_category and share[leaf] < 0.1:
                self.leaf_coded[leaf] = False
                missing += share[leaf]

    def _draw_products(self, rng: np.random.Generator) -> None:
        s, n, leaves = self.settings, self.settings.products, len(self.leaf_code)
        weights = np.sqrt(self.leaf_share)
        extra = rng.choice(leaves, max(n - 2 * leaves, 0), p=weights / weights.sum())
        leaf = np.concatenate([np.tile(np.arange(leaves), 2)[:n], extra])
        brands = max(12, int(1.5 * np.sqrt(n)))
        brand_weight = 1.0 / (np.arange(brands) + 2.0)
        brand_vector = _unit(rng.normal(size=(brands, s.tastes)))
        brand = rng.choice(brands, n, p=brand_weight / brand_weight.sum())
        self.product_id = 1_000_000 + np.sort(rng.choice(60 * n, n, replace=False)).astype(np.int64)
        order = rng.permutation(n)
        self.leaf, self.brand = leaf[order], brand[order]
        self.brand_name = np.array(_names(rng, brands), dtype=object)
        self.brand_known = rng.random(n) >= s.missing_brand
        self.vector = _unit(
            0.8 * self.leaf_vector[self.leaf]
            + 0.55 * brand_vector[self.brand]
            + 0.1 * _unit(rng.normal(size=(n, s.tastes)))
        )
        self.price_level = np.clip(rng.normal(size=n), -2, 2)
        self.price = np.exp(self.leaf_log_price[self.leaf] + 0.55 * self.price_level)
        self.quality = 0.35 * rng.normal(size=n)
        self.appeal = np.exp(1.3 * rng.normal(size=n) + self.quality)
        later = np.arange(1, s.months)
        month = rng.choice(later, n, p=later[::-1] / later.sum())  # ever fewer launches
        launch = np.where(rng.random(n) < s.new_products, month, 0)
        _, first = np.unique(self.leaf, return_index=True)
        launch[first] = 0  # no leaf is ever empty
        self.launch = launch
        discounted = rng.random((s.months, n)) < 0.15
        self.discount = np.where(discounted, rng.uniform(0.05, 0.3, (s.months, n)), 0.0)

    @cached_property
    def catalog(self) -> pd.DataFrame:
        """Every product, with the columns of an event that belong to it."""
        code = np.where(self.leaf_coded, self.leaf_code, None)[self.leaf]
        return pd.DataFrame(
            {
                "product_id": self.product_id,
                "category_id": self.leaf_id[self.leaf],
                "category_code": code,
                "brand": np.where(self.brand_known, self.brand_name[self.brand], None),
            }
        )

    def month_starts(self) -> np.ndarray:
        """First moments of the months and of the month after the last, ``datetime64[s]``."""
        first = np.datetime64(self.settings.start, "M")
        return (first + np.arange(self.settings.months + 1)).astype("datetime64[s]")

    def prices(self, month: int) -> np.ndarray:
        """Each product's price in ``month``, after its discount, in cents' precision."""
        return np.round(self.price * (1 - self.discount[month]), 2)

    def users(self, block: int) -> "Users":
        """Return the users of one block of ids."""
        s, rng = self.settings, self.rng(1, block)
        index = np.arange(block * BLOCK, min((block + 1) * BLOCK, s.users))
        n = BLOCK  # always draw whole blocks: user 1 is the same in a shop of any size
        segment = rng.integers(0, s.segments, n)
        personal = s.personal * rng.normal(size=(n, s.tastes)) / np.sqrt(s.tastes / 2)
        drift = s.drift * rng.normal(size=(n, s.tastes))
        budget = self.segment_budget[segment] + 0.2 * rng.normal(size=n)
        rate = s.cart_sessions * np.exp(0.45 * rng.normal(size=n) - 0.45**2 / 2)
        buy_bias = 0.25 * rng.normal(size=n)
        late = rng.random(n)
        early = np.where(rng.random(n) < 0.2, rng.integers(0, max(s.months - 3, 1), n), 0)
        join = np.where(late < s.late_users, s.months - 1 - (late < s.late_users / 2), early)
        base = self.segment_taste[segment] + personal
        ids = FIRST_USER + block * BLOCK + np.arange(n)
        return Users(ids, segment, base, drift, budget, rate, buy_bias, join).head(len(index))

    def fit(self, taste: np.ndarray, budget: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Fit ``f`` of every user (rows) and product (columns), float64."""
        return taste @ self.vector[products].T + self.settings.beta_price * np.outer(
            budget, self.price_level[products]
        )

    def intent(self, taste: np.ndarray) -> np.ndarray:
        """Probability of each leaf (columns) as a session's intent, one row per user."""
        return _softmax(
            np.log(self.leaf_share) + self.settings.beta_intent * taste @ self.leaf_vector.T
        )

    def buy_logit(
        self, fit: np.ndarray, buy_bias: np.ndarray, products: np.ndarray, month: np.ndarray | int
    ) -> np.ndarray:
        """Log-odds of purchase given a cart, at the mean hour; shapes broadcast."""
        return (
            self.intercept
            + self.settings.beta_buy * fit
            + self.quality[products]
            + buy_bias
            + 2.0 * self.discount[month, products]
        )

    def _calibrate(self) -> float:
        """Intercept at which the mean purchase probability over carts is the one asked for."""
        users = self.users(0).head(200)
        taste = users.taste(0)
        everything = np.arange(self.settings.products)
        fit = self.fit(taste, users.budget, everything)
        weight = self.cart_share(taste, fit, 0) * users.rate[:, None]
        logit = self.buy_logit(fit, users.buy_bias[:, None], everything, 0)
        low, high = -20.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            share = (weight * sigmoid(logit + middle)).sum() / weight.sum()
            low, high = (middle, high) if share < self.settings.buy_share else (low, middle)
        return middle

    def cart_share(self, taste: np.ndarray, fit: np.ndarray, month: int) -> np.ndarray:
        """Probability that a cart of the user (rows) in ``month`` is of the product (columns)."""
        weight = self.appeal * np.exp(self.settings.beta_cart * fit) * (self.launch <= month)
        one_hot = np.zeros((self.settings.products, len(self.leaf_code)))
        one_hot[np.arange(self.settings.products), self.leaf] = 1
        total = weight @ one_hot
        return weight * (self.intent(taste) / total)[:, self.leaf]


@dataclass(frozen=True)
class Users:
    """Users of one block; arrays with one row per user."""

    user_id: np.ndarray
    segment: np.ndarray
    base: np.ndarray  # (n, d)
    drifting: np.ndarray  # (n, d)
    budget: np.ndarray
    rate: np.ndarray  # sessions with a cart, per month
    buy_bias: np.ndarray  # log-odds of buying, beyond fit
    join: np.ndarray  # first month

    def head(self, count: int) -> "Users":
        """Return the first ``count`` of them."""
        return Users(*(getattr(self, f.name)[:count] for f in fields(self)))

    def taste(self, month: int) -> np.ndarray:
        """Unit vectors ``p`` in ``month``, (n, d)."""
        return _unit(self.base + month / 6 * self.drifting)


HOUR_TRAFFIC = 1.0 + 0.85 * np.sin((np.arange(24) - 9) * 2 * np.pi / 24)
DAY_TRAFFIC = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 1.3, 1.2])  # from Monday


def time_effect(timestamps: np.ndarray) -> np.ndarray:
    """Log-odds that the hour and the weekday add to a purchase; ``timestamps`` is datetime64."""
    seconds = timestamps.astype("datetime64[s]").astype(np.int64)
    hour = seconds % 86_400 / 3_600
    weekday = (seconds // 86_400 + 3) % 7
    return 0.4 * np.sin((hour - 14) * 2 * np.pi / 24) + np.where(weekday >= 5, 0.25, -0.1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1.0 / (1.0 + np.exp(-x))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _spread(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Unit vectors with mean near 0 that keep away from each other: the best of many sets."""
    sets = rng.normal(size=(200, count, dim))
    for _ in range(20):
        sets = _unit(sets - sets.mean(axis=1, keepdims=True))
    closeness = np.exp(4 * sets @ sets.transpose(0, 2, 1)).sum(axis=(1, 2))
    return sets[closeness.argmin()]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Invent ``count`` different brand names."""
    start = ["bel", "cor", "dan", "el", "fir", "gal", "hal", "ka", "lum", "mer", "nor", "or"]
    middle = ["a", "e", "i", "o", "u", "ia", "eo"]
    end = ["da", "dia", "lin", "mo", "nix", "ra", "ris", "ta", "tec", "vo", "xa", "zen"]
    names = [x + y + z for x in start for y in middle for z in end]
    return [names[i] for i in rng.choice(len(names), count, replace=False)]
