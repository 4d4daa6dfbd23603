"""Greedy searches: the best token of every frame."""

from functools import partial

import torch
from torch import Tensor

from zipformer.data.tokenizer import BLANK
from zipformer.decoding.frames import TransducerFrames, check_frames
from zipformer.decoding.methods import DecodeConfig, Search, decoding_method
from zipformer.heads.ctc import CtcHead
from zipformer.heads.transducer import TransducerHead


@torch.no_grad()
def greedy_search(
    head: TransducerHead,
    frames: Tensor,
    frame_lengths: Tensor,
    *,
    blank_penalty: float = 0.0,
    unk: int | None = None,
) -> list[list[int]]:
    """Transducer greedy search with at most one token a frame.

    Args:
        head: the transducer, in evaluation mode.
        frames: (N, T, D) encoder output.
        frame_lengths: (N,) int64.
        blank_penalty: subtracted from the score of blank; larger values trade deletions for insertions.
        unk: id to skip like blank if it scores best; None emits it like any other token.
    Returns:
        token ids of each utterance.
    Raises:
        ValueError: the shapes do not fit together.
    """
    search = TransducerFrames(head, frames, frame_lengths)
    contexts = search.initial_contexts()
    state = search.predict(contexts)
    tokens = torch.full((search.times, search.size), BLANK, device=search.device)
    for t, frame in enumerate(search):
        active = len(frame)
        token = search.logits(frame, state[:active], blank_penalty).argmax(dim=1)
        emits = token != BLANK
        if unk is not None:
            emits &= token != unk
        (rows,) = emits.nonzero(as_tuple=True)
        if len(rows):
            tokens[t, rows] = token[rows]
            contexts[rows] = torch.cat([contexts[rows, 1:], token[rows].unsqueeze(1)], dim=1)
            state[rows] = search.predict(contexts[rows])
    return search.hypotheses(tokens)


@decoding_method("greedy", TransducerHead)
def _greedy(head: TransducerHead, config: DecodeConfig) -> Search:
    return partial(greedy_search, head, blank_penalty=config.blank_penalty, unk=config.unk)


@torch.no_grad()
def ctc_greedy_search(
    head: CtcHead,
    frames: Tensor,
    frame_lengths: Tensor,
    *,
    blank_penalty: float = 0.0,
    unk: int | None = None,
) -> list[list[int]]:
    """Best token of every frame, without repetitions and blanks.

    Args:
        head: the CTC head, in evaluation mode.
        frames: (N, T, D) encoder output.
        frame_lengths: (N,) int64.
        blank_penalty: subtracted from the log-probability of blank; larger values trade deletions for
            insertions.
        unk: id to leave out of the result; None keeps it like any other token.
    Returns:
        token ids of each utterance.
    Raises:
        ValueError: the shapes do not fit together.
    """
    check_frames(frames, frame_lengths)
    log_probs = head(frames)
    if blank_penalty:
        log_probs[..., BLANK] -= blank_penalty
    best = log_probs.argmax(dim=-1)  # (N, T)
    outside = torch.arange(best.shape[1], device=best.device) >= frame_lengths.to(best.device).unsqueeze(1)
    best = best.masked_fill(outside, BLANK)
    repeated = torch.zeros_like(outside)
    repeated[:, 1:] = best[:, 1:] == best[:, :-1]
    best = best.masked_fill(repeated, BLANK)
    return [[token for token in row if token not in (BLANK, unk)] for row in best.tolist()]


@decoding_method("ctc", CtcHead)
def _ctc(head: CtcHead, config: DecodeConfig) -> Search:
    return partial(ctc_greedy_search, head, blank_penalty=config.blank_penalty, unk=config.unk)
