"""Cross-dialect retrieval by the YuBao protocol (arXiv 2601.07274).

For every ordered pair of sites of two different groups:

1. the sentences are those that both sites have; the pool is their N utterances at the target site;
2. each of the N utterances of the source site is a query, scored against the pool by SeqSim;
3. a query hits if the utterance of the same sentence has the highest score. Ties are shared fairly
   (:mod:`retrieval.statistics.ranks`), so identical embeddings give chance level for any order of the
   utterances. Beyond the protocol, the rank of the right answer is stored.

Recall@1 of a group pair is the unweighted mean over its site pairs; chance is the mean of 1/N. Scores are
symmetric, so the scores of A to B are also those of B to A, but the recalls differ: one takes maxima over
rows, the other over columns.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from rich.progress import track

from retrieval.embedding.corrections import Correction, Transform, fit_correction
from retrieval.embedding.store import EmbeddingStore
from retrieval.protocol.challenge_sets import ChallengeSet
from retrieval.protocol.outcome import Outcome, OutcomeBuilder
from retrieval.protocol.sites import (
    MIN_COMMON,
    Site,
    check_common_sentences,
    common_sentences,
    site_pairs,
)
from retrieval.similarity.scores import ScoreKind, score_matrix
from retrieval.similarity.seqsim import Packed, pack
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

SITES_BYTES = 8 << 30  # bytes of frames that are cached for further pairs of the same sites


def retrieve(
    store: EmbeddingStore,
    sites: Sequence[Site],
    *,
    within_groups: bool = False,
    min_common: int = MIN_COMMON,
    score: ScoreKind = ScoreKind.seqsim,
    correction: Correction = Correction.none,
    challenge: ChallengeSet | None = None,
    permutations: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    half_precision: bool = False,
) -> Outcome:
    """Score every query of every ordered pair of sites.

    Args:
        store: embeddings.
        sites: sites, from :func:`sites_of`.
        within_groups: also pair different sites of one group; their recall is a ceiling for recall between
            groups.
        min_common: smallest number of sentences that the two sites of a pair must share.
        score: similarity of two utterances.
        correction: correction of the frames, fitted on the store.
        challenge: challenge set with queries and rivals; None = all sentences with all rivals.
        permutations: number of permutations of the test against chance; 0 makes no test.
        seed: random seed of the permutations.
        device: device that computes the scores.
        half_precision: compare frames in float16, see :meth:`retrieval.similarity.seqsim.Packed.half`.

    Raises:
        UserError: two sites have too few common sentences, frames or scores are not finite, or the challenge
            set is empty for these sites or does not fit them.
    """
    pairs, empty = site_pairs(sites, within_groups=within_groups), 0
    check_common_sentences(sites, pairs, min_common)
    outcome = OutcomeBuilder(sites, permutations=permutations, seed=seed)
    correct = fit_correction(correction, store)
    largest = max(sum(store.utterances[name].frames for name in site.utterances.values()) for site in sites)

    @lru_cache(maxsize=max(2, SITES_BYTES // (4 * store.frames.shape[1] * largest)))
    def frames_of(index: int) -> Packed:
        packed = _packed(store, sites[index], correct, device)
        return packed.half() if half_precision else packed

    for a, b in track(pairs, description="site pairs"):
        asked = common_sentences(sites[a], sites[b])
        if challenge is not None:
            asked = challenge.kept(sites[a], sites[b], asked)
        if not asked:
            empty += 1
            continue
        x, y = (_common_part(frames_of(index), sites[index], asked) for index in (a, b))
        scores = score_matrix(score, x, y).cpu().numpy()  # (N,N)
        if not np.isfinite(scores).all():
            n, m = np.argwhere(~np.isfinite(scores))[0]
            raise UserError(
                f"the score of sentence {asked[n]} at {sites[a]} with {asked[m]} at {sites[b]} is not finite"
            )
        for source, target, matrix in ((a, b, scores), (b, a, scores.T)):
            allowed = None if challenge is None else challenge.allowed(sites[source], sites[target], asked)
            outcome.add(source, target, asked, matrix, allowed)
    if challenge is not None and empty == len(pairs):
        raise UserError(f"challenge set {challenge.name!r} leaves no sentence for these sites")
    if empty:
        logger.warning("the challenge set leaves no sentence at %d pairs of sites", empty)
    result = outcome.result()
    _warn_of_unlike_pools(result)
    return result


def _warn_of_unlike_pools(outcome: Outcome) -> None:
    """Warn if the smallest pool is less than half the largest, because means weight both equally."""
    pools = np.where(outcome.pool > 0, outcome.pool, np.iinfo(outcome.pool.dtype).max)
    smallest, largest = int(pools.min()), int(outcome.pool.max())
    if 2 * smallest < largest:
        (a, b, _), (c, d, _) = (np.argwhere(outcome.pool == size)[0] for size in (smallest, largest))
        sites = outcome.sites
        logger.warning(
            "pools differ in size, from %d (%s at %s) to %d (%s at %s): hits are easier in small"
            " pools, and means weigh all pools alike; compare recall with its chance level",
            *(smallest, sites[a], sites[b], largest, sites[c], sites[d]),
        )


def _packed(store: EmbeddingStore, site: Site, correct: Transform, device: torch.device | str) -> Packed:
    """Pack the utterances of a site in the order of their sentences, in float32."""
    arrays = []
    for sentence in sorted(site.utterances):
        name = site.utterances[sentence]
        frames = np.array(correct(np.array(store[name])), dtype=np.float32)  # (T,D), from disk
        if not np.isfinite(frames).all():
            raise UserError(
                f"utterance {name} of {site} has frames that are not finite in {store.directory}:"
                " check its features and embed again with fangyan embed"
            )
        arrays.append(torch.from_numpy(frames).to(device))
    return pack(arrays)


def _common_part(packed: Packed, site: Site, common: Sequence[str]) -> Packed:
    """The utterances of a packed site that have the common sentences."""
    if len(common) == len(site.utterances):
        return packed
    place = {sentence: index for index, sentence in enumerate(sorted(site.utterances))}
    return packed.select([place[sentence] for sentence in common])
