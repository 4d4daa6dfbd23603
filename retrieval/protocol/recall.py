"""Cross-dialect retrieval by the YuBao protocol (arXiv 2601.07274).

For every ordered pair of sites of two different groups:

1. the sentences are those that both sites have; the pool is their N utterances at the target site;
2. every one of the N utterances of the source site is a query, scored against the pool by SeqSim;
3. it hits if the utterance of the same sentence has the highest score. Ties are shared fairly
   (:mod:`retrieval.statistics.ranks`), so embeddings that are all the same come out at chance and not at the
   luck of the order. Beyond the protocol, the rank of that utterance is kept, and how often others take its
   place.

Recall@1 of a group pair is the unweighted mean over its site pairs; chance is the mean of 1/N. Scores are
symmetric, so those of A to B serve B to A, but the recalls differ: one takes maxima over rows, the other
over columns.

Pools too large for all pairs can be searched in two stages (``candidates``): the mean frames of utterances
choose a few of the pool, and only those are scored.
"""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from retrieval.embedding.embedder import EmbedderKind
from retrieval.embedding.store import EmbeddingStore
from retrieval.protocol.outcome import Outcome, OutcomeBuilder
from retrieval.protocol.sites import (
    MIN_COMMON,
    Duplicates,
    Level,
    Site,
    check_common_sentences,
    common_sentences,
    site_pairs,
)
from retrieval.results.weights import command
from retrieval.similarity.candidates import nearest, rerank
from retrieval.similarity.corrections import Correction, Transform, fit_correction
from retrieval.similarity.scores import ScoreKind, score_matrix
from retrieval.similarity.seqsim import Packed, pack
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

SITES_BYTES = 8 << 30  # of frames that are kept for further pairs of their sites


@dataclass
class RetrieveConfig:
    """What to retrieve from what.

    Attributes:
        model_dir: model directory whose ``results`` hold the embeddings and receive the tables.
        split: which embeddings.
        dataset: whose results; null = the only data set that there are results of.
        embedder: whose embeddings, as scripts/embed.py named their folder: ``zipformer``, ``mfcc``, ...
        layer: of the embedder, as in scripts/embed.py; null = its output.
        level: rows of the matrix: dialect groups, or varieties (subdialects).
        groups: only these rows, in this order; empty = all.
        trained: dialect groups that the encoder was trained on; null = as ``provenance.json`` says.
        within: also pair the sites of one group, reported apart.
        min_common: sentences that two sites must share. With fewer the pool is so small that chance decides,
            and with 1 every answer is right.
        score: how alike two utterances are (:mod:`retrieval.similarity.scores`); ``seqsim`` is the protocol.
        correction: of the frames before they are compared (:mod:`retrieval.similarity.corrections`); ``none``
            is the protocol.
        challenge: file of scripts/challenge.py, which says what sentences stay and what they compete with.
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        candidates: of a larger pool, score only so many utterances for each query, those with the most
            similar mean frames; needs FAISS. Fewer are faster and miss more. 0 = score the whole pool.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        half_precision: SeqSim in one kernel with products of float16, for whole benchmarks on a GPU: faster,
            scores off by up to 1e-4. Other scores have no such kernel.
        resamples: of the bootstrap; more of them make the ends of the intervals steadier.
        confidence: of the intervals.
        permutations: of the tests against chance and between models; the smallest p is 1/(1 + this). 0 = no
            tests against chance; those between models then have as many as by default.
        seed: of the bootstrap and of the permutations.
        compare_with: further model directories, whose results are made in the same way and held against those
            of ``model_dir``, side by side.
        any_dimension: compare models although their embeddings differ in dimension.
    """

    model_dir: str
    split: str = "test"
    dataset: str | None = None
    embedder: str = "zipformer"
    layer: int | None = None
    level: Level = Level.group
    groups: list[str] = field(default_factory=list)
    trained: list[str] | None = None
    within: bool = True
    min_common: int = MIN_COMMON
    score: ScoreKind = ScoreKind.seqsim
    correction: Correction = Correction.none
    challenge: str | None = None
    duplicates: Duplicates = Duplicates.error
    candidates: int = 0
    device: str = "auto"
    half_precision: bool = False
    resamples: int = 1000
    confidence: float = 0.95
    permutations: int = 1999
    seed: int = 0
    compare_with: list[str] = field(default_factory=list)
    any_dimension: bool = False

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UserError(f"resamples={self.resamples} gives no interval; take 1000")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence} must be between 0 and 1")
        if self.min_common < 1:
            raise UserError(f"min_common={self.min_common} leaves pools without a sentence; give 2 or more")
        if self.candidates < 0:
            raise UserError(f"candidates={self.candidates} is negative; give 0 for the whole pool")
        if self.permutations < 0:
            raise UserError(f"permutations={self.permutations} is negative; give 0 for no test")
        if self.candidates and self.challenge:
            raise UserError("candidates and challenge do not go together: set candidates=0")
        if self.half_precision and self.score is not ScoreKind.seqsim:
            raise UserError(
                f"half_precision is of SeqSim; set half_precision=false for score={self.score.value}"
            )


