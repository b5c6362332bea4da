#!/bin/sh
# Says in one line, before anything is installed, all that this machine lacks to build the
# environment; with a second argument "gpu", whether CUDA finds a GPU instead.
python=${1:-python3.11}

if [ "${2:-}" = gpu ]; then
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
fi

missing= packages= hint=
lacks() { missing="${missing:+$missing, }$1"; packages="$packages $2"; }
other=', or make PYTHON=/path/to/python3.11 (built with --enable-shared)'

command -v g++ >/dev/null 2>&1 || lacks "g++ (NVTabular builds a C++ extension)" g++
if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  "$python" -c 'import ensurepip, venv' 2>/dev/null \
    || lacks "Python's venv and ensurepip" python3.11-venv
  "$python" - <<'PY' || lacks "Python's headers (NVTabular builds a C++ extension)" python3.11-dev
import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").exists())
PY
  "$python" - <<'PY' || { lacks "a shared libpython3.11 (Triton's Python backend loads it)" libpython3.11; hint=$other; }
import ctypes, pathlib, sys, sysconfig
name = "libpython3.11.so.1.0"
if pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/", name).exists():
    sys.exit(0)
try:
    ctypes.CDLL(name)
except OSError:
    sys.exit(1)
PY
else
  lacks "Python 3.11 as $python" "python3.11-venv python3.11-dev"
  hint=$other
fi

[ -z "$missing" ] && exit 0
echo "missing: $missing. To get it: apt-get install$packages$hint" >&2
exit 1
