"""Reset a course to its pristine notebooks, and keep everything that the attendee changed.

The order makes it safe to be killed at any moment: first every changed file is copied into a
backup that is written aside and renamed when complete; then each notebook is replaced in one
step, and only after that is what the attendee added removed. A second run finds what is left.
"""

import filecmp
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from multistage.errors import CourseError
from multistage.lab.state import pristine_notebooks
from multistage.workspace import PRISTINE, PROGRESS

BACKUPS = Path("workspace") / "backups"
LIST = "backup.json"
_KEPT = (PRISTINE.name, "images")  # in notebooks/: not the attendee's


@dataclass(frozen=True)
class Plan:
    """What a reset would do. Paths are relative to the course."""

    changed: list[Path]  # notebooks that differ from their pristine copy; backed up
    missing: list[Path]  # notebooks that are gone
    added: list[Path]  # what the attendee put into notebooks/; backed up and moved out
    progress: list[str]  # exercises whose progress is cleared

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.changed or self.missing or self.added or self.progress)


def plan_reset(course: Path, numbers: list[int] | None = None, source: Path | None = None) -> Plan:
    """Return what a reset of ``course`` would do.

    Args:
        course: the course to look at; nothing in it is changed.
        numbers: only these sections, all by default.
        source: the course whose pristine notebooks count; ``course`` itself by default.
    """
    wanted = _wanted(source or course, numbers)
    changed, missing = [], []
    for name, pristine in wanted.items():
        file = course / "notebooks" / name
        if not os.path.lexists(file):
            missing.append(file.relative_to(course))
        elif file.is_symlink() or not file.is_file() or not _same(file, pristine):
            changed.append(file.relative_to(course))
    added = []
    for item in sorted((course / "notebooks").iterdir()):
        if item.name in wanted or item.name in _KEPT:
            continue
        if item.suffix == ".ipynb" and item.name in _wanted(source or course, None):
            continue  # another section's notebook
        if numbers and not any(item.name.startswith(f"{number:02d}") for number in numbers):
            continue
        added.append(item.relative_to(course))
    return Plan(changed, missing, added, _progress(course, numbers))


def reset(
    course: Path, numbers: list[int] | None = None, source: Path | None = None
) -> Path | None:
    """Back up what the attendee changed, then restore; see :func:`plan_reset`.

    Returns:
        The folder of the backup; None if nothing had been changed.
    """
    _clear_leftovers(course)
    plan = plan_reset(course, numbers, source)
    touched = [*plan.changed, *plan.added]
    if plan.progress:
        touched.append(PROGRESS)
    kept = back_up(course, touched) if touched else None
    wanted = _wanted(source or course, numbers)
    for file in [*plan.changed, *plan.missing]:
        _put(wanted[file.name], course / file)
    if plan.progress:
        _clear_progress(course, plan.progress)
    for item in plan.added:
        _remove(course / item)
    return kept


def back_up(course: Path, items: list[Path]) -> Path:
    """Copy files and folders of the course into a new backup and return its folder."""
    backups = course / BACKUPS
    backups.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".partial-", dir=backups))
    for item in items:
        _copy(course / item, aside / item)
    body = {"made": datetime.now().isoformat(timespec="seconds"), "files": _sums(aside)}
    with (aside / LIST).open("w") as stream:
        json.dump(body, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    aside.chmod(0o755)
    return _rename_free(aside, backups, datetime.now().strftime("%Y%m%d-%H%M%S"))


def list_backups(course: Path) -> dict[str, list[str]]:
    """Return name -> files of each backup, oldest first."""
    return {
        folder.name: sorted(json.loads((folder / LIST).read_text())["files"])
        for folder in sorted((course / BACKUPS).glob("[0-9]*"))
        if (folder / LIST).exists()
    }


def restore(course: Path, name: str) -> tuple[list[str], Path | None]:
    """Put the files of a backup back; what they replace is backed up first.

    Args:
        course: the course.
        name: of the backup, or ``"latest"``.

    Returns:
        The files put back, and the backup of what they replaced if that was anything.

    Raises:
        CourseError: if there is no such backup, or it is damaged.
    """
    known = list_backups(course)
    if name == "latest" and known:
        name = list(known)[-1]
    if name not in known:
        names = ", ".join(known) or "none"
        raise CourseError(f"There is no backup {name!r}: there are {names}.")
    folder = course / BACKUPS / name
    sums = json.loads((folder / LIST).read_text())["files"]
    if _sums(folder) != sums:
        raise CourseError(f"The backup {name} is damaged: its files are in {BACKUPS / name}.")
    replaced = [
        Path(file)
        for file in sums
        if os.path.lexists(course / file) and not _same(course / file, folder / file)
    ]
    # A file that stands where the backup has a folder.
    in_the_way = {
        parent
        for file in sums
        for parent in Path(file).parents
        if os.path.lexists(course / parent) and not (course / parent).is_dir()
    }
    replaced += sorted(in_the_way)
    kept = back_up(course, replaced) if replaced else None
    for parent in in_the_way:
        _remove(course / parent)
    for file in sums:
        if not os.path.lexists(course / file) or Path(file) in replaced:
            _put(folder / file, course / file)
    return sorted(sums), kept


def _wanted(source: Path, numbers: list[int] | None) -> dict[str, Path]:
    found = pristine_notebooks(source)
    if numbers:
        known = {int(name[:2]) for name in found}
        for number in numbers:
            if number not in known:
                names = ", ".join(str(n) for n in sorted(known))
                raise CourseError(f"There is no section {number}: choose from {names}.")
    return {
        f"{name}.ipynb": file
        for name, file in found.items()
        if not numbers or int(name[:2]) in numbers
    }


def _progress(course: Path, numbers: list[int] | None) -> list[str]:
    try:
        kept = json.loads((course / PROGRESS).read_text())["exercises"]
        names = sorted(kept)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError):
        return ["all"]  # a file that cannot be read is backed up and removed
    return [n for n in names if not numbers or int(re.match(r"\d*", n)[0] or 0) in numbers]


