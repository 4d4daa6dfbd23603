"""80-dimensional Kaldi FBANK features, written in shards.

The features are those of :mod:`zipformer.data.features`.

A shard is a file of features and a file of cuts that point into it. Both are renamed when they are complete,
the cuts last: a file of cuts says that its shard is finished. Utterances whose audio cannot be read any more
are listed in a third file.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lhotse import CutSet, LilcomChunkyWriter, MonoCut
from lhotse.augmentation import Speed
from lhotse.utils import fastcopy
from numpy.typing import NDArray

from data_prep.manifests import write_jsonl
from zipformer.data.audio import load_audio
from zipformer.data.features import fbank_extractor
from zipformer.data.manifest import PREPARATION_FILE
from zipformer.errors import UserError
from zipformer.files import replacing
from zipformer.typed_json import read_json

logger = logging.getLogger(__name__)

ORIGINAL_SPEED = 1.0


def recorded_speed(directory: Path) -> tuple[float, tuple[str, ...]]:
    """How to tell the utterances of a prepared training split from their copies at other speeds.

    Args:
        directory: the prepared corpus, which says what its speed factors were.

    Returns:
        Speed of the utterances that stand for the recordings, which is 1 wherever that is among the factors;
        and the ends of the ids of the copies.
    """
    settings = (read_json(directory / PREPARATION_FILE, "prepare") or {}).get("settings", {})
    factors = settings.get("fbank.speed_factors") or [ORIGINAL_SPEED]
    speed = ORIGINAL_SPEED if ORIGINAL_SPEED in factors else factors[0]
    return speed, tuple(f"_sp{factor}" for factor in factors if factor not in (speed, ORIGINAL_SPEED))


@dataclass
class FeatureConfig:
    """How features are made.

    Attributes:
        sampling_rate: Hz; other recordings are resampled.
        speed_factors: the training split is copied once for each factor, played so much faster; [] or [1.0]
            leaves it as it is. More factors, more (and more varied) training data, and as much more disk and
            time per epoch.
        shard_size: most utterances in one file of features. A killed run loses at most the shards in work.
        shard_seconds: most seconds of audio in one file of features, before speed perturbation; null = any.
            An hour is about 30 MB. With it, shard_size may be large, and long utterances make no huge files.
    """

    sampling_rate: int = 16000
    speed_factors: list[float] = field(default_factory=lambda: [0.9, 1.0, 1.1])
    shard_size: int = 200
    shard_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise UserError(f"fbank.shard_size is {self.shard_size}; it must be at least 1")
        if self.shard_seconds is not None and self.shard_seconds <= 0:
            raise UserError(
                f"fbank.shard_seconds is {self.shard_seconds}; it must be greater than 0, or null"
            )
        bad = [factor for factor in self.speed_factors if not 0.5 <= factor <= 2.0]
        if bad or len(set(self.speed_factors)) < len(self.speed_factors):
            raise UserError(
                f"fbank.speed_factors is {list(self.speed_factors)}; it must hold different factors "
                "from 0.5 to 2"
            )


@dataclass(frozen=True)
class FeatureShard:
    """One shard to be computed.

    Attributes:
        directory: where its files go.
        index: its number in the split.
        cuts: utterances without features.
        speed_factors: see ``FeatureConfig``; empty for none.
        sampling_rate: sampling rate of the cuts, Hz.
        may_lose: whether the shard is finished without utterances whose audio cannot be read any more, as
            long as they are less than half of it; otherwise one of them ends the run.
    """

    directory: Path
    index: int
    cuts: list[MonoCut]
    speed_factors: tuple[float, ...]
    sampling_rate: int
    may_lose: bool = False


class LostAudioError(Exception):
    """Audio that could be read when it was checked, but not any more; the message names its file."""


def cuts_file(directory: Path, index: int) -> Path:
    """Cuts of a shard; the file exists if and only if the shard is finished."""
    return directory / f"cuts-{index:05d}.jsonl.gz"


def features_file(directory: Path, index: int) -> Path:
    return directory / f"feats-{index:05d}.lca"


def lost_file(directory: Path, index: int) -> Path:
    """Utterances of a shard that were lost, one JSON object a line; the file exists if there are any."""
    return directory / f"lost-{index:05d}.jsonl"


def read_lost(directory: Path) -> Iterator[tuple[str, str]]:
    """Id of each lost utterance of all shards, and what happened."""
    for path in sorted(directory.glob("lost-[0-9]*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            entry = json.loads(line)
            yield entry["utterance_id"], entry["detail"]


def extract_shard(shard: FeatureShard) -> float:
    """Compute and store the features of one shard; returns the seconds of audio in it.

    Raises:
        UserError: audio cannot be loaded any more, of more utterances than the shard may lose.
    """
    extractor = fbank_extractor(shard.sampling_rate)
    final = features_file(shard.directory, shard.index)
    seconds = 0.0
    with_features = []
    lost: list[tuple[str, str]] = []
    with replacing(final) as temporary, LilcomChunkyWriter(temporary) as storage:
        for cut in shard.cuts:
            try:
                samples = _samples(cut)
            except LostAudioError as error:
                lost.append((cut.id, str(error)))
                if not shard.may_lose or 2 * len(lost) >= len(shard.cuts):
                    raise UserError(
                        f"utterance {cut.id}: {error}. Put the file back (or its disk, if others are missing "
                        "too) and start again; finished shards are kept"
                    ) from error
                continue
            for factor in shard.speed_factors or (ORIGINAL_SPEED,):
                copy, copy_samples = _at_speed(cut, samples, factor)
                features = extractor.extract_from_samples_and_store(
                    copy_samples, storage, copy.sampling_rate, offset=copy.start, channel=copy.channel
                )
                features.storage_path = str(final)
                features.recording_id = copy.recording_id
                with_features.append(fastcopy(copy, features=features))
                seconds += copy.duration
    _write_lost(lost, lost_file(shard.directory, shard.index))
    write_jsonl(CutSet, with_features, cuts_file(shard.directory, shard.index))
    return seconds


def _write_lost(lost: list[tuple[str, str]], path: Path) -> None:
    path.unlink(missing_ok=True)  # of a run that was killed
    if lost:
        entries = ({"utterance_id": utterance_id, "detail": detail} for utterance_id, detail in lost)
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")


def _samples(cut: MonoCut) -> NDArray[np.float32]:
    """Audio of a cut, (1, number of samples).

    Raises:
        LostAudioError: it cannot be loaded.
    """
    try:
        samples = load_audio(cut)
    except Exception as error:
        # Decoders raise any class of exception over a file that has changed; one recording must not end the
        # run.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise LostAudioError(
            f"the audio {cut.recording.sources[0].source} could be read when it was checked, but not any "
            f"more: {reason}"
        ) from error
    return samples


def _at_speed(
    cut: MonoCut, samples: NDArray[np.float32], factor: float
) -> tuple[MonoCut, NDArray[np.float32]]:
    """A cut and its audio, played faster.

    The copy's manifest would load the same audio; but decoding it again for each factor takes longer than all
    the rest.
    """
    if factor == ORIGINAL_SPEED:
        return cut, samples
    copy = cut.perturb_speed(factor)
    faster = Speed(factor)(samples, cut.sampling_rate)[:, : copy.num_samples]
    missing = copy.num_samples - faster.shape[1]  # at most one: the resampler rounds in its own way
    return copy, np.pad(faster, ((0, 0), (0, missing)), mode="edge")
