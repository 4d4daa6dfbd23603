"""Hubness: whether some utterances are retrieved again and again, whatever is asked.

In spaces of many dimensions a few points are among the nearest of very many others, the hubs, and many are
among the nearest of none, the antihubs (Radovanovic, Nanopoulos & Ivanovic, Hubs in Space, JMLR 11, 2010).
A low recall with strong hubs says that the embeddings have a common direction, which a correction may
remove; the same recall without hubs says that they do not know the words.

N_k of a candidate is the number of queries that have it among their first k; its mean over a pool of N is
min(k,N). Under perfect retrieval N_1 is 1 for all. Ties are shared (expected values under fair draws), so
equal utterances give no hub.
"""

from dataclasses import dataclass

import numpy as np

from retrieval.protocol.outcome import Outcome
from retrieval.statistics.ranks import RECALL_AT, ROUNDING, Floats


@dataclass(frozen=True)
class HubnessRow:
    """Hubness of a pair of groups; unweighted means over site pairs.

    Attributes:
        part: ``pair``; ``ceiling`` within a group; ``all`` for the mean over pairs of different groups.
        source, target: the groups; empty for the mean.
        k: of N_k.
        skewness: third standardised moment of N_k over the candidates; 0 if all are retrieved equally often.
        largest_hub: share of the queries that have the most frequent candidate among their first k, in %.
        antihubs: share of the candidates that no query has among its first k, in %.
        antihubs_chance: the same if every query drew its first k, in %; None where a challenge set gives the
            queries different candidates.
        sentence: that whose utterances at the target are among the first k most often.
    """

    part: str
    source: str
    target: str
    k: int
    skewness: float
    largest_hub: float
    antihubs: float
    antihubs_chance: float | None
    sentence: str


def skewness(counts: Floats) -> float:
    """Third standardised moment of the counts (N,) of a whole pool; 0 if they are all the same."""
    centred = counts - counts.mean()
    variance = float((centred**2).mean())
    return float((centred**3).mean() / variance**1.5) if variance > ROUNDING else 0.0


def hubness_rows(outcome: Outcome) -> list[HubnessRow]:
    """Hubness of every pair of groups and k, and the means over pairs of different groups.

    Empty where not all candidates were scored.
    """
    if outcome.occurrences is None:
        return []
    groups = list(dict.fromkeys(site.group for site in outcome.sites))
    members = {group: [n for n, site in enumerate(outcome.sites) if site.group == group] for group in groups}
    rows = []
    for index, k in enumerate(RECALL_AT):
        of_k = outcome.occurrences[index]  # (S,S,Q)
        between, of_sentence = [], np.zeros(len(outcome.sentences))
        for source in groups:
            for target in groups:
                asked = [
                    (a, b)
                    for a in members[source]
                    for b in members[target]
                    if a != b and outcome.queries(a, b)
                ]
                if not asked:
                    continue
                total = np.sum([np.nan_to_num(of_k[pair]) for pair in asked], axis=0)  # (Q,)
                row = HubnessRow(
                    "ceiling" if source == target else "pair",
                    source,
                    target,
                    k,
                    *_means([_of_site_pair(outcome, *pair, of_k[pair], k) for pair in asked]),
                    outcome.sentences[int(total.argmax())],
                )
                rows.append(row)
                if source != target:
                    between.append(row)
                    of_sentence += total
        if between:
            values = [(row.skewness, row.largest_hub, row.antihubs, row.antihubs_chance) for row in between]
            most = outcome.sentences[int(of_sentence.argmax())]
            rows.append(HubnessRow("all", "", "", k, *_means(values), most))
    return rows


Values = tuple[float, float, float, float | None]


def _of_site_pair(outcome: Outcome, source: int, target: int, occurrences: Floats, k: int) -> Values:
    """Skewness, largest hub, antihubs and what chance makes of the latter."""
    counts = occurrences[~np.isnan(occurrences)]  # (N,)
    N = len(counts)
    antihubs = 100 * float((counts < ROUNDING).mean())
    pool = outcome.pool[source, target]
    whole = bool((pool[pool > 0] == N).all())
    chance = 100 * (1 - min(k, N) / N) ** N if whole else None
    return skewness(counts), 100 * float(counts.max()) / N, antihubs, chance


def _means(values: list[Values]) -> Values:
    skew, hub, antihubs, chances = zip(*values, strict=True)
    known = [chance for chance in chances if chance is not None]
    return (
        float(np.mean(skew)),
        float(np.mean(hub)),
        float(np.mean(antihubs)),
        float(np.mean(known)) if len(known) == len(chances) else None,
    )
