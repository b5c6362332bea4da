"""The users' online features, and the fallback for users without any."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from merlin.schema import ColumnSchema, Schema
from merlin.table import TensorTable

from multistage.serving.feature_store import OnlineUserFeatures
from multistage.serving.operators.base import ServingOperator
from multistage.serving.request import FallbackStatus
from multistage.serving.triton import LIVE_REPOSITORY


class QueryUserFeatures(ServingOperator):
    """Reads the features of all users of a request from Feast in one call.

    An unknown user gets the defaults of ``context.json`` and the fallback status ``POPULAR``. If
    the online store does not answer, every user of the request gets the defaults, and the fallback
    status ``DEGRADED``.
    """

    artifacts = ("feature_repository", "context")

    def load(self, exports: Path) -> None:
        """Open the feature repository, and read the defaults of unknown users."""
        live = os.environ.get(LIVE_REPOSITORY)
        self._reader = OnlineUserFeatures(Path(live) if live else exports / "feature_repository")
        context = json.loads((exports / "context" / "context.json").read_text())
        self._defaults = context["unknown_user"]
        self.features, self.lists = self._reader.dtypes, self._reader.lists

    def adds(self) -> Schema:
        """Return the feature columns, the ragged lists of products and ``fallback_status``."""
        columns = [ColumnSchema(name, dtype=dtype) for name, dtype in self.features.items()]
        columns += [ColumnSchema(n, dtype="int64", dims=(None, None)) for n in self.lists]
        columns.append(ColumnSchema("fallback_status", dtype="int8"))
        return Schema(columns)

    def run(self, table: TensorTable) -> dict[str, Any]:
        """Return one value per user and feature, the lists of products, and the fallback status."""
        user_ids = table["user_id"].values
        try:
            columns, lists, known = self._reader.read(user_ids, self._defaults)
            status = np.where(
                known, FallbackStatus.PERSONAL.value, FallbackStatus.POPULAR.value
            ).astype("int8")
        except Exception:
            # What a lost connection raises depends on the store's client; all users get an answer.
            columns = {
                name: np.full(user_ids.size, self._defaults[name], dtype)
                for name, dtype in self.features.items()
            }
            lists = {name: [np.empty(0, "int64")] * user_ids.size for name in self.lists}
            status = np.full(user_ids.size, FallbackStatus.DEGRADED.value, "int8")
        ragged = {name: _ragged(products) for name, products in lists.items()}
        return {**columns, **ragged, "fallback_status": status}


def _ragged(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(rows) + 1, "int32")
    np.cumsum([row.size for row in rows], out=offsets[1:])
    return np.concatenate(rows), offsets
