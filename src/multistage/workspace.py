"""Artifacts: where they are, and the manifest that each has.

An artifact is a folder that one section makes for later ones. It is written under another name and
renamed when complete, and it has its own ``manifest.json``: who made it, from which data, and the
sha256 of every file in it. Files whose checksum is not in the manifest are not read.
"""

import errno
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, in images that have cuDF
    import tomli as tomllib

from multistage.errors import CourseError
from multistage.profiles import Profile, get_profile

MANIFEST = "manifest.json"
MAP = "course.toml"  # in the course's folder
DATASET_NAME = re.compile(r"[a-z][a-z0-9_-]*")
PACKAGES = (
    "merlin-models",
    "nvtabular",
    "merlin-systems",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-cpu-aws",
    "faiss-cpu",
    "faiss-gpu-cu11",
)


class ArtifactError(CourseError):
    """An artifact is missing, or is not what its manifest says."""


def find_course(start: Path | str | None = None) -> Path:
    """Return the course folder that holds ``start`` (by default the current directory).

    The course folder is the nearest one upwards that has a ``course.toml``.

    Raises:
        CourseError: if there is none.
    """
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / MAP).is_file():
            return folder
    raise CourseError(
        f"No course folder holds {start.name or str(start)!r}: expected a folder with {MAP} in it. "
        "Change into the course first."
    )


@dataclass(frozen=True)
class Manifest:
    """The description of an artifact; stored in it as ``manifest.json``."""

    name: str
    producer: str
    dataset: str
    profile: str
    seed: int
    data: str  # sha256 of the manifest of the artifact "data" that it was made from; "" if none
    versions: dict[str, str]
    schema: dict[str, dict[str, str]]  # Parquet file -> column -> type
    sha256: dict[str, str]  # file -> checksum


@dataclass(frozen=True)
class Workspace:
    """The artifacts of one data set in one profile: ``workspace/<dataset>-<profile>/``."""

    course: Path
    dataset: str
    profile: Profile

    @classmethod
    def open(cls, dataset: str, profile: str, root: Path | str | None = None) -> "Workspace":
        """Return the workspace of ``dataset`` and ``profile`` in the course around ``root``.

        Raises:
            CourseError: if ``dataset`` could be the path of another folder.
        """
        if not DATASET_NAME.fullmatch(dataset):
            raise CourseError(
                f"{dataset!r} cannot be the name of a data set: expected small letters, digits, - "
                "and _, such as store."
            )
        return cls(find_course(root), dataset, get_profile(profile))

    @property
    def folder(self) -> Path:
        """The folder of this workspace; it need not exist yet."""
        return self.course / "workspace" / f"{self.dataset}-{self.profile.name}"

    @contextmanager
    def write(self, name: str, producer: str) -> Iterator[Path]:
        """Yield an empty folder to fill; on success it becomes the artifact ``name``.

        Args:
            name: such as ``"export/index"``; the path of the artifact in the workspace.
            producer: the section that makes it, such as ``"04-retrieval-and-ranking"``.

        If the body raises, the old artifact stays as it was.
        """
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield aside
            manifest = Manifest(
                name=name,
                producer=producer,
                dataset=self.dataset,
                profile=self.profile.name,
                seed=self.profile.seed,
                data=self._data_digest(name),
                versions=_versions(),
                schema=_parquet_schemas(aside),
                sha256=checksums(aside, besides=MANIFEST),
            )
            (aside / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True))
            aside.chmod(0o755)
            _replace(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def read(self, name: str) -> Path:
        """Return the folder of the artifact ``name`` after checking every file in it.

        Raises:
            ArtifactError: if it is missing, if a file is missing, added or changed, or if it was
                made from other data than the workspace holds now; the message names the file and
                the command that makes the artifact again.
        """
        if problem := self.problem(name):
            raise ArtifactError(f"{problem} Make it again with: {self.rebuild_command(name)}")
        return self.folder / name

    def problem(self, name: str) -> str:
        """Return what is wrong with the artifact ``name``, and "" if it is there and intact."""
        folder = self.folder / name
        try:
            manifest = Manifest(**json.loads((folder / MANIFEST).read_text()))
        except FileNotFoundError:
            return f"The artifact {name!r} is missing."
        except (ValueError, TypeError):
            return f"The manifest of {name!r} cannot be read."
        found = checksums(folder, besides=MANIFEST)
        for file in sorted(manifest.sha256.keys() | found.keys()):
            if manifest.sha256.get(file) != found.get(file):
                state = (
                    "changed"
                    if file in manifest.sha256 and file in found
                    else ("missing" if file in manifest.sha256 else "unknown to its manifest")
                )
                return f"The artifact {name!r} is damaged: {file} is {state}."
        if manifest.data != self._data_digest(name):
            return f"The artifact {name!r} was made from other data."
        return ""

    def _data_digest(self, name: str) -> str:
        manifest = self.folder / "data" / MANIFEST
        if name == "data" or not manifest.exists():
            return ""
        return hashlib.sha256(manifest.read_bytes()).hexdigest()

    def has(self, name: str) -> bool:
        """Whether the artifact ``name`` is there and intact."""
        return not self.problem(name)

    def artifacts(self) -> list[str]:
        """Return the names of the artifacts that are there, intact or not, sorted."""
        return sorted(
            str(manifest.parent.relative_to(self.folder))
            for manifest in self.folder.rglob(MANIFEST)
            if not any(part.startswith(".") for part in manifest.relative_to(self.folder).parts)
        )

    def rebuild_command(self, name: str) -> str:
        """Return the command line that makes the artifact ``name``."""
        section = _maker(self.course, name)
        options = f"--dataset {self.dataset} --profile {self.profile.name}"
        return f"lab run {options}" + (f" --section {section}" if section else "")


def _maker(course: Path, name: str) -> int | None:
    """The number of the lab that makes the artifact ``name``, by the map of the course."""
    labs = tomllib.loads((course / MAP).read_text())["labs"]
    return next((int(lab["file"][:2]) for lab in labs if name in lab["makes"]), None)


def _replace(aside: Path, target: Path) -> None:
    """Move ``aside`` to ``target``; of two writers that race, the later wins whole."""
    while True:
        try:
            aside.rename(target)
            return
        except OSError as error:  # a folder that is not empty is not replaced
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        with suppress(FileNotFoundError):  # the other writer has just moved it away
            target.rename(old / "old")
        shutil.rmtree(old)


def checksums(folder: Path, besides: str) -> dict[str, str]:
    """Return the sha256 of every file in ``folder`` by its relative path.

    Left out are the file ``besides``, which holds the checksums, and Python's ``__pycache__``.
    """
    return {
        file.relative_to(folder).as_posix(): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / besides and "__pycache__" not in file.parts
    }


def sha256(file: Path) -> str:
    """Return the checksum of a file of any size."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _parquet_schemas(folder: Path) -> dict[str, dict[str, str]]:
    import pyarrow.parquet as pq

    return {
        str(file.relative_to(folder)): {
            field.name: str(field.type) for field in pq.read_schema(file)
        }
        for file in sorted(folder.rglob("*.parquet"))
        if file.is_file()
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
