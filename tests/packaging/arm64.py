"""The course on 64-bit Arm: a bare Debian 12 root whose programs QEMU runs.

As root, with debootstrap and qemu-user-static, in a folder that is not there yet:

* ``python -m tests.packaging.arm64 DIR`` does every step in order;
* ``python -m tests.packaging.arm64 DIR STEP...`` does some of them, in a root that has the others.

The steps:

* ``root``: debootstrap, the packages that the course needs, a clone of the course;
* ``setup``: ``make setup``;
* ``imports``: import what requirements/cpu.in names;
* ``tensorflow``: train a model for an epoch;
* ``triton``: start the server on a small model, and ask it once;
* ``lab``: run lab 1 with the profile ``ci``.

All of it takes about 40 minutes. QEMU is several times slower than a real machine: its timings say
nothing about Arm.
"""

import argparse
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from tests.packaging.chroot_build import COURSE, Root, bare, connect

PACKAGES = "python3 python3-venv python3-dev git make g++ ca-certificates"
RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")  # of Debian's qemu-user-static
BINFMT = Path("/proc/sys/fs/binfmt_misc")
HERE = "aarch64"
# Modules whose name is not the package's
MODULES = {
    "codespell": "codespell_lib",
    "faiss-cpu": "faiss",
    "merlin-core": "merlin.core",
    "merlin-dataloader": "merlin.dataloader.tensorflow",
    "merlin-models": "merlin.models.tf",
    "merlin-systems": "merlin.systems.dag.ensemble",
    "nvidia-pytriton": "pytriton",
    "protobuf": "google.protobuf",
    "pytest-xdist": "xdist",
    "scikit-learn": "sklearn",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-cpu-aws": "tensorflow",
    "tritonclient": "tritonclient.grpc",
}

IMPORTS = """
import importlib, sys, time
for name in sys.argv[1:]:
    begin = time.monotonic()
    importlib.import_module(name)
    print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)
"""

TENSORFLOW = """
import platform
import numpy as np
import tensorflow as tf
x = np.random.default_rng(1).normal(size=(256, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)
model = tf.keras.Sequential([tf.keras.layers.Dense(8, activation="relu"), tf.keras.layers.Dense(1)])
model.compile("adam", "mse")
model.build((None, 4))
before = model.evaluate(x, y, verbose=0)
model.fit(x, y, epochs=1, verbose=0)
after = model.evaluate(x, y, verbose=0)
print(tf.__version__, platform.machine(), before, after)
assert after < before
"""

CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""

MODEL = """
import triton_python_backend_utils as utils
class TritonPythonModel:
    def execute(self, requests):
        values = [utils.get_input_tensor_by_name(one, "x").as_numpy() for one in requests]
        return [utils.InferenceResponse([utils.Tensor("y", 2 * value)]) for value in values]
"""

TRITON = f"""
import tempfile
from pathlib import Path
import numpy as np
import tritonclient.grpc as grpc
from multistage.serving.triton import TritonServer
with tempfile.TemporaryDirectory() as folder:
    model = Path(folder) / "double"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text('''{CONFIG}''')
    (model / "1" / "model.py").write_text('''{MODEL}''')
    with TritonServer(folder, wait=1200) as server:
        print(f"ready after {{server.seconds_to_ready:.1f}} s", flush=True)
        asked = grpc.InferInput("x", [1, 1], "FP32")
        asked.set_data_from_numpy(np.array([[21]], "float32"))
        answer = grpc.InferenceServerClient(server.grpc_url).infer("double", [asked])
        print(answer.as_numpy("y"))
        assert answer.as_numpy("y") == 42
"""


def modules(text: str, machine: str = HERE) -> Iterator[str]:
    """Yield the module of each package that a file of requirements names for such a machine."""
    for line in text.splitlines():
        line = re.sub(r"\s*#.*", "", line)
        if not line or line.startswith("-"):
            continue
        named = Requirement(line)
        if not named.marker or named.marker.evaluate({"platform_machine": machine}):
            yield MODULES.get(named.name, named.name.replace("-", "_"))


def register() -> None:
    """Have the kernel give Arm's programs to QEMU, in every root."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    if not (BINFMT / "qemu-aarch64").exists():
        (BINFMT / "register").write_text(RULE.read_text())


def make_root(folder: Path) -> None:
    """Make a root with what the course needs, and a clone of the course."""
    root = bare(folder, architecture="arm64")
    root.run(f"apt-get update && apt-get install -y --no-install-recommends {PACKAGES}")
    subprocess.run(["git", "clone", "-q", COURSE, folder / "course"], check=True)


def python(root: Root, script: str, *arguments: str) -> None:
    """Run a script with the Python of the course."""
    (root.folder / "tmp" / "step.py").write_text(script)
    root.run(f".venv/bin/python /tmp/step.py {' '.join(arguments)}")


def take(step: str, folder: Path) -> None:
    """Do one step of those that this module's docstring lists."""
    if step == "root":
        return make_root(folder)
    root = connect(folder)
    root.work = "/course"
    if step == "setup":
        root.run("make setup")
    elif step == "imports":
        named = (folder / "course" / "requirements" / "cpu.in").read_text()
        python(root, IMPORTS, *dict.fromkeys(modules(named)))
    elif step == "tensorflow":
        python(root, TENSORFLOW)
    elif step == "triton":
        python(root, TRITON)
    elif step == "lab":
        root.run(".venv/bin/lab run --section 1 --profile ci")
    return None


STEPS = ("root", "setup", "imports", "tensorflow", "triton", "lab")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="*", metavar="step", help=", ".join(STEPS))
    given = parser.parse_args()
    if unknown := set(given.steps) - set(STEPS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    register()
    for step in given.steps or STEPS:
        begin = time.monotonic()
        print(f"--- {step}", flush=True)
        take(step, given.folder.resolve())
        print(f"--- {step}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