def calls_of(model_dir: Path, split: str, settings: Mapping[str, Any]) -> str:
    """The commands that make a retrieval from the model's embeddings again, with the settings that it had."""
    given = {"model_dir": str(model_dir), "split": split}
    again = command("retrieve", RetrieveConfig, {**settings, **given})
    return f"{embed_call(model_dir, split, settings)} && {again}"


def embed_call(model_dir: Path, split: str, settings: Mapping[str, Any]) -> str:
    """The command that makes the embeddings of a retrieval again, from the settings of the retrieval."""
    call = ["python", "scripts/embed.py", f"model_dir={model_dir}", "data_dir=DATA_DIR", f"split={split}"]
    if (dataset := settings.get("dataset")) is not None:
        call.append(f"dataset={dataset}")
    embedder = settings.get("embedder", EmbedderKind.zipformer.value)
    if embedder not in {kind.value for kind in EmbedderKind}:  # the short name of a model of Hugging Face
        call += ["embedder=huggingface", "huggingface.model=MODEL"]
    elif embedder != EmbedderKind.zipformer:
        call.append(f"embedder={embedder}")
    if (layer := settings.get("layer")) is not None:
        call.append(f"layer={layer}")
    return shlex.join(call)


class Challenge(Protocol):
    """A choice of what is asked, and of what a query competes with."""

    @property
    def name(self) -> str:
        """Of the set; the end of the name of its result folders."""
        ...

    def kept(self, source: Site, target: Site, common: Sequence[str]) -> list[str]:
        """Those of the common sentences of a site pair that stay, sorted; may be none."""
        ...

    def allowed(self, source: Site, target: Site, kept: Sequence[str]) -> NDArray[np.bool_] | None:
        """Candidates (columns) that a query (row) is compared with (N,N), its own always; None for all."""
        ...


