"""MovieLens 100K through the same contract.

GroupLens's site asks for a download by hand and forbids passing the data on, so nothing of it is
kept here: the ratings are read out of a wheel that ships them, fetched from the package index by
name (F. M. Harper and J. A. Konstan, "The MovieLens Datasets", ACM TiiS 5(4), 2015).

A rating of 4 or 5 is target 1. ``cat_0`` and ``cat_1`` are a film's first and second genre,
``cat_2`` its decade; brand and price are null throughout.
"""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from multistage.datasets.splits import Split, make_split
from multistage.errors import CourseError

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/"
MEMBER_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
GOOD = 4  # a rating of at least this is target 1
PRODUCT_CORE = 5  # films with fewer training ratings are dropped from training; users have 20+


def movielens(downloads: Path) -> tuple[Split, dict]:
    """Return the contract's tables and a report of the counts.

    Args:
        downloads: folder that keeps the wheel between calls.

    Raises:
        CourseError: if the wheel cannot be fetched, or is not the one expected.
    """
    ratings, films = read_wheel(fetch(downloads))
    rows = label_ratings(ratings, films)
    split = make_split(rows, split_per_user(rows), user_core=1, product_core=PRODUCT_CORE)
    return split, {"ratings": len(ratings), "films": len(films), "labelled": len(rows)}


def fetch(downloads: Path) -> Path:
    """Return the verified wheel in ``downloads``, fetched with pip if it is not there."""
    wheel = downloads / WHEEL
    if wheel.exists() and _sha256(wheel.read_bytes()) == WHEEL_SHA256:
        return wheel
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=downloads) as aside:
        _pip_download(aside)
        fetched = Path(aside) / WHEEL
        found = _sha256(fetched.read_bytes()) if fetched.exists() else "nothing"
        if found != WHEEL_SHA256:
            raise CourseError(
                f"What the package index sent as {REQUIREMENT} is not the wheel this course knows "
                f"(sha256 {found}, expected {WHEEL_SHA256}): check the index that pip is set to."
            )
        os.replace(fetched, wheel)
    return wheel


def read_wheel(wheel: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return ratings (user_id, item_id, rating, timestamp) and films (item_id, year, class)."""
    tables = []
    with zipfile.ZipFile(wheel) as archive:
        for member, expected in MEMBER_SHA256.items():
            content = archive.read(FOLDER + member)
            if _sha256(content) != expected:
                raise CourseError(f"{member} in {wheel.name} is not the expected file: delete it.")
            table = pd.read_csv(io.BytesIO(content), sep="\t")
            tables.append(table.rename(columns=lambda name: name.split(":")[0]))
    return tables[0], tables[1]


def label_ratings(ratings: pd.DataFrame, films: pd.DataFrame) -> pd.DataFrame:
    """Return one labelled row per rating, with the film's genres and decade as categories."""
    genres = films["class"].str.split(" ", expand=True)
    year = pd.to_numeric(films["release_year"], errors="coerce")
    decade = (year // 10 * 10).astype("Int64").astype("string") + "s"
    films = pd.DataFrame(
        {
            "product_id": films["item_id"].astype("int64"),
            "cat_0": genres[0].astype("string"),
            "cat_1": genres[1].astype("string"),
            "cat_2": decade,
        }
    )
    rows = pd.DataFrame(
        {
            "user_id": ratings["user_id"].astype("int64"),
            "product_id": ratings["item_id"].astype("int64"),
            "timestamp": pd.to_datetime(ratings["timestamp"], unit="s", utc=True),
            "target": (ratings["rating"] >= GOOD).astype("int8"),
            "brand": pd.array([None] * len(ratings), dtype="string"),
            "price": np.nan,
        }
    )
    return rows.merge(films, on="product_id", how="left", validate="many_to_one")


def split_per_user(rows: pd.DataFrame) -> pd.Series:
    """Return 2 (test) for each user's last 20% of rows, 1 (valid) for the 10% before, else 0.

    Most users rated everything in one sitting, so a cut at one date would part users, not times.
    """
    order = rows.sort_values(["user_id", "timestamp", "product_id"])
    grouped = order.groupby("user_id")
    place = (grouped.cumcount() + 0.5) / grouped["user_id"].transform("size")
    part = (place > 0.7).astype("int8") + (place > 0.8).astype("int8")
    return part.reindex(rows.index)


def _pip_download(folder: str) -> None:
    options = ["download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder, REQUIREMENT]
    tried = []
    for python in _pythons():
        done = subprocess.run(
            [str(python), "-m", "pip", "--disable-pip-version-check", *options],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode == 0:
            return
        tried.append(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    raise CourseError(
        f"{REQUIREMENT}, which ships MovieLens 100K, could not be fetched: "
        f"{tried[-1] if tried else 'no Python with pip was found'}. Connect to a package index, or "
        f"put {WHEEL} into workspace/downloads/ by hand."
    )


def _pythons() -> list[Path]:
    """Interpreters that may have pip: this one, the one that set the course up, the base's."""
    folder = Path(sys.prefix).parent / "build" / "uv" / "bin" / "python"
    base = Path(sys.base_prefix) / "bin" / "python3.11"
    return [python for python in (Path(sys.executable), folder, base) if python.exists()]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
