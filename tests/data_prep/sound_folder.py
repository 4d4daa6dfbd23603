"""A small folder of sound recordings, for tests to spoil."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from data_prep.corpora.folder import FolderConfig

COLUMNS = ("path", "text", "dialect", "speaker", "sentence_id", "split")
WriteTable = Callable[..., FolderConfig]


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
