"""``lab``: one command a module, and one way to fail."""

import sys

import typer

from courseware.course import installed, load
from courseware.errors import message_of, needs_no_traceback
from courseware.lab import build, doctor, grade, reset, run, seats, status
from courseware.surroundings import drop_foreign_packages, name_a_home

app = typer.Typer(
    name="lab",
    help="Run, build and maintain the course.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.command)
app.command("doctor")(doctor.command)
app.command("status")(status.command)
app.command("reset")(reset.command)
app.command("restore")(reset.restore_command)
app.command("grade")(grade.command)
app.command("build")(build.command)
app.add_typer(seats.app, name="seats")


def add_commands() -> None:
    """Add the commands that this course brings along, see ``course.toml``."""
    for name, where in installed().commands.items():
        app.command(name)(load(where))


def main() -> None:
    """Run the command line; an error that the user can fix ends it with its message alone."""
    drop_foreign_packages()
    name_a_home()
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be anything
    try:
        add_commands()
        app()
    except Exception as error:
        if not needs_no_traceback(error):
            raise
        print(f"lab: {message_of(error)}", file=sys.stderr)
        sys.exit(1)
