"""Draw the simulated shop's marginals beside REES46's: ``docs/images/marginals.png``.

``python data_scripts/plot_marginals.py EVENTS PRODUCTS`` takes two CSV files of REES46: a slice of
the log that is contiguous in time, and rows drawn from it at random, so that repeats follow
popularity. Only aggregates of them are drawn and printed.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from multistage.datasets.store import StoreSettings, World, simulate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"REES46": "#444444", "simulated": "#d1603d"}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path, help="a slice of the real log, contiguous in time")
    parser.add_argument("products", type=Path, help="rows of the real log drawn at random")
    parser.add_argument("--output", type=Path, default=Path("docs/images/marginals.png"))
    options = parser.parse_args()
    settings = StoreSettings(users=1_000, products=5_000, view_share=0.978, cart_sessions=1.0)
    shop = simulate(World(settings))
    events = {"REES46": pd.read_csv(options.events), "simulated": shop}
    products = {"REES46": pd.read_csv(options.products), "simulated": shop}
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    draw(axes.ravel(), events, products)
    figure.savefig(options.output, dpi=90)
    print(table(events, products).round(3).to_string())


def draw(axes: np.ndarray, events: dict, products: dict) -> None:
    """Fill six axes."""
    price, tail, size, hour, category, brand = axes
    for name, colour in COLOURS.items():
        style = {"color": colour, "label": name}
        p = products[name]["price"]
        price.hist(np.log10(p[p > 0]), 40, density=True, histtype="step", **style)
        share = products[name]["product_id"].value_counts(normalize=True).cumsum().to_numpy()
        tail.plot(np.linspace(0, 1, len(share)), share, **style)
        count = events[name].groupby("user_session").size().clip(upper=25)
        size.hist(count, np.arange(0.5, 26), density=True, histtype="step", **style)
        times = pd.to_datetime(events[name]["event_time"], utc=True)
        hours = times.dt.hour.value_counts(normalize=True).sort_index()
        if name == "simulated":  # the real slice has three hours only
            hour.plot(hours.index, hours, marker=".", **style)
        top = products[name]["category_code"].str.split(".").str[0]
        shares(category, top.fillna("(missing)"), 10, name)
        shares(brand, products[name]["brand"].fillna("(missing)"), 15, name)
    titles = (
        (price, "price", "log10 of the price", "density"),
        (tail, "popularity", "share of products, most seen first", "share of events"),
        (size, "events per session", "events (25 or more in one)", "share of sessions"),
        (hour, "hour of day (simulated only)", "hour, UTC", "share of events"),
        (category, "top categories", "rank", "share of events"),
        (brand, "brands", "rank (0: missing)", "share of events"),
    )
    for axis, title, x, y in titles:
        axis.set(title=title, xlabel=x, ylabel=y)
    price.legend()


def shares(axis: plt.Axes, values: pd.Series, most: int, name: str) -> None:
    """Plot the shares of the most frequent values, missing ones first."""
    share = values.value_counts(normalize=True)
    missing = share.pop("(missing)") if "(missing)" in share else 0.0
    axis.plot([missing, *share.to_numpy()[:most]], marker=".", color=COLOURS[name], label=name)


def table(events: dict, products: dict) -> pd.DataFrame:
    """The same in numbers."""
    rows = {}
    for name in COLOURS:
        e, p = events[name], products[name]
        size = e.groupby("user_session").size()
        seen = p["product_id"].value_counts(normalize=True).to_numpy()
        rows[name] = {
            "views": (e["event_type"] == "view").mean(),
            "missing brand": p["brand"].isna().mean(),
            "missing category": p["category_code"].isna().mean(),
            "largest top category": p["category_code"]
            .str.split(".")
            .str[0]
            .value_counts(True)
            .max(),
            "largest brand": p["brand"].value_counts(True).max(),
            **{f"price, {q:.0%}": p["price"].quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
            "events per session": size.mean(),
            "sessions of one event": (size == 1).mean(),
            "top 1% of products": seen[: len(seen) // 100].sum(),
            "top 10% of products": seen[: len(seen) // 10].sum(),
        }
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
