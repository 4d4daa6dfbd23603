"""Modified beam search (Kang et al., "Fast and parallel decoding for transducer", ICASSP 2023).

At most one token a frame is emitted, and hypotheses with the same tokens are merged by adding their
probabilities (https://arxiv.org/abs/2211.00484). The hypotheses of all utterances are tensors (N, beam):
score, last tokens, number of tokens, and a hash of all tokens by which equal hypotheses know each other. The
tokens themselves are only written down as (parent, token) of every frame, and read off in the end by going
back from the best one.

On a CPU, the choice of the best hypotheses is compiled (:mod:`zipformer.decoding.beam_step`); elsewhere it is
PyTorch without waiting for the device.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zipformer.decoding.beam_step import advance
from zipformer.decoding.frames import TransducerFrames
from zipformer.model import BLANK, AsrModel

# Of the polynomial hash modulo 2^64, from Knuth's MMIX. Unequal hypotheses get the same hash about as rarely
# as random numbers of 64 bits do.
HASH_MULTIPLIER = 6364136223846793005


@torch.no_grad()
def modified_beam_search(
    model: AsrModel,
    frames: Tensor,
    frame_lengths: Tensor,
    *,
    beam: int = 4,
    blank_penalty: float = 0.0,
    unk: int | None = None,
) -> list[list[int]]:
    """Transducer beam search with at most one token a frame.

    The best hypothesis has the highest log-probability divided by its number of tokens, the context_size
    tokens of the initial context counted.

    Args:
        model: a model with a transducer, in evaluation mode.
        frames: (N, T, D) encoder output.
        frame_lengths: (N,) int64.
        beam: hypotheses kept for an utterance; the time grows in proportion.
        blank_penalty: subtracted from the score of blank; larger values trade deletions for insertions.
        unk: id that adds nothing to a hypothesis, like blank; None emits it like any other token.
    Returns:
        token ids of each utterance.
    Raises:
        ValueError: beam below 1, the model has no transducer, or the shapes do not fit together.
    """
    if beam < 1:
        raise ValueError(f"beam is {beam}; it must be at least 1")
    search = TransducerFrames(model, frames, frame_lengths)
    hypotheses = _Hypotheses.empty(search, beam, frames.dtype)
    shape = (search.times, search.size, beam)
    parents = torch.zeros(shape, dtype=torch.int64, device=search.device)
    tokens = torch.full_like(parents, BLANK)
    extend = _extend_compiled if search.device.type == "cpu" else _extend
    states = search.predict(hypotheses.contexts.flatten(0, 1))  # (N K, J)
    for t, frame in enumerate(search):
        active = hypotheses.part(len(frame))
        joint = states[: len(frame) * beam].view(len(frame), beam, -1)
        log_probs = search.logits(frame.unsqueeze(1), joint, blank_penalty).log_softmax(dim=-1)
        parent, token = parents[t, : len(frame)], tokens[t, : len(frame)]
        extend(active, log_probs, -1 if unk is None else unk, parent, token)
        states = search.predict_changed(states, active.contexts, parent, token != BLANK)

    context_size = hypotheses.contexts.shape[2]
    normalised = hypotheses.scores / (hypotheses.lengths + context_size)
    place = normalised.argmax(dim=1, keepdim=True)  # (N, 1)
    return search.hypotheses(_trace_back(parents, tokens, place, search.lengths))


@dataclass(frozen=True)
class _Hypotheses:
    """K hypotheses of each of N utterances, changed in place from frame to frame.

    Attributes:
        scores: (N, K) log-probabilities, -inf for a free place.
        lengths: (N, K) int64, tokens.
        hashes: (N, K) int64, of all tokens.
        contexts: (N, K, context_size) int64, last tokens.
    """

    scores: Tensor
    lengths: Tensor
    hashes: Tensor
    contexts: Tensor

    @classmethod
    def empty(cls, search: TransducerFrames, beam: int, dtype: torch.dtype) -> "_Hypotheses":
        """One empty hypothesis; the other places are free."""
        shape = (search.size, beam)
        lengths = torch.zeros(shape, dtype=torch.int64, device=search.device)
        dtype = torch.promote_types(dtype, torch.float32)
        scores = torch.full(shape, -math.inf, dtype=dtype, device=search.device)
        scores[:, 0] = 0.0
        contexts = search.initial_contexts().unsqueeze(1).repeat(1, beam, 1)
        return cls(scores, lengths, lengths.clone(), contexts)

    def part(self, n: int) -> "_Hypotheses":
        """Those of the first n utterances."""
        return _Hypotheses(self.scores[:n], self.lengths[:n], self.hashes[:n], self.contexts[:n])


def _extend_compiled(
    hypotheses: _Hypotheses, log_probs: Tensor, unk: int, parents: Tensor, tokens: Tensor
) -> None:
    """The same as :func:`_extend`, on a CPU."""
    advance(
        log_probs.numpy(),
        hypotheses.scores.numpy(),
        hypotheses.lengths.numpy(),
        hypotheses.hashes.numpy(),
        hypotheses.contexts.numpy(),
        parents.numpy(),
        tokens.numpy(),
        HASH_MULTIPLIER,
        BLANK,
        unk,
    )


def _extend(hypotheses: _Hypotheses, log_probs: Tensor, unk: int, parents: Tensor, tokens: Tensor) -> None:
    """Replace the hypotheses by the best K that are at most one token longer.

    Args:
        hypotheses: of n utterances.
        log_probs: (n, K, V) of the next token of each.
        unk: id that adds nothing to a hypothesis, -1 for none.
        parents: (n, K) receives the place of the hypothesis that each new one continues.
        tokens: (n, K) receives its token at this frame, blank if it got none.
    """
    n, beam, vocab = log_probs.shape
    best, index = (log_probs + hypotheses.scores.unsqueeze(2)).view(n, beam * vocab).topk(beam)
    parent, token = index // vocab, index % vocab  # (n, K)
    emits = (token != BLANK) & (token != unk)
    token = torch.where(emits, token, BLANK)
    parents.copy_(parent)
    tokens.copy_(token)

    old_hash = hypotheses.hashes.gather(1, parent)
    hypotheses.hashes.copy_(torch.where(emits, old_hash * HASH_MULTIPLIER + token, old_hash))
    hypotheses.lengths.copy_(hypotheses.lengths.gather(1, parent) + emits)
    old_context = hypotheses.contexts.take_along_dim(parent.unsqueeze(2), dim=1)
    new_context = torch.cat([old_context[:, :, 1:], token.unsqueeze(2)], dim=2)
    hypotheses.contexts.copy_(torch.where(emits.unsqueeze(2), new_context, old_context))
    hypotheses.scores.copy_(_merge(best, hypotheses.hashes, hypotheses.lengths))


def _merge(scores: Tensor, hashes: Tensor, lengths: Tensor) -> Tensor:
    """Scores (n, K) in which the first of equal hypotheses has the probability of all, the others none."""
    equal = hashes.unsqueeze(2) == hashes.unsqueeze(1)  # (n, K, K)
    equal &= lengths.unsqueeze(2) == lengths.unsqueeze(1)
    total = scores.unsqueeze(1).masked_fill(~equal, -math.inf).logsumexp(dim=2)
    has_earlier = equal.tril(-1).any(dim=2)
    return total.masked_fill(has_earlier, -math.inf)


def _trace_back(parents: Tensor, tokens: Tensor, place: Tensor, lengths: list[int]) -> Tensor:
    """Tokens (T, N) on the way to the hypothesis at place (N, 1) of each utterance; lengths must not rise."""
    path = torch.full(tokens.shape[:2], BLANK, device=tokens.device)
    place = place.clone()
    active = 0
    for t in range(len(tokens) - 1, -1, -1):
        while active < len(lengths) and lengths[active] > t:
            active += 1
        path[t, :active] = tokens[t, :active].gather(1, place[:active]).squeeze(1)
        place[:active] = parents[t, :active].gather(1, place[:active])
    return path
