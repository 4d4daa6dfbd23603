"""Compares variants of a model, each trained several times: means, differences and their intervals.

A variant is a set of runs that differ only in the seed. All runs have the same queries, so that three things
vary: the run, the sentences and the sites. The intervals resample all three ("pigeonhole bootstrap", see
:mod:`retrieval.statistics.bootstrap`). Sentences and sites are drawn once for all runs of all variants, so
that differences are paired. The runs of each variant are drawn with replacement, independently of the other
variants, since runs with the same seed have nothing else in common. If the variants are the same models
measured in several ways, the runs are drawn together (``paired``).

With three runs, the variation between runs is known only roughly, which widens the interval, as few sites do.
With one run it is not known at all: the interval is for that one model. Tables therefore also give the lowest
and the highest run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.protocol.estimates import Pair
from retrieval.protocol.sites import Site
from retrieval.protocol.tables import parts_of
from retrieval.results.weights import check_same_recordings
from retrieval.statistics.bootstrap import (
    Factor,
    Resamples,
    components,
    difference_interval,
    groups_of_one_site,
    mean_over_pairs,
    recall_interval,
    resampled,
)
from retrieval.statistics.ranks import Floats
from zipformer.data.dataset import DataSet
from zipformer.errors import UserError
from zipformer.scoring.intervals import bounded_error_interval, half_width


@dataclass(frozen=True)
class Errors:
    """Recognition errors of a test set of S sites and Q sentences.

    Attributes:
        errors: number of substitutions, deletions and insertions (S,Q); 0 where a site lacks the sentence.
        characters: number of characters of the reference (S,Q).
        transcripts: digest of the references; error rates against other references cannot be compared.
    """

    errors: Floats
    characters: Floats
    transcripts: str = ""


@dataclass(frozen=True)
class Run:
    """Measurements of one trained model.

    Attributes:
        name: name in messages, e.g. the directory of the model.
        sites: the S sites.
        sentences: ids of the Q sentences.
        hits: hit, or share of a hit, by source site, target site and sentence (S,S,Q); NaN = no such query.
        trained_groups: groups that the model was trained on.
        errors: recognition errors; None if the test set was not recognised.
        dataset: data set of the retrieval; None if unknown.
    """

    name: str
    sites: Sequence[Site]
    sentences: Sequence[str]
    hits: Floats
    trained_groups: Sequence[str]
    errors: Errors | None = None
    dataset: DataSet | None = None


@dataclass(frozen=True)
class Measure:
    """A mean over runs in per cent, its interval, its resamples (B,), and the values of the runs.

    Attributes:
        sentences: number of different sentences in the mean.
        factors: units that were resampled beside the sentences: sites, and runs if there are several.
        bounded: True if the measure has a largest value, which bounds the difference if no sentence differs.
    """

    value: float
    low: float
    high: float
    resamples: Floats
    runs: tuple[float, ...]
    sentences: int
    factors: tuple[Factor, ...]
    bounded: bool


@dataclass(frozen=True)
class Difference:
    """Difference of two variants in percentage points, with its interval."""

    value: float
    low: float
    high: float

    def as_tuple(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


class _PairRecall(NamedTuple):
    """Recall of a pair of groups in 0..1, resamples (B,), and True for each sentence with a query (Q,)."""

    value: float
    resamples: Floats
    sentences: NDArray[np.bool_]


class VariantMeasures:
    """Measures of several variants with the same resamples.

    Args:
        variants: runs by name of the variant; at least one each, all with the same sites and sentences.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        seed: random seed of the bootstrap.
        paired: the n-th runs of all variants are the same model.

    Raises:
        UserError: a variant has no runs, runs differ in sites or sentences, or a comparison is paired and the
            numbers of runs differ.
    """

    def __init__(
        self,
        variants: Mapping[str, Sequence[Run]],
        *,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        paired: bool = False,
    ) -> None:
        _check(variants, paired)
        self.variants = variants
        self.confidence = confidence
        first = next(iter(variants.values()))[0]
        group_of_site = [site.group for site in first.sites]
        self.single_site_groups = groups_of_one_site(group_of_site)
        self._draws = Resamples.draw(group_of_site, len(first.sentences), resamples=resamples, seed=seed)
        self.groups = list(self._draws.members)
        # A stream of its own, so that the draws of the sentences and sites are not repeated.
        random = np.random.default_rng([seed, 1])
        self._run_counts: dict[str, Floats] = {}
        self._factors: dict[str, tuple[Factor, ...]] = {}
        for name, runs in variants.items():
            if paired and self._run_counts:
                first_name = next(iter(variants))
                self._run_counts[name] = self._run_counts[first_name]
                self._factors[name] = self._factors[first_name]
                continue
            drawn = random.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=resamples)
            self._run_counts[name] = drawn.astype(np.float64)
            of_runs = [Factor(self._run_counts[name])] if len(runs) > 1 else []
            self._factors[name] = (*self._draws.factors, *of_runs)
        self._recalls = {
            name: [self._recall_of_pairs(run) for run in runs] for name, runs in variants.items()
        }

    @property
    def resampled(self) -> str:
        """Resampled units of the intervals beside the runs, for captions."""
        return resampled(self.groups, self.single_site_groups)

    def recall(self, variant: str, pairs: Sequence[tuple[str, str]]) -> Measure | None:
        """Mean recall@1 over ordered pairs of groups; None if none of them has queries."""
        values, resamples = [], []
        for recalls in self._recalls[variant]:
            asked = [recalls[pair] for pair in pairs if pair in recalls]
            if not asked:
                return None
            values.append(float(np.mean([found.value for found in asked])))
            sentences = np.any([found.sentences for found in asked], axis=0)
            resamples.append(mean_over_pairs([found.resamples for found in asked]))
        value, replicates = self._over_runs(variant, values, resamples)
        count, factors = int(sentences.sum()), self._factors[variant]
        low, high = recall_interval(
            value, replicates, factors=factors, sentences=count, confidence=self.confidence
        )
        return _estimate(value, (low, high), replicates, values, count, factors, bounded=True)

    def error_rate(self, variant: str, groups: Sequence[str]) -> Measure | None:
        """Character error rate over all utterances of the given groups; None if not known."""
        members = np.flatnonzero([site.group in groups for site in self.variants[variant][0].sites])
        values, resamples, worst = [], [], 0.0
        for run in self.variants[variant]:
            if run.errors is None or not run.errors.characters[members].any():
                return None
            errors, characters = run.errors.errors[members], run.errors.characters[members]
            spoken = characters > 0
            worst = max(worst, float((errors[spoken] / characters[spoken]).max()))
            values.append(float(errors.sum() / characters.sum()))
            sites, sentences = self._draws.sites[:, members], self._draws.sentences
            drawn = np.einsum("bs,bs->b", sites, sentences @ errors.T)
            resamples.append(drawn / np.einsum("bs,bs->b", sites, sentences @ characters.T))
        value, replicates = self._over_runs(variant, values, resamples)
        count, factors = int(spoken.any(axis=0).sum()), self._factors[variant]
        interval = bounded_error_interval(
            value,
            half_width(components(replicates, factors, count), self.confidence),
            worst=worst,
            sentences=count,
            confidence=self.confidence,
        )
        return _estimate(value, interval, replicates, values, count, factors, bounded=False)

    def difference(self, estimate: Measure, baseline: Measure) -> Difference:
        """Difference of an estimate and the baseline, with its interval."""
        value, resamples = estimate.value - baseline.value, estimate.resamples - baseline.resamples
        factors = tuple(dict.fromkeys(estimate.factors + baseline.factors))
        if not estimate.bounded:
            width = half_width(components(resamples, factors, estimate.sentences), self.confidence)
            return Difference(value, value - width, value + width)
        low, high = difference_interval(
            value,
            resamples,
            factors=factors,
            sentences=estimate.sentences,
            confidence=self.confidence,
            span=100,
        )
        return Difference(value, low, high)

    def same_transcripts(self, variant: str, other: str) -> bool:
        """Whether the errors of all runs of two variants were counted against the same references."""
        runs = [*self.variants[variant], *self.variants[other]]
        return len({run.errors.transcripts for run in runs if run.errors}) <= 1

    def pairs(self, variant: str, which: str) -> list[Pair]:
        """Ordered pairs of groups in one part, which depends on the training of the variant; may be empty.

        Args:
            variant: name of the variant.
            which: name of a part of the pairs (:func:`retrieval.protocol.tables.parts_of`).
        """
        every = [(source, target) for source in self.groups for target in self.groups]
        return parts_of(every, self.trained(variant)).get(which, [])

    def trained(self, variant: str) -> list[str]:
        """Groups of the test set that the runs of a variant were trained on."""
        return [group for group in self.groups if group in self.variants[variant][0].trained_groups]

    def _recall_of_pairs(self, run: Run) -> dict[tuple[str, str], _PairRecall]:
        """Recall of every ordered pair of groups with queries."""
        asked = ~np.isnan(run.hits)
        asked[np.diag_indices(len(run.sites))] = False  # a site is not paired with itself
        queries = asked.sum(axis=-1)  # (S,S)
        recalls = np.where(asked, run.hits, 0.0).sum(axis=-1) / np.maximum(queries, 1)
        recalls[queries == 0] = np.nan
        found = {}
        for source, sources in self._draws.members.items():
            for target, targets in self._draws.members.items():
                block = np.ix_(sources, targets)
                if not asked[block].any():
                    continue
                found[source, target] = _PairRecall(
                    float(np.nanmean(recalls[block])),
                    self._draws.recall(run.hits, source, target),
                    np.logical_or.reduce(asked[block], axis=(0, 1)),  # (Q,)
                )
        return found

    def _over_runs(
        self, variant: str, values: Sequence[float], resamples: Sequence[Floats]
    ) -> tuple[float, Floats]:
        counts = self._run_counts[variant]  # (B,R)
        replicates = (counts * np.stack(resamples, axis=1)).sum(axis=1) / counts.shape[1]
        return float(np.mean(values)), replicates


def _estimate(
    value: float,
    interval: tuple[float, float],
    replicates: Floats,
    runs: Sequence[float],
    sentences: int,
    factors: tuple[Factor, ...],
    *,
    bounded: bool,
) -> Measure:
    values = tuple(100 * run for run in runs)
    low, high = interval
    return Measure(100 * value, 100 * low, 100 * high, 100 * replicates, values, sentences, factors, bounded)


def _check(variants: Mapping[str, Sequence[Run]], paired: bool) -> None:
    if not variants:
        raise UserError("there is nothing to compare")
    for name, runs in variants.items():
        if not runs:
            raise UserError(f"variant {name} has no run")
    first, *others = [run for runs in variants.values() for run in runs]
    for run in others:
        if list(run.sites) != list(first.sites) or list(run.sentences) != list(first.sentences):
            raise UserError(
                f"{run.name} and {first.name} were not asked the same: their sites or sentences differ. "
                "Embed the same split of the same corpus with both"
            )
    data = ((run.name, run.dataset and run.dataset.record()) for run in [first, *others])
    check_same_recordings(data)
    for name, runs in variants.items():
        groups = {tuple(sorted(run.trained_groups)) for run in runs}
        if len(groups) > 1:
            raise UserError(f"the runs of variant {name} were trained on different groups: {sorted(groups)}")
    if paired and len({len(runs) for runs in variants.values()}) > 1:
        raise UserError("a paired comparison needs the same models in all variants")
