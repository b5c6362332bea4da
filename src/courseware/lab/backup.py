"""Reset a course to its pristine notebooks, and keep everything that the attendee changed.

What has to go is moved into a backup. Moving opens nothing, takes no space and keeps what an editor
saved a moment before; so the work is at its place or in a backup, whenever the process is killed.
Then the pristine file is written where nothing is any more. A second run finds what is left.

No link below the course is followed, and nothing is walked by recursion.
"""

import errno
import filecmp
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from courseware.course import CHECKING, PRISTINE, PROGRESS
from courseware.errors import LabError, message_of
from courseware.files import OWN, is_folder, leaves, locked, read_json, read_regular, stands
from courseware.lab.pristine import NOTEBOOKS, Files, pristine_files

BACKUPS = Path("workspace") / "backups"
SPARE = 100_000  # bytes, for folders and the like
SHOWN = 3  # of the problems that a reset had
_NUMBERED = re.compile(r"(\d+)-\d{8}-\d{6}")
_MARK = re.compile(re.escape(CHECKING) + r"\d+\.\d+")


@contextmanager
def only_one(course: Path) -> Iterator[None]:
    """Prevent two resets of one course at the same time.

    Raises:
        LabError: if another one is running.
    """
    try:
        with locked(course, wait=False):
            yield
    except BlockingIOError:
        raise LabError(f"Another reset of {course.name} is running: wait for it.") from None


@dataclass(frozen=True)
class Plan:
    """What a reset would do. Paths are relative to the course."""

    changed: list[Path]  # what differs from what the course gave out; backed up and restored
    missing: list[Path]  # what is gone, or pristine but read-only
    added: list[Path]  # what the attendee put into notebooks/; backed up and moved out
    progress: list[str]  # exercises whose progress is cleared

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.changed or self.missing or self.added or self.progress)


def plan_reset(course: Path, numbers: list[int] | None = None, given: Files | None = None) -> Plan:
    """Return what a reset of ``course`` would do.

    Args:
        course: the course to look at; nothing in it is changed.
        numbers: only these sections, all by default.
        given: what the course should hold, by default what its own pristine copies say.

    Raises:
        LabError: if there is no such section, or the pristine copies can be neither read nor made.
    """
    given = pristine_files(course) if given is None else given
    changed = [folder for folder in _folders(given) if _in_the_way(course / folder)]
    missing = []
    for file in _of(given, numbers):
        state = _compare(course, file, given[file])
        if state == "changed":
            changed.append(file)
        elif state != "pristine":
            missing.append(file)
    return Plan(changed, missing, _added(course, given, numbers), _progress(course, numbers))


def reset(
    course: Path, numbers: list[int] | None = None, given: Files | None = None
) -> Path | None:
    """Move what the attendee changed into a backup and restore the rest; see :func:`plan_reset`.

    Returns:
        The folder of the backup; None if nothing had been changed.

    Raises:
        LabError: if something could not be moved or written; all the rest is reset.
    """
    given = pristine_files(course) if given is None else given
    plan = plan_reset(course, numbers, given)
    written = [*plan.changed, *plan.missing]
    _refuse_full(course, sum(len(given[file]) for file in written if file in given))
    kept = Backup(course)
    for item in [*written, *plan.added]:
        with kept.each(item):
            kept.take(item)
            if item in given:
                _make_folder(course, item.parent)
                _write(course / item, given[item])
    if plan.progress:
        with kept.each(PROGRESS):
            left = _progress_without(course, plan.progress)
            kept.take(PROGRESS)
            if left:
                _write(course / PROGRESS, left)
    _clear_marks(kept)
    return kept.close()


class Backup:
    """A new folder in ``workspace/backups``; it is made when the first item is moved into it."""

    def __init__(self, course: Path) -> None:
        self.course = course
        self.folder: Path | None = None
        self._taken: list[Path] = []
        self._problems: list[str] = []

    @contextmanager
    def each(self, item: Path) -> Iterator[None]:
        """Remember what goes wrong with one item, so that the others are done all the same."""
        try:
            yield
        except FileExistsError:
            self._problems.append(f"{item} was saved at this very moment: do it again")
        except OSError as error:
            self._problems.append(f"{item}: {message_of(error)}")

    def take(self, item: Path) -> None:
        """Move what stands at ``item``, a path relative to the course, into the backup.

        Raises:
            LabError: if there is no folder in which backups can be kept, or a link leads to it.
            OSError: if it cannot be moved.
        """
        _refuse_links(self.course, item)
        if not os.path.lexists(self.course / item):
            return
        self.folder = self.folder or _new_folder(self.course)
        target = self.folder / item
        target.parent.mkdir(parents=True, exist_ok=True)
        _move(self.course / item, target)
        self._taken.append(item)

    def close(self) -> Path | None:
        """Forget what turned out to be pristine; return the folder, None if nothing is in it.

        Raises:
            LabError: if something could not be done, see :meth:`each`.
        """
        for item in self._taken:
            now, pristine = self.course / item, self.course / PRISTINE / _in_notebooks(item)
            if not is_folder(self.folder / item) and (
                same(self.folder / item, now) or same(self.folder / item, pristine)
            ):
                (self.folder / item).unlink()
            for folder in (self.folder / item).parents[: len(item.parts)]:
                with suppress(OSError):  # not empty
                    folder.rmdir()
        kept = self.folder if self.folder and self.folder.exists() else None
        if self._problems:
            shown = "; ".join(self._problems[:SHOWN])
            more = len(self._problems) - SHOWN
            raise LabError(
                shown
                + (f"; and {more} more" if more > 0 else "")
                + ". Everything else is done."
                + (f" What was changed is in {kept.relative_to(self.course)}." if kept else "")
            )
        return kept


