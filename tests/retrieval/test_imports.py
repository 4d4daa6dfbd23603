"""Modules of retrieval import modules of lower folders only."""

import ast
from pathlib import Path

import retrieval

ROOT = Path(retrieval.__file__).parent
STUDIES = {"comparison", "challenge", "depth", "interpretation"}  # none imports another
LEVELS = [
    {"figures", "similarity", "statistics", "results"},
    {"embedding"},
    {"protocol"},
    STUDIES,
    {"report"},
]
LEVEL_OF = {folder: level for level, folders in enumerate(LEVELS) for folder in folders}


def imported_folders(module: Path) -> set[str]:
    """Folders of retrieval that a module imports from, its own among them."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("retrieval.")}
    return found


def test_imports_run_downward() -> None:
    modules = sorted(ROOT.glob("*/*.py"))
    assert {path.parent.name for path in modules} == LEVEL_OF.keys()
    upward = [
        f"{module.relative_to(ROOT)} imports {folder}"
        for module in modules
        for folder in imported_folders(module) - {module.parent.name}
        if LEVEL_OF[folder] >= LEVEL_OF[module.parent.name]
    ]
    assert not upward
