"""Where the modules of the packages may import from: downward only, and never in a circle.

The graph is read from the source, so an import inside a function counts as well.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each line may import from the lines above it, and within itself from anything that makes no circle.
FLOORS = (
    "zipformer.errors",
    "zipformer.lock",
    "zipformer.files zipformer.device zipformer.console zipformer.typed_json zipformer.stopping",
    "zipformer.distributed zipformer.results_place",
    "zipformer.data",
    "zipformer.layers zipformer.scoring zipformer.optim",
    "zipformer.losses zipformer.encoder",
    "zipformer.heads zipformer.model_dir",
    "zipformer.model_config",
    "zipformer.model",
    "zipformer.decoding zipformer.alignment zipformer.export",
    "zipformer.training",
    "zipformer.tasks",
    "zipformer.run_training zipformer.run_averaging",
    "data_prep",
    "retrieval.figures retrieval.similarity retrieval.statistics retrieval.results",
    "retrieval.embedding",
    "retrieval.protocol",
    "retrieval.comparison retrieval.challenge retrieval.depth retrieval.interpretation",
    "retrieval.report",
    "fangyan",
    "scripts",
)
PACKAGES = ("zipformer", "data_prep", "retrieval", "fangyan", "scripts")

Graph = Mapping[str, set[str]]


def imports_of(source: str, modules: Iterable[str]) -> set[str]:
    """Names of those ``modules`` that a source imports."""
    known = set(modules)
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found & known


@pytest.fixture(scope="module")
def graph() -> Graph:
    """By module, the modules of the packages that it imports."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    return {name: imports_of(path.read_text("utf-8"), files) - {name} for name, path in files.items()}


def room(module: str) -> str:
    """Folder of a module, or the module itself where it lies directly in a package."""
    return ".".join(module.split(".")[:2])


def floor(module: str) -> int:
    """Number of the line of ``FLOORS`` that names the room or the package of a module."""
    for number, names in enumerate(FLOORS):
        if room(module) in names.split() or module.split(".")[0] in names.split():
            return number
    raise AssertionError(f"{module} is on no floor: add its room to FLOORS")


def circle(graph: Graph) -> list[str]:
    """Nodes that can reach one another, of any circle; empty where there is none."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        reached[start] = seen
    return sorted(node for node, seen in reached.items() if node in seen)


def test_no_module_imports_itself_through_others(graph: Graph) -> None:
    assert circle(graph) == []


def test_no_room_imports_itself_through_others(graph: Graph) -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, imported in graph.items():
        rooms[room(module)] |= {room(name) for name in imported} - {room(module)}
    assert circle(rooms) == []


def test_imports_run_downward(graph: Graph) -> None:
    upward = [
        f"{module} imports {name}"
        for module, imported in graph.items()
        for name in imported
        if floor(name) > floor(module)
    ]
    assert upward == []


def test_training_knows_no_task_head_or_loss(graph: Graph) -> None:
    unknown = (
        "zipformer.tasks",
        "zipformer.heads",
        "zipformer.losses",
        "zipformer.decoding",
        "zipformer.model",
    )
    known = [
        f"{module} imports {name}"
        for module, imported in graph.items()
        if room(module) == "zipformer.training"
        for name in imported
        if room(name) in unknown
    ]
    assert known == []


def test_circles_and_imports_are_found() -> None:
    source = "import a.b\nfrom a import c\ndef f():\n    from d.e import g\n"
    assert imports_of(source, ["a", "a.b", "a.c", "d.e", "h"]) == {"a.b", "a.c", "d.e"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
