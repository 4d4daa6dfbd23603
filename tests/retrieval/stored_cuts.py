"""Small CutSets with stored features; their paths are relative to the data directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet, MonoCut, NumpyFilesWriter, SupervisionSegment
from lhotse.features import Features


@dataclass
class Spoken:
    """One utterance to make: features (T,80) and its labels."""

    utterance_id: str
    features: np.ndarray
    dialect: str | None = "cmn"
    subdialect: str | None = None
    site: str | None = None
    sentence_id: str | None = None


def write_cuts(data_dir: Path, split: str, spoken: Sequence[Spoken]) -> Path:
    """``cuts_{split}.jsonl.gz`` with features below ``fbank/{split}``; returns the data directory."""
    storage = data_dir / "fbank" / split
    storage.mkdir(parents=True)
    cuts = []
    with NumpyFilesWriter(storage) as writer:
        for item in spoken:
            T, F = item.features.shape
            duration = T / 100
            key = writer.write(item.utterance_id, item.features.astype(np.float32))
            features = Features(
                type="kaldi-fbank",
                num_frames=T,
                num_features=F,
                frame_shift=0.01,
                sampling_rate=16000,
                start=0,
                duration=duration,
                storage_type=writer.name,
                storage_path=str(storage.relative_to(data_dir)),
                storage_key=key,
                channels=0,
            )
            custom = {
                name: getattr(item, name)
                for name in ("subdialect", "site", "sentence_id")
                if getattr(item, name) is not None
            }
            supervision = SupervisionSegment(
                item.utterance_id,
                item.utterance_id,
                0,
                duration,
                text="甲",
                language=item.dialect,
                custom=custom,
            )
            cuts.append(
                MonoCut(item.utterance_id, 0, duration, 0, features=features, supervisions=[supervision])
            )
    CutSet.from_cuts(cuts).to_file(data_dir / f"cuts_{split}.jsonl.gz")
    return data_dir
