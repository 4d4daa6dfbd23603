"""SpecAugment: time warping, frequency masks and time masks on log-mel features.

Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", 2019.
The caller passes the random generator, so that a batch is the same whenever it is made again, in any process.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class SpecAugmentConfig:
    """Settings of SpecAugment. One frame is 10 ms."""

    probability: float = 0.9  # share of the utterances that are distorted; 0 turns SpecAugment off
    time_warp_frames: int = 80  # largest shift of time warping, in frames; 0 = no warping
    num_frame_masks: int = 10  # most time masks; short utterances get fewer, see max_masked_fraction
    max_frame_mask: int = 100  # widest time mask, in frames
    max_masked_fraction: float = 0.15  # largest share of frames under time masks
    num_feature_masks: int = 2  # number of frequency masks at random places; they may overlap
    max_feature_mask: int = 27  # every frequency mask is narrower than this, in mel bins


class SpecAugment:
    """Distorts the features of one utterance. Masked values are replaced by the mean of the utterance."""

    def __init__(self, config: SpecAugmentConfig) -> None:
        self.config = config

    def __call__(self, features: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a distorted copy of ``features`` (T, F), or, with 1 - probability, ``features`` itself.

        Features must be those of one utterance without padding: the widths depend on T.
        """
        config = self.config
        if rng.random() >= config.probability:
            return features
        features = time_warp(features, config.time_warp_frames, rng)  # a copy, even without warping
        num_frames, num_bins = features.shape
        mean = features.mean()

        for _ in range(config.num_feature_masks):
            start, end = _mask(config.max_feature_mask, num_bins, rng)
            features[:, start:end] = mean

        budget = config.max_masked_fraction * num_frames
        num_masks = min(config.num_frame_masks, math.ceil(budget / config.max_frame_mask))
        for _ in range(num_masks):
            start, end = _mask(int(min(config.max_frame_mask, budget // num_masks)), num_frames, rng)
            features[start:end] = mean
        return features


def _mask(max_width: int, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a mask [start, end) within ``size``, with a width that is uniform over 0 .. max_width - 1."""
    width = min(int(rng.integers(max(1, max_width))), size)
    start = int(rng.integers(size - width + 1))
    return start, start + width


def time_warp(features: NDArray[np.float32], max_shift: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Move one random frame by at most ``max_shift``, stretching one side of it and compressing the other.

    Returns a new array of the same shape (T, F), interpolated linearly in time. Utterances of at most
    2 * max_shift + 1 frames are copied unchanged.
    """
    num_frames = len(features)
    if max_shift < 1 or num_frames - max_shift <= max_shift + 1:
        return features.copy()
    centre = int(rng.integers(max_shift + 1, num_frames - max_shift))
    moved = int(rng.integers(centre - max_shift, centre + max_shift + 1))
    if moved == centre:
        return features.copy()
    left = (np.arange(moved) + 0.5) * (centre / moved) - 0.5
    right = (np.arange(num_frames - moved) + 0.5) * ((num_frames - centre) / (num_frames - moved)) - 0.5
    source = np.concatenate([left.clip(0, centre - 1), centre + right.clip(0, num_frames - centre - 1)])
    lower = source.astype(np.int64)
    upper = np.minimum(lower + 1, num_frames - 1)
    fraction = (source - lower).astype(np.float32)[:, None]
    return features[lower] * (1 - fraction) + features[upper] * fraction
