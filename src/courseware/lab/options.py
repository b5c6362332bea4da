"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Root = Annotated[
    Path | None,
    typer.Option(help="The course folder; by default the one around the current directory."),
]
Sections = Annotated[
    list[int] | None,
    typer.Option("--section", help="A section's number; may be given more than once."),
]
Dataset = Annotated[str, typer.Option(help="A data set of course.toml; by default its first.")]
Profile = Annotated[str, typer.Option(help="A profile of course.toml, such as ci or laptop.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
