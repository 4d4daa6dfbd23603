"""Cross-dialect retrieval by the YuBao protocol (arXiv 2601.07274).

For every ordered pair of sites of two different groups:

1. the sentences are those that both sites have; the pool is their N utterances at the target site;
2. every one of the N utterances of the source site is a query, scored against the pool by SeqSim;
3. it hits if the utterance of the same sentence has the highest score. Scores within ``TIE`` of the highest
   are equal; with k equal ones, of which one is right, the query counts 1/k, what a fair draw among them
   would give. Embeddings that are all the same thus come out at chance and not at the luck of the order.

Recall@1 of a group pair is the unweighted mean over its site pairs; chance is the mean of 1/N. SeqSim is
symmetric, so the scores of A to B serve B to A, but the recalls differ: one takes maxima over rows, the
other over columns.

Pools too large for all pairs can be searched in two stages (``candidates``): the mean frames of utterances
choose a few of the pool, and only those are scored.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from retrieval.candidates import nearest, rerank
from retrieval.embedder import EmbedderKind
from retrieval.embeddings import EmbeddingStore, Utterance
from retrieval.seqsim import Packed, pack, seqsim_packed

logger = logging.getLogger(__name__)

SITES_BYTES = 8 << 30  # of frames that are kept for further pairs of their sites
TIE = 1e-6  # a few units in the last place of float32 near 1: less is rounding of the matrix product


class Level(str, Enum):
    """What a row of the matrix is: a dialect group with all its sites, or one variety (subdialect)."""

    group = "group"
    subdialect = "subdialect"


class Duplicates(str, Enum):
    """What to do where a site has a sentence more than once."""

    error = "error"
    first = "first"


@dataclass
class RetrieveConfig:
    """What to retrieve from what.

    Attributes:
        model_dir: model directory whose ``results`` hold the embeddings and receive the tables.
        split: which embeddings.
        embedder: whose embeddings, as in scripts/embed.py.
        level: rows of the matrix: dialect groups, or varieties (subdialects).
        groups: only these rows, in this order; empty = all.
        trained: dialect groups that the encoder was trained on; null = as ``provenance.json`` says.
        within: also pair the sites of one group, reported apart.
        center: subtract the mean of all frames first (not part of the protocol).
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        candidates: of a larger pool, score only so many utterances for each query, those with the most
            similar mean frames; needs FAISS. Fewer are faster and miss more. 0 = score the whole pool.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        resamples: of the bootstrap; more of them make the ends of the intervals steadier.
        confidence: of the intervals.
        seed: of the bootstrap.
    """

    model_dir: str
    split: str = "test"
    embedder: EmbedderKind = EmbedderKind.zipformer
    level: Level = Level.group
    groups: list[str] = field(default_factory=list)
    trained: list[str] | None = None
    within: bool = True
    center: bool = False
    duplicates: Duplicates = Duplicates.error
    candidates: int = 0
    device: str = "auto"
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples} gives no interval; take 1000")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence} must be between 0 and 1")
        if self.candidates < 0:
            raise ValueError(f"candidates={self.candidates} is negative; give 0 for the whole pool")


@dataclass(frozen=True)
class Site:
    """One place: its group (or variety) and the utterance id of each sentence."""

    group: str
    name: str
    utterances: dict[str, str]

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


@dataclass(frozen=True)
class Hits:
    """Outcome of all queries.

    Attributes:
        sites: S sites, sorted by group.
        sentences: Q sentence ids.
        hits: (S,S,Q) source site, target site, sentence: 1, 0, 1/k for a tie; NaN where nothing was asked.
        missed: share of the queries whose right answer was not among their candidates, 0 if the whole pools
            were scored. Recall@1 is lower than that of whole pools by at most this.
    """

    sites: list[Site]
    sentences: list[str]
    hits: NDArray[np.float64]
    missed: float = 0.0

    def queries(self, source: int | np.intp, target: int | np.intp) -> int:
        """Number N of queries, and of utterances in the pool, of a site pair."""
        return int((~np.isnan(self.hits[source, target])).sum())

    def recall(self, source: int | np.intp, target: int | np.intp) -> float:
        """Recall@1 of a site pair, in 0..1."""
        return float(np.nanmean(self.hits[source, target]))


def sites_of(
    utterances: Iterable[Utterance],
    *,
    level: Level = Level.group,
    duplicates: Duplicates = Duplicates.error,
    groups: Sequence[str] = (),
) -> list[Site]:
    """The sites of a store, with their sentences.

    Utterances without a sentence id cannot be paired; they are counted in the log. An utterance without a
    site belongs to the one site of its group, named like it.

    Args:
        utterances: index of a store.
        level: what a group is.
        duplicates: for a sentence that a site has twice.
        groups: keep only these groups, in this order; empty keeps all, sorted.

    Raises:
        ValueError: a duplicate, an unknown group, no sentence ids, or fewer than two groups.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    unpaired = 0
    for utterance in utterances:
        group = utterance.dialect if level is Level.group else utterance.subdialect
        if not group:
            raise ValueError(
                f"utterance {utterance.utterance_id} has no subdialect: use level=group, or name its variety"
            )
        if not utterance.sentence_id:
            unpaired += 1
            continue
        site = found.setdefault((group, utterance.site or group), {})
        first = site.setdefault(utterance.sentence_id, utterance.utterance_id)
        if first != utterance.utterance_id and duplicates is Duplicates.error:
            raise ValueError(
                f"site {utterance.site or group} of {group} has sentence {utterance.sentence_id} twice, as"
                f" {first} and {utterance.utterance_id}: give each its own site, or set duplicates=first"
            )
    if unpaired:
        logger.warning("%d utterances have no sentence id and take no part in retrieval", unpaired)
    if not found:
        raise ValueError(
            "no utterance has a sentence id: retrieval needs the same sentences at several sites"
        )
    names = sorted({group for group, _ in found})
    unknown = [group for group in groups if group not in names]
    if unknown:
        raise ValueError(f"no utterances of {', '.join(unknown)}; there are {', '.join(names)}")
    order = list(groups) or names
    if len(order) < 2:
        raise ValueError(f"retrieval needs at least two groups, found only {', '.join(order)}")
    return [
        Site(group, name, found[group, name])
        for wanted in order
        for group, name in sorted(found)
        if group == wanted
    ]


