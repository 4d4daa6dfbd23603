"""80-dimensional Kaldi FBANK features, written in shards.

The features are those that Kaldi computes without dither and with the frames centred (``snip_edges=False``):
25 ms Povey windows every 10 ms, pre-emphasis 0.97, 80 mel filters from 20 Hz to 400 Hz below the Nyquist
frequency, natural logarithm of the power. Samples are between -1 and 1.

A shard is a file of features and a file of cuts that point into it. Both are renamed when they are complete,
the cuts last: a file of cuts says that its shard is finished.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from lhotse import CutSet, Fbank, FbankConfig, LilcomChunkyWriter, MonoCut
from lhotse.audio import AudioLoadingError, DurationMismatchError
from lhotse.augmentation import Speed
from lhotse.utils import fastcopy
from numpy.typing import NDArray

from data_prep.errors import PreparationError
from data_prep.files import replacing
from data_prep.manifests import write_jsonl
from zipformer.manifest import with_relative_paths

NUM_FILTERS = 80
ORIGINAL_SPEED = 1.0


@dataclass
class FeatureConfig:
    """How features are made.

    Attributes:
        sampling_rate: Hz; other recordings are resampled.
        speed_factors: the training split is copied once for each factor, played so much faster; [] or [1.0]
            leaves it as it is. More factors, more (and more varied) training data, and as much more disk and
            time per epoch.
        shard_size: utterances in one file of features. A killed run loses at most the shards in work.
    """

    sampling_rate: int = 16000
    speed_factors: list[float] = field(default_factory=lambda: [0.9, 1.0, 1.1])
    shard_size: int = 200

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise PreparationError(f"fbank.shard_size is {self.shard_size}; it must be at least 1")
        bad = [factor for factor in self.speed_factors if not 0.5 <= factor <= 2.0]
        if bad or len(set(self.speed_factors)) < len(self.speed_factors):
            raise PreparationError(
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
        sampling_rate: of the cuts, Hz.
        data_dir: the cuts name files below it relative to it, so that it can be moved; None = absolute paths.
    """

    directory: Path
    index: int
    cuts: list[MonoCut]
    speed_factors: tuple[float, ...]
    sampling_rate: int
    data_dir: Path | None = None


def cuts_file(directory: Path, index: int) -> Path:
    """Cuts of a shard; the file exists if and only if the shard is finished."""
    return directory / f"cuts-{index:05d}.jsonl.gz"


def features_file(directory: Path, index: int) -> Path:
    return directory / f"feats-{index:05d}.lca"


def extract_shard(shard: FeatureShard) -> float:
    """Compute and store the features of one shard; returns the seconds of audio in it.

    Raises:
        PreparationError: the audio of an utterance cannot be loaded.
    """
    extractor = fbank_extractor(shard.sampling_rate)
    final = features_file(shard.directory, shard.index)
    seconds = 0.0
    with_features = []
    with replacing(final) as temporary, LilcomChunkyWriter(temporary) as storage:
        for cut in shard.cuts:
            samples = _samples(cut)
            for factor in shard.speed_factors or (ORIGINAL_SPEED,):
                copy, copy_samples = _at_speed(cut, samples, factor)
                features = extractor.extract_from_samples_and_store(
                    copy_samples, storage, copy.sampling_rate, offset=copy.start, channel=copy.channel
                )
                features.storage_path = str(final)
                features.recording_id = copy.recording_id
                with_features.append(fastcopy(copy, features=features))
                seconds += copy.duration
    if shard.data_dir is not None:
        with_features = [with_relative_paths(cut, shard.data_dir) for cut in with_features]
    write_jsonl(CutSet, with_features, cuts_file(shard.directory, shard.index))
    return seconds


@lru_cache(maxsize=2)
def fbank_extractor(sampling_rate: int) -> Fbank:
    return Fbank(FbankConfig(sampling_rate=sampling_rate, num_filters=NUM_FILTERS))


def _samples(cut: MonoCut) -> NDArray[np.float32]:
    """Audio of a cut, (1, number of samples)."""
    try:
        samples: NDArray[np.float32] = cut.load_audio()
    except (AudioLoadingError, DurationMismatchError, OSError) as error:
        source = cut.recording.sources[0].source
        raise PreparationError(
            f"utterance {cut.id}: the audio {source} could be read when it was checked, but not any more: "
            f"{error}. Put the file back and start again; finished shards are kept"
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
