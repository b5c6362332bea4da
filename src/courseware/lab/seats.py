"""``lab seats``: one course folder a person on a shared machine."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from courseware.course import MAP, find_course
from courseware.errors import LabError, message_of
from courseware.lab import backup, doctor
from courseware.lab.options import Json
from courseware.lab.reset import stop
from courseware.lab.state import notebook_statuses, pristine_notebooks, servers

app = typer.Typer(
    help="Create, watch and reset seats on a shared machine.",
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
    """Make seats root/seat-01 and so on.

    Seats that are there stay as they are.
    """
    made = create(find_course(course), root, number)
    usable = doctor.environment(root)
    if usable.state != "ok":
        print(f"lab: {usable.found}. {usable.fix}", file=sys.stderr)
    if as_json:
        print(json.dumps({"created": made}))
    else:
        print(f"created {len(made)} of {number} seats in {root}")


@app.command("status")
def status_command(root: Folder, as_json: Json = False) -> None:
    """Show what was edited and passed in each seat."""
    rows = [look_at(seat) for seat in find_seats(root)]
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
            row["problem"] or ", ".join(other) or "-",
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
    """Reset every seat to the course's notebooks.

    What people changed is backed up first. A seat that cannot be reset does not stop the others;
    the exit code is then 1.
    """
    source = find_course(course)
    pristine_notebooks(source)
    seats = find_seats(root)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise LabError("Nothing was changed: give --yes to reset.")
        typer.confirm(f"Reset {len(seats)} seats?", abort=True)
    rows = []
    for seat in seats:
        row = {"seat": seat.name, "backups": [], "problem": None}
        try:
            row["backups"] = [str(folder.relative_to(seat)) for folder in reset(seat, source)]
        except (LabError, OSError) as error:
            row["problem"] = message_of(error)
        rows.append(row)
        if not as_json:
            kept = f"reset, work kept in {', '.join(row['backups'])}" if row["backups"] else ""
            print(f"{seat.name}: {row['problem'] or kept or 'nothing to back up'}")
    if as_json:
        print(json.dumps(rows, indent=1))
    if any(row["problem"] for row in rows):
        raise typer.Exit(1)


def look_at(seat: Path) -> dict[str, Any]:
    """Return what there is to say of a seat; one that cannot be read is a problem, no error."""
    row = {"seat": seat.name, "notebooks": {}, "passed": 0, "exercises": 0, "problem": None}
    try:
        for status in notebook_statuses(seat):
            row["notebooks"][status.section] = status.state
            if not status.section.startswith("further/"):
                row["passed"] += status.passed
                row["exercises"] += status.exercises
    except (LabError, OSError) as error:
        row["problem"] = message_of(error)
    return row | {"servers": list(servers(seat))}


def create(course: Path, root: Path, number: int) -> list[str]:
    """Make seats in ``root`` until there are ``number``; return the names of the new ones.

    A seat is a course folder of its own: pristine notebooks, the lab sources that ``solve`` reads
    and an empty workspace. It is made aside and renamed.

    Raises:
        LabError: if ``course`` has no pristine notebooks.
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
        aside.mkdir()
        _repair(aside, course)
        backup.reset(aside, source=course)
        backup.make_folder(aside / "workspace")
        aside.rename(seat)
        made.append(seat.name)
    return made


def reset(seat: Path, course: Path) -> list[Path]:
    """Bring a seat back to the state of ``course``; return the backups of what was changed.

    Raises:
        LabError: if another reset of the seat is at work, or somebody saves at this moment.
        OSError: if something in the seat can be neither read nor replaced.
    """
    with backup.locked(seat):
        stop(servers(seat))
        fixed = _fixed(course)
        changed = [
            *(part for part in _folders(fixed) if not _is_folder(seat / part)),
            *(file for file in fixed if not backup.same(seat / file, course / file)),
        ]
        changed = [item for item in changed if os.path.lexists(seat / item)]
        kept = [backup.back_up(seat, changed)] if changed else []
        for item in changed:
            backup.remove(seat / item)
        _repair(seat, course)
        return [*kept, *filter(None, [backup.reset(seat, source=course)])]


def find_seats(root: Path) -> list[Path]:
    """Return the seats in ``root``, in order.

    Raises:
        LabError: if there are none.
    """
    seats = sorted(seat.resolve() for seat in root.glob("seat-*") if seat.is_dir())
    if not seats:
        raise LabError(f"No seats in {root}: make them with lab seats create N --root {root}")
    return seats


def _fixed(course: Path) -> list[Path]:
    """The files of a seat that are not for the attendee to edit: map, sources, copies, pictures."""
    return [
        Path(MAP),
        *_given(course),
    ]


def _given(course: Path) -> list[Path]:
    return [
        file.relative_to(course)
        for part in ("labs_solutions", "notebooks/.pristine", "notebooks/images")
        for file in sorted((course / part).rglob("*"))
        if file.is_file() and not (part == "labs_solutions" and file.suffix != ".py")
    ]


def _folders(files: list[Path]) -> list[Path]:
    return sorted({folder for file in files for folder in file.parents} - {Path()})


def _is_folder(item: Path) -> bool:
    return item.is_dir() and not item.is_symlink()


def _repair(seat: Path, course: Path) -> None:
    for file in _fixed(course):
        if not backup.same(seat / file, course / file):
            backup.put(course / file, seat / file)
    backup.make_folder(seat / "notebooks")
