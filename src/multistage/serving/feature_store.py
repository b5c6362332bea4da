"""The users' features in Feast: a generated repository, and a fast reader.

The repository is a folder that may be moved: its registry and its configuration hold only relative
paths. The default online store is a SQLite file inside it; one setting chooses another.

A general ``FeatureStore.get_online_features`` spends more than a millisecond on looking up feature
views in the registry and checking types again at every request. ``OnlineUserFeatures`` does this
once, when it is opened, and then asks the online store itself, through the same interface that
every online store of Feast implements.
"""

import hashlib
import io
import logging
import os
import socket
import sqlite3
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from multistage.errors import CourseError

VIEW = "user_features"
ENTITY = "user_id"
SEEN, BOUGHT = "seen", "bought"
TIME = "event_timestamp"
SQLITE = {"type": "sqlite", "path": "online.db"}
REDIS = "MULTISTAGE_REDIS"  # names the Redis server to use instead of SQLite, as host:port


def online_store() -> dict[str, str]:
    """Return the online-store setting: the Redis server that ``REDIS`` names, else SQLite.

    Raises:
        CourseError: if the variable is not ``host:port``, or no server answers there.
    """
    named = os.environ.get(REDIS)
    if not named:
        return SQLITE
    host, _, port = named.rpartition(":")
    if not host or not port.isdecimal():
        raise CourseError(f"{REDIS} is {named!r}: expected host:port, such as 127.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise CourseError(
            f"{REDIS} names {named}, but no server answers there ({error}). Start redis-server, or "
            f"unset {REDIS} to use SQLite."
        ) from None
    return redis(int(port), host)


def redis(port: int, host: str = "127.0.0.1", timeout: float = 0.05) -> dict[str, str]:
    """Return the online-store setting for a Redis server.

    Args:
        port: of the server.
        host: of the server.
        timeout: seconds after which a request is answered without it.
    """
    options = f"socket_timeout={timeout},socket_connect_timeout={timeout}"
    return {"type": "redis", "connection_string": f"{host}:{port},{options}"}


def begin_repository(folder: Path, online_store: Mapping[str, Any]) -> None:
    """Write ``feature_store.yaml``, which names the online store; delete an older registry."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("registry.db", "online.db"):
        (folder / old).unlink(missing_ok=True)
    # Repositories that share one Redis keep their rows apart by the project's name.
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    settings = {
        "project": f"shop_{place}",
        "provider": "local",
        "registry": "registry.db",
        "online_store": dict(online_store),
        "entity_key_serialization_version": 2,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def feature_view(folder: Path, name: str, key: str, table: pd.DataFrame) -> list[Any]:
    """Write ``table`` into the repository and return its Feast entity and feature view.

    Args:
        folder: of the repository.
        name: of the view, and of the Parquet file behind it.
        key: the column that identifies a row, int64 (or int32, which the stock graph wants).
        table: the key, ``event_timestamp`` in UTC, and features: integers (served as int64),
            other numbers (served as float32), or lists of int64.
    """
    with _without_warnings():
        from feast import Entity, FeatureView, Field, FileSource
        from feast.types import Array, Float32, Int64
        from feast.value_type import ValueType

    features = table.drop(columns=[key, TIME])
    served = {"i": "int64", "f": "float32", "O": "object"}
    features = features.astype({n: served[dtype.kind] for n, dtype in features.dtypes.items()})
    table[[key, TIME]].join(features).to_parquet(folder / f"{name}.parquet", index=False)
    key_type = ValueType[str(table[key].dtype).upper()]
    entity = Entity(name=key, join_keys=[key], value_type=key_type)
    types = {"int64": Int64, "float32": Float32, "object": Array(Int64)}
    view = FeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(0),  # never too old
        schema=[Field(name=n, dtype=types[str(dtype)]) for n, dtype in features.dtypes.items()],
        source=FileSource(path=f"{name}.parquet", timestamp_field=TIME),
    )
    return [entity, view]


def open_store(folder: Path) -> Any:
    """Return the ``feast.FeatureStore`` of the repository in ``folder``."""
    with _without_warnings():
        from feast import FeatureStore

    if not (folder / "feature_store.yaml").exists():
        raise CourseError(
            f"{folder.name} is no feature repository: it has no feature_store.yaml. "
            "Run section 5 up to the cell that creates it."
        )
    logging.getLogger("feast").setLevel(logging.ERROR)
    logging.getLogger().addFilter(_is_not_about_sqlite_vec)
    _write_times_as_feast_does()
    with _without_warnings():
        return FeatureStore(repo_path=str(folder))


def _write_times_as_feast_does() -> None:
    """Tell the module sqlite3 how Feast writes times into its online store.

    That is a setting of the whole process, and the library that is imported last makes it. nbformat
    sets another one, and is imported when a solution is read out of a lab.
    """
    from feast.infra.online_stores.sqlite import adapt_datetime_epoch, convert_timestamp

    sqlite3.register_adapter(datetime, adapt_datetime_epoch)
    sqlite3.register_converter("timestamp", convert_timestamp)


def _without_warnings() -> warnings.catch_warnings:
    """Drop warnings: Feast sets its own filters when it is imported, which replace ours."""
    return warnings.catch_warnings(record=True)


def _is_not_about_sqlite_vec(record: logging.LogRecord) -> bool:
    """Each SQLite connection of Feast logs that an optional package for vectors is missing."""
    return "sqlite_vec" not in record.getMessage()


def materialise(folder: Path) -> None:
    """Copy the newest features of every view into the online store, up to the data's last time."""
    store = open_store(folder)
    times = pd.concat(
        pd.read_parquet(folder / view.batch_source.path, columns=[TIME])[TIME]
        for view in store.list_feature_views()
    )
    start, end = times.min().to_pydatetime(), times.max().to_pydatetime()
    second = timedelta(seconds=1)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # its progress bars
        store.materialize(start - second, end + second)


