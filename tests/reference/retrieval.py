"""Retrieval between sites by its definition: loops over queries, candidates and the ranks of fair draws."""

from collections.abc import Mapping, Sequence
from math import lcm

import numpy as np
from reference.seqsim import seqsim_pair

SAME = 1e-6  # scores that differ by less are equal


def ranks_of_queries(source: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray]) -> list[range]:
    """For each sentence of both sites, the ranks that its utterance at the target has in fair draws."""
    common = sorted(source.keys() & target.keys())
    found = []
    for sentence in common:
        scores = [seqsim_pair(source[sentence], target[candidate])[2] for candidate in common]
        own = scores[common.index(sentence)]
        higher = sum(score > own + SAME for score in scores)
        equal = sum(abs(score - own) <= SAME for score in scores)
        found.append(range(higher + 1, higher + equal + 1))
    return found


def metrics_of_queries(ranks: Sequence[range]) -> list[float]:
    """Recall@1, 5 and 10 and mean reciprocal rank as expected values, and the median rank of all draws."""
    recalls = [np.mean([np.mean([rank <= k for rank in of_query]) for of_query in ranks]) for k in (1, 5, 10)]
    reciprocal = np.mean([np.mean([1 / rank for rank in of_query]) for of_query in ranks])
    draws = lcm(*(len(of_query) for of_query in ranks))
    drawn = [np.repeat(of_query, draws // len(of_query)) for of_query in ranks]
    return [*map(float, recalls), float(reciprocal), float(np.median(np.concatenate(drawn)))]


def chance_of_queries(ranks: Sequence[range]) -> list[range]:
    """The ranks where every answer is drawn from the whole pool, which has one candidate a query."""
    return [range(1, len(ranks) + 1)] * len(ranks)
