"""Draw the simulated shop's events: sessions, and in each view, cart and purchase in turn.

Every block of users has its own random streams in every month, one for carts and purchases and
one for what is only viewed. So neither the number of workers nor the share of views changes a
single purchase. That mere views can be drawn apart is no approximation: marking a Poisson process
splits it into independent ones.
"""

import math

import numpy as np
import pandas as pd

from multistage.datasets.rees46.label import EVENT_COLUMNS
from multistage.datasets.store.world import (
    BLOCK,
    DAY_TRAFFIC,
    HOUR_TRAFFIC,
    StoreSettings,
    Users,
    World,
    sigmoid,
    time_effect,
)
from multistage.errors import CourseError


def block_count(settings: StoreSettings) -> int:
    """Number of blocks of users."""
    return -(-settings.users // BLOCK)


def simulate_block(world: World, block: int, month: int) -> pd.DataFrame:
    """Return the events of one block of users in one month, in order of time.

    Columns are REES46's nine; ``event_time`` is datetime64 in UTC (not yet text).
    """
    users = world.users(block)
    bought = _cart_sessions(world, users, world.rng(2, block, month), month)
    viewed = _browsing_sessions(world, users, world.rng(3, block, month), month)
    columns = {key: np.concatenate([bought[key], viewed[key]]) for key in bought}
    order = np.lexsort((columns["product"], columns["user"], columns["time"]))
    columns = {key: value[order] for key, value in columns.items()}
    product = columns["product"]
    events = world.catalog.iloc[product].reset_index(drop=True)
    events["event_time"] = pd.to_datetime(columns["time"]).tz_localize("UTC")
    events["event_type"] = np.array(["view", "cart", "purchase"], dtype=object)[columns["type"]]
    events["price"] = world.prices(month)[product]
    events["user_id"] = users.user_id[columns["user"]]
    events["user_session"] = columns["session"]
    return events[list(EVENT_COLUMNS)]


def simulate(world: World) -> pd.DataFrame:
    """Return all events of a small shop, month by month."""
    parts = [
        simulate_block(world, block, month)
        for month in range(world.settings.months)
        for block in range(block_count(world.settings))
    ]
    return pd.concat(parts, ignore_index=True)


def browsing_rate(world: World) -> float:
    """Sessions without a cart for each one with a cart, so that views have the asked share.

    Raises:
        CourseError: if the share is below that of the views which precede carts.
    """
    s = world.settings
    acted = s.carts * (1 + s.buy_share)
    least = s.carts / (s.carts + acted)
    if not least <= s.view_share < 1:
        raise CourseError(
            f"view_share is {s.view_share}: expected at least {math.ceil(least * 100) / 100} "
            "(each cart is viewed first) and less than 1."
        )
    return (s.view_share / (1 - s.view_share) * acted - s.carts) / s.session_views


def _cart_sessions(
    world: World, users: Users, rng: np.random.Generator, month: int
) -> dict[str, np.ndarray]:
    s = world.settings
    user, leaf, start, name = _sessions(world, users, rng, month, 1.0)
    count = 1 + rng.poisson(s.carts - 1, len(user))
    session = np.repeat(np.arange(len(user)), count)
    product, fit = _choose(world, users, rng, month, user[session], leaf[session], s.beta_cart)
    # A product already in this session's cart is not put there again.
    first = ~pd.DataFrame({"s": session, "p": product}).duplicated().to_numpy()
    wait = rng.integers(20, 180, (3, len(session)))
    chance = rng.random(len(session))
    session, product, fit = session[first], product[first], fit[first]
    wait, chance = wait[:, first], chance[first]
    turn = session != np.roll(session, 1)
    elapsed = np.cumsum(wait[0] + wait[1] + wait[2])
    begin = np.maximum.accumulate(np.where(turn, elapsed - wait.sum(axis=0), 0))
    view = start[session] + (elapsed - wait[1] - wait[2] - begin).astype("timedelta64[s]")
    cart = view + wait[1].astype("timedelta64[s]")
    logit = world.buy_logit(fit, users.buy_bias[user[session]], product, month) + time_effect(cart)
    buy = chance < sigmoid(logit)
    purchase = cart + wait[2].astype("timedelta64[s]")
    return {
        "time": np.concatenate([view, cart, purchase[buy]]),
        "type": np.repeat([0, 1, 2], [len(view), len(cart), buy.sum()]),
        "product": np.concatenate([product, product, product[buy]]),
        "user": np.concatenate([user[session], user[session], user[session][buy]]),
        "session": np.concatenate([name[session], name[session], name[session][buy]]),
    }


def _browsing_sessions(
    world: World, users: Users, rng: np.random.Generator, month: int
) -> dict[str, np.ndarray]:
    s = world.settings
    user, leaf, start, name = _sessions(world, users, rng, month, browsing_rate(world))
    count = rng.geometric(1 / s.session_views, len(user))
    session = np.repeat(np.arange(len(user)), count)
    product, _ = _choose(world, users, rng, month, user[session], leaf[session], s.beta_cart / 2)
    position = np.arange(len(session)) - np.repeat(np.cumsum(count) - count, count)
    time = start[session] + (position * 45 + rng.integers(0, 45, len(session))).astype(
        "timedelta64[s]"
    )
    return {
        "time": time,
        "type": np.zeros(len(time), int),
        "product": product,
        "user": user[session],
        "session": name[session],
    }


def _sessions(
    world: World, users: Users, rng: np.random.Generator, month: int, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """User, intent (leaf), start and name of each session."""
    count = rng.poisson(users.rate * rate * (users.join <= month))
    user = np.repeat(np.arange(len(count)), count)
    n = len(user)
    ladder = np.cumsum(world.intent(users.taste(month)), axis=1)[user]
    leaf = (rng.random(n)[:, None] * ladder[:, -1:] > ladder).sum(axis=1)
    first, after = world.month_starts()[month : month + 2]
    days = np.arange(first.astype("datetime64[D]"), after.astype("datetime64[D]"))
    busy = DAY_TRAFFIC[(days.astype(np.int64) + 3) % 7]
    day = days[rng.choice(len(days), n, p=busy / busy.sum())].astype("datetime64[s]")
    hour = rng.choice(24, n, p=HOUR_TRAFFIC / HOUR_TRAFFIC.sum())
    second = hour * 3_600 + rng.integers(0, 3_600, n)
    return user, leaf, day + second.astype("timedelta64[s]"), _uuids(rng, n)


def _choose(
    world: World,
    users: Users,
    rng: np.random.Generator,
    month: int,
    user: np.ndarray,
    leaf: np.ndarray,
    beta: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a product of ``leaf`` for each entry, and its fit to the user."""
    product = np.zeros(len(user), np.int64)
    fits = np.zeros(len(user))
    draw = rng.random(len(user))
    taste = users.taste(month)
    for c in np.unique(leaf):
        items = np.flatnonzero((world.leaf == c) & (world.launch <= month))
        rows = np.flatnonzero(leaf == c)
        choosing, which = np.unique(user[rows], return_inverse=True)
        fit = world.fit(taste[choosing], users.budget[choosing], items)
        ladder = np.cumsum(world.appeal[items] * np.exp(beta * fit), axis=1)[which]
        pick = (draw[rows][:, None] * ladder[:, -1:] > ladder).sum(axis=1)
        product[rows] = items[pick]
        fits[rows] = fit[which, pick]
    return product, fits


def _uuids(rng: np.random.Generator, count: int) -> np.ndarray:
    text = rng.bytes(16 * count).hex()
    names = np.empty(count, dtype=object)
    for i in range(count):
        x = text[32 * i : 32 * i + 32]
        names[i] = f"{x[:8]}-{x[8:12]}-{x[12:16]}-{x[16:20]}-{x[20:]}"
    return names
