"""Target encoding: out of fold on training rows, one value per key on all other rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd


class TargetEncoding:
    """Replace a categorical value by the mean target of its training rows (Micci-Barreca 2001).

    A training row gets the mean over the *other* folds, so it never sees its own target. Every
    later row gets the mean over all training rows: equal rows get equal values, and nothing at
    serving needs the target. Means are smoothed towards the overall mean as if ``smoothing`` more
    rows had been seen; a key never seen gets the overall mean.

    Encode items, not users: a user's own target mean, fed to an item tower or stored with items,
    tells the model which rows are positive.
    """

    def __init__(
        self, columns: Sequence[str], smoothing: float = 20.0, folds: int = 5, seed: int = 0
    ) -> None:
        self.columns = list(columns)
        self.smoothing = smoothing
        self.folds = folds
        self.seed = seed

    def fit(self, train: pd.DataFrame) -> "TargetEncoding":
        """Learn the mean ``target`` of each value of each column; null is a value."""
        self.mean_ = float(train["target"].mean())
        self.encodings_ = {
            column: self._smoothed(*_totals(train[column], train["target"]))
            for column in self.columns
        }
        return self

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return ``frame`` with a float32 column ``<column>_te`` each; needs no target."""
        return frame.assign(
            **{
                f"{column}_te": _keys(frame[column])
                .map(self.encodings_[column])
                .fillna(self.mean_)
                .astype("float32")
                for column in self.columns
            }
        )

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        """Fit, and return the training rows with their out-of-fold values."""
        self.fit(train)
        fold = np.random.default_rng(self.seed).integers(self.folds, size=len(train))
        values = {}
        for column in self.columns:
            totals, counts = _totals(train[column], train["target"])
            keys = _keys(train[column])
            own = train["target"].groupby([keys, fold]).agg(["sum", "count"])
            own = own.reindex(pd.MultiIndex.from_arrays([keys, fold]))
            others = self._smoothed(
                keys.map(totals).to_numpy() - own["sum"].to_numpy(),
                keys.map(counts).to_numpy() - own["count"].to_numpy(),
            )
            values[f"{column}_te"] = others.astype("float32")
        return train.assign(**values)

    def save(self, file: Path) -> None:
        """Write the learned values to a Parquet file: ``column``, ``key``, ``value``."""
        tables = [
            pd.DataFrame({"column": column, "key": values.index, "value": values})
            for column, values in self.encodings_.items()
        ]
        overall = pd.DataFrame({"column": ["target"], "key": ["mean"], "value": [self.mean_]})
        pd.concat([*tables, overall], ignore_index=True).to_parquet(file)

    @classmethod
    def load(cls, file: Path) -> "TargetEncoding":
        """Read what :meth:`save` wrote; the result can only ``transform``."""
        table = pd.read_parquet(file)
        values = {
            column: rows.set_index("key")["value"] for column, rows in table.groupby("column")
        }
        mean = values.pop("target")
        loaded = cls(list(values))
        loaded.mean_ = float(mean.iloc[0])
        loaded.encodings_ = values
        return loaded

    def _smoothed(self, totals: pd.Series, counts: pd.Series) -> pd.Series:
        return (totals + self.smoothing * self.mean_) / (counts + self.smoothing)


def _keys(values: pd.Series) -> pd.Series:
    return values.fillna("").astype(str)


def _totals(values: pd.Series, target: pd.Series) -> tuple[pd.Series, pd.Series]:
    groups = target.groupby(_keys(values))
    return groups.sum(), groups.count()
