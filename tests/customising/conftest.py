"""The parts of lab 3 as a module: the lab is their one source, here as for its attendees."""

import ast
import importlib.util
import sys

import pytest

from courseware.authoring.read import read_source
from courseware.course import Course
from tests.conftest import COURSE

PARTS = {
    "serializable",
    "off_policy_weight",
    "OffPolicyLoss",
    "draw_negatives",
    "MixedNegatives",
    "FieldGates",
    "CrossMixture",
    "Coverage",
}


def definitions(names):
    """The text of functions and classes of lab 3, by name, in the lab's order."""
    found = {}
    for cell in read_source(Course.read(COURSE).find([3])[0]).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
                found[node.name] = ast.unparse(node)
    assert set(found) == set(names)
    return found


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    """The file of a module with lab 3's parts."""
    file = tmp_path_factory.mktemp("parts") / "lab3_parts.py"
    file.write_text("\n\n".join(["import tensorflow as tf", *definitions(PARTS).values()]))
    return file


@pytest.fixture(scope="session")
def parts(module):
    """That module, imported."""
    spec = importlib.util.spec_from_file_location("lab3_parts", module)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["lab3_parts"] = loaded
    spec.loader.exec_module(loaded)
    return loaded
