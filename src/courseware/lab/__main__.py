"""``python -m courseware.lab`` is the command line ``lab``."""

from courseware.lab.app import main

main()
