"""A bare Debian without Docker: build the image's target ``cpu`` there, or follow the README.

As root, with debootstrap, in an empty folder:

* ``python -m tests.packaging.chroot_build image DIR`` makes one root for each stage of the
  Dockerfile, with what the base image has (Python 3.11), does each step there in order, and then
  runs ``make run`` as the image's user and ``.ci/run`` (which is ``make test``) as root.
* ``python -m tests.packaging.chroot_build readme DIR`` clones the course into a root that has
  nothing, and runs there the two lines that the README gives for such a machine. With ``--suite
  trixie`` that is Debian 13, which has no Python 3.11: it comes from a local mirror, since uv's own
  place for it may be out of reach.
* ``python -m tests.packaging.chroot_build ci DIR`` does the same with ``.ci/run`` and ``make run``,
  after no more than git.

Every command has mounts and processes of its own: what it leaves behind ends with it.
"""

import argparse
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.packaging.python_mirror import make_mirror

COURSE = Path(__file__).resolve().parents[2]
BASE = "python3.11 python3.11-venv python3.11-dev libpython3.11 ca-certificates"  # of python:slim
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# /proc, /dev and shared memory of a root, as a container has them
MOUNT = (
    "mount -t proc proc $0/proc && mount --rbind /dev $0/dev"
    ' && mount -t tmpfs -o size=1g,mode=1777 tmpfs $0/dev/shm && exec chroot "$@"'
)
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
HANDED_ON = ("http_proxy", "https_proxy", "no_proxy", "PYTEST_ADDOPTS")
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")


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


def empty_machine(readme: str) -> list[str]:
    """Return the lines that the README gives for a machine that has nothing."""
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if "apt-get" in block).splitlines()


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
        enter = [f"--userspec={self.user}", self.folder, "/bin/sh", "-ec", inside]
        subprocess.run(
            [*ALONE, "sh", "-ec", MOUNT, self.folder, *enter],
            env=home | self.environment,
            check=True,
        )

    def say_and_run(self, command: str) -> None:
        """Print a command, run it, and print how long it took."""
        print(f"--- {command}", flush=True)
        start = time.monotonic()
        self.run(command)
        print(f"--- {time.monotonic() - start:.0f} s", flush=True)

    def copy(self, argument: str, stages: dict[str, Path]) -> None:
        """Copy files of the course, or of an earlier stage's root (``--from=``)."""
        words = argument.split()
        options = dict(word[2:].split("=") for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        place = self.folder / os.path.join(self.work, target).lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        stage = stages.get(options.get("from", ""))
        ignored = [] if stage else [f"--exclude={line}" for line in _ignored()]
        owner = ["--no-same-owner"]
        if "chown" in options:
            user, group = (self._id(name) for name in options["chown"].split(":"))
            ignored += [f"--owner={user}", f"--group={group}", "--numeric-owner"]
            owner = ["--same-owner"]
        for source in sources:  # of a folder, what is in it
            origin = (stage or COURSE) / source.lstrip("/")
            what = [origin, "."] if origin.is_dir() else [origin.parent, origin.name]
            pack = subprocess.Popen(["tar", "-c", *ignored, "-C", *what], stdout=subprocess.PIPE)
            subprocess.run(["tar", "-x", *owner, "-C", place], stdin=pack.stdout, check=True)
            if pack.wait():
                raise subprocess.CalledProcessError(pack.returncode, pack.args)

    def _id(self, name: str) -> str:
        """The number of a user of the root (and of the group that has its name)."""
        for line in (self.folder / "etc" / "passwd").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return line.split(":")[2]
        return name


def _ignored() -> list[str]:
    """The lines of .dockerignore as tar takes them: ``**/`` is any depth there already."""
    lines = (COURSE / ".dockerignore").read_text().split()
    return [line.removeprefix("**/") if "**/" in line else f"./{line}" for line in lines]


def bare(folder: Path, suite: str = "bookworm", architecture: str | None = None) -> Root:
    """Make a Debian root, for another ``architecture`` if the kernel runs its programs already."""
    kind = ["--variant=minbase", *([f"--arch={architecture}"] if architecture else [])]
    subprocess.run(["debootstrap", *kind, suite, folder], check=True)
    return connect(folder)


def connect(folder: Path) -> Root:
    """Let a Debian root reach the network as this machine does."""
    (folder / "etc" / "resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    (folder / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    root = Root(folder)
    root.environment |= {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    if trusted := os.environ.get("SSL_CERT_FILE"):  # a proxy that signs with its own
        (folder / "etc" / "trusted.pem").write_bytes(Path(trusted).read_bytes())
        root.environment |= dict.fromkeys(CERTIFICATES, "/etc/trusted.pem")
    return root


def build_image(folder: Path) -> Root:
    """Do the Dockerfile's steps of target ``cpu``; return the root of its last stage."""
    base = bare(folder / "base")
    base.run(f"apt-get update && apt-get install -y --no-install-recommends {BASE}")
    stages: dict[str, Path] = {}
    root = base
    for word, rest in steps((COURSE / "Dockerfile").read_text(), ("build", "cpu")):
        print(f"--- {word} {rest}", flush=True)
        if word == "FROM":
            stage = rest.rsplit(None, 1)[-1]
            stages[stage] = folder / stage
            subprocess.run(["cp", "-a", base.folder, stages[stage]], check=True)
            root = Root(stages[stage], environment=dict(base.environment))
        elif word == "RUN":
            root.run(rest)
        elif word == "COPY":
            root.copy(rest, stages)
        elif word == "WORKDIR":
            root.work = rest
            (root.folder / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            root.user = rest
        elif word == "ENV":
            name, value = rest.split("=", 1)
            root.environment[name] = value.replace("$PATH", root.environment["PATH"])
    return root


def image(folder: Path) -> None:
    """Build the image's root, run the labs there, and then the tests."""
    root = build_image(folder)
    root.run("make run")
    root.user = "root"  # .ci/run installs what tests need beyond the image
    root.run(".ci/run")


def cloned(folder: Path, suite: str) -> Root:
    """Make a bare root that holds the course, and a mirror of managed Pythons with one in it."""
    root = bare(folder / suite, suite)
    root.work = "/course"
    subprocess.run(["git", "clone", "-q", COURSE, root.folder / "course"], check=True)
    mirror = make_mirror(root.folder / "mirror")
    mirror.write_text(mirror.read_text().replace(mirror.parent.as_uri(), "file:///mirror"))
    root.environment["UV_PYTHON_DOWNLOADS_JSON_URL"] = f"file:///mirror/{mirror.name}"
    return root


def readme(folder: Path, suite: str) -> None:
    """Do on an empty machine what the README says, and nothing else."""
    root = cloned(folder, suite)
    for line in empty_machine((COURSE / "README.md").read_text()):
        root.say_and_run(line)


def ci(folder: Path, suite: str) -> None:
    """Run ``.ci/run`` on an empty machine, and then the labs."""
    root = cloned(folder, suite)
    root.run("apt-get update && apt-get install -y --no-install-recommends ca-certificates git")
    for line in (".ci/run", "make run"):
        root.say_and_run(line)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["image", "readme", "ci"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suite", default="bookworm", choices=["bookworm", "trixie"])
    given = parser.parse_args()
    folder = given.folder.resolve()
    if given.what == "image":
        image(folder)
    else:
        {"readme": readme, "ci": ci}[given.what](folder, given.suite)


if __name__ == "__main__":
    main()
