"""Prepare a data set once, into the artifact ``data``; read it afterwards."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from multistage.datasets.contract import SPLITS, Data
from multistage.datasets.movielens import movielens
from multistage.datasets.rees46 import (
    Labelled,
    find_files,
    label_sessions,
    read_logs,
    split_category,
)
from multistage.datasets.splits import Split, make_split, split_by_time, stray, time_bounds
from multistage.datasets.store import StoreSettings, StoreTruth, World, simulate
from multistage.errors import CourseError
from multistage.workspace import Workspace

ARTIFACT = "data"
PRODUCER = "01-introduction"
DATASETS = ("store", "movielens", "rees46")
REES46_CORE = 5
ROW_GROUP = 1 << 16
TEXT = ("brand", "cat_0", "cat_1", "cat_2")


def load(workspace: Workspace, events: str | None = None, scheduler: str | None = None) -> Data:
    """Return the data set of ``workspace``, prepared first if it is not there.

    Args:
        workspace: where, which data set and how large.
        events: for ``rees46``, a glob of event files (CSV, plain or .gz).
        scheduler: for ``rees46``, the address of a running Dask scheduler; by default, local.

    Raises:
        CourseError: if the data set is unknown, its source cannot be had or read, or too little
            is left of it to learn from.
    """
    if not workspace.has(ARTIFACT) or _outdated(workspace):
        write_data(workspace, events, scheduler)
    return read_data(workspace.read(ARTIFACT), workspace.dataset)


def read_data(folder: Path, name: str) -> Data:
    """Read a prepared data set from the Parquet files in ``folder``."""
    tables = {
        table: pd.read_parquet(folder / f"{table}.parquet")
        for table in (*SPLITS, "catalog", "users")
    }
    truth = folder / "truth.npz"
    return Data(name=name, truth=StoreTruth.load(truth) if truth.exists() else None, **tables)


def _outdated(workspace: Workspace) -> bool:
    """Whether the shop that was simulated is not the one this package would simulate."""
    file = workspace.folder / ARTIFACT / "truth.npz"
    return file.exists() and StoreTruth.load(file).settings != _store_settings(workspace)


def write_data(
    workspace: Workspace, events: str | None = None, scheduler: str | None = None
) -> None:
    """Write the artifact ``data``: five Parquet tables, ``report.json`` and, if known, the truth.

    Arguments and errors are those of :func:`load`.
    """
    if workspace.dataset == "store":
        _prepare_store(workspace)
    elif workspace.dataset == "movielens":
        split, report = movielens(workspace.course / "workspace" / "downloads")
        _write(workspace, split, report)
    elif workspace.dataset == "rees46":
        _prepare_rees46(workspace, events, scheduler)
    else:
        raise CourseError(
            f"Unknown data set {workspace.dataset!r}: choose one of {', '.join(DATASETS)}."
        )


def _prepare_store(workspace: Workspace) -> None:
    settings = _store_settings(workspace)
    world = World(settings)
    events = simulate(world)
    rows, without_cart = label_sessions(events)
    acted = int((events["event_type"] != "view").sum())
    report = {
        "read": len(events),
        "views": len(events) - acted,
        "purchases_without_cart": without_cart,
        "same_session": acted - without_cart - len(rows),
        "labelled": len(rows),
    }
    rows = split_category(rows)
    valid, test = pd.DatetimeIndex(world.month_starts()[-3:-1]).tz_localize("UTC")
    split = make_split(rows, split_by_time(rows, valid, test), user_core=1, product_core=1)
    truth = StoreTruth(settings, split.catalog()["product_id"].to_numpy())
    _write(workspace, split, report, truth=truth)


def _store_settings(workspace: Workspace) -> StoreSettings:
    profile = workspace.profile
    return StoreSettings(users=profile.users, products=profile.products, seed=profile.seed)


def _prepare_rees46(workspace: Workspace, pattern: str | None, scheduler: str | None) -> None:
    files = find_files(pattern)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    labelled = read_logs(files, workspace.folder, scheduler)
    split = split_logs(labelled, REES46_CORE, REES46_CORE)
    _write(workspace, split, labelled.report, labelled)


def split_logs(labelled: Labelled, user_core: int, product_core: int) -> Split:
    """Split labelled interactions of logs by time and return the contract's tables.

    Raises:
        CourseError: if nothing is left to learn from.
    """
    rows, report = labelled.rows, labelled.report
    if len(rows):
        far = stray(rows["timestamp"])
        rows = split_category(rows[~far] if far.any() else rows)  # a copy of all is not needed
        part = split_by_time(rows, *time_bounds(rows["timestamp"]))
        split = make_split(rows, part, user_core, product_core)
        split.dropped["stray_dates"] = int(far.sum())
    if not len(rows) or not len(split.positions["train"]):
        dropped = int((part == 0).sum()) if len(rows) else 0
        raise CourseError(
            f"No user has enough interactions to learn from: {report['read']:,} rows were read "
            f"from {report['files']} file(s) ({report['views']:,} of them views, "
            f"{sum(report['quarantined'].values()):,} quarantined), {len(rows):,} interactions "
            f"labelled, and all {dropped:,} of training dropped. Needed are users with at least "
            f"{user_core} training interactions, each with a product that has at least "
            f"{product_core}. Give more files: a month of REES46 is enough."
        )
    return split


def _write(
    workspace: Workspace,
    split: Split,
    report: dict,
    labelled: Labelled | None = None,
    truth: StoreTruth | None = None,
) -> None:
    with workspace.write(ARTIFACT, PRODUCER) as folder:
        write_tables(folder, split, report)
        if labelled is not None:
            labelled.write_quarantine(folder / "quarantine.csv")
        if truth is not None:
            truth.save(folder / "truth.npz")


def write_tables(folder: Path, split: Split, report: dict) -> None:
    """Write the five tables as Parquet, and ``report.json`` with every step's count of rows."""
    tables = {"catalog": split.catalog(), "users": split.users()}
    for name, table in tables.items():
        pq.write_table(_to_arrow(table), folder / f"{name}.parquet")
    for name in SPLITS:
        _write_split(split, name, folder / f"{name}.parquet")
    report = {
        **report,
        "dropped": split.dropped,
        "rows": {name: len(table) for name, table in [*split.positions.items(), *tables.items()]},
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1))


def _write_split(split: Split, name: str, file: Path) -> None:
    """Write one row group after the other: the rows may be many, and their texts are long."""
    with pq.ParquetWriter(file, _to_arrow(split.part(name, 0, 0)).schema) as writer:
        for begin in range(0, len(split.positions[name]), ROW_GROUP):
            writer.write_table(_to_arrow(split.part(name, begin, begin + ROW_GROUP)))


def _to_arrow(table: pd.DataFrame) -> pa.Table:
    """Convert, text columns to Arrow strings even where all null (pandas then reads objects)."""
    arrays = {
        name: pa.array(column.astype(object), pa.string(), from_pandas=True)
        if name in TEXT
        else pa.array(column)
        for name, column in table.items()
    }
    return pa.table(arrays)