def _clear_progress(course: Path, exercises: list[str]) -> None:
    file = course / PROGRESS
    try:
        body = json.loads(file.read_text())
        left = {n: e for n, e in body["exercises"].items() if n not in exercises}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        left = {}
    if not left:
        file.unlink(missing_ok=True)
        return
    aside = file.with_name(f".{file.name}-new")
    aside.write_text(json.dumps({**body, "exercises": left}, indent=1, sort_keys=True))
    os.replace(aside, file)


def _clear_leftovers(course: Path) -> None:
    """Remove what an earlier reset, killed in between, had begun: nothing of it is the only copy"""
    for partial in (course / BACKUPS).glob(".partial-*"):
        shutil.rmtree(partial, ignore_errors=True)
    for aside in (course / "notebooks").glob(".reset-*"):
        aside.unlink()


def _rename_free(aside: Path, folder: Path, name: str) -> Path:
    for number in range(1_000):
        target = folder / (name if number == 0 else f"{name}-{number:03d}")
        try:
            aside.rename(target)  # fails on a folder that is there and not empty
            return target
        except OSError:
            if not target.exists():
                raise
    raise CourseError(f"There are too many backups named {name}.")


def _same(a: Path, b: Path) -> bool:
    """Whether both are the same link, or files of the same bytes."""
    try:
        if a.is_symlink() or b.is_symlink():
            return os.readlink(a) == os.readlink(b)
        return a.is_file() and filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _make_readable(source)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _put(source: Path, target: Path) -> None:
    """Copy a file to ``target`` in one step, whatever is there now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(target.parent.stat().st_mode | stat.S_IRWXU)
    handle, aside = tempfile.mkstemp(prefix=".reset-", dir=target.parent)
    os.close(handle)
    if source.is_symlink():
        os.unlink(aside)
        os.symlink(os.readlink(source), aside)
    else:
        shutil.copyfile(source, aside)
        os.chmod(aside, 0o644)
    if target.is_dir() and not target.is_symlink():
        _remove(target)
    os.replace(aside, target)


def _remove(item: Path) -> None:
    item.parent.chmod(item.parent.stat().st_mode | stat.S_IRWXU)
    if item.is_dir() and not item.is_symlink():
        _make_readable(item)
        shutil.rmtree(item)
    else:
        item.unlink(missing_ok=True)


def _make_readable(item: Path) -> None:
    if item.is_symlink():
        return
    item.chmod(item.stat().st_mode | (stat.S_IRWXU if item.is_dir() else stat.S_IRUSR))
    if item.is_dir():
        for inside in item.iterdir():
            _make_readable(inside)


def _sums(folder: Path) -> dict[str, str]:
    sums = {}
    for file in sorted(folder.rglob("*")):
        if file == folder / LIST or (file.is_dir() and not file.is_symlink()):
            continue
        content = os.readlink(file).encode() if file.is_symlink() else file.read_bytes()
        sums[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return sums
