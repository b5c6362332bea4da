# Sourced by setup.sh and .ci/run: what this distribution calls the packages that the course needs.
#   $install    its command, empty if the distribution is none of those below
#   $compiler   the package of g++
#   $venv       the package of a Python from 3.8 on that can make virtual environments
# OS_RELEASE names another file than /etc/os-release, for the tests.

os() { (. "${OS_RELEASE:-/etc/os-release}" 2>/dev/null && eval "echo \"\${$1:-}\""); }

case " $(os ID) $(os ID_LIKE) " in
  *" debian "* | *" ubuntu "*) install="apt-get install" compiler=g++ venv=python3-venv ;;
  *" fedora "* | *" rhel "*) install="dnf install" compiler=gcc-c++ venv=python3 ;;
  *" suse "* | *" opensuse "*) install="zypper install" compiler=gcc-c++ venv=python3 ;;
  *" arch "*) install="pacman -S" compiler=gcc venv=python ;;
  *) install="" compiler=g++ venv=python3 ;;
esac
case "$install $(os VERSION_ID)" in
  zypper*\ 15*) venv=python311 ;; # python3 is 3.6 there
esac

# Print the package of a complete Python 3.11, nothing if this distribution has none. The package
# manager is asked, since a fixed list would become out of date. Ubuntu 22.04 has no more than a
# release candidate of 3.11, which is not accepted.
python311() {
  case $install in
    apt-get*) apt-cache show python3.11-dev 2>/dev/null | grep -q '^Version: 3\.11\.[0-9]*-' \
      && echo python3.11-dev ;;
    dnf*) dnf -q list python3.11-devel >/dev/null 2>&1 && echo python3.11-devel ;;
    zypper*) zypper -n search -x python311-devel >/dev/null 2>&1 && echo python311-devel ;;
  esac
  return 0
}
