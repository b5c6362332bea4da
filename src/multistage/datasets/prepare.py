"""Prepare a data set once, into the artifact ``data``; read it afterwards."""

import glob
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from multistage.datasets.contract import Data
from multistage.datasets.interactions import label, split_category
from multistage.datasets.splits import Split, build, split_by_time, time_bounds
from multistage.errors import CourseError
from multistage.workspace import Workspace

ARTIFACT = "data"
PRODUCER = "01-introduction"
DATASETS = ("store", "movielens", "rees46")
REES46_CORE = 5
TEXT = ("brand", "cat_0", "cat_1", "cat_2")


def load(workspace: Workspace, events: str | None = None) -> Data:
    """Return the data set of ``workspace``, prepared first if it is not there.

    Args:
        workspace: where, which data set and how large.
        events: for ``rees46``, a glob of event files (CSV, plain or .gz).

    Raises:
        CourseError: if the data set is unknown, its source cannot be had or read, or too little
            is left of it to learn from.
    """
    if not workspace.has(ARTIFACT):
        prepare(workspace, events)
    return Data.read(workspace.read(ARTIFACT), workspace.dataset)


def prepare(workspace: Workspace, events: str | None = None) -> None:
    """Write the artifact ``data``: five Parquet tables, ``report.json`` and, if known, the truth.

    Arguments and errors are those of :func:`load`.
    """
    if workspace.dataset == "store":
        _prepare_store(workspace)
    elif workspace.dataset == "movielens":
        from multistage.datasets.movielens import movielens

        split, report = movielens(workspace.course / "workspace" / "downloads")
        _write(workspace, split, report)
    elif workspace.dataset == "rees46":
        _prepare_rees46(workspace, events)
    else:
        raise CourseError(
            f"Unknown data set {workspace.dataset!r}: choose one of {', '.join(DATASETS)}."
        )


def _prepare_store(workspace: Workspace) -> None:
    from multistage.datasets.store import StoreSettings, StoreTruth, World, simulate

    profile = workspace.profile
    settings = StoreSettings(users=profile.users, products=profile.products, seed=profile.seed)
    world = World(settings)
    events = simulate(world)
    rows = split_category(label(events))
    valid, test = pd.DatetimeIndex(world.month_starts()[-3:-1]).tz_localize("UTC")
    part = split_by_time(rows, valid, test)
    split = build(rows, part, user_core=1, product_core=1)
    truth = StoreTruth(settings, split.tables["catalog"]["product_id"].to_numpy())
    _write(workspace, split, {"events": len(events), "labelled": len(rows)}, truth)


def _prepare_rees46(workspace: Workspace, pattern: str | None) -> None:
    files = sorted(glob.glob(pattern, recursive=True)) if pattern else []
    if not files:
        raise CourseError(
            f"No file matches events={pattern!r}: expected a glob of REES46 event files, such as "
            "--events 'data/2019-*.csv.gz'."
        )
    events = pd.concat([_read_events(file) for file in files], ignore_index=True)
    rows = split_category(label(events))
    report = {"events": len(events), "labelled": len(rows)}
    if len(rows):
        part = split_by_time(rows, *time_bounds(rows["timestamp"]))
        split = build(rows, part, REES46_CORE, REES46_CORE)
    if not len(rows) or split.tables["train"].empty:
        raise CourseError(
            f"No user has enough interactions to learn from: {len(events):,} rows were read from "
            f"{len(files)} file(s), {len(rows):,} interactions labelled, and all of training "
            f"dropped, as every user and every product needs at least {REES46_CORE} of them. "
            "Give more files: a month of REES46 is enough."
        )
    _write(workspace, split, report)


def _read_events(file: str) -> pd.DataFrame:
    events = pd.read_csv(file, dtype={"user_session": "string"})
    time = events["event_time"].str.replace(" UTC", "+00:00", regex=False)
    return events.assign(event_time=pd.to_datetime(time, utc=True)).drop_duplicates()


def _write(workspace: Workspace, split: Split, report: dict, truth: object = None) -> None:
    report = {
        **report,
        "dropped": split.dropped,
        "rows": {name: len(table) for name, table in split.tables.items()},
    }
    with workspace.write(ARTIFACT, PRODUCER) as folder:
        for name, table in split.tables.items():
            pq.write_table(_to_arrow(table), folder / f"{name}.parquet")
        (folder / "report.json").write_text(json.dumps(report, indent=1))
        if truth is not None:
            truth.save(folder / "truth.npz")


def _to_arrow(table: pd.DataFrame) -> pa.Table:
    """Convert, text columns to Arrow strings even where all null (pandas then reads objects)."""
    arrays = {
        name: pa.array(column.astype(object), pa.string(), from_pandas=True)
        if name in TEXT
        else pa.array(column)
        for name, column in table.items()
    }
    return pa.table(arrays)
