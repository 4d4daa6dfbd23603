"""``recall.json`` with made-up rates."""

import json
from pathlib import Path
from typing import Any

from dataset_files import DATA

Pairs = dict[tuple[str, str], tuple[float, float]]  # recall and chance


def write_recall(
    results: Path, folder: str, embedder: str, challenge: str | None, pairs: Pairs, **more: object
) -> None:
    """``recall.json`` of some pairs of groups; ``settings`` of ``more`` are added, other fields replaced."""
    settings: Any = more.pop("settings", {})
    groups = sorted({group for pair in pairs for group in pair})
    rows = [
        {
            "source": source, "target": target, "recall_at_1": recall, "low": recall - 5, "high": recall + 5,
            "chance": chance, "site_pairs": 1, "queries": 20,
        }
        for (source, target), (recall, chance) in pairs.items()
    ]  # fmt: skip
    mean = sum(recall for recall, _ in pairs.values()) / len(pairs)
    chance = sum(chance for _, chance in pairs.values()) / len(pairs)
    embeddings: Any = more.pop("embeddings", {"embedder": embedder, "weights": None})
    content = {
        "embeddings": {"dataset": DATA.record()} | embeddings,
        "embedder": embedder,
        "settings": {"split": "test", "challenge": challenge and f"sets/{challenge}.json", **settings},
        "groups": groups,
        "trained_groups": None,
        "pairs": rows,
        "within": [],
        "metrics": [],
        "summary": [
            {
                "name": "all", "pairs": len(pairs), "recall_at_1": mean, "low": mean - 5, "high": mean + 5,
                "chance": chance,
            }
        ],
    }  # fmt: skip
    (results / folder).mkdir(parents=True, exist_ok=True)
    (results / folder / "recall.json").write_text(json.dumps(content | more))
