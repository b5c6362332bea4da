"""The products, in memory: feature columns, availability, popularity, request context."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

# Private; pandas' Index uses it internally. Ten times as fast as a binary search.
from pandas._libs.hashtable import Int64HashTable


@dataclass(frozen=True)
class Catalog:
    """Columns of the products, ordered by product id."""

    ids: np.ndarray  # int64, shape (products,), ascending
    available: np.ndarray  # bool
    category: np.ndarray  # int64 codes of the categories' names; unknown products have -1
    features: dict[str, np.ndarray]

    def positions(self, product_ids: np.ndarray) -> np.ndarray:
        """Return where each product stands in the columns, or -1; shape as ``product_ids``."""
        return self._places.lookup(product_ids.ravel()).reshape(product_ids.shape)

    @cached_property
    def _places(self) -> Int64HashTable:
        places = Int64HashTable(self.ids.size)
        places.map_locations(self.ids)
        return places


@dataclass(frozen=True)
class Popularity:
    """All products of the catalogue, the most bought first."""

    ids: np.ndarray  # int64
    share: np.ndarray  # float32, of all purchases


def read_catalog(folder: Path) -> Catalog:
    """Read the snapshot ``item_features`` that was exported with the index."""
    table = pd.read_parquet(folder / "item_features.parquet").sort_values("product_id")
    features = table.drop(columns=["product_id", "available", "category"])
    return Catalog(
        ids=table["product_id"].to_numpy("int64"),
        available=table["available"].to_numpy(bool),
        category=pd.factorize(table["category"])[0],
        features={
            name: column.to_numpy("float32" if column.dtype.kind == "f" else "int64")
            for name, column in features.items()
            if column.dtype.kind in "iuf"
        },
    )


def popular_products(folder: Path) -> Popularity:
    """Read ``popularity``: products by falling number of purchases."""
    table = pd.read_parquet(folder / "popularity.parquet")
    purchases = table["purchases"].to_numpy("float64")
    share = purchases / max(purchases.sum(), 1.0)
    return Popularity(table["product_id"].to_numpy("int64"), share.astype("float32"))


@dataclass(frozen=True)
class Context:
    """How the time of a request becomes the ranker's context features."""

    hour: np.ndarray  # int64 code of each of 24 hours
    weekday: np.ndarray  # int64 code of each of 7 days, Monday first

    UNKNOWN = 2  # Categorify's code for a value that training did not have

    @classmethod
    def read(cls, folder: Path) -> "Context":
        """Read ``context.json``."""
        codes = json.loads((folder / "context.json").read_text())
        return cls(
            *(
                np.array([codes[name].get(str(key), cls.UNKNOWN) for key in range(size)], "int64")
                for name, size in (("hour", 24), ("weekday", 7))
            )
        )

    def encode(self, time: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``hour`` and ``weekday`` codes for seconds since 1970, in UTC."""
        hours = (time // 3_600).astype("int64")
        # 1970-01-01 was a Thursday: day 3 of a week that begins on Monday.
        return {
            "hour": self.hour[hours % 24],
            "weekday": self.weekday[(hours // 24 + 3) % 7],
        }
