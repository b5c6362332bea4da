"""Execute the RUN steps of the image's target ``cpu`` in a bare Debian 12, without Docker.

``python -m tests.packaging.chroot_build DIR`` as root, where ``debootstrap`` is. It makes a
Debian 12 root in DIR, installs there what the base image has (Python 3.11), does what each step of
the Dockerfile says, in order, and then runs ``make run`` and ``.ci/run`` (which is ``make test``)
in the root. Both stages share the root: copying between them only changes the owner.
"""

import argparse
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COURSE = Path(__file__).resolve().parents[2]
BASE = "python3.11 python3.11-venv python3.11-dev libpython3.11 ca-certificates"  # of python:slim
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def steps(dockerfile: str, targets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield instruction and argument of each step of the stages ``targets``, in order."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    stage = None
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            stage = rest.rsplit(None, 1)[-1]
        if stage in targets:
            yield word, " ".join(rest.split())


@dataclass
class Root:
    """A Debian root, and the state that steps of a Dockerfile change."""

    folder: Path
    user: str = "root"
    work: str = "/"
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})

    def run(self, command: str) -> None:
        """Run a shell command as the image's user in its working folder."""
        home = {"HOME": "/root" if self.user == "root" else f"/home/{self.user}"}
        inside = f"cd {shlex.quote(self.work)} && {command}"
        subprocess.run(
            ["chroot", f"--userspec={self.user}", self.folder, "/bin/sh", "-ec", inside],
            env=home | self.environment,
            check=True,
        )

    def copy(self, argument: str) -> None:
        """Copy files of the course, or change the owner of what an earlier stage made."""
        words = argument.split()
        options = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        place = os.path.join(self.work, target)
        if not any(option.startswith("--from=") for option in options):
            into = self.folder / place.lstrip("/")
            into.mkdir(parents=True, exist_ok=True)
            ignored = [f"--exclude={line}" for line in _ignored()]
            for source in sources:  # of a folder, what is in it
                whole = (COURSE / source).is_dir()
                what = ["-C", COURSE / source, "."] if whole else [source]
                pack = subprocess.run(
                    ["tar", "-c", *ignored, *what], cwd=COURSE, stdout=subprocess.PIPE, check=True
                )
                unpack = ["tar", "-x", "--no-same-owner", "-C", into]
                subprocess.run(unpack, input=pack.stdout, check=True)
        for option in options:
            if option.startswith("--chown="):
                owner = option.removeprefix("--chown=")
                subprocess.run(["chroot", self.folder, "chown", "-R", owner, place], check=True)


def _ignored() -> list[str]:
    """The lines of .dockerignore as tar takes them: ``**/`` is any depth there already."""
    lines = (COURSE / ".dockerignore").read_text().split()
    return [line.removeprefix("**/") if "**/" in line else f"./{line}" for line in lines]


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """/proc, /dev and shared memory in the root, as a container has them."""
    with ExitStack() as stack:
        for kind, options in (
            ("proc", ["-t", "proc", "proc"]),
            ("dev", ["--bind", "/dev"]),
            ("dev/shm", ["-t", "tmpfs", "-o", "size=1g", "tmpfs"]),
        ):
            subprocess.run(["mount", *options, folder / kind], check=True)
            stack.callback(subprocess.run, ["umount", folder / kind], check=False)
        yield


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", folder], check=True)
    (folder / "etc" / "resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    root = Root(folder)
    with mounted(folder):
        root.run(f"apt-get update && apt-get install -y --no-install-recommends {BASE}")
        for word, rest in steps((COURSE / "Dockerfile").read_text(), ("build", "cpu")):
            print(f"--- {word} {rest}", flush=True)
            if word == "FROM":
                root.user, root.work = "root", "/"
            elif word == "RUN":
                root.run(rest)
            elif word == "COPY":
                root.copy(rest)
            elif word == "WORKDIR":
                root.work = rest
                (folder / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif word == "USER":
                root.user = rest
            elif word == "ENV":
                name, value = rest.split("=", 1)
                root.environment[name] = value.replace("$PATH", root.environment["PATH"])
        root.run("make run")
        root.user = "root"  # .ci/run installs what tests need beyond the image
        root.run(".ci/run")


if __name__ == "__main__":
    main()
