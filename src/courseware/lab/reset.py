"""``lab reset`` and ``lab restore``: back to the beginning, with nothing lost."""

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from courseware.course import Course, find_course, installed, load
from courseware.errors import LabError
from courseware.lab import backup
from courseware.lab.options import Json, Root, Sections
from courseware.lab.owner import as_owner
from courseware.lab.show import printable
from courseware.lab.state import servers
from courseware.workspaces import workspaces


def command(
    section: Sections = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Also delete what the sections made.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Restore pristine notebooks; back up your changes first.

    Progress is cleared as well, and Triton servers of this course are stopped.
    """
    course = find_course(root)
    plan = as_owner(course, partial(_plan, course, section, artifacts))
    running = servers(course)
    if not as_json:
        _say(plan, running)
    nothing = not (running or any(plan.values()))
    if not (dry_run or yes or nothing):
        if as_json or not sys.stdin.isatty():
            raise LabError("Nothing was changed: give --yes to reset, --dry-run to look.")
        typer.confirm("Reset?", abort=True)
    kept = None
    if not (dry_run or nothing):
        stop(running)
        kept = as_owner(course, partial(_reset, course, section, artifacts))
    if as_json:
        body = {**plan, "servers": list(running), "backup": kept}
        print(json.dumps({"dry_run": dry_run, **body}, indent=1))
    elif kept:
        print(f"Your work is in {kept}. To get it back: lab restore")


def restore_command(
    name: Annotated[
        str | None, typer.Argument(help="A backup's name, or latest; by default list all.")
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """List backups that reset made, or restore one."""
    course = find_course(root)
    show_restored(as_owner(course, partial(restore, course, name)), as_json)


def restore(course: Path, name: str | None) -> dict[str, Any]:
    """Bring a backup back and return what was done; without a name, only list the backups."""
    if name is None:
        return {"known": backup.list_backups(course)}
    with backup.only_one(course):
        files, kept = backup.restore(course, name)
    return {"restored": files, "backup": str(kept.relative_to(course)) if kept else None}


def show_restored(done: dict[str, Any], as_json: bool) -> None:
    """Print what :func:`restore` returned."""
    known = done.get("known")
    if as_json:
        print(json.dumps(done if known is None else known, indent=1))
    elif known is not None:
        for each, files in known.items():
            print(*map(printable, (each, *files)), sep="\n    ")
        print("To get one back: lab restore NAME" if known else "There are no backups.")
    else:
        print("restored:", *map(printable, done["restored"]), sep="\n    ")
        if done["backup"]:
            print(f"What they replaced is in {done['backup']}.")


def stop(running: dict[int, str]) -> None:
    """Stop servers of the course; see ``state.servers``."""
    load(installed().loads["stop_servers"])(running)


def _plan(course: Path, numbers: list[int] | None, artifacts: bool) -> dict[str, list[str]]:
    plan = asdict(backup.plan_reset(course, numbers))
    plan["artifacts"] = _artifact_folders(course, numbers) if artifacts else []
    return {key: [str(item) for item in items] for key, items in plan.items()}


def _reset(course: Path, numbers: list[int] | None, artifacts: bool) -> str | None:
    with backup.only_one(course):
        kept = backup.reset(course, numbers)
        for folder in _artifact_folders(course, numbers) if artifacts else []:
            backup.remove(course, folder)
    return str(kept.relative_to(course)) if kept else None


def _artifact_folders(course: Path, numbers: list[int] | None) -> list[Path]:
    """What is left of the sections' artifacts: the top folder of each, relative to the course."""
    map_ = Course.read(course)
    made = [name for s in map_.sections if not numbers or s.number in numbers for name in s.makes]
    return [
        (workspace.folder / top).relative_to(course)
        for workspace in workspaces(map_)
        for top in dict.fromkeys(name.split("/")[0] for name in made)
        if os.path.lexists(workspace.folder / top)
    ]


def _say(plan: dict[str, list[str]], running: dict[int, str]) -> None:
    for title, items in (
        ("changed, to be backed up and restored", plan["changed"]),
        ("missing or read-only, to be restored", plan["missing"]),
        ("added, to be backed up and moved out", plan["added"]),
        ("progress to be cleared", plan["progress"]),
        ("artifacts to be deleted", plan["artifacts"]),
        ("servers to be stopped", running),
    ):
        if items:
            print(f"{title}:", *map(printable, items), sep="\n    ")
    if not (running or any(plan.values())):
        print("Nothing to do: everything is pristine.")
