"""Run sections in order, each in a new kernel, and keep their metrics."""

import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from courseware.course import MAP, Course, Section
from courseware.errors import LabError
from courseware.lab import resources
from courseware.workspaces import Workspace, missing_before


@dataclass
class SectionResult:
    """The result of one section."""

    section: str
    status: Literal["passed", "failed", "skipped"] = "skipped"
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: Any = None  # courseware.authoring.execute.CellError


@dataclass
class Summary:
    """The result of a run; ``summary.json`` without the errors' lines."""

    dataset: str
    profile: str
    device: str
    seconds: float
    sections: list[SectionResult]

    @property
    def failed(self) -> bool:
        """Whether a section failed."""
        return any(result.status == "failed" for result in self.sections)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as ``summary.json`` holds it."""
        body = asdict(self)
        for result, kept in zip(body["sections"], self.sections, strict=True):
            result.pop("error")
            if kept.error is not None:
                result["error"] = {"at": kept.error.heading, "message": str(kept.error)}
        return body


class Report:
    """Receives the progress of a run; this one ignores it."""

    def warned(self, text: str) -> None:
        """Something may go wrong."""

    def started(self, section: str, cells: int) -> None:
        """A section begins; it has so many cells."""

    def cell(self, index: int) -> None:
        """A cell of the section begins."""

    def ended(self, result: SectionResult) -> None:
        """The section has ended."""


def run_sections(
    course: Course,
    workspace: Workspace,
    numbers: list[int] | None = None,
    events: str | None = None,
    report: Report | None = None,
) -> Summary:
    """Run the labs in order and write ``build/run/<dataset>-<profile>/``.

    Args:
        course: its labs are run.
        workspace: its data set and profile are the labs' parameters.
        numbers: the sections to run, all by default. What they read is built first by earlier
            sections, if it is missing or damaged.
        events: a glob of REES46 files, given to the labs as their parameter.
        report: receives the progress.

    Returns:
        The summary. After a section that failed, the rest are skipped.

    Raises:
        LabError: if a section does not exist, a source is malformed, or the disk is full.
    """
    from courseware.authoring.read import read_source

    sections = course.find(numbers)
    if numbers:
        first = missing_before(course, workspace, [section.number for section in sections])
        sections = course.find([*numbers, *first])
    notebooks = [(section, read_source(section)) for section in sections]
    report = report or Report()
    profile = workspace.profile.name
    resources.check_disk(course, profile)
    if problem := resources.memory_problem(course, profile, [s.number for s in sections]):
        report.warned(problem)
    target = course.folder / "build" / "run" / f"{workspace.dataset}-{workspace.profile.name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    results = [SectionResult(section.name) for section, _ in notebooks]
    parameters = {
        "dataset": workspace.dataset,
        "profile": workspace.profile.name,
        "events": _seen_from(course.folder / "labs_solutions", events),
    }
    start = time.monotonic()
    try:
        for result, (section, notebook) in zip(results, notebooks, strict=True):
            report.started(result.section, len(notebook.cells))
            _run_one(result, notebook, course.folder, parameters, aside, report)
            if result.status == "passed":
                _check_artifacts(result, section, workspace)
            report.ended(result)
            if result.status == "failed":
                break
        summary = Summary(
            workspace.dataset,
            workspace.profile.name,
            device_name(),
            round(time.monotonic() - start, 1),
            results,
        )
        (aside / "summary.json").write_text(json.dumps(summary.to_dict(), indent=1) + "\n")
        aside.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def device_name() -> str:
    """Return the name of the first GPU that the driver reports, else ``"cpu"``."""
    import subprocess

    try:
        names = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return "cpu"
    return names[0].strip() or "cpu"


def _run_one(
    result: SectionResult,
    notebook: Any,
    course: Path,
    parameters: dict[str, Any],
    folder: Path,
    report: Report,
) -> None:
    import nbformat

    from courseware.authoring.clean import clean
    from courseware.authoring.execute import CellError, execute
    from courseware.records import read_records

    output = folder / f"{result.section}.ipynb"
    start = time.monotonic()
    try:
        execute(notebook, course / "labs_solutions", parameters, output, report.cell)
        result.status = "passed"
    except CellError as error:
        result.status, result.error = "failed", error
    result.seconds = round(time.monotonic() - start, 1)
    if output.exists():
        executed = clean(nbformat.read(output, as_version=4), course)
        result.metrics = read_records(executed)
        nbformat.write(executed, output)


def _check_artifacts(result: SectionResult, section: Section, workspace: Workspace) -> None:
    """Fail a section that has passed without making what the map says that it makes."""
    from courseware.authoring.execute import CellError

    if problem := next(filter(None, map(workspace.problem, section.makes)), ""):
        said = f"{problem} {MAP} says that this lab makes it."
        result.status = "failed"
        result.error = CellError("the end of the lab", "", "LabError", said, True)


def _seen_from(folder: Path, events: str | None) -> str | None:
    """The labs run in ``folder``: a glob must mean there what it means here."""
    if events is None:
        return None
    if not events.strip():
        raise LabError("--events is empty: expected a glob such as 'data/*.csv'.")
    return os.path.relpath(events, folder)
