"""A mirror of managed Pythons with one Python 3.11 in it: this machine's.

uv downloads managed Pythons from outside the package index. Where that is out of reach, a test
packs the Python that runs it, in the layout of uv's own archives, and names it in a list:

    python -m tests.packaging.python_mirror FOLDER
    UV_PYTHON_DOWNLOADS_JSON_URL=file://FOLDER/downloads.json make setup

Its extension modules need the same shared libraries as here, such as libssl.so.3 and libffi.so.8.
"""

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

LIST = "downloads.json"
LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "test", "tests", "idlelib", "__pycache__", "config-3.11-*", "*.a"
)


def make_mirror(folder: Path, prefix: Path = Path(sys.base_prefix)) -> Path:
    """Pack the Python 3.11 that is installed in ``prefix`` and return the list that names it.

    Raises:
        RuntimeError: if it has no shared library: uv's archives have one.
        FileNotFoundError: if ``patchelf`` is not installed.
    """
    library = prefix / "lib" / "libpython3.11.so.1.0"
    if not library.exists():
        raise RuntimeError(f"no {library.name} in {prefix.name}/lib: build it with --enable-shared")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "python.tar.gz"
    with tempfile.TemporaryDirectory() as scratch:
        python = Path(scratch) / "python"
        for part in ("lib/python3.11", "include/python3.11"):
            shutil.copytree(prefix / part, python / part, ignore=LEFT_OUT)
        (python / "lib" / "python3.11" / "site-packages").mkdir()
        shutil.copy2(library, python / "lib")
        (python / "bin").mkdir()
        shutil.copy2(prefix / "bin" / "python3.11", python / "bin")
        for name in ("python3", "python"):
            (python / "bin" / name).symlink_to("python3.11")
        # It finds its library beside it, wherever it is unpacked.
        subprocess.run(
            ["patchelf", "--set-rpath", "$ORIGIN/../lib", python / "bin" / "python3.11"], check=True
        )
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            tar.add(python, "python")
    major, minor, patch = map(int, platform.python_version_tuple())
    machine = platform.machine()
    entry = {
        "name": "cpython",
        "arch": {"family": machine, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": None,
    }
    downloads = folder / LIST
    key = f"cpython-{major}.{minor}.{patch}-linux-{machine}-gnu"
    downloads.write_text(json.dumps({key: entry}, indent=1) + "\n")
    return downloads


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(make_mirror(parser.parse_args().folder.resolve()))


if __name__ == "__main__":
    main()
