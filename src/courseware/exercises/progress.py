"""What an attendee has done, in ``workspace/progress.json``.

Only what is run from the course's ``notebooks`` folder counts: the solved labs, executed by
``lab run`` or ``lab build``, leave the attendee's progress alone.
"""

import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from courseware.course import CHECKING, PROGRESS, find_course
from courseware.errors import LabError
from courseware.files import locked, read_json


@dataclass
class Entry:
    """How one exercise stands."""

    passed: bool = False
    attempts: int = 0
    failures: int = 0  # since it last passed
    hints: int = 0
    solution_shown: bool = False


class Progress:
    """The entries of every exercise; written at each change if there is a file to keep them.

    What cannot be written is said, and remembered until the kernel ends.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._memory: dict[str, Entry] = {}

    @classmethod
    def here(cls) -> "Progress":
        """Return the attendee's progress, or one kept in memory outside ``notebooks``."""
        try:
            course = find_course()
        except LabError:
            return _IN_MEMORY
        if Path.cwd().resolve().is_relative_to(course / "notebooks"):
            return cls(course / PROGRESS)
        return _IN_MEMORY

    def read(self) -> dict[str, Entry]:
        """Return every entry; a file that cannot be read is set aside and said."""
        if self.file is None:
            return self._memory
        try:
            kept = read_json(self.file)["exercises"]
            return {name: Entry(**entry) for name, entry in kept.items()} | _UNWRITTEN
        except OSError:  # there is none yet, or it may not be read
            return dict(_UNWRITTEN)
        except (ValueError, TypeError, KeyError, AttributeError):
            aside = self.file.with_name(f"progress-unreadable-{datetime.now():%Y%m%d-%H%M%S}.json")
            os.replace(self.file, aside)
            print(
                f"{PROGRESS} could not be read. It is kept as {aside.name}; progress starts at 0.",
                file=sys.stderr,
            )
            return {}

    def entry(self, exercise: str) -> Entry:
        """Return how ``exercise`` stands."""
        return self.read().get(exercise, Entry())

    def keep(self, exercise: str, entry: Entry) -> None:
        """Keep ``entry``; the file is written aside and renamed, so it is never half written.

        Other kernels that keep something at the same time wait.
        """
        if self.file is None:
            self._memory[exercise] = entry
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.file.parent, wait=True):
                self._write(self.read() | {exercise: entry})
            _UNWRITTEN.clear()
        except OSError as error:
            _UNWRITTEN[exercise] = entry
            said = f"{PROGRESS} cannot be written ({error.strerror})"
            print(f"{said}: progress is lost when the kernel ends.", file=sys.stderr)

    def mark(self, exercise: str) -> Path | None:
        """Return the file that stands while a check runs, see ``running``; None if none may."""
        return self.file.with_name(f"{CHECKING}{exercise}") if self.file else None

    def _write(self, entries: dict[str, Entry]) -> None:
        body = {"version": 1, "exercises": {name: asdict(e) for name, e in entries.items()}}
        handle, aside = tempfile.mkstemp(prefix=".progress-", dir=self.file.parent)
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(body, stream, indent=1, sort_keys=True)
            os.replace(aside, self.file)
        except OSError:
            os.unlink(aside)
            raise


_IN_MEMORY = Progress()
_UNWRITTEN: dict[str, Entry] = {}
