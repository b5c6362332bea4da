#!/bin/sh
# Make build/uv, and .venv with a complete Python 3.11, for `make setup` to install into.
#   sh requirements/setup.sh [PYTHON]
# That Python is PYTHON, or one of this machine, or else one that uv fetches into build/python.
# What is missing on this machine is named in one line, before anything is installed.
set -u
cd -P "$(dirname "$0")/.." || exit 1
. requirements/distribution.sh
PATH=${PATH#"$PWD/.venv/bin:"} # the environment may be half there

UV=build/uv/bin/uv
ROOM=4 # GB: the environment, and what its C++ extension leaves while it is built
GLIBC=35 # 2.35: the oldest that Triton's wheel runs on
export UV_PYTHON_INSTALL_DIR="$PWD/build/python" UV_PYTHON_INSTALL_BIN=0

fail() {
  echo "$*" >&2
  exit 1
}

# A Python that can make a virtual environment with pip in it, to fetch uv.
any_python() {
  for python in "$@" python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
    "$python" -EsS -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1 \
      && command -v "$python" && return
  done
  return 1
}

# Whether a uv runs, and is 0.8 or newer.
works() { "$1" venv --help 2>/dev/null | grep -q -e --clear; }

on_other_systems="On a Mac see docs/mac.md, on Windows docs/windows.md, elsewhere Containers in docs/gpu.md."
[ "$(uname -s)" = Linux ] || fail "The course runs on Linux, and this is $(uname -s). $on_other_systems"
case $(uname -m) in
  x86_64 | aarch64) ;;
  *) fail "TensorFlow and Triton support x86_64 and aarch64, and this machine is $(uname -m)." ;;
esac
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc 2\.//')
[ "${glibc:-0}" -ge $GLIBC ] 2>/dev/null \
  || fail "Triton needs glibc 2.$GLIBC or newer, and this system has ${glibc:+2.}${glibc:-no glibc (Alpine, for one)}. $on_other_systems"

case $PWD in
  *[:#]*) fail "Neither PATH nor a package's address can hold the : or # of this folder, $PWD. Rename it." ;;
esac

missing="" packages=""
need() { missing="${missing:+$missing, }$1" packages="$packages $2"; }
command -v g++ >/dev/null 2>&1 || need "g++ (NVTabular builds a C++ extension)" $compiler
works $UV || any_python "$@" >/dev/null || works uv \
  || need "a Python from 3.8 on with venv and ensurepip, or uv from 0.8 on (to fetch packages)" $venv
[ -z "$missing" ] || fail "missing: $missing.${install:+ Install as root: $install$packages}"

if [ $# -gt 0 ]; then
  python=$(sh requirements/python.sh "$1" 2>&1) \
    || fail "PYTHON=$1: $python. Name a Python 3.11 that has its headers and shared library, or leave PYTHON= out."
fi

# A device's name may hold spaces: what is free stands before the share in use.
free=$(df -Pk . 2>/dev/null | awk 'NR == 2 { sub(/ +([0-9]+%|-) .*/, ""); print int($NF / 1024) }' 2>/dev/null)
[ -d .venv ] || [ -z "$free" ] || [ "$free" -ge $((ROOM * 1024)) ] \
  || fail "$free MB are free in this folder, and the environment needs $ROOM GB. Free some space, or move the course."

if ! works $UV; then
  rm -rf build/uv # half there, or of another time
  unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN # they would put it elsewhere
  if maker=$(any_python "$@"); then
    "$maker" -m venv build/uv && build/uv/bin/python -m pip install -q \
      --disable-pip-version-check --no-deps --require-hashes -r requirements/uv.txt
  else
    mkdir -p build/uv/bin && ln -s "$(command -v uv)" $UV
  fi
  works $UV || fail "There is no uv in build/uv that runs. Either it could not be fetched: look at the" \
    "network, at pip config list, and at PIP_… in env. Or no program may run in this folder (mounted noexec)."
fi

# An environment is kept if its installation ended, in this folder, and its Python still starts.
[ "$(cat .venv/.ready* 2>/dev/null)" = "$PWD" ] \
  && .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && exit 0

fetch() {
  echo "No Python 3.11 with headers and shared library here ($1): fetching one into build/python."
  [ -d build/python ] && tries="1 2" || tries=1
  for _ in $tries; do
    said=$($UV python install --managed-python 3.11 2>&1) \
      && python=$($UV python find --managed-python 3.11 2>/dev/null) \
      && sh requirements/python.sh "$python" >/dev/null 2>&1 && return
    rm -rf build/python # half there
  done
  package=$(python311)
  fail "Python 3.11 could not be fetched ($(echo "$said" | tail -n 1 | sed 's/^ *Caused by: //'))." \
    "Instead: ${package:+$install $package (as root), then make; or }make PYTHON=/path/to/python3.11, which" \
    "has headers and a shared library; or UV_PYTHON_INSTALL_MIRROR=address make, see docs/setup.md."
}

if [ $# -eq 0 ]; then
  python=$(sh requirements/python.sh 2>/dev/null) || fetch "$(sh requirements/python.sh 2>&1 | paste -sd ';' | sed 's/;/; /g')"
fi
$UV venv -q --clear --python "$python" .venv