def push(folder: Path, user_features: pd.DataFrame) -> None:
    """Write newer rows of ``user_features`` into the online store, visible to the next request."""
    open_store(folder).write_to_online_store(VIEW, user_features)


def push_purchase(folder: Path, user_id: int, product_id: int, time: datetime) -> None:
    """Tell the online store that a known user bought a product: it will not be offered again.

    It becomes the newest of what the user has seen and bought, also if ``time`` is not later than
    that of the user's features: Redis would drop a row that is not newer than the one it has.
    """
    reader = OnlineUserFeatures(folder)
    row = reader.row(user_id)
    if row is None:
        raise CourseError(f"The feature store knows no user {user_id}: push all features instead.")
    for name in (SEEN, BOUGHT):
        row[name] = [product for product in row[name] if product != product_id] + [int(product_id)]
    row[TIME] = max(time.astimezone(timezone.utc), row[TIME] + timedelta(seconds=1))
    row[ENTITY] = user_id
    push(folder, pd.DataFrame([row]))


class OnlineUserFeatures:
    """Reads the features of a batch of users from a Feast online store, in one call."""

    def __init__(self, folder: Path) -> None:
        """Open the repository in ``folder``; registry and types are looked up here, once."""
        store = open_store(folder)
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        self._key, self._value = EntityKey, Value
        self._view = store.get_feature_view(VIEW)
        self._config = store.config
        self._online_store = store._get_provider().online_store
        self._names = [feature.name for feature in self._view.features]
        self._fields = {
            feature.name: str(feature.dtype.to_value_type().name).lower() + "_val"
            for feature in self._view.features
        }

    @property
    def dtypes(self) -> dict[str, str]:
        """The numpy type of each feature, lists aside, in the view's order."""
        kinds = {"int64_val": "int64", "float_val": "float32"}
        return {name: kinds[field] for name, field in self._fields.items() if field in kinds}

    @property
    def lists(self) -> list[str]:
        """The features that are lists of product ids."""
        return [name for name, field in self._fields.items() if field == "int64_list_val"]

    def read(
        self, user_ids: np.ndarray, defaults: Mapping[str, float]
    ) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]], np.ndarray]:
        """Return features, lists of products and whether each user is known.

        Args:
            user_ids: int64, shape (users,).
            defaults: the value of each feature for a user that the store does not know.

        Returns:
            Columns of shape (users,), int64 or float32; for each of :attr:`lists` an int64 array
            of product ids per user; a bool array of shape (users,).

        Raises:
            Exception: whatever the online store raises when it cannot be reached.
        """
        rows = self._rows(user_ids)
        known = np.fromiter((row is not None for row in rows), bool, len(rows))
        columns = {}
        for name, dtype in self.dtypes.items():
            field, default = self._fields[name], defaults[name]
            values = [default if row is None else getattr(row[name], field) for row in rows]
            columns[name] = np.array(values, dtype)
        empty = np.empty(0, "int64")
        lists = {
            name: [
                empty if row is None else np.fromiter(row[name].int64_list_val.val, "int64")
                for row in rows
            ]
            for name in self.lists
        }
        return columns, lists, known

    def row(self, user_id: int) -> dict[str, Any] | None:
        """Return one user's features by name and their time (UTC), or None for an unknown user."""
        (when, row), *_ = self._read(np.array([user_id]))
        if row is None:
            return None
        values = {name: getattr(row[name], self._fields[name]) for name in self.dtypes}
        values |= {name: list(row[name].int64_list_val.val) for name in self.lists}
        # SQLite's time has no zone
        return values | {TIME: when if when.tzinfo else when.replace(tzinfo=timezone.utc)}

    def _rows(self, user_ids: np.ndarray) -> list[dict[str, Any] | None]:
        return [row for _, row in self._read(user_ids)]

    def _read(self, user_ids: np.ndarray) -> list[tuple[datetime, dict[str, Any] | None]]:
        keys = [
            self._key(join_keys=[ENTITY], entity_values=[self._value(int64_val=user_id)])
            for user_id in user_ids.tolist()
        ]
        found = self._online_store.online_read(self._config, self._view, keys, self._names)
        # For an unknown user SQLite has no row, and Redis a row of values that are not set.
        first = self._names[0]
        return [
            (when, row if row and row[first].WhichOneof("val") else None) for when, row in found
        ]
