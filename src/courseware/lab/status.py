"""``lab status``: how notebooks, artifacts and servers stand."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from courseware.course import Course, find_course
from courseware.lab.options import Json, Root
from courseware.lab.state import artifact_statuses, notebook_statuses, servers


def command(root: Root = None, as_json: Json = False) -> None:
    """Show how notebooks, artifacts and servers stand.

    Per section: was its notebook edited, how many checks were passed. Artifacts are compared with
    their manifests.
    """
    course = Course.read(find_course(root))
    notebooks, artifacts = notebook_statuses(course.folder), artifact_statuses(course)
    running = servers(course.folder)
    if as_json:
        body = {
            "notebooks": [asdict(status) for status in notebooks],
            "artifacts": [asdict(status) for status in artifacts],
            "servers": [{"pid": pid, "serves": what} for pid, what in running.items()],
        }
        print(json.dumps(body, indent=1))
        return
    console = Console()
    table = Table(title="notebooks", title_justify="left")
    for column in ("section", "notebook", "checks passed"):
        table.add_column(column)
    for status in notebooks:
        table.add_row(status.section, status.state, f"{status.passed} of {status.exercises}")
    console.print(table)
    table = Table(title="artifacts", title_justify="left")
    for column in ("workspace", "artifact", "state"):
        table.add_column(column, overflow="fold")
    for artifact in artifacts:
        table.add_row(artifact.workspace, artifact.name, artifact.state)
    console.print(table if artifacts else "no artifacts yet: lab run makes them")
    for pid, what in running.items():
        console.print(f"Triton server {pid} serves {what}")
    if not running:
        console.print("no servers running")