def list_backups(course: Path) -> dict[str, list[str]]:
    """Return name -> files of each backup, oldest first."""
    if not (stands(course, BACKUPS) and is_folder(course / BACKUPS)):
        return {}
    names = [name for name in os.listdir(course / BACKUPS) if name[0].isdigit()]
    return {
        name: [str(file) for file in leaves(course / BACKUPS / name)]
        for name in sorted(names, key=lambda name: (_number(name), name))
        if is_folder(course / BACKUPS / name)
    }


def restore(course: Path, name: str) -> tuple[list[str], Path | None]:
    """Copy the files of a backup back; what they replace is moved into a new backup.

    Args:
        course: the course.
        name: of the backup, or ``"latest"``.

    Returns:
        The files put back, and the backup of what they replaced if that was not pristine.

    Raises:
        LabError: if there is no such backup, or a file could not be put back.
    """
    known = list_backups(course)
    if name == "latest" and known:
        name = list(known)[-1]
    if name not in known:
        names = ", ".join(known) or "none"
        raise LabError(f"There is no backup {name!r}: there are {names}.")
    folder = course / BACKUPS / name
    _refuse_full(course, sum((folder / file).lstat().st_size for file in known[name]))
    kept = Backup(course)
    for file in map(Path, known[name]):
        with kept.each(file):
            if stands(course, file) and same(folder / file, course / file):
                continue
            for parent in reversed(file.parents[:-1]):
                if os.path.lexists(course / parent) and not is_folder(course / parent):
                    kept.take(parent)
            kept.take(file)
            _make_folder(course, file.parent)
            _copy(folder / file, course / file)
    return known[name], kept.close()


def same(a: Path, b: Path) -> bool:
    """Whether both are folders, the same link, or files of the same bytes."""
    try:
        kind, other = (stat.S_IFMT(item.lstat().st_mode) for item in (a, b))
        if kind == stat.S_IFLNK == other:
            return os.readlink(a) == os.readlink(b)
        if kind == stat.S_IFREG == other:
            return filecmp.cmp(a, b, shallow=False)
        return kind == stat.S_IFDIR == other
    except OSError:
        return False


def remove(course: Path, folder: Path) -> None:
    """Remove a whole folder of the course, read-only or not and however deep.

    Raises:
        LabError: if a link leads to it.
        OSError: if something is left of it.
    """
    _refuse_links(course, folder)
    _remove(course / folder)


def _of(given: Files, numbers: list[int] | None) -> list[Path]:
    """The files to restore, pristine copies first; of the notebooks, those of the sections."""
    known = sorted({int(file.name[:2]) for file in given if file.parent == NOTEBOOKS})
    for number in numbers or ():
        if number not in known:
            choices = ", ".join(map(str, known))
            raise LabError(f"There is no section {number}: choose from {choices}.")
    return sorted(
        (
            file
            for file in given
            if not file.is_relative_to(NOTEBOOKS)
            or file.suffix != ".ipynb"
            or file.is_relative_to(PRISTINE)
            or _is_asked(file, numbers)
        ),
        key=lambda file: (not file.is_relative_to(PRISTINE), file),
    )


def _is_asked(item: Path, numbers: list[int] | None) -> bool:
    return not numbers or item.name[:2] in {f"{number:02d}" for number in numbers}


def _folders(given: Files) -> list[Path]:
    return sorted({folder for file in given for folder in file.parents} - {Path()})


def _in_the_way(item: Path) -> bool:
    """Whether something else stands where a folder should: a file, or a link to a folder."""
    return os.path.lexists(item) and not is_folder(item)


def _refuse_links(course: Path, item: Path) -> None:
    for folder in item.parents[:-1]:
        if _in_the_way(course / folder):
            raise LabError(f"{folder} is a link or not a folder: put a folder in its place.")


def _make_folder(course: Path, folder: Path) -> None:
    """Make a folder of the course that can be written to, with its parents."""
    for each in (*reversed(folder.parents), folder):
        with suppress(FileExistsError):
            os.mkdir(course / each)
        _make_writable(course / each)


def _make_writable(folder: Path) -> None:
    mode = folder.lstat().st_mode
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(PermissionError):  # another user's: what is done next fails, and says so
            folder.chmod(mode | stat.S_IRWXU)


