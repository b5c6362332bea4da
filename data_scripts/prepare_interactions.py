"""Prepare REES46 event logs: ``python data_scripts/prepare_interactions.py 'logs/*.csv.gz' OUT``.

Writes the five tables, ``report.json`` and ``quarantine.csv`` to a new folder OUT.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from multistage.datasets.prepare import REES46_CORE, split_logs, write_tables
from multistage.datasets.rees46 import find_files, read_logs
from multistage.datasets.rees46.logs import QUARANTINE_LIMIT
from multistage.errors import CourseError


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", help="glob of event files, CSV or CSV.gz; quote it")
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler, tcp://HOST:PORT")
    parser.add_argument("--user-core", type=int, default=REES46_CORE, metavar="N")
    parser.add_argument("--product-core", type=int, default=REES46_CORE, metavar="N")
    parser.add_argument("--quarantine-limit", type=float, default=QUARANTINE_LIMIT, metavar="SHARE")
    options = parser.parse_args()
    try:
        write_folder(options)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print((options.output / "report.json").read_text())
    return 0


def write_folder(options: argparse.Namespace) -> None:
    """Write the output folder, aside first."""
    output = options.output.resolve()
    if output.exists():
        raise CourseError(f"{options.output} exists: name a folder that does not, or remove it.")
    files = find_files(options.events)
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        labelled = read_logs(files, aside, options.scheduler, options.quarantine_limit)
        split = split_logs(labelled, options.user_core, options.product_core)
        write_tables(aside, split, labelled.report)
        labelled.write_quarantine(aside / "quarantine.csv")
        aside.chmod(0o755)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
