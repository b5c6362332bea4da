"""``lab status``: how notebooks, artifacts and servers stand."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from courseware.course import Course, find_course
from courseware.lab.options import Json, Root
from courseware.lab.owner import as_owner
from courseware.lab.show import plain_console, printable
from courseware.lab.state import added_files, artifact_statuses, notebook_statuses, servers


def command(root: Root = None, as_json: Json = False) -> None:
    """Show how notebooks, artifacts and servers stand.

    Per section: was its notebook edited, how many checks were passed, of how many exercises the
    solution was shown. Artifacts are compared with their manifests.
    """
    course = find_course(root)
    look = as_owner(course, partial(_look, course))
    running = servers(course)
    if as_json:
        look["servers"] = [{"pid": pid, "serves": what} for pid, what in running.items()]
        print(json.dumps(look, indent=1))
        return
    console = plain_console()
    table = Table(title="notebooks", title_justify="left")
    for column in ("section", "notebook", "checks passed", "solution shown", "failing"):
        table.add_column(column)
    for row in look["notebooks"]:
        passed = f"{row['passed']} of {row['exercises']}"
        failing = ", ".join(f"{name} ({n} times)" for name, n in row["stuck"].items())
        table.add_row(row["section"], row["state"], passed, str(row["solved"] or ""), failing)
    console.print(table)
    if look["added"]:
        names = [f"{name} (was {was})" if was else name for name, was in look["added"].items()]
        console.print("added:", *map(printable, names))
    table = Table(title="artifacts", title_justify="left")
    for column in ("workspace", "artifact", "state"):
        table.add_column(column, overflow="fold")
    for row in look["artifacts"]:
        table.add_row(*map(printable, (row["workspace"], row["name"], row["state"])))
    console.print(table if look["artifacts"] else "no artifacts yet: lab run makes them")
    for pid, what in running.items():
        console.print(f"Triton server {pid} serves {printable(what)}")
    if not running:
        console.print("no servers running")


def _look(course: Path) -> dict[str, Any]:
    return {
        "notebooks": [asdict(status) for status in notebook_statuses(course)],
        "added": added_files(course),
        "artifacts": [asdict(status) for status in artifact_statuses(Course.read(course))],
    }