def retrieve(
    store: EmbeddingStore,
    sites: Sequence[Site],
    *,
    within_groups: bool = False,
    min_common: int = MIN_COMMON,
    score: ScoreKind = ScoreKind.seqsim,
    correction: Correction = Correction.none,
    challenge: Challenge | None = None,
    candidates: int = 0,
    permutations: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    half_precision: bool = False,
) -> Outcome:
    """Ask every query of every ordered pair of sites.

    Args:
        store: embeddings.
        sites: from :func:`sites_of`.
        within_groups: also pairs of different sites of one group, the ceiling that other groups can be
            compared with.
        min_common: sentences that the sites of every pair must share.
        score: how alike two utterances are.
        correction: of the frames, fitted on the store.
        challenge: which sentences are asked, and what they compete with; None asks all of all.
        candidates: utterances of a larger pool that are scored for each query
            (:mod:`retrieval.similarity.candidates`); 0 scores the whole pool.
        permutations: of the test against chance; 0 makes none.
        seed: of the permutations.
        device: where scores are computed.
        half_precision: frames in float16, see :meth:`retrieval.similarity.seqsim.Packed.half`.

    Raises:
        ValueError: two sites with too few common sentences, frames or scores that are not finite, a challenge
            that keeps nothing or does not fit the sites, or candidates without FAISS.
    """
    if candidates and challenge is not None:
        raise UserError("candidates and challenge do not go together: set candidates=0")
    pairs, empty = site_pairs(sites, within_groups=within_groups), 0
    check_common_sentences(sites, pairs, min_common)
    outcome = OutcomeBuilder(sites, whole_pools=not candidates, permutations=permutations, seed=seed)
    correct = fit_correction(correction, store)
    largest = max(sum(store.utterances[name].frames for name in site.utterances.values()) for site in sites)

    @lru_cache(maxsize=max(2, SITES_BYTES // (4 * store.frames.shape[1] * largest)))
    def frames_of(index: int) -> Packed:
        packed = _packed(store, sites[index], correct, device)
        return packed.half() if half_precision else packed

    compare = partial(score_matrix, score)
    for a, b in track(pairs, description="site pairs"):
        common = common_sentences(sites[a], sites[b])
        kept = {pair: _kept(challenge, sites[pair[0]], sites[pair[1]], common) for pair in ((a, b), (b, a))}
        asked = sorted({*kept[a, b], *kept[b, a]})
        if not asked:
            empty += 1
            continue
        x, y = (_common_part(frames_of(index), sites[index], asked) for index in (a, b))
        if 0 < candidates < len(asked):
            for source, target, queries, pool in ((a, b, x, y), (b, a, y, x)):
                chosen = nearest(queries, pool, candidates)
                scores = rerank(queries, pool, chosen, compare).cpu().numpy()
                outcome.add_candidates(source, target, asked, scores, chosen.numpy())
            continue
        scores = compare(x, y).cpu().numpy()
        if not np.isfinite(scores).all():
            n, m = np.argwhere(~np.isfinite(scores))[0]
            raise UserError(
                f"the score of sentence {asked[n]} at {sites[a]} with {asked[m]} at {sites[b]} is not finite"
            )
        for source, target, matrix in ((a, b, scores), (b, a, scores.T)):
            if names := kept[source, target]:
                place = np.searchsorted(asked, names)
                allowed = _allowed(challenge, sites[source], sites[target], names)
                outcome.add(source, target, names, matrix[np.ix_(place, place)], allowed)
    if challenge is not None and empty == len(pairs):
        raise UserError(f"challenge set {challenge.name!r} leaves no sentence for these sites")
    if empty:
        logger.warning("the challenge set leaves no sentence at %d pairs of sites", empty)
    result = outcome.result()
    _warn_of_unlike_pools(result)
    if candidates:
        logger.info(
            "%d candidates: %.2f %% of the right answers were not among them; recall@1 is lower than with"
            " candidates=0 by at most this. Tests against chance and counts of hubs need all scores: none",
            candidates,
            100 * result.missed,
        )
    return result


def _warn_of_unlike_pools(outcome: Outcome) -> None:
    """Say so where the smallest pool is under half the largest: recall of both is averaged as if alike."""
    pools = np.where(outcome.pool > 0, outcome.pool, np.iinfo(outcome.pool.dtype).max)
    smallest, largest = int(pools.min()), int(outcome.pool.max())
    if 2 * smallest < largest:
        (a, b, _), (c, d, _) = (np.argwhere(outcome.pool == size)[0] for size in (smallest, largest))
        sites = outcome.sites
        logger.warning(
            "pools differ in size, from %d (%s at %s) to %d (%s at %s): hits are easier in small ones, and"
            " means take all as alike; hold recall against its chance",
            *(smallest, sites[a], sites[b], largest, sites[c], sites[d]),
        )


def _kept(challenge: Challenge | None, source: Site, target: Site, common: list[str]) -> list[str]:
    if challenge is None:
        return common
    kept = challenge.kept(source, target, common)
    if kept != sorted(set(kept) & set(common)):
        raise UserError(
            f"challenge {challenge.name} does not keep a sorted choice of the sentences that {source} and"
            f" {target} share: make it again for these embeddings with scripts/challenge.py"
        )
    return kept


def _allowed(
    challenge: Challenge | None, source: Site, target: Site, kept: Sequence[str]
) -> NDArray[np.bool_] | None:
    allowed = None if challenge is None else challenge.allowed(source, target, kept)
    if allowed is not None and (
        allowed.shape != (len(kept), len(kept)) or not bool(np.diagonal(allowed).all())
    ):
        raise UserError(
            f"challenge {challenge.name if challenge else ''} must allow each of the {len(kept)} queries of"
            f" {source} its own answer at {target} in a square matrix; found {allowed.shape}:"
            " make it again with scripts/challenge.py"
        )
    return allowed


def _packed(store: EmbeddingStore, site: Site, correct: Transform, device: torch.device | str) -> Packed:
    """Utterances of a site in the order of their sentences, in float32."""
    arrays = []
    for sentence in sorted(site.utterances):
        name = site.utterances[sentence]
        frames = np.array(correct(np.array(store[name])), dtype=np.float32)  # (T,D), from disk
        if not np.isfinite(frames).all():
            raise UserError(
                f"utterance {name} of {site} has frames that are not finite in {store.directory}:"
                " check its features and embed again with scripts/embed.py"
            )
        arrays.append(torch.from_numpy(frames).to(device))
    return pack(arrays)


def _common_part(packed: Packed, site: Site, common: Sequence[str]) -> Packed:
    """The utterances of a packed site that speak the common sentences."""
    if len(common) == len(site.utterances):
        return packed
    place = {sentence: index for index, sentence in enumerate(sorted(site.utterances))}
    return packed.select([place[sentence] for sentence in common])
