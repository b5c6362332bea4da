"""Write the simulated shop's events: ``python data_scripts/simulate_store.py OUTPUT --users N``."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from multistage.datasets.store.files import FORMATS, write_events
from multistage.datasets.store.world import StoreSettings
from multistage.errors import CourseError


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the monthly files")
    parser.add_argument("--format", choices=FORMATS, default="csv.gz")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    for setting in fields(StoreSettings):
        if setting.name != "edition":
            option = f"--{setting.name.replace('_', '-')}"
            parser.add_argument(option, type=setting.type, default=setting.default)
    options = vars(parser.parse_args())
    output, form, workers = (options.pop(key) for key in ("output", "format", "workers"))
    try:
        files = write_events(StoreSettings(**options), output, form, workers)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    for file in files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
