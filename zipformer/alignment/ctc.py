"""The most probable CTC alignment of a transcript."""

from collections.abc import Sequence
from operator import eq

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import forced_align

from zipformer.model import BLANK


def ctc_emissions(log_probs: Tensor, tokens: Sequence[int]) -> NDArray[np.int64]:
    """The frames at which CTC emits each token, on the most probable path that gives the transcript.

    Args:
        log_probs: (T, V) log-probabilities of one utterance.
        tokens: U ids, none of them blank.

    Returns:
        (U,2) first frame of each token and the frame after its last.

    Raises:
        ValueError: fewer frames than tokens and the blanks between equal neighbours.
    """
    needed = len(tokens) + sum(map(eq, tokens, tokens[1:]))
    if needed > len(log_probs):
        raise ValueError(f"{len(tokens)} tokens need {needed} encoder frames and there are {len(log_probs)}")
    if not tokens:
        return np.empty((0, 2), np.int64)
    targets = torch.tensor([list(tokens)], device=log_probs.device)
    path, _ = forced_align(log_probs.float().unsqueeze(0), targets, blank=BLANK)
    labels = path[0].cpu().numpy()  # (T,)
    # A token begins where the label changes to one that is not blank, and ends where it changes again.
    borders = np.flatnonzero(np.diff(labels)) + 1
    starts, stops = np.append(0, borders), np.append(borders, len(labels))
    emitted = labels[starts] != BLANK
    return np.stack([starts[emitted], stops[emitted]], axis=1).astype(np.int64)
