"""BEST-RQ by its definition: one frame, one code and one difference at a time, in float64."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def encoder_frames(frames: int) -> int:
    """Output frames (25/s) of three convolutions without padding in time (kernels 3, 3 with stride 2, 3) and
    groups of two."""
    frames = frames - 2
    frames = (frames - 3) // 2 + 1
    frames = frames - 2
    return -(-frames // 2)


def stacks(features: Floats) -> Floats:
    """Stacks (T', 4F) of one utterance (T, F) without padding, normalised by mel bin over time."""
    x = features.astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.stack([np.concatenate(x[4 * i + 3 : 4 * i + 7]) for i in range(encoder_frames(len(x)))])


def label(stack: Floats, projection: Floats, codes: Floats) -> tuple[int, float]:
    """Number of the nearest code, and by how much it is nearer than the next; codes (V, D) of any length."""
    z = stack.astype(np.float64) @ projection.astype(np.float64)
    z = z / np.sqrt((z**2).sum())
    distances = []
    for code in codes.astype(np.float64):
        difference = code / np.sqrt((code**2).sum()) - z
        distances.append(float(np.sqrt((difference**2).sum())))
    nearest, second = sorted(distances)[:2]
    return int(np.argmin(distances)), second - nearest


def cross_entropy(frame: Floats, weight: Floats, bias: Floats, target: int) -> float:
    """-log softmax(W x + b)[target] of one frame, in nats."""
    logits = weight.astype(np.float64) @ frame.astype(np.float64) + bias.astype(np.float64)
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target])
