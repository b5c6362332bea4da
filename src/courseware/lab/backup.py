"""Reset a course to its pristine notebooks, and keep everything that the attendee changed.

The order makes it safe to be killed at any moment: first every changed file is copied into a
backup that is written aside and renamed when complete; then each notebook is replaced in one
step, and only after that is what the attendee added removed. A second run finds what is left.

Whoever runs it, what it writes belongs to the owner of the course folder: an administrator resets
the seats of others.
"""

import fcntl
import filecmp
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from courseware.course import CHECKING, PRISTINE, PROGRESS
from courseware.errors import LabError
from courseware.lab.state import OWN, pristine_notebooks, read_json

BACKUPS = Path("workspace") / "backups"
LIST = "backup.json"
_ASIDE = ".reset-"
_GIVEN = (PRISTINE.name, "images")  # in notebooks/: of the course, but people put things there


@contextmanager
def locked(course: Path) -> Iterator[None]:
    """Keep two resets of one course from getting into each other's way.

    Raises:
        LabError: if another one is at work.
    """
    folder = os.open(course, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"Another reset of {course.name} is at work: wait for it.") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(folder)


@dataclass(frozen=True)
class Plan:
    """What a reset would do. Paths are relative to the course."""

    changed: list[Path]  # notebooks that differ from their pristine copy; backed up
    missing: list[Path]  # notebooks that are gone, or pristine but read-only
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

    Raises:
        LabError: if there is no such section, the pristine copies are damaged, or ``notebooks``
            is a link: what it leads to may not be the course's.
    """
    if (course / "notebooks").is_symlink():
        raise LabError("notebooks is a link: put a folder in its place, then reset again.")
    wanted = _wanted(source or course, numbers)
    changed, missing = [], []
    for name, pristine in wanted.items():
        file = course / "notebooks" / name
        if not os.path.lexists(file):
            missing.append(file.relative_to(course))
        elif file.is_symlink() or not same(file, pristine):
            changed.append(file.relative_to(course))
        elif file.stat().st_mode & OWN != OWN:
            missing.append(file.relative_to(course))
    added = []
    for item in sorted((course / "notebooks").iterdir()):
        if item.name in wanted:
            continue
        if item.name in _GIVEN:
            added += _foreign(course, source, item)
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
    for file in plan.changed:
        _refuse_newer(course, kept, file)
        put(wanted[file.name], course / file)
    for file in plan.missing:
        put(wanted[file.name], course / file)
    if plan.progress:
        _clear_progress(course, plan.progress)
    for item in plan.added:
        _refuse_newer(course, kept, item)
        remove(course / item)
    return kept


def back_up(course: Path, items: list[Path]) -> Path:
    """Copy files and folders of the course into a new backup and return its folder."""
    backups = course / BACKUPS
    make_folder(backups)
    aside = Path(tempfile.mkdtemp(prefix=".partial-", dir=backups))
    try:
        for item in items:
            _copy(course / item, aside / item)
        body = {"made": datetime.now().isoformat(timespec="seconds"), "files": _sums(aside)}
        with (aside / LIST).open("w") as stream:
            json.dump(body, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        aside.chmod(0o755)
        for file in (aside, *aside.rglob("*")):
            _give(file, course)
        return _rename_free(aside, backups, datetime.now().strftime("%Y%m%d-%H%M%S"))
    finally:  # what a full disk has cut short would only take more of it
        shutil.rmtree(aside, ignore_errors=True)


def list_backups(course: Path) -> dict[str, list[str]]:
    """Return name -> files of each backup, oldest first."""
    return {
        folder.name: sorted(sums)
        for folder in sorted((course / BACKUPS).glob("[0-9]*"))
        if (sums := _listed(folder)) is not None
    }


def restore(course: Path, name: str) -> tuple[list[str], Path | None]:
    """Put the files of a backup back; what they replace is backed up first, if it is not pristine.

    Args:
        course: the course.
        name: of the backup, or ``"latest"``.

    Returns:
        The files put back, and the backup of what they replaced if that was anything.

    Raises:
        LabError: if there is no such backup, or it is damaged.
    """
    known = list_backups(course)
    if name == "latest" and known:
        name = list(known)[-1]
    if name not in known:
        names = ", ".join(known) or "none"
        raise LabError(f"There is no backup {name!r}: there are {names}.")
    folder = course / BACKUPS / name
    sums = _listed(folder)
    if _sums(folder) != sums:
        raise LabError(f"The backup {name} is damaged: its files are in {BACKUPS / name}.")
    replaced = [
        Path(file)
        for file in sums
        if os.path.lexists(course / file) and not same(course / file, folder / file)
    ]
    # A file that stands where the backup has a folder.
    in_the_way = {
        parent
        for file in sums
        for parent in Path(file).parents
        if os.path.lexists(course / parent) and not (course / parent).is_dir()
    }
    replaced += sorted(in_the_way)
    work = [item for item in replaced if not same(course / item, course / PRISTINE / item.name)]
    kept = back_up(course, work) if work else None
    for parent in in_the_way:
        remove(course / parent)
    for file in sums:
        if not os.path.lexists(course / file) or Path(file) in replaced:
            put(folder / file, course / file)
    return sorted(sums), kept


def _wanted(source: Path, numbers: list[int] | None) -> dict[str, Path]:
    found = pristine_notebooks(source)
    if numbers:
        known = {int(name[:2]) for name in found}
        for number in numbers:
            if number not in known:
                names = ", ".join(str(n) for n in sorted(known))
                raise LabError(f"There is no section {number}: choose from {names}.")
    return {
        f"{name}.ipynb": file
        for name, file in found.items()
        if not numbers or int(name[:2]) in numbers
    }


def _progress(course: Path, numbers: list[int] | None) -> list[str]:
    try:
        names = sorted(read_json(course / PROGRESS)["exercises"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError):
        return ["all"]  # a file that cannot be read is backed up and removed
    return [n for n in names if not numbers or int(re.match(r"\d*", n)[0] or 0) in numbers]


def _clear_progress(course: Path, exercises: list[str]) -> None:
    file = course / PROGRESS
    try:
        body = read_json(file)
        left = {n: e for n, e in body["exercises"].items() if n not in exercises}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        left = {}
    if not left:
        remove(file)
        return
    aside = file.with_name(f".{file.name}-new")
    aside.write_text(json.dumps({**body, "exercises": left}, indent=1, sort_keys=True))
    _give(aside, course)
    os.replace(aside, file)


def _clear_leftovers(course: Path) -> None:
    """Remove what an earlier reset, killed in between, had begun: nothing of it is the only copy"""
    for partial in (course / BACKUPS).glob(".partial-*"):
        shutil.rmtree(partial, ignore_errors=True)
    workspace = course / PROGRESS.parent
    for aside in [
        *(course / "labs_solutions").rglob(f"{_ASIDE}*"),
        *(course / "notebooks").rglob(f"{_ASIDE}*"),
        *workspace.glob(f"{_ASIDE}*"),
        *workspace.glob(f"{CHECKING}*"),
    ]:
        aside.unlink(missing_ok=True)


def _foreign(course: Path, source: Path | None, folder: Path) -> list[Path]:
    """What is in a folder of the course that the course to restore from does not have."""
    if source is None or not folder.is_dir():
        return []
    items = (item.relative_to(course) for item in sorted(folder.iterdir()))
    return [item for item in items if not os.path.lexists(source / item)]


def _refuse_newer(course: Path, kept: Path, item: Path) -> None:
    """An editor may save at any moment: what is not in the backup is neither replaced nor removed.

    Raises:
        LabError: if the item is not what was backed up.
    """
    if _sums(course / item) != _sums(kept / item):
        raise LabError(f"{item} was saved in this very moment. Nothing is lost: reset again.")


def _listed(folder: Path) -> dict[str, str] | None:
    """File -> checksum of a backup; None if its list is missing or damaged."""
    try:
        return dict(read_json(folder / LIST)["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _rename_free(aside: Path, folder: Path, name: str) -> Path:
    for number in range(1_000):
        target = folder / (name if number == 0 else f"{name}-{number:03d}")
        try:
            aside.rename(target)  # fails on a folder that is there and not empty
            return target
        except OSError:
            if not target.exists():
                raise
    raise LabError(f"There are too many backups named {name}.")


def same(a: Path, b: Path) -> bool:
    """Whether both are the same link, or files of the same bytes."""
    try:
        if a.is_symlink() or b.is_symlink():
            return os.readlink(a) == os.readlink(b)
        return a.is_file() and filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False


def put(source: Path, target: Path) -> None:
    """Copy a file to ``target`` in one step, whatever is there now."""
    make_folder(target.parent)
    handle, aside = tempfile.mkstemp(prefix=_ASIDE, dir=target.parent)
    os.close(handle)
    try:
        if source.is_symlink():
            os.unlink(aside)
            os.symlink(os.readlink(source), aside)
        else:
            shutil.copyfile(source, aside)
            os.chmod(aside, 0o644)
        _give(Path(aside), target.parent)
        if target.is_dir() and not target.is_symlink():
            remove(target)
        os.replace(aside, target)
    except OSError:
        Path(aside).unlink(missing_ok=True)
        raise


def remove(item: Path) -> None:
    """Remove a file, a link or a whole folder, read-only or not."""
    item.parent.chmod(item.parent.stat().st_mode | stat.S_IRWXU)
    if item.is_dir() and not item.is_symlink():
        _make_readable(item)
        shutil.rmtree(item)
    else:
        item.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to, with its parents."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _give(folder, folder.parent)
    folder.chmod(folder.stat().st_mode | stat.S_IRWXU)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _make_readable(source)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_copy_file)
    else:
        _copy_file(source, target)


def _copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file or a link; a pipe or a socket holds nothing to keep."""
    with suppress(shutil.SpecialFileError):
        shutil.copy2(source, target, follow_symlinks=False)


def _give(item: Path, to_owner_of: Path) -> None:
    """What an administrator writes in another person's folder is that person's."""
    if os.geteuid() == 0:
        owner = to_owner_of.stat()
        os.chown(item, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _make_readable(item: Path) -> None:
    if item.is_symlink():
        return
    item.chmod(item.stat().st_mode | (stat.S_IRWXU if item.is_dir() else stat.S_IRUSR))
    if item.is_dir():
        for inside in item.iterdir():
            _make_readable(inside)


def _sums(top: Path) -> dict[str, str]:
    """Path below ``top`` -> checksum, of files and links; of ``top`` itself if it is one."""
    sums = {}
    for file in sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]:
        if file == top / LIST:
            continue
        if file.is_symlink():
            content = os.readlink(file).encode(errors="surrogateescape")
        elif file.is_file():
            content = file.read_bytes()
        else:
            continue
        sums[str(file.relative_to(top))] = hashlib.sha256(content).hexdigest()
    return sums
