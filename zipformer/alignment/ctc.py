"""The most probable CTC alignment of a transcript.

A CTC path through the states *blank, token 1, blank, token 2, ..., blank* stays in a state, moves to the
next one, or skips a blank between two different tokens. The Viterbi recursion takes the maximum of the three
where the loss takes their sum (Graves et al. 2006, "Connectionist temporal classification", section 4)::

    best(t, s) = max(best(t-1, s), best(t-1, s-1), best(t-1, s-2)) + log_probs(t, label of s)
"""

from collections.abc import Sequence
from operator import eq

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from zipformer.data.tokenizer import BLANK


def ctc_emissions(log_probs: Tensor, tokens: Sequence[int]) -> NDArray[np.int64]:
    """Frames at which CTC emits each token, on the most probable path of the transcript.

    Of two equally probable paths, the one that enters its last states earlier is taken.

    Args:
        log_probs: (T, V) log-probabilities of one utterance.
        tokens: ids of the U tokens, none of them blank.

    Returns:
        First frame of each token and the frame after its last, (U, 2).

    Raises:
        ValueError: there are fewer frames than tokens plus blanks between equal neighbours, or a score is
            NaN.
    """
    needed = len(tokens) + sum(map(eq, tokens, tokens[1:]))
    if needed > len(log_probs):
        raise ValueError(f"{len(tokens)} tokens need {needed} encoder frames and there are {len(log_probs)}")
    if not tokens:
        return np.empty((0, 2), np.int64)
    labels = torch.tensor([BLANK, *tokens], device=log_probs.device)
    scores = log_probs.detach().float()[:, labels].cpu().numpy()  # (T, 1+U)
    if np.isnan(scores).any():
        raise ValueError("the log-probabilities hold scores that are not a number")
    return _best_path(scores, np.array(tokens))


@njit(nogil=True, cache=True)
def _best_path(scores: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """First frame of each token and the frame after its last, from scores (T, 1+U) of blank and tokens."""
    T, states = len(scores), 2 * len(tokens) + 1
    steps = np.zeros((T, states), np.uint8)  # number of states back to the best predecessor
    best = np.full(states, -np.inf, np.float32)
    best[0], best[1] = scores[0, 0], scores[0, 1]
    for t in range(1, T):
        for s in range(states - 1, -1, -1):  # downwards, so that best[s - 1] and best[s - 2] are of frame t-1
            is_token = s % 2 == 1
            before = best[s]
            if s > 0 and best[s - 1] > before:
                before, steps[t, s] = best[s - 1], 1
            if is_token and s > 1 and tokens[s // 2] != tokens[s // 2 - 1] and best[s - 2] > before:
                before, steps[t, s] = best[s - 2], 2
            best[s] = before + scores[t, s // 2 + 1 if is_token else 0]
    emissions = np.zeros((len(tokens), 2), np.int64)
    s = states - 1 if best[states - 1] > best[states - 2] else states - 2
    for t in range(T - 1, -1, -1):
        if s % 2 == 1:
            emissions[s // 2, 0] = t
            emissions[s // 2, 1] = max(emissions[s // 2, 1], t + 1)
        s -= steps[t, s]
    return emissions
