"""Set up the machine before TensorFlow and Merlin are imported.

No lab mentions a device. ``quiet`` calls :func:`set_up_device`, and the profile has the sizes.

``python -m multistage.device`` names the GPUs that TensorFlow sees, and fails if there is none.
"""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from multistage.errors import CourseError

# Set to 1, Merlin and NVTabular work on cuDF where it is installed. The labs expect pandas.
CUDF = "MULTISTAGE_CUDF"
# Dask's settings: merlin-core counts GPUs through NVML, XGBoost's workers connect to SCHEDULER.
NVML = "distributed.diagnostics.nvml"
SCHEDULER = "xgboost.scheduler_address"


def set_up_device() -> None:
    """Set up this process, and those that it starts, for this machine and its GPU.

    What was set in the environment already is kept; without a GPU little changes.

    * A kernel takes memory of the card as it needs it, and not the whole card.
    * CUDA's libraries are found in the ``nvidia-*-cu11`` wheels: TensorFlow 2.12 does not look
      there. XLA, which Keras' optimizers use on a GPU, finds its own part there too.
    * merlin-core is told that there is no GPU. Where it counts one it expects cuDF, a cluster of
      CUDA workers, and a TensorFlow built for it, and fails if one of them is missing.
      TensorFlow, XGBoost and FAISS find the GPU by themselves.
    * XGBoost's workers connect over the loopback. By itself it looks up this machine's name, fails
      where that has no address, and else listens for the whole network.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if os.environ.get(CUDF) != "1":
        _set_dask(NVML, False)
    if _variable(SCHEDULER) not in os.environ:
        _set_dask(SCHEDULER, "127.0.0.1")
    if wheels := _wheels():
        load_libraries(sorted(wheels.glob("*/lib/lib*.so*")))
        if (wheels / "cuda_nvcc").is_dir():
            os.environ.setdefault("XLA_FLAGS", f"--xla_gpu_cuda_data_dir={wheels / 'cuda_nvcc'}")


def _set_dask(name: str, value: str | bool) -> None:
    """Change a setting of Dask, here and in processes that this one starts."""
    os.environ[_variable(name)] = str(value)
    if dask := sys.modules.get("dask"):  # it has read its environment already
        dask.config.set({name: value})


def _variable(name: str) -> str:
    """The environment's name for a setting of Dask."""
    return f"DASK_{name.upper().replace('.', '__')}"


def load_libraries(files: list[Path]) -> None:
    """Load shared libraries in an order in which each finds those that it needs.

    The loader takes a library that is in memory before it looks for a file of that name. What
    cannot be loaded (a library that needs a driver, on a machine without) is left out. Each is
    loaded for those that ask for it by name: with global symbols, cuBLAS' libnvblas
    would take over the calls of SciPy and scikit-learn to their own BLAS.
    """
    while files:
        left = [file for file in files if not _load(file)]
        if len(left) == len(files):
            return
        files = left


def require_gpu() -> list[str]:
    """Return the names of the GPUs that TensorFlow sees.

    Raises:
        CourseError: if it sees none.
    """
    set_up_device()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # what TensorFlow warns of says why
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        build = "for CUDA" if tf.test.is_built_with_cuda() else "for CPUs only"
        raise CourseError(
            f"Profile gpu: TensorFlow {tf.__version__}, built {build}, sees no GPU. See what "
            "nvidia-smi says, install requirements/gpu.txt (make setup PROFILE=gpu), or choose "
            "another profile."
        )
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return [str(one.get("device_name", "GPU")) for one in details]


def _wheels() -> Path | None:
    """The folder that the nvidia wheels share, if there is one."""
    spec = find_spec("nvidia")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next(map(Path, folders), None)


def _load(file: Path) -> bool:
    try:
        ctypes.CDLL(str(file))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    try:
        print(*require_gpu(), sep="\n")
    except CourseError as error:
        raise SystemExit(str(error)) from None
