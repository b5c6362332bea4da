"""Fit and save NVTabular workflows and tables without absolute paths in them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merlin.io import Dataset
    from nvtabular import Workflow


def fit_workflow(workflow: "Workflow", train: "Dataset", folder: Path) -> None:
    """Fit ``workflow`` on ``train`` and save it as ``folder/workflow``.

    NVTabular keeps the paths of what it fitted, category files and means of groups, in the pickled
    workflow and in its schema. Fitting and saving inside ``folder``, under relative names, keeps
    those paths relative; ``Workflow.load`` points them at wherever the folder is by then.
    """
    from merlin.dag import Graph
    from nvtabular.ops import Categorify, JoinGroupby

    for operator in (Categorify, JoinGroupby):
        for node in Graph.get_nodes_by_op_type([workflow.output_node], operator):
            node.op.out_path = "fitted"
    with _inside(folder):
        workflow.fit(train)
        workflow.save("workflow")
        rmtree("fitted")


def write_table(table: "Dataset", folder: Path) -> None:
    """Write a transformed table with its schema as Parquet into ``folder``."""
    table.to_parquet(str(folder))
    (folder / "_file_list.txt").unlink()  # absolute paths, and nothing reads it


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in ``folder`` (contextlib's ``chdir``, missing in Python 3.10)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
