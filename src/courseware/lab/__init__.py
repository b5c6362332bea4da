"""The command line ``lab``: run, build and look after the course."""

from courseware.lab.app import main

__all__ = ["main"]