def _compare(course: Path, file: Path, content: bytes) -> str:
    """Return "missing", "changed", "read-only" or "pristine"."""
    if not stands(course, file):
        return "missing"
    about = (course / file).lstat()
    try:
        is_same = (
            about.st_size == len(content) == len(kept := read_regular(course / file, len(content)))
            and kept == content
        )
    except (OSError, ValueError):
        is_same = False
    if not is_same or about.st_nlink > 1:  # whoever writes to its other name writes here
        return "changed"
    return "pristine" if about.st_mode & OWN == OWN else "read-only"


def _added(course: Path, given: Files, numbers: list[int] | None) -> list[Path]:
    folders = _folders(given)
    found = []
    for folder in folders:
        if not (folder.is_relative_to(NOTEBOOKS) and is_folder(course / folder)):
            continue
        if not stands(course, folder):  # through a link
            continue
        for name in sorted(os.listdir(course / folder)):
            item = folder / name
            if item not in given and item not in folders and _is_asked(item, numbers):
                found.append(item)
    return found


def _progress(course: Path, numbers: list[int] | None) -> list[str]:
    if not stands(course, PROGRESS):
        return []
    try:
        names = sorted(read_json(course / PROGRESS)["exercises"])
        wanted = [str(number) for number in numbers or ()]
        return [name for name in names if not wanted or name.partition(".")[0] in wanted]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ["all"]  # a file that cannot be read is moved into the backup


def _progress_without(course: Path, exercises: list[str]) -> bytes | None:
    try:
        body = read_json(course / PROGRESS)
        left = {n: e for n, e in body["exercises"].items() if n not in exercises}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    text = json.dumps({**body, "exercises": left}, indent=1, sort_keys=True)
    return text.encode() if left and exercises != ["all"] else None


def _clear_marks(kept: Backup) -> None:
    """Remove what checks that never ended have left beside the progress."""
    workspace = PROGRESS.parent
    if not is_folder(kept.course / workspace):
        return
    for name in filter(_MARK.fullmatch, os.listdir(kept.course / workspace)):
        with kept.each(workspace / name):
            if is_folder(kept.course / workspace / name):
                kept.take(workspace / name)
            else:
                (kept.course / workspace / name).unlink()


def _refuse_full(course: Path, size: int) -> None:
    free = shutil.disk_usage(course).free
    if size and size + SPARE > free:
        raise LabError(
            f"{(size + SPARE) / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free. "
            "Nothing was changed: free some space, then do it again."
        )


def _number(name: str) -> int:
    """The number that a backup's name begins with; 0 for those of the course's first edition."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else 0


def _new_folder(course: Path) -> Path:
    _refuse_links(course, BACKUPS / "any")
    _make_folder(course, BACKUPS)
    number = 1 + max(map(_number, os.listdir(course / BACKUPS)), default=0)
    folder = course / BACKUPS / f"{number:03d}-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir()
    return folder


def _move(source: Path, target: Path) -> None:
    for folder in (source.parent, source):
        if is_folder(folder):  # one that is read-only can neither be moved nor changed
            _make_writable(folder)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_far(source, target)


def _move_far(source: Path, target: Path) -> None:
    """Move to another file system, such as another volume of a container."""
    aside = Path(tempfile.mkdtemp(prefix=".moved-", dir=source.parent))
    moved = aside / source.name
    os.rename(source, moved)  # what is saved from now on is a new file
    try:
        files = list(leaves(moved)) if is_folder(moved) else [Path()]
        for file in files:
            _make_folder(target.parent, (target.name / file).parent)
            _copy(moved / file, target / file)
    except OSError:  # such as a full disk
        subprocess.run(["rm", "-rf", "--", target], check=False)
        if not os.path.lexists(source):
            os.rename(moved, source)
            aside.rmdir()
        raise
    _remove(aside)


def _remove(folder: Path) -> None:
    subprocess.run(["chmod", "-R", "u+rwX", "--", folder], capture_output=True, check=False)
    ended = subprocess.run(["rm", "-rf", "--", folder], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise OSError(errno.EPERM, ended.stderr.strip())


def _write(file: Path, content: bytes) -> None:
    """Write a file where there is none."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(handle, "wb") as stream:
            os.fchmod(handle, 0o644)
            stream.write(content)
    except OSError:
        file.unlink()
        raise


def _copy(source: Path, target: Path) -> None:
    """Copy a file, a link or an empty folder to where there is nothing."""
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(mode):
        os.listdir(source)  # or it only looks empty
        target.mkdir(exist_ok=True)
    else:
        if not mode & stat.S_IRUSR:
            source.chmod(stat.S_IMODE(mode) | stat.S_IRUSR)
        with source.open("rb") as old, target.open("xb") as new:
            shutil.copyfileobj(old, new)
        target.chmod(stat.S_IMODE(mode) | stat.S_IRUSR)


def _in_notebooks(item: Path) -> Path:
    return item.relative_to(NOTEBOOKS) if item.is_relative_to(NOTEBOOKS) else item
