"""``python -m multistage.lab`` is the command line ``lab``."""

from multistage.lab.app import main

main()
