"""The benchmarks are not run by the tests, but what they take from the packages must be there."""

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OURS = ("zipformer", "data_prep", "retrieval", "benchmarks")


def imported(file: Path) -> list[tuple[str, str]]:
    """(module, name) of everything of ours that a file imports, also within functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS
        for alias in node.names
    ]


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.py")), ids=lambda file: file.stem)
def test_names_that_a_benchmark_imports_exist(file: Path) -> None:
    for module, name in imported(file):
        if module.endswith("_cuda"):
            continue  # needs Triton and a GPU
        found = importlib.import_module(module)
        if not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")  # a module of a package, or an error
