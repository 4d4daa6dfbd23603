"""What happens to speech between mouth and file: resampling, a room, noise, level."""

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

GUARD_SAMPLES: Final = 2000


@dataclass(frozen=True)
class Room:
    """The acoustics of a site.

    Attributes:
        reverberation_seconds: time until reverberation has fallen by 60 dB.
        wet: part of the reverberation in the sound, 0 to 1.
        snr_decibels: speech over room noise.
        noise_tilt: 0 for white noise, towards 1 for noise that is stronger at low frequencies.
        seed: random seed of the room's response and noise.
    """

    reverberation_seconds: float
    wet: float
    snr_decibels: float
    noise_tilt: float
    seed: int


def draw_room(draw: random.Random) -> Room:
    """A random quiet room: 0.08 to 0.3 s of reverberation, noise 20 to 40 dB under the speech."""
    return Room(
        reverberation_seconds=round(draw.uniform(0.08, 0.3), 3),
        wet=round(draw.uniform(0.0, 0.25), 3),
        snr_decibels=round(draw.uniform(20, 40), 1),
        noise_tilt=round(draw.uniform(0.3, 0.95), 2),
        seed=draw.getrandbits(32),
    )


def resample(samples: NDArray[np.int16], from_rate: int, to_rate: int) -> Samples:
    """16-bit samples ``(T,)`` -> floats in -1 to 1 at a lower rate; higher frequencies are cut off."""
    ratio = Fraction(to_rate, from_rate)
    # Room for the ringing of the cut behind the samples, where the transform wraps around; a length that the
    # ratio divides, so that both spectra have the same bins.
    count = -(-(len(samples) + GUARD_SAMPLES) // ratio.denominator) * ratio.denominator
    spectrum = np.fft.rfft(samples / 32768, count)[: count * ratio.numerator // ratio.denominator // 2 + 1]
    wide = np.fft.irfft(spectrum, count * ratio.numerator // ratio.denominator) * float(ratio)
    return np.asarray(wide[: int(len(samples) * ratio)], dtype=np.float32)


def impulse_response(room: Room, sampling_rate: int) -> Samples:
    """Response of the room: the direct sound, then noise of energy ``wet`` that decays exponentially."""
    count = int(room.reverberation_seconds * sampling_rate)
    times = np.arange(count) / sampling_rate
    decay = 10 ** (-3 * times / room.reverberation_seconds)
    tail = np.random.default_rng(room.seed).standard_normal(count) * decay
    tail[: int(0.005 * sampling_rate)] = 0
    response = np.sqrt(room.wet) * tail / np.linalg.norm(tail)
    response[0] = 1
    return np.asarray(response, dtype=np.float32)


def convolve(samples: Samples, response: Samples) -> Samples:
    """Samples ``(T,)`` filtered by an impulse response, cut to length ``T``."""
    count = 1 << (len(samples) + len(response)).bit_length()
    product = np.fft.rfft(samples, count) * np.fft.rfft(response, count)
    return np.asarray(np.fft.irfft(product, count)[: len(samples)], dtype=np.float32)


def add_room(samples: Samples, room: Room, response: Samples, noise: np.random.Generator) -> Samples:
    """Speech ``(T,)`` in a room: reverberation, then coloured noise at the room's signal-to-noise ratio."""
    speech = convolve(samples, response)
    coloured = noise.standard_normal(len(samples) + 1)
    coloured = coloured[1:] + room.noise_tilt * coloured[:-1]
    power = float(np.mean(speech**2)) / float(np.mean(coloured**2))
    return np.asarray(speech + coloured * np.sqrt(power * 10 ** (-room.snr_decibels / 10)), dtype=np.float32)


def pad(samples: Samples, before: int, after: int) -> Samples:
    """Silence before and after."""
    return np.pad(samples, (before, after))


def set_level(samples: Samples, decibels: float) -> NDArray[np.int16]:
    """Scale to a root mean square of ``decibels`` under full scale, but never into clipping, and quantise."""
    gain = 10 ** (decibels / 20) / float(np.sqrt(np.mean(samples**2)))
    gain = min(gain, 0.98 / float(np.max(np.abs(samples))))
    return np.asarray(np.round(samples * gain * 32767), dtype=np.int16)
