"""``lab build``: write both notebooks of each section from its source."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from multistage.errors import CourseError
from multistage.lab.options import Json, Root, Sections
from multistage.workspace import find_course


def command(
    section: Sections = None,
    execute: Annotated[
        bool, typer.Option(help="Execute the solved notebooks; else keep the outputs there are.")
    ] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a notebook drifted.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write each section's notebooks from its source.

    The solved notebook is executed; the attendee's has stubs in place of solutions.
    """
    from multistage.authoring import build, drift, find_sections
    from multistage.authoring.execute import CellError

    sections = find_sections(find_course(root), section)
    if check:
        found = [line for one in sections for line in drift(one)]
        if as_json:
            print(json.dumps({"drift": found}))
        else:
            for line in found:
                print(line, file=sys.stderr)
            print("in step" if not found else "Mend it with: lab build", file=sys.stderr)
        raise typer.Exit(1 if found else 0)
    console = Console(stderr=True)
    written = []
    for one in sections:
        with console.status(f"{one.name}: " + ("executing" if execute else "writing")):
            try:
                written += [f"{file.parent.name}/{file.name}" for file in build(one, run=execute)]
            except CellError as error:
                raise CourseError(f"{one.name}, {error.heading}\n{error}") from None
        if not as_json:
            console.print(f"{one.name} built")
    if as_json:
        print(json.dumps({"written": written}))
