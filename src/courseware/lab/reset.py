"""``lab reset`` and ``lab restore``: back to the beginning, with nothing lost."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from courseware.course import Course, find_course, installed, load
from courseware.errors import LabError
from courseware.lab import backup
from courseware.lab.options import Json, Root, Sections
from courseware.lab.state import servers
from courseware.workspaces import workspaces


def command(
    section: Sections = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Delete what the sections made as well.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Restore pristine notebooks; back up your changes first.

    Progress is cleared as well, and Triton servers of this course are stopped.
    """
    map_ = Course.read(find_course(root))
    course = map_.folder
    plan = backup.plan_reset(course, section)
    folders = _artifact_folders(map_, section) if artifacts else []
    running = servers(course)
    if not as_json:
        _say(plan, folders, list(running), course)
    nothing = plan.empty and not folders and not running
    if not (dry_run or yes or nothing):
        if as_json or not sys.stdin.isatty():
            raise LabError("Nothing was changed: give --yes to reset, --dry-run to look.")
        typer.confirm("Reset?", abort=True)
    kept = None
    if not (dry_run or nothing):
        with backup.locked(course):
            stop(running)
            kept = backup.reset(course, section)
            for folder in folders:
                backup.remove(folder)
    if as_json:
        body = {
            key: [str(item) for item in value] if isinstance(value, list) else value
            for key, value in asdict(plan).items()
        }
        body["artifacts"] = [str(folder.relative_to(course)) for folder in folders]
        body["servers"] = list(running)
        body["backup"] = str(kept.relative_to(course)) if kept else None
        print(json.dumps({"dry_run": dry_run, **body}, indent=1))
    elif kept:
        print(f"Your work is in {kept.relative_to(course)}. To get it back: lab restore")


def restore_command(
    name: Annotated[
        str | None, typer.Argument(help="A backup's name, or latest; without it they are listed.")
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """List backups that reset made, or bring one back."""
    course = find_course(root)
    if name is None:
        known = backup.list_backups(course)
        if as_json:
            print(json.dumps(known, indent=1))
            return
        for each, files in known.items():
            print(each, *files, sep="\n    ")
        print("To get one back: lab restore NAME" if known else "There are no backups.")
        return
    with backup.locked(course):
        files, kept = backup.restore(course, name)
    if as_json:
        path = str(kept.relative_to(course)) if kept else None
        print(json.dumps({"restored": files, "backup": path}, indent=1))
        return
    print("restored:", *files, sep="\n    ")
    if kept:
        print(f"What they replaced is in {kept.relative_to(course)}.")


def stop(running: dict[int, str]) -> None:
    """Stop servers of the course; see ``state.servers``."""
    load(installed().loads["stop_servers"])(running)


def _artifact_folders(course: Course, numbers: list[int] | None) -> list[Path]:
    """What is left of the sections' artifacts: the top folder of each."""
    made = [name for s in course.sections if not numbers or s.number in numbers for name in s.makes]
    return [
        workspace.folder / top
        for workspace in workspaces(course)
        for top in dict.fromkeys(name.split("/")[0] for name in made)
        if (workspace.folder / top).exists()
    ]


def _say(plan: backup.Plan, folders: list[Path], running: list[int], course: Path) -> None:
    for title, items in (
        ("changed, to be backed up and restored", plan.changed),
        ("missing or read-only, to be restored", plan.missing),
        ("added, to be backed up and moved out", plan.added),
        ("progress to be cleared", plan.progress),
        ("artifacts to be deleted", [folder.relative_to(course) for folder in folders]),
        ("servers to be stopped", running),
    ):
        if items:
            print(f"{title}:", *items, sep="\n    ")
    if plan.empty and not folders and not running:
        print("Nothing to do: everything is pristine.")
