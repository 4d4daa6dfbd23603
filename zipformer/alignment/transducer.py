"""The transducer's most probable alignment of a transcript.

A path through the lattice of :mod:`zipformer.losses.lattice` emits token u at some frame or goes on to the
next frame. The recursion of Viterbi takes the best of the two arcs into every node where the loss takes their
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

BLOCK_BYTES = 1 << 26  # of joiner output that is held at a time


@torch.no_grad()
def lattice_scores(
    head: TransducerHead, frames: Tensor, tokens: Sequence[int], *, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all arcs of one utterance's lattice.

    The joiner's output, V numbers for every node, is made for a block of frames at a time.

    Args:
        head: the transducer, in evaluation mode.
        frames: (T, D) encoder output of one utterance.
        tokens: U ids.
        block_bytes: most memory of the joiner's output, though at least one frame.

    Returns:
        (T, U) of emitting token u at frame t and (T, U+1) of going on from frame t after u tokens, on the
        CPU, at least float32.

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
    """The most probable path through a transducer's lattice.

    Several tokens may be emitted at one frame. Of two paths that are equally probable, the one that emits
    later is taken.

    Args:
        label: (T, U) log-probability of emitting token u at frame t.
        blank: (T, U+1) log-probability of going on to the next frame after u tokens.

    Returns:
        The frame (U,) at which each token is emitted, and the log-probability of the path, the last blank
        included.

    Raises:
        ValueError: shapes that do not fit together, a NaN, or no path of positive probability.
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
    emitted = np.zeros((T, nodes), np.bool_)  # whether the best path into a node emits at its last step
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
