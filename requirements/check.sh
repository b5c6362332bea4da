#!/bin/sh
# Says, before anything is installed, what this machine lacks to build the environment; with a
# second argument "gpu" also whether CUDA finds a GPU.
python=${1:-python3.11}

need() { echo "missing: $1. To get it: $2" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 \
  || need "Python 3.11 ($python)" "apt-get install python3.11, or make PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
  || need "Python 3.11 ($python is another version)" "apt-get install python3.11, or make PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null \
  || need "Python's venv and ensurepip" "apt-get install python3.11-venv"
command -v g++ >/dev/null 2>&1 \
  || need "g++ (NVTabular builds a C++ extension)" "apt-get install g++"
"$python" - <<'PY' || need "Python's headers (NVTabular builds a C++ extension)" "apt-get install python3.11-dev"
import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").exists())
PY
"$python" - <<'PY' || need "a shared libpython3.11 (Triton's Python backend loads it)" "apt-get install libpython3.11, or a Python built with --enable-shared"
import ctypes, pathlib, sys, sysconfig
name = "libpython3.11.so.1.0"
if pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/", name).exists():
    sys.exit(0)
try:
    ctypes.CDLL(name)
except OSError:
    sys.exit(1)
PY
[ "${2:-}" = gpu ] || exit 0
"$python" - <<'PY' && exit 0
import ctypes, sys
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit(1)
number = ctypes.c_int()
sys.exit(bool(cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)) or not number.value))
PY
echo "Profile gpu: CUDA's driver finds no GPU. See what nvidia-smi says, or choose PROFILE=laptop." >&2
exit 1
