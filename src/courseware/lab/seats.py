"""``lab seats``: a course folder for each attendee on a shared machine."""

import json
import os
import pwd
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from courseware.course import MAP, find_course
from courseware.errors import LabError, message_of
from courseware.files import is_folder
from courseware.lab import backup, doctor
from courseware.lab.options import Json, Sections
from courseware.lab.owner import as_owner
from courseware.lab.pristine import Files, seat_files
from courseware.lab.reset import restore, show_restored, stop
from courseware.lab.show import plain_console, printable
from courseware.lab.state import added_files, notebook_statuses, servers

app = typer.Typer(
    help="Create, show and reset seats on a shared machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
LOOK_SECONDS = 60.0  # that a look at one seat may take
Folder = Annotated[Path, typer.Option("--root", help="The folder that holds the seats.")]
Of = Annotated[Path | None, typer.Option("--course", help="The course to make seats of.")]
Some = Annotated[list[str] | None, typer.Argument(help="Seats, such as seat-03; all by default.")]


@app.command("create")
def create_command(
    number: Annotated[int, typer.Argument(min=1, max=999, help="How many seats to have.")],
    root: Folder,
    course: Of = None,
    as_json: Json = False,
) -> None:
    """Make seats root/seat-01 and so on.

    Seats that exist are not changed.
    """
    made = create(_course(course), root, number)
    usable = doctor.environment(root)
    if usable.state != "ok":
        print(f"lab: {usable.found}. {usable.fix}", file=sys.stderr)
    if as_json:
        print(json.dumps({"created": made}))
    else:
        print(f"{number} seats are there, {len(made)} are new: {root}")


@app.command("status")
def status_command(root: Folder, names: Some = None, as_json: Json = False) -> None:
    """Show each seat's edits, passed checks and failing exercises.

    Files that were added or renamed are named, and exercises whose solution was shown are counted
    apart.
    """
    rows = [look_at(seat) for seat in find_seats(root, names)]
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        plain_console().print(_table(rows))


@app.command("reset")
def reset_command(
    root: Folder,
    names: Some = None,
    section: Sections = None,
    course: Of = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    as_json: Json = False,
) -> None:
    """Reset seats to the course's notebooks.

    What attendees changed is backed up first. A seat that cannot be reset does not stop the
    others; the exit code is then 1.
    """
    given = seat_files(_course(course))
    seats = find_seats(root, names)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise LabError("Nothing was changed: give --yes to reset.")
        typer.confirm(f"Reset {len(seats)} seats?", abort=True)
    rows = []
    for seat in seats:
        row = {"seat": seat.name, "backup": None, "problem": _problem(seat)}
        if not row["problem"]:
            try:
                kept = reset(seat, given, section)
                row["backup"] = str(kept.relative_to(seat)) if kept else None
            except (LabError, OSError) as error:
                row["problem"] = message_of(error)
        rows.append(row)
        if not as_json:
            kept = f"reset, work kept in {row['backup']}" if row["backup"] else ""
            print(f"{seat.name}: {printable(row['problem'] or kept or 'nothing to back up')}")
    if as_json:
        print(json.dumps(rows, indent=1))
    if any(row["problem"] for row in rows):
        raise typer.Exit(1)


@app.command("restore")
def restore_command(
    seat: Annotated[str, typer.Argument(help="Such as seat-03.")],
    root: Folder,
    name: Annotated[
        str | None, typer.Argument(help="A backup's name, or latest; by default list all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the backups of a seat, or restore one."""
    (folder,) = find_seats(root, [seat])
    if problem := _problem(folder):
        raise LabError(problem)
    show_restored(as_owner(folder, partial(restore, folder, name)), as_json)


def look_at(seat: Path) -> dict[str, Any]:
    """Return what there is to say of a seat; one that cannot be read is a problem, no error.

    Further notebooks are named with the others, and their exercises are not counted.
    """
    row = {"seat": seat.name, "owner": "", "problem": _problem(seat), "notebooks": {}}
    row |= {"added": {}, "passed": 0, "solved": 0, "exercises": 0, "stuck": {}, "servers": []}
    if row["problem"]:
        return row
    row["owner"] = _owner(seat)
    row["servers"] = list(servers(seat))
    try:
        return row | as_owner(seat, partial(_look, seat), LOOK_SECONDS)
    except (LabError, OSError) as error:
        return row | {"problem": message_of(error)}


def create(course: Path, root: Path, number: int) -> list[str]:
    """Make seats in ``root`` until there are ``number``; return the names of the new ones.

    A seat is a course folder of its own: pristine notebooks, the lab sources that ``solve`` reads
    and an empty workspace. It is made aside and renamed.

    Raises:
        LabError: if pristine notebooks of ``course`` are missing and cannot be made again.
    """
    given = seat_files(course)
    root.mkdir(parents=True, exist_ok=True)
    made = []
    for index in range(1, number + 1):
        seat = root / f"seat-{index:02d}"
        if os.path.lexists(seat):
            continue
        with tempfile.TemporaryDirectory(prefix=".seat-", dir=root) as folder:
            aside = Path(folder, seat.name)
            (aside / "workspace").mkdir(parents=True)
            backup.reset(aside, given=given)
            aside.rename(seat)
        made.append(seat.name)
    return made


def reset(seat: Path, given: Files, numbers: list[int] | None = None) -> Path | None:
    """Bring a seat back to the state of its course; return the backup of what was changed.

    Args:
        seat: its map, sources, pristine copies and pictures are always restored.
        given: what it should hold, see :func:`courseware.lab.pristine.seat_files`.
        numbers: of notebooks and progress, only those of these sections.

    Raises:
        LabError: if another reset of the seat is at work, or something could not be restored.
    """
    stop(servers(seat))
    kept = as_owner(seat, partial(_reset, seat, given, numbers))
    return seat / kept if kept else None


def find_seats(root: Path, names: list[str] | None = None) -> list[Path]:
    """Return the seats in ``root``, in order; those of ``names`` if given.

    Raises:
        LabError: if there are none, or one of ``names`` is missing.
    """
    seats = {seat.name: seat for seat in sorted(root.resolve().glob("seat-*"))}
    if not seats:
        raise LabError(f"No seats in {root}: make them with lab seats create N --root {root}")
    for name in names or ():
        if name not in seats:
            raise LabError(f"There is no seat {name!r} in {root}: {', '.join(seats)}.")
    return [seat for name, seat in seats.items() if not names or name in names]


def _course(folder: Path | None) -> Path:
    try:
        return find_course(folder)
    except LabError:
        where = folder or Path.cwd()
        raise LabError(
            f"No course folder (one with {MAP}) holds {where}. Name the course to copy with "
            "--course; --root names the folder of the seats."
        ) from None


def _problem(seat: Path) -> str | None:
    return None if is_folder(seat) else "It is a link or not a folder: put a seat in its place."


def _owner(seat: Path) -> str:
    number = seat.lstat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _reset(seat: Path, given: Files, numbers: list[int] | None) -> str | None:
    with backup.only_one(seat):
        kept = backup.reset(seat, numbers, given)
    return str(kept.relative_to(seat)) if kept else None


def _look(seat: Path) -> dict[str, Any]:
    statuses = notebook_statuses(seat)
    labs = [status for status in statuses if not status.section.startswith("further/")]
    return {
        "notebooks": {status.section: status.state for status in statuses},
        "added": added_files(seat),
        "passed": sum(status.passed for status in labs),
        "solved": sum(status.solved for status in labs),
        "exercises": sum(status.exercises for status in labs),
        "stuck": {name: n for status in statuses for name, n in status.stuck.items()},
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(show_footer=True)
    failing = Counter(name for row in rows for name in row["stuck"])
    for column, total in (
        ("seat", f"{len(rows)} seats"),
        ("not pristine", ""),
        ("passed", f"{sum(r['passed'] for r in rows)} of {sum(r['exercises'] for r in rows)}"),
        ("solution shown", str(sum(row["solved"] for row in rows))),
        ("failing", ", ".join(f"{name}: {n} seats" for name, n in sorted(failing.items()))),
        ("servers", ""),
    ):
        table.add_column(column, total, overflow="fold")
    for row in rows:
        changed = [f"{name[:2]} {s}" for name, s in row["notebooks"].items() if s != "pristine"]
        added = [f"{n} (was {was})" if was else f"{n} added" for n, was in row["added"].items()]
        table.add_row(
            f"{row['seat']} {row['owner']}",
            printable(row["problem"] or ", ".join(changed + added) or "-"),
            f"{row['passed']} of {row['exercises']}",
            str(row["solved"] or "-"),
            ", ".join(f"{name} ({n} times)" for name, n in row["stuck"].items()) or "-",
            ", ".join(map(str, row["servers"])) or "-",
        )
    return table
