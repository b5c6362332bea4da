#!/bin/sh
# Print the path of a complete Python 3.11: NVTabular's extension needs its headers, and Triton's
# Python backend its shared library. Checks the one that is named, else python3.11 and python3.
# If none is complete, says what is missing in each on standard error and ends with 1.
#   sh requirements/python.sh [PYTHON]
# Python is started without packages and settings (-EsS): what they print is no answer.

look='
import ctypes, os, sys, sysconfig
version = sys.version.split()[0]
if sys.version_info[:2] != (3, 11) or sys.version_info.releaselevel != "final":
    sys.exit("is Python " + version)
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("has no headers")
library = "libpython3.11.so.1.0"
folders = [sysconfig.get_config_var("LIBDIR") or "/", os.path.join(sys.base_prefix, "lib")]
if not any(os.path.exists(os.path.join(folder, library)) for folder in folders):
    try:
        ctypes.CDLL(library)
    except OSError:
        sys.exit("has no shared library")
print(getattr(sys, "_base_executable", sys.executable))'

[ $# -gt 0 ] || set -- python3.11 python3
for python in "$@"; do
  if ! command -v "$python" >/dev/null 2>&1; then
    echo "$python is not there" >&2
  elif [ -d "$python" ]; then
    echo "$python is a folder" >&2
  elif said=$("$python" -EsS -c "$look" 2>&1) && last=$(echo "$said" | tail -n 1) && [ -x "$last" ]; then
    echo "$last" # a warning may stand before it
    exit 0
  else
    echo "$python $(echo "$said" | head -n 1)" >&2
  fi
done
exit 1
