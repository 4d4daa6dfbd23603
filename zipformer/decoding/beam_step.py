"""One frame of modified beam search on a CPU, compiled: chooses the best tokens and merges equal hypotheses.

With tensor operations, this needs about thirty calls for each frame, and starting a call takes longer than
computing with so few hypotheses.
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
        log_probs: log-probabilities of the next token in each context (R, V).
        rows: index of the context of each hypothesis (n, K).
        scores: log-probabilities of the hypotheses (n, K); changed in place, as are the next three.
        lengths: number of tokens of each hypothesis (n, K).
        hashes: polynomial hashes of the tokens, modulo 2^64 (n, K).
        contexts: last tokens (n, K, context_size).
        parents: receives the place of the parent of each new hypothesis (n, K).
        tokens: receives the token of each new hypothesis at this frame, blank if there is none (n, K).
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
    """Logarithm of the sum of two probabilities, given their logarithms a >= b."""
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
    """Number the distinct contexts of the hypotheses of each utterance after a frame.

    Args:
        contexts: contexts of the hypotheses (n, K, context_size).
        parents, tokens: parent and token of each hypothesis at the frame (n, K).
        blank: token of a hypothesis that keeps the context of its parent.
        rows: indices of the contexts before the frame (n, K); replaced by those after it.
        utterances: receives the utterance of each context, in increasing order (n K,).
        sources: receives the index of the same context before the frame, -1 for a new one (n K,).

    Returns:
        Number of contexts; further elements of utterances and sources are not written.
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
