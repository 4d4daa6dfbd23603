"""A small folder of sound recordings for tests to spoil, and what preparation makes of it."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut, load_manifest
from rich.console import Console

from data_prep.corpora.folder import FolderConfig
from data_prep.pipeline import PrepareConfig, prepare

COLUMNS = ("path", "text", "dialect", "speaker", "sentence_id", "split")
WriteTable = Callable[..., FolderConfig]
MakeConfig = Callable[[FolderConfig], PrepareConfig]


def write_noise(path: Path, seconds: float = 0.5, rate: int = 16000, seed: int = 0) -> None:
    """White noise; another seed gives other samples."""
    samples = np.random.default_rng(seed).uniform(-0.1, 0.1, size=int(seconds * rate)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def good_rows(folder: Path, count: int = 12) -> list[dict[str, str]]:
    """Rows without any problem; writes their audio."""
    rows = []
    for i in range(count):
        split = ("train", "train", "valid", "test")[i % 4]
        write_noise(folder / f"good{i}.wav", seconds=0.5 + 0.01 * i, seed=i)
        rows.append(
            {
                "path": f"good{i}.wav",
                "text": f"第{chr(0x4E00 + i)}句，{chr(0x5E00 + i)}。",
                "dialect": ("Cantonese", "wuu-shanghai", "Hakka Sixian")[i % 3],
                "speaker": f"{split}-speaker",
                "sentence_id": f"{i:03d}",
                "split": split,
            }
        )
    return rows


def run(config: PrepareConfig) -> list[dict[str, str]]:
    """Prepare; gives the lines of problems.tsv."""
    prepare(config, Console(quiet=True))
    return problems(config)


def problems(config: PrepareConfig) -> list[dict[str, str]]:
    with (Path(config.data_dir) / "problems.tsv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def cuts(config: PrepareConfig) -> dict[str, MonoCut]:
    return {
        cut.id: cut
        for split in ("train", "valid", "test")
        for cut in load_manifest(Path(config.data_dir) / f"cuts_{split}.jsonl.gz")
    }
