"""Audio of a cut, and its resampling.

Lhotse resamples with a copy of torchaudio's filter where torchaudio is installed, although it does not call
it, and with another filter elsewhere. Here the filter is always the former, so that features do not depend on
what is installed.
"""

import numpy as np
from lhotse.augmentation import torchaudio as lhotse_augmentation
from lhotse.cut import Cut
from numpy.typing import NDArray


def choose_filter() -> None:
    """Let Lhotse resample with the filter of torchaudio from now on, in this process."""
    lhotse_augmentation.is_torchaudio_available = lambda: True


def load_audio(cut: Cut) -> NDArray[np.float32]:
    """Samples (channels, T) of a cut, resampled where its manifest says so."""
    choose_filter()
    samples: NDArray[np.float32] = cut.load_audio()
    return samples


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Samples (channels, T) at another sampling rate, in Hz."""
    choose_filter()
    resampled: NDArray[np.float32] = lhotse_augmentation.Resample(rate, to)(samples)
    return resampled
