"""Modified beam search (Kang et al., "Fast and parallel decoding for transducer", ICASSP 2023).

At most one token a frame is emitted, and hypotheses with the same tokens are merged by adding their
probabilities (https://arxiv.org/abs/2211.00484). The hypotheses of all utterances are tensors (N, beam):
score, last tokens, number of tokens, and a hash of all tokens by which equal hypotheses know each other. The
tokens themselves are only written down as (parent, token) of every frame, and read off in the end by going
back from the best one.
"""

import math

import torch
from torch import Tensor

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
    shape = (search.size, beam)
    device = search.device
    contexts = search.initial_contexts().unsqueeze(1).repeat(1, beam, 1)  # (N, K, context_size)
    lengths = torch.zeros(shape, dtype=torch.int64, device=device)
    hashes = torch.zeros_like(lengths)
    # One empty hypothesis; the other places are free.
    scores = torch.full(
        shape, -math.inf, dtype=torch.promote_types(frames.dtype, torch.float32), device=device
    )
    scores[:, 0] = 0.0
    parents = torch.zeros((search.times, *shape), dtype=torch.int64, device=device)
    tokens = torch.full_like(parents, BLANK)

    for t, frame in enumerate(search):
        n = len(frame)
        state = search.predict(contexts[:n].flatten(0, 1)).view(n, beam, -1)
        log_probs = search.logits(frame.unsqueeze(1), state, blank_penalty).log_softmax(dim=-1)
        log_probs += scores[:n].unsqueeze(2)
        vocab = log_probs.shape[2]
        best, index = log_probs.view(n, beam * vocab).topk(beam)
        parent, token = index // vocab, index % vocab  # (n, K)

        emits = token != BLANK
        if unk is not None:
            emits &= token != unk
        token = torch.where(emits, token, BLANK)
        parents[t, :n], tokens[t, :n] = parent, token

        old_hash = hashes[:n].gather(1, parent)
        new_hash = torch.where(emits, old_hash * HASH_MULTIPLIER + token, old_hash)
        length = lengths[:n].gather(1, parent) + emits
        old_context = contexts[:n].gather(1, parent.unsqueeze(2).expand(-1, -1, contexts.shape[2]))
        new_context = torch.cat([old_context[:, :, 1:], token.unsqueeze(2)], dim=2)
        hashes[:n], lengths[:n] = new_hash, length
        contexts[:n] = torch.where(emits.unsqueeze(2), new_context, old_context)
        scores[:n] = _merge(best, new_hash, length)

    normalised = scores / (lengths + contexts.shape[2])
    place = normalised.argmax(dim=1, keepdim=True)  # (N, 1)
    return search.hypotheses(_trace_back(parents, tokens, place, search.lengths))


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
