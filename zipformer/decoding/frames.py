"""Common parts of the transducer searches: frames in time order, and the predictor side of the joiner."""

from collections.abc import Iterator

import torch
from torch import Tensor

from zipformer.data.tokenizer import BLANK
from zipformer.heads.transducer import TransducerHead


class TransducerFrames:
    """Encoder frames in the order in which a frame-synchronous search needs them.

    Utterances are sorted by length, longest first, so that those with a frame at a given time are always the
    first n. Iteration yields the frames of each time step, (n, joiner_dim), with n decreasing from N.

    Args:
        head: the transducer.
        frames: encoder output (N, T, D).
        frame_lengths: number of frames of each utterance, (N,) int64.
    Raises:
        ValueError: the shapes do not fit together.
    """

    def __init__(self, head: TransducerHead, frames: Tensor, frame_lengths: Tensor) -> None:
        check_frames(frames, frame_lengths)
        self.predictor = head.predictor
        self.joiner = head.joiner
        lengths, order = frame_lengths.sort(descending=True)
        self.order: list[int] = order.tolist()
        self.lengths: list[int] = lengths.tolist()
        self.size = len(self.order)
        self.times = self.lengths[0] if self.lengths else 0
        self.device = frames.device
        projected = self.joiner.encoder_proj(frames[order.to(frames.device), : self.times])
        self._projected = projected.transpose(0, 1).contiguous()  # (T, N, J)

    def __iter__(self) -> Iterator[Tensor]:
        active = self.size
        for t in range(self.times):
            while self.lengths[active - 1] <= t:
                active -= 1
            yield self._projected[t, :active]

    def initial_contexts(self) -> Tensor:
        """Contexts (N, context_size) at the start of an utterance: no tokens, then a blank."""
        contexts = torch.full((self.size, self.predictor.context_size), -1, device=self.device)
        contexts[:, -1] = BLANK
        return contexts

    def predict(self, contexts: Tensor) -> Tensor:
        """Projected predictor output (n, J) of contexts (n, context_size)."""
        projected: Tensor = self.joiner.decoder_proj(self.predictor(contexts, pad=False))
        return projected.squeeze(1)

    def logits(self, frame: Tensor, state: Tensor, blank_penalty: float) -> Tensor:
        """Scores (..., V) of the next token from projected frames and predictor output, at least float32."""
        logits: Tensor = self.joiner(frame, state, project=False)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if blank_penalty:
            logits[..., BLANK] -= blank_penalty
        return logits

    def hypotheses(self, tokens: Tensor) -> list[list[int]]:
        """Convert tokens (T, N) in sorted order, with blank for none, to lists in the order of the caller."""
        result: list[list[int]] = [[] for _ in range(self.size)]
        for index, row in zip(self.order, tokens.transpose(0, 1).tolist(), strict=True):
            result[index] = [token for token in row if token != BLANK]
        return result


def check_frames(frames: Tensor, frame_lengths: Tensor) -> None:
    """Raise ValueError unless frames are (N, T, D) and the lengths (N,) lie within T."""
    if frames.dim() != 3 or frame_lengths.shape != frames.shape[:1]:
        raise ValueError(
            f"frames are {tuple(frames.shape)} and frame_lengths {tuple(frame_lengths.shape)}; "
            "expected (N, T, D) and (N,)"
        )
    if frame_lengths.numel() and int(frame_lengths.max()) > frames.shape[1]:
        raise ValueError(
            f"frame_lengths go up to {int(frame_lengths.max())}, but there are {frames.shape[1]} frames"
        )
