"""Modified beam search (Kang et al., "Fast and parallel decoding for transducer", ICASSP 2023).

At most one token a frame is emitted, and hypotheses with the same tokens are merged by adding their
probabilities (https://arxiv.org/abs/2211.00484). The hypotheses of all utterances are tensors (N, beam):
score, last tokens, number of tokens, and a hash of all tokens, by which equal hypotheses are found. The
tokens themselves are stored only as (parent, token) of every frame, and read at the end by tracing back from
the best hypothesis.

On a CPU, the choice of the best hypotheses is compiled (:mod:`zipformer.decoding.beam_step`), and hypotheses
of an utterance with the same context, about half of them, share the computation of their scores; elsewhere it
is PyTorch without waiting for the device.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zipformer.data.tokenizer import BLANK
from zipformer.decoding.beam_step import advance, find_distinct_contexts
from zipformer.decoding.frames import TransducerFrames
from zipformer.decoding.methods import DecodeConfig, Search, decoding_method
from zipformer.errors import UserError
from zipformer.heads.transducer import TransducerHead

# Multiplier of the polynomial hash modulo 2^64, from Knuth's MMIX. Different hypotheses have the same hash
# about as rarely as two random 64-bit numbers are equal.
HASH_MULTIPLIER = 6364136223846793005


@torch.no_grad()
def modified_beam_search(
    head: TransducerHead,
    frames: Tensor,
    frame_lengths: Tensor,
    *,
    beam: int = 4,
    blank_penalty: float = 0.0,
    unk: int | None = None,
) -> list[list[int]]:
    """Transducer beam search with at most one token a frame.

    The best hypothesis has the highest log-probability divided by its number of tokens, including the
    context_size tokens of the initial context.

    Args:
        head: the transducer, in evaluation mode.
        frames: encoder output (N, T, D).
        frame_lengths: number of frames of each utterance, (N,) int64.
        beam: number of hypotheses kept for each utterance; the time is proportional to it.
        blank_penalty: number subtracted from the score of blank; larger values trade deletions for
            insertions.
        unk: id that adds nothing to a hypothesis, like blank; None emits it like any other token.
    Returns:
        Token ids of each utterance.
    Raises:
        UserError: beam is below 1.
        ValueError: the shapes do not fit together.
    """
    if beam < 1:
        raise UserError(f"beam is {beam}; it must be at least 1")
    search = TransducerFrames(head, frames, frame_lengths)
    hypotheses = _Hypotheses.empty(search, beam, frames.dtype)
    shape = (search.times, search.size, beam)
    parents = torch.zeros(shape, dtype=torch.int64, device=search.device)
    tokens = torch.full_like(parents, BLANK)
    on_cpu = search.device.type == "cpu"
    states = _States.of_all(search, hypotheses.contexts)
    for t, frame in enumerate(search):
        n = len(frame)
        active, states = hypotheses.part(n), states.part(n)
        log_probs = search.logits(frame[states.utterances], states.values, blank_penalty).log_softmax(dim=1)
        parent, token = parents[t, :n], tokens[t, :n]
        extend = _extend_compiled if on_cpu else _extend
        extend(active, log_probs, states.rows, -1 if unk is None else unk, parent, token)
        if on_cpu:
            states = states.of_distinct(search, active.contexts, parent, token)
        else:
            states = _States.of_all(search, active.contexts)

    context_size = hypotheses.contexts.shape[2]
    normalised = hypotheses.scores / (hypotheses.lengths + context_size)
    place = normalised.argmax(dim=1, keepdim=True)  # (N, 1)
    return search.hypotheses(_trace_back(parents, tokens, place, search.lengths))


@decoding_method("beam", TransducerHead)
def _beam(head: TransducerHead, config: DecodeConfig) -> Search:
    return partial(
        modified_beam_search, head, beam=config.beam, blank_penalty=config.blank_penalty, unk=config.unk
    )


@dataclass(frozen=True)
class _Hypotheses:
    """K hypotheses of each of N utterances, changed in place from frame to frame.

    Attributes:
        scores: log-probabilities (N, K), -inf for a free place.
        lengths: number of tokens, (N, K) int64.
        hashes: hash of all tokens, (N, K) int64.
        contexts: last tokens, (N, K, context_size) int64.
    """

    scores: Tensor
    lengths: Tensor
    hashes: Tensor
    contexts: Tensor

    @classmethod
    def empty(cls, search: TransducerFrames, beam: int, dtype: torch.dtype) -> "_Hypotheses":
        """One empty hypothesis for each utterance; the other places are free."""
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


@dataclass(frozen=True)
class _States:
    """Projected predictor output in the contexts of hypotheses.

    Attributes:
        values: predictor output (R, J), one row for each context.
        utterances: utterance of each row, (R,) int64, in increasing order.
        rows: row of each hypothesis, (n, K) int64.
    """

    values: Tensor
    utterances: Tensor
    rows: Tensor

    @classmethod
    def of_all(cls, search: TransducerFrames, contexts: Tensor) -> "_States":
        """A row for every hypothesis, contexts (n, K, context_size)."""
        rows = torch.arange(contexts.shape[0] * contexts.shape[1], device=contexts.device)
        rows = rows.view(contexts.shape[:2])
        return cls(search.predict(contexts.flatten(0, 1)), rows.flatten() // rows.shape[1], rows)

    def of_distinct(
        self, search: TransducerFrames, contexts: Tensor, parents: Tensor, tokens: Tensor
    ) -> "_States":
        """A row for every distinct context after a frame, on a CPU; the predictor runs only on new ones."""
        rows = self.rows.clone()
        utterances, sources = rows.new_empty(rows.numel()), rows.new_empty(rows.numel())
        count = find_distinct_contexts(
            contexts.numpy(),
            parents.numpy(),
            tokens.numpy(),
            BLANK,
            rows.numpy(),
            utterances.numpy(),
            sources.numpy(),
        )
        utterances, sources = utterances[:count], sources[:count]
        values = self.values.index_select(0, sources.clamp(min=0))
        (new,) = (sources < 0).nonzero(as_tuple=True)
        owners = rows.new_empty(count)
        owners[rows.flatten()] = torch.arange(rows.numel())  # one of the hypotheses with the context
        values.index_copy_(0, new, search.predict(contexts.flatten(0, 1)[owners[new]]))
        return _States(values, utterances, rows)

    def part(self, n: int) -> "_States":
        """Those of the first n utterances."""
        if n == len(self.rows):
            return self
        count = int(torch.searchsorted(self.utterances, n))
        return _States(self.values[:count], self.utterances[:count], self.rows[:n])


def _extend_compiled(
    hypotheses: _Hypotheses, log_probs: Tensor, rows: Tensor, unk: int, parents: Tensor, tokens: Tensor
) -> None:
    """Compiled version of :func:`_extend` for a CPU."""
    advance(
        log_probs.numpy(),
        rows.numpy(),
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


def _extend(
    hypotheses: _Hypotheses, log_probs: Tensor, rows: Tensor, unk: int, parents: Tensor, tokens: Tensor
) -> None:
    """Replace the hypotheses by the best K that are at most one token longer.

    Args:
        hypotheses: hypotheses of n utterances.
        log_probs: log-probabilities of the next token in each context (R, V).
        rows: index of the context of each hypothesis (n, K).
        unk: id that adds nothing to a hypothesis, -1 for none.
        parents: receives the place of the parent of each new hypothesis (n, K).
        tokens: receives the token of each new hypothesis at this frame, blank if there is none (n, K).
    """
    vocab = log_probs.shape[1]
    best, index = (log_probs[rows] + hypotheses.scores.unsqueeze(2)).flatten(1).topk(rows.shape[1])
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
    """Scores (n, K): the first of equal hypotheses gets the sum of their probabilities, the others -inf."""
    equal = hashes.unsqueeze(2) == hashes.unsqueeze(1)  # (n, K, K)
    equal &= lengths.unsqueeze(2) == lengths.unsqueeze(1)
    total = scores.unsqueeze(1).masked_fill(~equal, -math.inf).logsumexp(dim=2)
    has_earlier = equal.tril(-1).any(dim=2)
    return total.masked_fill(has_earlier, -math.inf)


def _trace_back(parents: Tensor, tokens: Tensor, place: Tensor, lengths: list[int]) -> Tensor:
    """Tokens (T, N) of the hypothesis at place (N, 1) of each utterance; lengths must not increase."""
    path = torch.full(tokens.shape[:2], BLANK, device=tokens.device)
    place = place.clone()
    active = 0
    for t in range(len(tokens) - 1, -1, -1):
        while active < len(lengths) and lengths[active] > t:
            active += 1
        path[t, :active] = tokens[t, :active].gather(1, place[:active]).squeeze(1)
        place[:active] = parents[t, :active].gather(1, place[:active])
    return path
