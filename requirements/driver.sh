#!/bin/sh
# Say in one line, and end with 1, where CUDA's driver finds no GPU.
#   sh requirements/driver.sh [PYTHON]

python=${1:-python3}
command -v "$python" >/dev/null 2>&1 || {
  echo "Profile gpu: $python is not there, to ask CUDA's driver for a GPU. Name one: PYTHON=/path/to/python3." >&2
  exit 1
}
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
