"""Level and content of the channels of a recording, measured while the recording is decoded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SILENCE_DBFS = -80.0
"""A lower level counts as silence: about 3 quantisation steps of 16-bit samples or less."""

FAINT_DBFS = -60.0
"""A lower level is reported: speech is usually recorded at -15 to -35 dBFS."""

CHANNEL_FLOOR_DB = 30.0
"""A channel this much weaker than the strongest one has only hum, noise or cross-talk."""

FULL_SCALE_PEAK = 4.0
"""Larger samples are not overshoot beyond -1 to 1 but integers written as floating-point numbers."""

CLIPPED_SHARE = 0.01
FROZEN_SHARE = 0.5

_CLIPPED_FROM = 0.98  # the largest sample of 8 bits is 0.992, of mu-law 0.980
# Power of the mean of channels divided by its power if they were unrelated: 0 for opposite channels, the
# number of channels for equal ones.
_CANCELLING = 0.25


def decibels(power: float) -> float:
    """Power in dBFS, at least -200; a square wave at full scale has power 1.0."""
    return float(10 * np.log10(max(power, 1e-20)))


@dataclass(frozen=True)
class Mix:
    """The channels whose mean is used.

    Attributes:
        channels: numbers of the channels.
        reason: reason for the choice, for the report, e.g. ``channel 0 has no sound``.
        level: root mean square of the mean without its constant part, dBFS.
    """

    channels: tuple[int, ...]
    reason: str
    level: float


class Levels:
    """Sums over the samples of a recording.

    Attributes:
        samples: number of samples per channel.
        finite: True if no sample is NaN or infinite.
        peak: largest absolute sample.
        longest_constant: length in samples of the longest stretch in which no channel changes.
    """

    def __init__(self, channels: int) -> None:
        self.samples = 0
        self.finite = True
        self.peak = 0.0
        self.longest_constant = 0
        self._constant = 0  # length of the stretch at the end of the last block
        self._clipped = np.zeros(channels, np.int64)
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))
        self._last: NDArray[np.float32] | None = None

    def add(self, block: NDArray[np.float32]) -> None:
        """Add the next samples, (number, channels)."""
        if not len(block):
            return
        peak = float(np.abs(block).max())
        if not np.isfinite(peak):
            self.finite = False
            return
        self.samples += len(block)
        self.peak = max(self.peak, peak)
        exact = block.astype(np.float64)
        self._sum += exact.sum(0)
        self._products += exact.T @ exact
        before = block[:1] + 1 if self._last is None else self._last[None]
        unchanged = np.diff(block, axis=0, prepend=before) == 0  # (number, channels)
        self._last = block[-1].copy()
        if peak >= _CLIPPED_FROM:
            self._clipped += (unchanged & (np.abs(block) >= _CLIPPED_FROM)).sum(0)
        changes = np.flatnonzero(~unchanged.all(1))
        if not len(changes):
            self._constant += len(block)
        else:
            inner = int(np.diff(changes).max()) if len(changes) > 1 else 0
            self.longest_constant = max(self.longest_constant, self._constant + int(changes[0]), inner)
            self._constant = len(block) - int(changes[-1])
        self.longest_constant = max(self.longest_constant, self._constant)

    def channel_levels(self) -> list[float]:
        """Level of each channel in dBFS, without its constant part."""
        return [decibels(power) for power in self._covariance().diagonal()]

    def clipped_share(self, channels: tuple[int, ...]) -> float:
        """Share of the samples that stay at full scale, in the worst of the given channels."""
        return float(self._clipped[list(channels)].max() / max(1, self.samples))

    def _covariance(self) -> NDArray[np.float64]:
        """Covariance of the channels, (channels, channels); the diagonal is their power."""
        count = max(1, self.samples)
        mean = self._sum / count
        covariance: NDArray[np.float64] = self._products / count - np.outer(mean, mean)
        return covariance

    def mix(self, wanted: int | None) -> Mix:
        """Channels to use.

        Args:
            wanted: number of a channel; None for the mean of the channels that have sound.
        """
        covariance = self._covariance()
        powers = covariance.diagonal()
        if wanted is not None:
            return Mix(
                (wanted,), f"channel {wanted} is used, as audio.channel says", decibels(powers[wanted])
            )
        loudest = int(powers.argmax())
        floor = powers[loudest] * 10 ** (-CHANNEL_FLOOR_DB / 10)
        sounding = np.flatnonzero(powers >= floor)
        mixed = float(covariance[np.ix_(sounding, sounding)].mean())
        unrelated = float(powers[sounding].sum()) / len(sounding) ** 2
        names = ", ".join(str(channel) for channel in sounding)
        if len(sounding) > 1 and mixed < _CANCELLING * unrelated:
            reason = f"channels {names} cancel each other, so channel {loudest}, the loudest, is used alone"
            return Mix((loudest,), reason, decibels(powers[loudest]))
        used = f"the mean of channels {names} is used" if len(sounding) > 1 else f"channel {names} is used"
        without = [channel for channel in range(len(powers)) if channel not in sounding]
        if without:
            used += f"; no sound on {', '.join(str(channel) for channel in without)}"
        return Mix(tuple(int(channel) for channel in sounding), used, decibels(mixed))


def level_findings(level: float) -> list[tuple[str, str]]:
    """Kind of problem and its details, for the level of the channel that is used."""
    if level < SILENCE_DBFS:
        silence = "all its samples are equal" if level < -150 else f"its level is {level:.0f} dBFS"
        return [("silent_audio", silence)]
    return [("faint_audio", f"its level is {level:.0f} dBFS")] if level < FAINT_DBFS else []
