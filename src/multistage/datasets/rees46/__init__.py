"""REES46's event logs: from files of any size to labelled interactions.

:mod:`multistage.datasets.rees46.read` reads the files, :mod:`multistage.datasets.rees46.quarantine`
judges their rows, :mod:`multistage.datasets.rees46.label` labels sessions, and
:mod:`multistage.datasets.rees46.logs` does all of it on Dask.
"""

from multistage.datasets.rees46.label import label_sessions, split_category
from multistage.datasets.rees46.logs import Labelled, find_files, read_logs

__all__ = ["Labelled", "find_files", "label_sessions", "read_logs", "split_category"]
