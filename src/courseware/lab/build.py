"""``lab build``: write both notebooks of each section from its source."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from courseware.course import PRISTINE, Course, find_course
from courseware.errors import LabError
from courseware.lab.backup import Backup, same
from courseware.lab.options import Json, Root, Sections
from courseware.lab.pristine import keep_images
from courseware.lab.run import Bars
from courseware.lab.runner import run_sections
from courseware.workspaces import missing_before, open_workspace


def command(
    section: Sections = None,
    execute: Annotated[
        bool, typer.Option(help="Execute the solved notebooks; else keep their old outputs.")
    ] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a notebook differs.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write each section's notebooks from its source.

    The solved notebook is executed. The attendee's notebook has stubs in place of solutions; if it
    was edited, it is moved into a backup first. Artifacts of earlier sections that are missing or
    damaged are made first.
    """
    from courseware.authoring import build, drift
    from courseware.authoring.execute import CellError

    course = Course.read(find_course(root))
    sections = course.find(section)
    if check:
        found = [line for one in sections for line in drift(one)]
        if as_json:
            print(json.dumps({"drift": found}))
        else:
            for line in found:
                print(line, file=sys.stderr)
            print("in step" if not found else "Fix it with: lab build", file=sys.stderr)
        raise typer.Exit(1 if found else 0)
    console = Console(stderr=True)
    if execute:
        _run_before(course, [one.number for one in sections])
    written = []
    kept = Backup(course.folder)
    for one in sections:
        with console.status(f"{one.name}: " + ("executing" if execute else "writing")):
            try:
                files = build(one, execute, keep=partial(_keep_edited, kept))
            except CellError as error:
                raise LabError(f"{one.name}, {error.heading}\n{error}") from None
        written += [f"{file.parent.name}/{file.name}" for file in files]
        if not as_json:
            console.print(f"{one.name} built")
    keep_images(course.folder)
    if folder := kept.close():
        where = folder.relative_to(course.folder)
        print(f"Edited notebooks are in {where}. To get them back: lab restore", file=sys.stderr)
    if as_json:
        print(json.dumps({"written": written}))


def _keep_edited(kept: Backup, notebook: Path) -> None:
    """Move a notebook into the backup unless it is what an earlier build wrote."""
    pristine = kept.course / PRISTINE / notebook.name
    if not same(notebook, pristine) or notebook.samefile(pristine):
        kept.take(notebook.relative_to(kept.course))


def _run_before(course: Course, numbers: list[int]) -> None:
    """Run the sections that make what ``numbers`` need, where it is missing or damaged."""
    workspace = open_workspace(course)
    if missing := missing_before(course, workspace, numbers):
        with Bars(Console(stderr=True)) as bars:
            summary = run_sections(course, workspace, missing, report=bars)
        for result in summary.sections:
            if result.error:
                raise LabError(f"{result.section}, {result.error.heading}\n{result.error}")
