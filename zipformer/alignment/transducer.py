"""The most probable transducer alignment of a transcript.

At each node of the lattice of :mod:`zipformer.losses.lattice`, a path emits a token or advances to the next
frame. The Viterbi recursion takes the maximum over the two arcs into every node where the loss takes their
sum (Graves 2012, "Sequence transduction with recurrent neural networks", section 2.4)::

    best(t, u) = max(best(t, u-1) + label(t, u-1), best(t-1, u) + blank(t-1, u))
"""

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from zipformer.data.tokenizer import BLANK
from zipformer.heads.transducer import TransducerHead

BLOCK_BYTES = 1 << 26  # bytes of joiner output in memory at a time


@torch.no_grad()
def lattice_scores(
    head: TransducerHead, frames: Tensor, tokens: Sequence[int], *, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all arcs in the lattice of one utterance.

    The joiner output, V numbers for every node, is computed for a block of frames at a time.

    Args:
        head: the transducer, in evaluation mode.
        frames: encoder output (T, D) of one utterance.
        tokens: ids of the U tokens.
        block_bytes: largest memory for joiner output, but at least one frame.

    Returns:
        Log-probabilities (T, U) of emitting token u at frame t, and (T, U+1) of advancing from frame t after
        u tokens, on the CPU, in at least float32.

    Raises:
        ValueError: frames are not (T, D).
    """
    if frames.dim() != 2 or not len(frames):
        raise ValueError(f"frames are {tuple(frames.shape)}; expected (T, D) of one utterance")
    history = torch.tensor([[BLANK, *tokens]], device=frames.device)
    states = head.joiner.decoder_proj(head.predictor(history)[0])  # (U+1, J)
    projected = head.joiner.encoder_proj(frames)  # (T, J)
    emitted = torch.tensor([*tokens, BLANK], device=frames.device).view(1, -1, 1)  # (1, U+1, 1)
    T, nodes = len(frames), len(tokens) + 1
    height = max(1, block_bytes // (4 * nodes * max(head.joiner.output_linear.out_features, states.shape[1])))
    label, blank = [], []
    for start in range(0, T, height):
        logits = head.joiner(projected[start : start + height, None], states, project=False)  # (B, U+1, V)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        normaliser = logits.logsumexp(dim=2)
        label.append(logits.gather(2, emitted.expand(len(logits), -1, 1)).squeeze(2) - normaliser)
        blank.append(logits[:, :, BLANK] - normaliser)
    return torch.cat(label)[:, :-1].cpu(), torch.cat(blank).cpu()


def viterbi(label: Tensor, blank: Tensor) -> tuple[NDArray[np.int64], float]:
    """The most probable path through the lattice of a transducer.

    Several tokens may be emitted at one frame. Of two equally probable paths, the one that emits later is
    taken.

    Args:
        label: log-probability of emitting token u at frame t (T, U).
        blank: log-probability of advancing to the next frame after u tokens (T, U+1).

    Returns:
        The frame (U,) at which each token is emitted, and the log-probability of the path, including the last
        blank.

    Raises:
        ValueError: shapes do not fit together, a score is NaN, or no path has a positive probability.
    """
    T, nodes = blank.shape
    if label.shape != (T, nodes - 1) or T < 1:
        raise ValueError(
            f"label is {tuple(label.shape)} and blank {tuple(blank.shape)}; expected (T, U), (T, U+1)"
        )
    if bool(label.isnan().any()) or bool(blank.isnan().any()):
        raise ValueError("the lattice holds scores that are not a number")
    emissions, score = _best_path(label.double().numpy(), blank.double().numpy())
    if score == -np.inf:
        raise ValueError("no path through the lattice has a positive probability")
    return emissions, score


@njit(nogil=True, cache=True)
def _best_path(label: NDArray[np.float64], blank: NDArray[np.float64]) -> tuple[NDArray[np.int64], float]:
    T, nodes = blank.shape
    emitted = np.zeros((T, nodes), np.bool_)  # True if the last arc of the best path to a node emits a token
    best = np.full(nodes, -np.inf)
    best[0] = 0.0
    for t in range(T):
        for u in range(nodes):
            if t > 0:
                best[u] += blank[t - 1, u]
            if u > 0 and best[u - 1] + label[t, u - 1] >= best[u]:
                best[u] = best[u - 1] + label[t, u - 1]
                emitted[t, u] = True
    score = best[nodes - 1] + blank[T - 1, nodes - 1]
    frames = np.zeros(nodes - 1, np.int64)
    t, u = T - 1, nodes - 1
    while u > 0:
        if emitted[t, u]:
            u -= 1
            frames[u] = t
        else:
            t -= 1
    return frames, score
