"""Outcome of all queries: the rank of each right answer, and the metrics under permuted sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from retrieval.protocol.sites import Site
from retrieval.statistics.ranks import (
    Counts,
    Floats,
    metrics_of,
    places,
    rank_distribution,
)
from retrieval.statistics.significance import ChanceTest
from zipformer.errors import UserError
from zipformer.files import replacing


@dataclass(frozen=True)
class Outcome:
    """Outcome of all queries; arrays (S,S,Q) are indexed by source site, target site and sentence.

    Attributes:
        sites: the S sites, sorted by group.
        sentences: ids of the Q sentences.
        above: number of candidates that score higher than the right answer.
        equal: number of candidates with the same score, including the right answer; 0 without a query.
        pool: number of candidates, including the right answer; 0 without a query.
        permuted: metrics (B,M) of each pair of groups under permuted correspondences
            (:mod:`retrieval.statistics.significance`); None without a test.
    """

    sites: list[Site]
    sentences: list[str]
    above: Counts
    equal: Counts
    pool: Counts
    permuted: dict[tuple[str, str], Floats] | None = None

    @property
    def hits(self) -> Floats:
        """Hits (S,S,Q): 1, 0, or 1/k if the right answer is one of k equal best; NaN without a query."""
        first = np.where(self.above == 0, 1.0, 0.0) / np.maximum(self.equal, 1)
        return np.where(self.equal > 0, first, np.nan)

    def queries(self, source: int | np.intp, target: int | np.intp) -> int:
        """Number N of queries of a site pair."""
        return int(np.count_nonzero(self.equal[source, target]))

    def recall(self, source: int | np.intp, target: int | np.intp) -> float:
        """Recall@1 of a site pair, in 0..1."""
        return float(self.metrics(source, target)[0])

    def chance(self, source: int | np.intp, target: int | np.intp) -> float:
        """Expected recall@1 of a site pair if every answer is drawn at random from its candidates."""
        return float(self.chance_metrics(source, target)[0])

    def metrics(self, source: int | np.intp, target: int | np.intp) -> Floats:
        """Metrics (M,) of a site pair, rates in 0..1, in the order of ``METRICS``; NaN without queries."""
        return self._metrics(self.above[source, target], self.equal[source, target])

    def chance_metrics(self, source: int | np.intp, target: int | np.intp) -> Floats:
        """Expected metrics (M,) of a site pair if every answer is drawn at random from its candidates."""
        pool = self.pool[source, target]
        return self._metrics(np.zeros_like(pool), pool)

    def _metrics(self, above: Counts, equal: Counts) -> Floats:
        return metrics_of(rank_distribution(above, equal, max(1, int((above + equal).max()))))


class OutcomeBuilder:
    """Builds an outcome from the scores of ordered site pairs, added one after the other.

    Args:
        sites: all sites.
        permutations: number of permutations of the test against chance; 0 makes no test.
        seed: random seed of the permutations.
    """

    def __init__(self, sites: Sequence[Site], *, permutations: int, seed: int) -> None:
        self.sites = list(sites)
        self.sentences = sorted({sentence for site in sites for sentence in site.utterances})
        self._column = {sentence: index for index, sentence in enumerate(self.sentences)}
        shape = (len(self.sites), len(self.sites), len(self.sentences))
        self._above, self._equal, self._pool = (np.zeros(shape, dtype=np.int32) for _ in range(3))
        self._test: ChanceTest | None = None
        if permutations:
            groups = [site.group for site in sites]
            self._test = ChanceTest(groups, len(self.sentences), permutations=permutations, seed=seed)

    def add(
        self,
        source: int,
        target: int,
        names: Sequence[str],
        scores: NDArray[np.floating],
        allowed: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add scores (N,N) of queries and candidates, and a mask of allowed candidates; None allows all."""
        columns = [self._column[name] for name in names]
        found = places(scores, allowed)
        self._above[source, target, columns] = np.diagonal(found.above)
        self._equal[source, target, columns] = np.diagonal(found.equal)
        self._pool[source, target, columns] = len(names) if allowed is None else allowed.sum(axis=1)
        if self._test is not None:
            self._test.add(source, target, columns, found, allowed)

    def result(self) -> Outcome:
        """Outcome of all added site pairs.

        Raises:
            UserError: nothing was added.
        """
        if not self._equal.any():
            raise UserError("there are no queries: no sentence is left at any pair of sites")
        return Outcome(
            self.sites,
            self.sentences,
            self._above,
            self._equal,
            self._pool,
            None if self._test is None else self._test.values(),
        )


def write_ranks(path: Path, outcome: Outcome) -> None:
    """Write ``ranks.npz``: ``above``, ``equal``, ``pool`` (S,S,Q), ``groups``, ``sites``, ``sentences``."""
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            above=outcome.above,
            equal=outcome.equal,
            pool=outcome.pool,
            groups=np.array([site.group for site in outcome.sites]),
            sites=np.array([site.name for site in outcome.sites]),
            sentences=np.array(outcome.sentences),
        )


def read_ranks(path: Path) -> Outcome:
    """Read the ranks of a finished retrieval, without utterances and permutations.

    Raises:
        UserError: there is no such file, or arrays are missing or do not fit together.
    """
    if not path.is_file():
        raise UserError(f"no ranks at {path}: make them with fangyan retrieve")
    try:
        with np.load(path) as file:
            above, equal, pool = (file[name] for name in ("above", "equal", "pool"))
            groups, names, sentences = (file[name].tolist() for name in ("groups", "sites", "sentences"))
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        raise UserError(f"{path}: no ranks in it ({error}); make it again with fangyan retrieve") from error
    shape = (len(names), len(names), len(sentences))
    if not above.shape == equal.shape == pool.shape == shape or len(groups) != len(names):
        raise UserError(
            f"{path}: arrays {above.shape} do not fit {len(names)} sites and {len(sentences)} sentences;"
            " make it again with fangyan retrieve"
        )
    sites = [Site(group, name, {}) for group, name in zip(groups, names, strict=True)]
    return Outcome(sites, sentences, above, equal, pool)
