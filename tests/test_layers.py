"""Imports run one way between the rooms: a room knows the rooms below it and none above."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("avsync_cli", "training", "export")

# From the lowest floor up: a floor imports those below it. A floor of several names has no order among them.
FLOORS = (
    ("avsync_cli",),
    ("training.tables",),
    (
        "training.as_published",
        "training.config",
        "training.processes",
        "training.progress",
        "training.reach",
        "training.whole_file",
    ),
    ("training.recipe",),
    ("training.networks",),
    ("training.baseline_recipe",),
    ("training.smoke",),
    ("training.data",),
    ("training.losses",),
    ("training.residual_recipe",),
    ("training.weights",),
    ("training.evaluation",),
    ("training.loops",),
    ("training.reproduction",),
    ("training.data_commands", "training.train_commands", "training.weight_commands"),
    ("training.__main__",),
    ("export",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imports_of(source):
    """The modules of ours that a source imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports are not used"
            # What is imported from a package may be a module of it.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & FILES.keys() or {node.module}
    return {module for module in found if module.split(".")[0] in PACKAGES}


def room_of(module):
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "training" else parts[0]


def upward(module, source):
    """The imports of a module that its room may not have."""
    room = room_of(module)
    return [
        imported
        for imported in sorted(imports_of(source))
        if room_of(imported) != room and FLOOR_OF[room_of(imported)] >= FLOOR_OF[room]
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_runs_upward(package):
    found = {
        module: above
        for module, path in FILES.items()
        if module.split(".")[0] == package
        and module != package
        and (above := upward(module, path.read_text()))
    }
    assert found == {}


def test_every_room_has_a_floor():
    rooms = {room_of(module) for module in FILES} - {"training"}
    assert rooms == FLOOR_OF.keys()


def test_an_import_upward_is_seen():
    assert upward("training.networks.a", "def f():\n    from training.data.clips import Batch\n")
    assert upward("training.networks.a", "from training import data\nimport training.loops.match\n")
    assert upward("avsync_cli.a", "import training.config\n") == ["training.config"]
    assert upward("avsync_cli.batch.a", "from export import parity\n") == ["export.parity"]
    assert upward("training.reach", "from training.config import from_table\n")
    assert not upward("export.a", "from training.data.clips import Batch\nfrom export.b import c\n")


@pytest.mark.parametrize("package", ["training", "export"])
def test_no_two_files_need_each_other(package):
    graph = {
        module: imports_of(path.read_text()) & FILES.keys() - {module}
        for module, path in FILES.items()
        if module.split(".")[0] == package
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)  # raises CycleError


def test_no_two_files_of_the_tool_need_each_other_to_load():
    """What a function imports when it runs does not count: the tool starts fast because of that."""
    loaded = {
        module: imports_of("\n".join(map(ast.unparse, imports_at_top(path)))) & FILES.keys() - {module}
        for module, path in FILES.items()
        if module.split(".")[0] == "avsync_cli"
    }
    assert len(list(TopologicalSorter(loaded).static_order())) >= len(loaded)  # raises CycleError


def imports_at_top(path):
    body = ast.parse(path.read_text()).body
    return [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
