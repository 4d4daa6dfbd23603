"""Distortions of the audio in training: noise, reverberation, volume, before features are computed.

Stored features cannot be distorted in this way. With any distortion, or with ``compute=true``, features are
computed from the recordings during training, by the processes that load batches (``data.num_workers``). The
caller passes the random generator, so that a batch is the same whenever it is made again, in any process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from lhotse import Recording
from lhotse.cut import Cut
from numpy.typing import NDArray

from zipformer.data.audio import load_audio
from zipformer.data.features import fbank_extractor
from zipformer.errors import UserError

SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3")
KEPT_FILES = 200  # noises and rooms that each worker keeps in memory, as samples


@dataclass
class DistortionConfig:
    """Settings of the distortion of training audio; none by default."""

    compute: bool = False  # compute features from the recordings, even without distortion
    noise_dir: str | None = None  # recordings of noise, music or speech, in folders of any depth (MUSAN)
    noise_probability: float = 0.5  # share of the utterances that get noise
    noise_snr: list[float] = field(default_factory=lambda: [10.0, 20.0])  # range of the SNR in dB
    reverb_dir: str | None = None  # room impulse responses, in folders of any depth
    reverb_probability: float = 0.3  # share of the utterances that get a room
    volume_probability: float = 0.0  # share of the utterances with another volume
    volume: list[float] = field(default_factory=lambda: [0.125, 2.0])  # range of the factor of the samples

    def __post_init__(self) -> None:
        for name in ("noise_probability", "reverb_probability", "volume_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"data.distortion.{name}={getattr(self, name)} is not in [0, 1]")
        for name in ("noise_snr", "volume"):
            limits = getattr(self, name)
            if len(limits) != 2 or limits[0] > limits[1]:
                raise UserError(f"data.distortion.{name}={list(limits)} must be two values, the lower first")
        if self.volume[0] <= 0:
            raise UserError(f"data.distortion.volume={list(self.volume)} must be factors above 0")

    @property
    def distorts(self) -> bool:
        """Whether any audio is changed."""
        return self.noise_dir is not None or self.reverb_dir is not None or self.volume_probability > 0

    @property
    def computes(self) -> bool:
        """Whether features are computed in training instead of read from files."""
        return self.compute or self.distorts


class Distortion:
    """Computes the features of an utterance from distorted audio.

    Raises:
        UserError: a folder has no recording.
    """

    def __init__(self, config: DistortionConfig) -> None:
        self.config = config
        self.noises = _recordings(config.noise_dir, "data.distortion.noise_dir")
        self.rooms = _recordings(config.reverb_dir, "data.distortion.reverb_dir")

    def __call__(self, cut: Cut, rng: np.random.Generator) -> NDArray[np.float32]:
        """FBANK features (T, F) of the distorted cut, as preparation would compute them.

        Raises:
            UserError: the cut has no recording.
        """
        if not cut.has_recording:
            raise UserError(
                f"utterance {cut.id} has features and no recording: features cannot be computed in training "
                "(data.distortion)"
            )
        samples = load_audio(cut)[0]
        rate = cut.sampling_rate
        config = self.config
        # All numbers are drawn first, so that each draw is independent of the outcome of the others.
        chances, places = rng.random(3), rng.random(3)
        gain = rng.uniform(config.volume[0], config.volume[1])
        snr = rng.uniform(config.noise_snr[0], config.noise_snr[1])
        if self.rooms and chances[0] < config.reverb_probability:
            samples = reverberate(samples, _samples(self.rooms[int(places[0] * len(self.rooms))], rate))
        if self.noises and chances[1] < config.noise_probability:
            noise = _samples(self.noises[int(places[1] * len(self.noises))], rate)
            samples = add_noise(samples, noise, snr=snr, start=int(places[2] * len(noise)))
        if chances[2] < config.volume_probability:
            samples = samples * np.float32(gain)
        features: NDArray[np.float32] = fbank_extractor(rate).extract(samples[None], rate)
        return features


def add_noise(
    samples: NDArray[np.float32], noise: NDArray[np.float32], *, snr: float, start: int = 0
) -> NDArray[np.float32]:
    """Add noise to speech; noise that is too short is repeated.

    Args:
        samples: samples of the speech (n,).
        noise: samples of the noise (m,), m at least 1.
        snr: ratio of the powers of speech and noise in this stretch, in dB.
        start: first sample of the noise.

    Returns:
        Samples (n,); the speech unchanged if speech or noise is silent.
    """
    stretch = np.take(noise, np.arange(start, start + len(samples)), mode="wrap")
    speech_power, noise_power = np.mean(np.square(samples)), np.mean(np.square(stretch))
    if not speech_power or not noise_power:
        return samples
    scale = np.sqrt(speech_power / noise_power / 10 ** (snr / 10))
    return samples + np.float32(scale) * stretch


def reverberate(samples: NDArray[np.float32], room: NDArray[np.float32]) -> NDArray[np.float32]:
    """Speech (n,) in a room with an impulse response (m,), without delay, with the same length and level."""
    from scipy.signal import fftconvolve  # takes 60 MB and half a second, only needed with rooms

    direct = int(np.abs(room).argmax())
    heard = fftconvolve(samples, room)[direct : direct + len(samples)].astype(np.float32)
    before, after = np.mean(np.square(samples)), np.mean(np.square(heard))
    return heard * np.float32(np.sqrt(before / after)) if after else samples


def _recordings(directory: str | None, setting: str) -> Sequence[Path]:
    """The audio files below a folder, in order of their paths."""
    if directory is None:
        return ()
    found = sorted(path for path in Path(directory).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{setting}={directory} holds no recording ({', '.join(SUFFIXES)})")
    return found


@lru_cache(maxsize=KEPT_FILES)
def _samples(path: Path, sampling_rate: int) -> NDArray[np.float32]:
    """The first channel (m,) of a file, resampled."""
    try:
        recording = Recording.from_file(path)
        samples: NDArray[np.float32] = load_audio(recording.resample(sampling_rate).to_cut())[0]
    except Exception as error:  # decoders raise any class of exception over a file that is not audio
        raise UserError(f"{path} cannot be read as audio ({error}): take it out of the folder") from error
    if not len(samples):
        raise UserError(f"{path} holds no sample: take it out of the folder")
    return samples
