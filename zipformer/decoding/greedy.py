"""Greedy searches: the best token of every frame."""

import torch
from torch import Tensor

from zipformer.decoding.frames import TransducerFrames, check_frames
from zipformer.errors import UserError
from zipformer.model import BLANK, AsrModel


@torch.no_grad()
def greedy_search(
    model: AsrModel,
    frames: Tensor,
    frame_lengths: Tensor,
    *,
    blank_penalty: float = 0.0,
    unk: int | None = None,
) -> list[list[int]]:
    """Transducer greedy search with at most one token a frame.

    Args:
        model: a model with a transducer, in evaluation mode.
        frames: (N, T, D) encoder output.
        frame_lengths: (N,) int64.
        blank_penalty: subtracted from the score of blank; larger values trade deletions for insertions.
        unk: id that is passed over like blank where it scores best; None emits it like any other token.
    Returns:
        token ids of each utterance.
    Raises:
        ValueError: the model has no transducer, or the shapes do not fit together.
    """
    search = TransducerFrames(model, frames, frame_lengths)
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


@torch.no_grad()
def ctc_greedy_search(model: AsrModel, frames: Tensor, frame_lengths: Tensor) -> list[list[int]]:
    """Best token of every frame, repetitions and blanks removed.

    Args:
        model: a model with a CTC head, in evaluation mode.
        frames: (N, T, D) encoder output.
        frame_lengths: (N,) int64.
    Returns:
        token ids of each utterance.
    Raises:
        ValueError: the model has no CTC head, or the shapes do not fit together.
    """
    if model.ctc_head is None:
        raise UserError("the model has no CTC head; use greedy_search, or train with model.ctc=true")
    check_frames(frames, frame_lengths)
    best = model.ctc_head(frames).argmax(dim=-1)  # (N, T)
    outside = torch.arange(best.shape[1], device=best.device) >= frame_lengths.to(best.device).unsqueeze(1)
    best = best.masked_fill(outside, BLANK)
    repeated = torch.zeros_like(outside)
    repeated[:, 1:] = best[:, 1:] == best[:, :-1]
    best = best.masked_fill(repeated, BLANK)
    return [[token for token in row if token != BLANK] for row in best.tolist()]
