"""One frame of modified beam search on a CPU, compiled: choose the best tokens and merge equal hypotheses.

As tensor operations, the choice among so few hypotheses is some thirty calls a frame that each take longer to
begin than to compute.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def advance(
    log_probs: NDArray[np.floating],
    rows: NDArray[np.int64],
    scores: NDArray[np.floating],
    lengths: NDArray[np.int64],
    hashes: NDArray[np.int64],
    contexts: NDArray[np.int64],
    parents: NDArray[np.int64],
    tokens: NDArray[np.int64],
    hash_multiplier: int,
    blank: int,
    unk: int,
) -> None:
    """Replace the hypotheses of n utterances by the best K that are at most one token longer.

    Args:
        log_probs: (R, V) of the next token in each context.
        rows: (n, K) which context is that of a hypothesis.
        scores: (n, K) log-probabilities of the hypotheses; changed in place, as are the next three.
        lengths: (n, K) tokens of each hypothesis.
        hashes: (n, K) polynomial hashes of the tokens, modulo 2^64.
        contexts: (n, K, context_size) last tokens.
        parents: (n, K) receives the place of the hypothesis that each new one continues.
        tokens: (n, K) receives its token at this frame, blank if it got none.
        hash_multiplier: factor by which the hash of a history is multiplied for each token.
        blank, unk: ids that add nothing to a hypothesis; unk < 0 for none.
    """
    N, K = rows.shape
    best = np.empty(K, log_probs.dtype)
    parent = np.empty(K, np.int64)
    token = np.empty(K, np.int64)
    old_lengths, old_hashes = np.empty(K, np.int64), np.empty(K, np.int64)
    old_contexts = np.empty_like(contexts[0])
    for n in range(N):
        best[:] = -math.inf
        parent[:] = 0
        token[:] = blank
        for k in range(K):
            row = log_probs[rows[n, k]]
            for v in range(len(row)):
                score = row[v] + scores[n, k]
                if score > best[K - 1]:
                    place = K - 1
                    while place > 0 and score > best[place - 1]:
                        best[place], parent[place] = best[place - 1], parent[place - 1]
                        token[place] = token[place - 1]
                        place -= 1
                    best[place], parent[place], token[place] = score, k, v

        old_lengths[:], old_hashes[:], old_contexts[:] = lengths[n], hashes[n], contexts[n]
        for k in range(K):
            source = parent[k]
            lengths[n, k], hashes[n, k] = old_lengths[source], old_hashes[source]
            contexts[n, k] = old_contexts[source]
            if token[k] == blank or token[k] == unk:
                token[k] = blank
            else:
                lengths[n, k] += 1
                hashes[n, k] = hashes[n, k] * hash_multiplier + token[k]
                contexts[n, k, :-1] = contexts[n, k, 1:]
                contexts[n, k, -1] = token[k]
        parents[n], tokens[n] = parent, token

        for k in range(K):
            scores[n, k] = best[k]
            for earlier in range(k):
                if hashes[n, earlier] == hashes[n, k] and lengths[n, earlier] == lengths[n, k]:
                    scores[n, earlier] = _add(scores[n, earlier], best[k])
                    scores[n, k] = -math.inf
                    break


@njit(nogil=True, cache=True)
def _add(a: float, b: float) -> float:
    """Logarithm of the sum of two probabilities; a is the log of the larger one or of a sum with it."""
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


@njit(nogil=True, cache=True)
def find_distinct_contexts(
    contexts: NDArray[np.int64],
    parents: NDArray[np.int64],
    tokens: NDArray[np.int64],
    blank: int,
    rows: NDArray[np.int64],
    utterances: NDArray[np.int64],
    sources: NDArray[np.int64],
) -> int:
    """Number the distinct contexts of each utterance's hypotheses after a frame.

    Args:
        contexts: (n, K, context_size) of the hypotheses.
        parents, tokens: (n, K) how they came about at the frame.
        blank: the token of a hypothesis that has the context of its parent.
        rows: (n, K) numbers of the contexts before the frame; replaced by those after it.
        utterances: (n K,) receives the utterance of each context, in rising order.
        sources: (n K,) receives the number of the same context before the frame, -1 where it is new.

    Returns:
        How many contexts there are; further elements of utterances and sources are not written.
    """
    N, K = rows.shape
    owner = np.empty(N * K, np.int64)
    old_rows = np.empty(K, np.int64)
    count = 0
    for n in range(N):
        first = count
        old_rows[:] = rows[n]
        for k in range(K):
            source = old_rows[parents[n, k]] if tokens[n, k] == blank else -1
            row = first
            while row < count and not np.array_equal(contexts[n, owner[row]], contexts[n, k]):
                row += 1
            if row == count:
                owner[row], utterances[row], sources[row] = k, n, source
                count += 1
            elif sources[row] < 0:
                sources[row] = source
            rows[n, k] = row
    return count
