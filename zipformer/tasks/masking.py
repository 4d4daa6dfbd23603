"""Masking of spans of encoder frames by noise.

Every utterance has its own random generator, so that mask and noise do not depend on the batch.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zipformer.tasks.quantiser import FIRST_FRAME, STACK, Statistics


def generator_of(seed: int, step: int, name: str) -> np.random.Generator:
    """Random generator of one utterance at one training step.

    Args:
        seed: random seed of the training.
        step: number of the training step.
        name: id of the utterance.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.default_rng([seed, step, int.from_bytes(digest, "big")])


def draw_masks(
    lengths: Sequence[int], rngs: Sequence[np.random.Generator], *, start_probability: float, span: int
) -> NDArray[np.bool_]:
    """Draw the masked encoder frames of a batch.

    Every frame starts a span with probability ``start_probability``; spans may overlap and end with the
    utterance. An utterance without any span gets one at a random position. Utterances shorter than two spans
    get spans of half their length, to leave some context.

    Args:
        lengths: number of encoder frames of each utterance, at least 1.
        rngs: random generator of each utterance.
        start_probability: probability p, 0 to 1. A share of 1 - (1 - p)^span of a long utterance is masked.
        span: length of a span in encoder frames, at least 1.

    Returns:
        Mask (N, longest), True = masked; never True after the end of an utterance.
    """
    masks = np.zeros((len(lengths), max(lengths)), dtype=bool)
    for mask, length, rng in zip(masks, lengths, rngs, strict=True):
        width = max(1, min(span, length // 2))
        starts = rng.random(length) < start_probability
        if not starts.any():
            starts[rng.integers(length - width + 1)] = True
        mask[:length] = np.convolve(starts, np.ones(width))[:length] > 0.5
    return masks


def hide(
    features: Tensor,
    lengths: Sequence[int],
    masks: Tensor,
    statistics: Statistics,
    seeds: Sequence[int],
    *,
    noise: float,
) -> Tensor:
    """Replace the feature frames of masked encoder frames by noise.

    The noise has the mean of the utterance in each mel bin and ``noise`` times its standard deviation, which
    corresponds to N(0, noise^2) for normalised features. So the encoder gets the same unnormalised features
    as in recognition.

    Args:
        features: features (N, T, F).
        lengths: number of valid feature frames of each utterance.
        masks: bool (N, T'), True = masked.
        statistics: mean and standard deviation of the utterances.
        seeds: random seed of the noise of each utterance.
        noise: standard deviation relative to that of the mel bin.

    Returns:
        A copy (N, T, F). Frames that belong to no encoder frame (the first three, and a few at the end) are
        unchanged.
    """
    masked = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
    masked[:, FIRST_FRAME : FIRST_FRAME + STACK * masks.shape[1]] = masks.repeat_interleave(STACK, dim=1)
    generator = torch.Generator(features.device)
    drawn = torch.zeros_like(features)
    for row, length, seed in zip(drawn, lengths, seeds, strict=True):
        row[:length].normal_(generator=generator.manual_seed(seed))
    filling = statistics.mean + statistics.deviation * noise * drawn
    return torch.where(masked.unsqueeze(2), filling, features)
