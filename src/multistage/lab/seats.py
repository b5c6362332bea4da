"""``lab seats``: one course folder a person on a shared machine."""

import filecmp
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from multistage.errors import CourseError
from multistage.lab import backup
from multistage.lab.options import Json
from multistage.lab.reset import stop
from multistage.lab.state import notebook_statuses, pristine_notebooks, servers
from multistage.workspace import find_course

app = typer.Typer(
    help="Create, watch and reset a seat for each person on a shared machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Folder = Annotated[Path, typer.Option("--root", help="The folder that holds the seats.")]
Course = Annotated[Path | None, typer.Option("--course", help="The course to make seats of.")]


@app.command("create")
def create_command(
    number: Annotated[int, typer.Argument(min=1, max=999, help="How many there should be.")],
    root: Folder,
    course: Course = None,
    as_json: Json = False,
) -> None:
    """Make seats root/seat-01 and so on; those that are there stay as they are."""
    made = create(find_course(course), root, number)
    if as_json:
        print(json.dumps({"created": made}))
    else:
        print(f"created {len(made)} of {number} seats in {root}")


@app.command("status")
def status_command(root: Folder, as_json: Json = False) -> None:
    """Show each seat: what was edited, what was passed, which servers run."""
    rows = [
        {
            "seat": seat.name,
            "notebooks": {s.section: s.state for s in statuses},
            "passed": sum(s.passed for s in statuses),
            "exercises": sum(s.exercises for s in statuses),
            "servers": list(servers(seat)),
        }
        for seat in find_seats(root)
        for statuses in [notebook_statuses(seat)]
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table()
    for column in ("seat", "not pristine", "checks passed", "servers"):
        table.add_column(column, overflow="fold")
    for row in rows:
        other = [f"{n[:2]} {s}" for n, s in row["notebooks"].items() if s != "pristine"]
        table.add_row(
            row["seat"],
            ", ".join(other) or "-",
            f"{row['passed']} of {row['exercises']}",
            ", ".join(map(str, row["servers"])) or "-",
        )
    Console().print(table)


@app.command("reset")
def reset_command(
    root: Folder,
    course: Course = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Reset every seat to the notebooks of the course; what people changed is backed up first."""
    source = find_course(course)
    seats = find_seats(root)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise CourseError("Nothing was changed: give --yes to reset.")
        typer.confirm(f"Reset {len(seats)} seats?", abort=True)
    kept = {}
    for seat in seats:
        kept[seat.name] = [str(folder.relative_to(seat)) for folder in reset(seat, source)]
    if as_json:
        print(json.dumps(kept, indent=1))
        return
    for name, folders in kept.items():
        print(
            f"{name}: " + (f"reset, work kept in {', '.join(folders)}" if folders else "pristine")
        )


def create(course: Path, root: Path, number: int) -> list[str]:
    """Make seats in ``root`` until there are ``number``; return the names of the new ones.

    A seat is a course folder of its own: pristine notebooks, the lab sources that ``solve`` reads
    and an empty workspace. It is made aside and renamed.

    Raises:
        CourseError: if ``course`` has no pristine notebooks.
    """
    pristine_notebooks(course)
    root.mkdir(parents=True, exist_ok=True)
    made = []
    for index in range(1, number + 1):
        seat = root / f"seat-{index:02d}"
        if seat.exists():
            continue
        aside = root / f".{seat.name}"
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "notebooks").mkdir(parents=True)
        _repair(aside, course)
        backup.reset(aside, source=course)
        (aside / "workspace").mkdir(exist_ok=True)
        aside.rename(seat)
        made.append(seat.name)
    return made


def reset(seat: Path, course: Path) -> list[Path]:
    """Bring a seat back to the state of ``course``; return the backups of what was changed."""
    stop(servers(seat))
    (seat / "notebooks").mkdir(exist_ok=True)
    changed = [f for f in _fixed(course) if (seat / f).exists() and not _same(seat / f, course / f)]
    kept = [backup.back_up(seat, changed)] if changed else []
    _repair(seat, course)
    return [*kept, *filter(None, [backup.reset(seat, source=course)])]


def find_seats(root: Path) -> list[Path]:
    """Return the seats in ``root``, in order.

    Raises:
        CourseError: if there are none.
    """
    seats = sorted(seat.resolve() for seat in root.glob("seat-*") if seat.is_dir())
    if not seats:
        raise CourseError(f"No seats in {root}: make them with lab seats create N --root {root}")
    return seats


def _fixed(course: Path) -> list[Path]:
    """The files of a seat that are not for the attendee to edit: sources, copies, pictures."""
    return [
        file.relative_to(course)
        for part in ("labs_solutions", "notebooks/.pristine", "notebooks/images")
        for file in sorted((course / part).rglob("*"))
        if file.is_file() and not (part == "labs_solutions" and file.suffix != ".py")
    ]


def _same(a: Path, b: Path) -> bool:
    return a.is_file() and filecmp.cmp(a, b, shallow=False)


def _repair(seat: Path, course: Path) -> None:
    (seat / "labs_solutions").mkdir(parents=True, exist_ok=True)
    for file in _fixed(course):
        if not _same(seat / file, course / file):
            (seat / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(course / file, seat / file)
