"""Which module may import which: the layout of docs/contributing.md, held by a test.

Imports inside of functions and those for type checkers count as well.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import COURSE

SRC = COURSE / "src"
# Each layer may import those before it, and itself.
LAYERS = [
    {"errors"},
    {"compiled", "device", "loopback", "profiles"},
    {"tensorflow_setup", "workspace"},
    {"datasets"},
    {"features"},
    {"customising", "evaluation"},
    {"serving"},
    {"explorer"},
    {"exercises"},
    {"commands"},
]
KNOW_THE_CLASSROOM = {"exercises", "commands"}
NOTEBOOKS = {"IPython", "ipywidgets", "jupytext", "nbclient", "nbformat", "papermill"}


def imports(src: Path) -> dict[str, set[str]]:
    """Return each module of our packages and the modules of ours that it imports."""
    files = {module_name(file, src): file for file in sorted(src.rglob("*.py"))}
    return {
        name: {found for found in imported(file, set(files)) if found != name}
        for name, file in files.items()
    }


def module_name(file: Path, src: Path) -> str:
    parts = file.relative_to(src).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, modules: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: a relative import hides where it leads"
            # "from package import name" may mean a module of the package
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            found |= {name} - {""}
    return found


def layer(module: str) -> int:
    part = module.split(".")[1]
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def wrong_directions(graph: dict[str, set[str]]) -> list[str]:
    """Return what breaks the layout, as ``importer -> imported``."""
    wrong = []
    for module, needs in graph.items():
        for need in needs:
            ours, theirs = module.split(".")[0], need.split(".")[0]
            if ours == theirs == "multistage":
                bad = "." in module and "." in need and layer(need) > layer(module)
            elif ours == "multistage":
                bad = module.split(".")[1:2] == [] or module.split(".")[1] not in KNOW_THE_CLASSROOM
            else:
                bad = theirs == "multistage"
            if bad:
                wrong.append(f"{module} -> {need}")
    return wrong


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return imports(SRC)


def test_the_classroom_knows_no_recommender_and_each_layer_only_those_below(graph):
    assert len(graph) > 80
    assert wrong_directions(graph) == []


def test_no_modules_import_each_other_in_a_circle(graph):
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_serving_imports_nothing_of_notebooks(graph):
    reached, waiting = set(), [name for name in graph if name.startswith("multistage.serving")]
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting += graph[module] - reached
    assert not {name for name in reached if name.startswith("courseware")}
    for module in reached:
        file = SRC / module.replace(".", "/")
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        tree = ast.parse(file.read_text())
        names = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not names & NOTEBOOKS, module


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        (
            "courseware/records.py",
            "def f():\n    import multistage.errors",
            "courseware.records -> ",
        ),
        ("multistage/serving/load.py", "from courseware import records", "multistage.serving.load"),
        ("multistage/workspace.py", "from multistage import datasets", "multistage.workspace -> "),
        ("multistage/datasets/splits.py", "from multistage.serving import client", "splits -> "),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, line, said):
    """Also inside of a function, and by any spelling."""
    for source in SRC.rglob("*.py"):
        target = tmp_path / source.relative_to(SRC)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    broken = tmp_path / file
    broken.write_text(f"{broken.read_text()}\n{line}\n")
    assert [one for one in wrong_directions(imports(tmp_path)) if said in one]
