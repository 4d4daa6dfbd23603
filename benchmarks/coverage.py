"""Coverage of 95 % intervals: how often they contain the true rate, in simulated test sets.

Every test set draws new sites and 50 new sentences, which all of its sites read. Error rates are those of one
dialect; retrieval goes from one group of sites to another.

Error rates: an utterance has 6 to 17 characters and binomial errors. The logit of the error probability is
-1.7 plus normal effects of the sentence (standard deviation 0.7), of the site and of the utterance (0.7). The
standard deviation of the sites is 0.3 where they vary little, so that two of three sites have a CER between
15 and 24 %, and 0.6 where they vary much. Retrieval: an embedding (16 numbers) is that of its sentence plus
normal noise of the utterance. The standard deviation of the noise is 0.9 times log-normal factors of the
sentence (0.3) and of the site (0.2 or 0.45). The queries of one group of sites are searched in the pools of
all sites of the other group.

"Percentiles" are the intervals that are often reported: percentiles over resampled utterances for error
rates, over resampled sentences and sites for recall. "Student" are the intervals of this package. With one
site, the true rate is the rate of this site.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from retrieval.statistics.bootstrap import Resamples, recall_interval
from zipformer.scoring.intervals import Design, error_rate_interval

Floats = NDArray[np.float64]
Generator = np.random.Generator
Interval = tuple[float, float]

SENTENCES = 50
RESAMPLES = 1000
MEAN_LOGIT, OF_SENTENCE, OF_UTTERANCE = -1.7, 0.7, 0.7
DIMENSION, NOISE, NOISE_OF_SENTENCE = 16, 0.9, 0.3
SITES = (2, 3, 5, 10)


def character_errors(
    random: Generator, *, sites: int, of_site: float, sentences: int = SENTENCES
) -> tuple[Floats, Floats]:
    """Errors and characters (S,Q) of one test set; ``of_site`` is the standard deviation of sites."""
    characters = np.broadcast_to(random.integers(6, 18, sentences), (sites, sentences))
    logit = MEAN_LOGIT + random.normal(0, OF_UTTERANCE, (sites, sentences))
    logit = logit + random.normal(0, OF_SENTENCE, sentences)
    logit = logit + random.normal(0, of_site, sites)[:, None]
    errors = random.binomial(characters, 1 / (1 + np.exp(-logit)))
    return errors.astype(np.float64), characters.astype(np.float64)


def true_error_rate(of_site: float) -> float:
    """Expected error rate, by Gauss-Hermite quadrature over the sum of all effects."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    logit = MEAN_LOGIT + math.sqrt(OF_SENTENCE**2 + of_site**2 + OF_UTTERANCE**2) * nodes
    return float((weights / (1 + np.exp(-logit))).sum() / weights.sum())


def interval_of_library(errors: Floats, characters: Floats, random: Generator) -> Interval:
    """Interval that ``fangyan decode`` reports."""
    sites, sentences = errors.shape
    design = Design(
        np.tile(np.arange(sentences), sites),
        np.repeat(np.arange(sites), sentences),
        np.zeros(errors.size, dtype=np.intp),
    )
    interval = error_rate_interval(errors.ravel(), characters.ravel(), design)
    assert interval is not None
    return interval


