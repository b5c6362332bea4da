"""The map of a course: ``course.toml`` in its folder."""

import importlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, in images that have cuDF
    import tomli as tomllib

from courseware.errors import LabError

MAP = "course.toml"
PROGRESS = Path("workspace") / "progress.json"  # what an attendee has done
CHECKING = ".checking-"  # beside it, while a check runs: the exercise's id follows
PRISTINE = Path("notebooks") / ".pristine"  # copies of the attendee's notebooks, to restore from


@dataclass(frozen=True)
class Section:
    """One lab: ``labs_solutions/01-introduction.py`` is number 1, name ``01-introduction``.

    Attributes:
        course: the folder of the course.
        name: the name of its files, without suffix.
        title: as tables show it.
        minutes: to read, run and solve it.
        reads: the artifacts that it starts from.
        makes: the artifacts that it leaves behind.
    """

    course: Path
    name: str
    title: str = ""
    minutes: int = 0
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The two digits that its name begins with."""
        return int(self.name[:2])

    @property
    def source(self) -> Path:
        """The one file that is edited."""
        return self.course / "labs_solutions" / f"{self.name}.py"

    @property
    def solved(self) -> Path:
        """The generated notebook with solutions and outputs."""
        return self.source.with_suffix(".ipynb")

    @property
    def attendee(self) -> Path:
        """The generated notebook with stubs and no outputs."""
        return self.course / "notebooks" / f"{self.name}.ipynb"

    @property
    def pristine(self) -> Path:
        """The copy of the attendee's notebook that ``lab reset`` restores from."""
        return self.course / PRISTINE / f"{self.name}.ipynb"


@dataclass(frozen=True)
class Needs:
    """What a run in a profile needs of the machine.

    Attributes:
        memory: GB that each section's processes held at most, in the order of the sections.
        disk: MB that a run of all sections needs.
    """

    memory: tuple[float, ...] = ()
    disk: int = 0


@dataclass(frozen=True)
class Course:
    """The contents of ``course.toml``.

    Attributes:
        folder: of the course.
        title: of the course.
        sections: the labs, in order.
        dataset: the one that labs use by default.
        profile: the one that labs use by default.
        datasets: name -> a few words.
        profiles: name -> what a run needs.
        loads: what the command ``lab`` needs of this course -> ``"module:name"``.
        commands: commands of this course -> ``"module:name"``.
    """

    folder: Path
    title: str = ""
    sections: tuple[Section, ...] = ()
    dataset: str = ""
    profile: str = ""
    datasets: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, Needs] = field(default_factory=dict)
    loads: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Course":
        """Return the course in ``folder``.

        Raises:
            LabError: if its map is missing or malformed; the message says what is wrong in it.
        """
        try:
            body = tomllib.loads((folder / MAP).read_text())
            labs, defaults = body.pop("labs"), body.pop("defaults", {})
            profiles = body.pop("profiles", {})
            course = cls(
                folder,
                sections=tuple(_section(folder, lab) for lab in labs),
                profiles={
                    name: Needs(tuple(needs["memory"]), needs["disk"])
                    for name, needs in profiles.items()
                },
                **defaults,
                **body,
            )
        except FileNotFoundError:
            raise LabError(
                f"{folder.name} has no {MAP}. In a seat, lab seats reset puts it back."
            ) from None
        except KeyError as error:
            raise LabError(f"{MAP}: {error} is missing.") from None
        except (TypeError, ValueError, AttributeError) as error:
            unknown = (
                str(error).removeprefix("Section.__init__() ").removeprefix("Course.__init__() ")
            )
            raise LabError(f"{MAP} cannot be read: {unknown}") from None
        made: list[str] = []
        for section in course.sections:
            for name in section.reads:
                if name not in made:
                    known = ", ".join(made) or "nothing"
                    raise LabError(
                        f"{MAP}: {section.name} reads {name!r}, which no earlier lab makes. "
                        f"Earlier labs make {known}."
                    )
            made += section.makes
        return course

    def find(self, numbers: list[int] | None = None) -> list[Section]:
        """Return the sections in order; those of ``numbers`` if given.

        Raises:
            LabError: if there are none, one of ``numbers`` is missing, or the sources are not
                those that the map names.
        """
        there = {file.stem for file in self.folder.glob("labs_solutions/[0-9][0-9]-*.py")}
        named = {section.name for section in self.sections}
        for name in sorted(there - named):
            raise LabError(f"labs_solutions/{name}.py is not in {MAP}: add it under [[labs]].")
        for name in sorted(named - there):
            raise LabError(f"labs_solutions/{name}.py is missing, and {MAP} names it.")
        if not self.sections:
            raise LabError(f"There are no labs: expected some under [[labs]] in {MAP}.")
        known = {section.number: section for section in self.sections}
        for number in numbers or ():
            if number not in known:
                choices = ", ".join(map(str, known))
                raise LabError(f"There is no section {number}: choose from {choices}.")
        return [known[number] for number in sorted(set(numbers or known))]


def load(name: str) -> Any:
    """Import and return what a name such as ``"multistage.workspace:Workspace"`` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def find_course(start: Path | str | None = None) -> Path:
    """Return the course folder that holds ``start`` (by default the current directory).

    The course folder is the nearest one upwards that has a ``course.toml``.

    Raises:
        LabError: if there is none.
    """
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / MAP).is_file():
            return folder
    raise LabError(
        f"No course folder holds {start.name or str(start)!r}: expected a folder with {MAP} in it. "
        "Change into the course, or name it with --root."
    )


@cache
def installed() -> Course:
    """Return the course that this package stands in.

    What is imported by name is taken from its map and from no other: root runs ``lab`` for seats,
    and whoever owns a seat can write into its map.

    Raises:
        LabError: if the package is not in a course, or its map is malformed.
    """
    return Course.read(find_course(__file__))


def _section(folder: Path, lab: dict[str, Any]) -> Section:
    lab = {key: tuple(value) if isinstance(value, list) else value for key, value in lab.items()}
    return Section(folder, lab.pop("file"), **lab)
