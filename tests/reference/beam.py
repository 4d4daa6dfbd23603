"""Transducer searches with lists and dictionaries, one utterance and one hypothesis at a time."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

# Log-probabilities (V,) of the next token after the given tokens at a frame.
NextToken = Callable[[Tensor, tuple[int, ...]], Tensor]


def greedy(
    next_token: NextToken, frames: Tensor, *, blank: int = 0, skipped: tuple[int, ...] = ()
) -> list[int]:
    """Best token of each frame (T, D), given those before."""
    tokens: tuple[int, ...] = ()
    for frame in frames:
        best = int(next_token(frame, tokens).argmax())
        if best != blank and best not in skipped:
            tokens += (best,)
    return list(tokens)


def modified_beam(
    next_token: NextToken,
    frames: Tensor,
    *,
    beam: int,
    context_size: int,
    blank: int = 0,
    skipped: tuple[int, ...] = (),
) -> list[int]:
    """Beam search over frames (T, D), one token a frame; equal hypotheses add their probabilities."""
    hypotheses: dict[tuple[int, ...], float] = {(): 0.0}
    for frame in frames:
        candidates = [
            (score + float(log_prob), tokens, token)
            for tokens, score in hypotheses.items()
            for token, log_prob in enumerate(next_token(frame, tokens))
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        hypotheses = {}
        for score, tokens, token in candidates[:beam]:
            if token != blank and token not in skipped:
                tokens = (*tokens, token)
            hypotheses[tokens] = _log_add(hypotheses.get(tokens, -math.inf), score)
    return list(max(hypotheses, key=lambda tokens: hypotheses[tokens] / (len(tokens) + context_size)))


def exhaustive(
    next_token: NextToken, frames: Tensor, *, vocab: int, context_size: int, blank: int = 0
) -> list[int]:
    """The token sequence that is best among all, every way of spreading it over the frames summed."""
    totals: dict[tuple[int, ...], float] = {}
    for alignment in itertools.product(range(vocab), repeat=len(frames)):
        tokens: tuple[int, ...] = ()
        score = 0.0
        for frame, token in zip(frames, alignment, strict=True):
            score += float(next_token(frame, tokens)[token])
            if token != blank:
                tokens = (*tokens, token)
        totals[tokens] = _log_add(totals.get(tokens, -math.inf), score)
    return list(max(totals, key=lambda tokens: totals[tokens] / (len(tokens) + context_size)))


def _log_add(a: float, b: float) -> float:
    return float(torch.logaddexp(torch.tensor(a).double(), torch.tensor(b).double()))
