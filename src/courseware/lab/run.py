"""``lab run``: execute the solved labs in order and print the results."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from courseware.course import Course, find_course
from courseware.lab.options import Dataset, Json, Profile, Root, Sections
from courseware.lab.runner import Report, SectionResult, Summary, run_sections
from courseware.workspaces import open_workspace


def command(
    dataset: Dataset = "",
    profile: Profile = "",
    events: Annotated[
        str | None, typer.Option(help="A glob of REES46 files, for --dataset rees46.")
    ] = None,
    section: Sections = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Execute the solved labs; print what they measured.

    Each runs in a fresh kernel; build/run/<dataset>-<profile>/ holds the results. With
    --section, what it reads is built first by earlier sections, if it is missing or damaged.
    """
    course = Course.read(find_course(root))
    workspace = open_workspace(course, dataset, profile)
    console = Console(stderr=True)
    with Bars(console) as bars:
        summary = run_sections(course, workspace, section, events, report=bars)
    if as_json:
        print(json.dumps(summary.to_dict(), indent=1))
    else:
        _print(summary, Console())
    if summary.failed:
        raise typer.Exit(1)


class Bars(Report):
    """One line per section: its name, a progress bar of its cells, its time."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def warned(self, text: str) -> None:
        """Print a warning above the bars."""
        self._progress.console.print(f"lab: {text}", highlight=False)

    def started(self, section: str, cells: int) -> None:
        """Add a bar."""
        self._task = self._progress.add_task(section, total=cells)
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"{section} …")

    def cell(self, index: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=index)

    def ended(self, result: SectionResult) -> None:
        """Stop the bar."""
        if result.status == "passed":
            total = self._progress.tasks[self._task].total
            self._progress.update(self._task, completed=total)
        self._progress.stop_task(self._task)


def _print(summary: Summary, console: Console) -> None:
    table = Table(
        title=f"{summary.dataset}, profile {summary.profile}, {summary.device}",
        title_justify="left",
    )
    table.add_column("section")
    table.add_column("status")
    table.add_column("seconds", justify="right")
    table.add_column("measured", overflow="fold")
    for result in summary.sections:
        measured = "  ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        seconds = f"{result.seconds:.1f}" if result.status != "skipped" else ""
        table.add_row(result.section, result.status, seconds, measured)
    console.print(table)
    for result in summary.sections:
        if result.error:
            console.print(f"{result.section} failed at: {result.error.heading}", markup=False)
            if result.error.line and not result.error.user_can_fix:
                console.print(f"    {result.error.line}", markup=False, highlight=False)
            console.print(str(result.error), markup=False, highlight=False)
