"""Audio of a cut, and its resampling.

If torchaudio is installed, Lhotse resamples with a copy of its filter, otherwise with another filter. Here
the filter is always that of torchaudio, so that features do not depend on the installed packages.
"""

import numpy as np
from lhotse.augmentation import torchaudio as lhotse_augmentation
from lhotse.cut import Cut
from numpy.typing import NDArray


def choose_filter() -> None:
    """Make Lhotse resample with the filter of torchaudio from now on, in this process."""
    lhotse_augmentation.is_torchaudio_available = lambda: True


def load_audio(cut: Cut) -> NDArray[np.float32]:
    """Samples (channels, T) of a cut, resampled if the manifest says so."""
    choose_filter()
    samples: NDArray[np.float32] = cut.load_audio()
    return samples


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Resample (channels, T) from one sampling rate in Hz to another."""
    choose_filter()
    resampled: NDArray[np.float32] = lhotse_augmentation.Resample(rate, to)(samples)
    return resampled
