"""A corpus of a few utterances on disk, and what it is written with."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


@dataclass
class Miniature:
    """A corpus on disk.

    Attributes:
        settings: overrides of the command prepare.
        cuts: by split, and there by utterance id, the normalised text and the most exact variety.
        problems: ids and kinds of the problems that cost an utterance.
        lists: files that the reader cannot do without.
        sidecars: further text files that it reads, such as one beside each recording.
    """

    settings: list[str]
    cuts: dict[str, dict[str, tuple[str, str]]]
    problems: set[tuple[str, str]] = field(default_factory=set)
    lists: list[Path] = field(default_factory=list)
    sidecars: list[Path] = field(default_factory=list)

    @property
    def texts(self) -> list[Path]:
        """All of them that are text."""
        return [path for path in (*self.lists, *self.sidecars) if path.suffix != ".parquet"]

    @property
    def documents(self) -> list[Path]:
        """Those that are of no use without their end."""
        kinds = (".json", ".jsonl", ".parquet", ".TextGrid")
        return [path for path in (*self.lists, *self.sidecars) if path.suffix in kinds]


def noise(path: Path, seconds: float = 1.5, rate: int = RATE, **kind: str) -> Path:
    """White noise that depends on the path."""
    seed = zlib.crc32(str(path).encode())
    samples = np.random.default_rng(seed).uniform(-0.1, 0.1, size=int(seconds * rate)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **kind)
    return path


def write(path: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path