def labels_of_dialects(utterances: Iterable[Utterance], dialects: Sequence[str], level: Level) -> list[str]:
    """Names at a level of what belongs to some dialect groups: the groups, or the varieties in them."""
    if level is Level.group:
        return list(dialects)
    return sorted({utterance.subdialect for utterance in utterances if utterance.dialect in dialects})


def credit(scores: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hits of scores (N,N) whose right answers are on the diagonal: of rows as queries, and of columns.

    Returns:
        Two vectors (N,): 1 if the diagonal alone is highest, 1/k if it is one of k highest, 0 else.
    """
    results = []
    for matrix in (scores, scores.T):
        highest = matrix >= matrix.max(axis=1, keepdims=True) - TIE  # (N,N)
        results.append(np.where(np.diagonal(highest), 1 / highest.sum(axis=1), 0.0))
    return results[0], results[1]


def credit_of_candidates(
    scores: NDArray[np.floating], candidates: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Hits of scores (N,k) of candidates (N,k), where n is the right answer of query n.

    Returns:
        As :func:`credit`, for rows (N,), and the share of queries whose right answer is no candidate.
    """
    right = candidates == np.arange(len(candidates))[:, None]  # (N,k)
    highest = scores >= scores.max(axis=1, keepdims=True) - TIE  # (N,k)
    hits = np.where((highest & right).any(axis=1), 1 / highest.sum(axis=1), 0.0)
    return hits, 1.0 - float(right.any(axis=1).mean())


def retrieve(
    store: EmbeddingStore,
    sites: Sequence[Site],
    *,
    within_groups: bool = False,
    center: bool = False,
    candidates: int = 0,
    device: torch.device | str = "cpu",
) -> Hits:
    """Ask every query of every ordered pair of sites.

    Args:
        store: embeddings.
        sites: from :func:`sites_of`.
        within_groups: also pairs of different sites of one group, the ceiling that other groups can be
            compared with.
        center: subtract the mean frame of the store first. Frames of a speech encoder share a large common
            part that brings all cosines near 1; without it they differ more. Not part of the protocol.
        candidates: utterances of a larger pool that are scored for each query (:mod:`retrieval.candidates`);
            0 scores the whole pool.
        device: where SeqSim is computed.

    Raises:
        ValueError: two sites without a common sentence, or candidates without FAISS.
    """
    sentences = sorted({sentence for site in sites for sentence in site.utterances})
    column = {sentence: index for index, sentence in enumerate(sentences)}
    hits = np.full((len(sites), len(sites), len(sentences)), np.nan)
    mean = store.mean_frame().astype(np.float32) if center else None
    largest = max(sum(store.utterances[name].frames for name in site.utterances.values()) for site in sites)

    @lru_cache(maxsize=max(2, SITES_BYTES // (4 * store.frames.shape[1] * largest)))
    def frames_of(index: int) -> Packed:
        return _packed(store, sites[index], mean, device)

    queries, missed = 0, 0.0
    for a, b in track(site_pairs(sites, within_groups=within_groups), description="site pairs"):
        common = common_sentences(sites[a], sites[b])
        x, y = (_common_part(frames_of(index), sites[index], common) for index in (a, b))
        columns = [column[sentence] for sentence in common]
        if 0 < candidates < len(common):
            for source, target, asked, pool in ((a, b, x, y), (b, a, y, x)):
                chosen = nearest(asked, pool, candidates)
                scores = rerank(asked, pool, chosen).cpu().numpy()
                hits[source, target, columns], share = credit_of_candidates(scores, chosen.numpy())
                missed += share * len(common)
        else:
            hits[a, b, columns], hits[b, a, columns] = credit(seqsim_packed(x, y).cpu().numpy())
        queries += 2 * len(common)
    outcome = Hits(list(sites), sentences, hits, missed / max(1, queries))
    if candidates:
        logger.info(
            "%d candidates: %.2f %% of the right answers were not among them; recall@1 is lower than with"
            " candidates=0 by at most this",
            candidates,
            100 * outcome.missed,
        )
    return outcome


def site_pairs(sites: Sequence[Site], *, within_groups: bool = False) -> list[tuple[int, int]]:
    """Unordered pairs of sites to compare: all of different groups, on request also those within a group."""
    return [
        (a, b)
        for a, b in combinations(range(len(sites)), 2)
        if within_groups or sites[a].group != sites[b].group
    ]


def common_sentences(a: Site, b: Site) -> list[str]:
    """Sorted sentence ids that two sites share.

    Raises:
        ValueError: there are none.
    """
    common = sorted(a.utterances.keys() & b.utterances.keys())
    if not common:
        raise ValueError(
            f"sites {a} and {b} share no sentence id ({a} has {_some(a)}; {b} has {_some(b)}): parallel"
            " utterances need equal sentence ids. Leave out what is not parallel with groups=[...]"
        )
    return common


def _some(site: Site) -> str:
    names = sorted(site.utterances)
    return ", ".join(names[:3]) + (f", ... {len(names)} in all" if len(names) > 3 else "")


def _packed(
    store: EmbeddingStore, site: Site, mean: NDArray[np.float32] | None, device: torch.device | str
) -> Packed:
    """Utterances of a site in the order of their sentences, in float32."""
    arrays = []
    for sentence in sorted(site.utterances):
        frames = np.array(store[site.utterances[sentence]], dtype=np.float32)  # (T,D), from disk
        arrays.append(torch.from_numpy(frames if mean is None else frames - mean).to(device))
    return pack(arrays)


def _common_part(packed: Packed, site: Site, common: Sequence[str]) -> Packed:
    """The utterances of a packed site that speak the common sentences."""
    if len(common) == len(site.utterances):
        return packed
    place = {sentence: index for index, sentence in enumerate(sorted(site.utterances))}
    return packed.select([place[sentence] for sentence in common])