def percentiles_of_utterances(errors: Floats, characters: Floats, random: Generator) -> Interval:
    """Percentiles over resampled utterances, as if utterances were independent."""
    drawn = random.integers(errors.size, size=(RESAMPLES, errors.size))
    rates = errors.ravel()[drawn].sum(axis=1) / characters.ravel()[drawn].sum(axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def coverage_of_error_rates(
    *,
    sites: int,
    of_site: float,
    data_sets: int,
    seed: int,
    method: Callable[[Floats, Floats, Generator], Interval] = interval_of_library,
) -> float:
    """Share of the test sets whose interval contains the true error rate."""
    random, truth = np.random.default_rng((seed, sites)), true_error_rate(of_site)
    held = 0
    for _ in range(data_sets):
        low, high = method(*character_errors(random, sites=sites, of_site=of_site), random)
        held += low <= truth <= high
    return held / data_sets


def retrieval_hits(random: Generator, *, sites: int, of_site: float) -> Floats:
    """Hits (2S,2S,Q) of one test set: the first S sites are one group, the others another."""
    sentences = random.normal(size=(SENTENCES, DIMENSION))
    size = NOISE * np.exp(random.normal(0, NOISE_OF_SENTENCE, SENTENCES))
    size = size * np.exp(random.normal(0, of_site, 2 * sites))[:, None]  # (2S,Q)
    frames = sentences + size[..., None] * random.normal(size=(2 * sites, SENTENCES, DIMENSION))
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    hits = np.full((2 * sites, 2 * sites, SENTENCES), np.nan)
    for a in range(sites):
        for b in range(sites, 2 * sites):
            hits[a, b] = (frames[a] @ frames[b].T).argmax(axis=1) == np.arange(SENTENCES)
    return hits


def coverage_of_recall(
    *, sites: int, of_site: float, data_sets: int, seed: int, truth_sets: int = 2000, shown: bool = False
) -> tuple[float, float, float]:
    """Share of the test sets whose interval of recall@1 contains the true recall.

    Args:
        sites: number of sites in each of the two groups.
        of_site: standard deviation of the logarithm of a site's noise.
        data_sets: number of simulated test sets.
        seed: random seed of all draws.
        truth_sets: number of further test sets; their mean recall is taken as the true one.
        shown: show a progress bar.

    Returns:
        Coverage by percentiles of the resamples, coverage by the library, and the true recall.
    """
    random = np.random.default_rng((seed, sites))
    further = (retrieval_hits(random, sites=sites, of_site=of_site) for _ in range(truth_sets))
    truth = float(np.mean([np.nanmean(hits) for hits in further]))
    groups = ["a"] * sites + ["b"] * sites
    percentiles, ours = 0, 0
    for number in track(range(data_sets), f"{sites} sites a group", transient=True, disable=not shown):
        hits = retrieval_hits(random, sites=sites, of_site=of_site)
        draws = Resamples.draw(groups, SENTENCES, resamples=RESAMPLES, seed=number)
        replicates = draws.recall(hits, "a", "b")
        low, high = np.quantile(replicates, [0.025, 0.975])
        percentiles += low <= truth <= high
        recall = float(np.nanmean(hits))
        low, high = recall_interval(recall, replicates, factors=draws.factors, sentences=SENTENCES)
        ours += low <= truth <= high
    return percentiles / data_sets, ours / data_sets, truth


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of 95 % intervals in simulated test sets.")
    parser.add_argument("--data-sets", type=int, default=1000, help="simulated test sets of each line")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    options = parser.parse_args()
    table = Table(title=f"coverage of 95 % intervals, {options.data_sets} test sets of {SENTENCES} sentences")
    for name in ("rate", "effect of sites", "sites", "true value %", "percentiles", "Student"):
        table.add_column(name, justify="left" if name == "rate" else "right")
    data_sets, seed = options.data_sets, options.seed
    for of_site, numbers in ((0.0, (1,)), (0.3, SITES), (0.6, SITES)):
        truth = true_error_rate(of_site)
        for sites in numbers:
            percentiles, student = (
                coverage_of_error_rates(
                    sites=sites, of_site=of_site, data_sets=data_sets, seed=seed, method=method
                )
                for method in (percentiles_of_utterances, interval_of_library)
            )
            table.add_row("CER", f"{of_site:g}", str(sites), *_cells(truth, percentiles, student))
    for of_site, numbers in ((0.0, (1,)), (0.2, SITES), (0.45, SITES)):
        for sites in numbers:
            percentiles, student, truth = coverage_of_recall(
                sites=sites, of_site=of_site, data_sets=data_sets, seed=seed, shown=True
            )
            where = f"{sites} a group"
            table.add_row("recall@1", f"{of_site:g}", where, *_cells(truth, percentiles, student))
    Console().print(table)


def _cells(truth: float, percentiles: float, student: float) -> tuple[str, str, str]:
    return f"{100 * truth:.1f}", f"{percentiles:.2f}", f"{student:.2f}"


if __name__ == "__main__":
    main()
