"""Coverage of 95 % intervals: how often they hold the true rate, in simulated test sets whose truth is known.

Every test set draws new sentences and new sites, 50 sentences that all of its sites read. Error rates are
those of one dialect; retrieval is from one group of sites to another.

Error rates: an utterance of 6 to 17 characters has binomial errors, the logit of whose probability is -1.7
plus normal effects of the sentence (standard deviation 0.7), of the site (0.3) and of the utterance (0.7).
That gives 19 % CER, and sites whose CERs lie between 12 and 30 %. Retrieval: an embedding (16 numbers) is
that of its sentence plus normal noise of the utterance, whose size is 0.9 times log-normal factors of the
sentence (0.3) and of the site (0.2). The queries of a group of sites are searched in the pools of all sites
of the other one.

"Before" are the percentiles that were used until sites were thought of: of resampled utterances for error
rates, of resampled sentences and sites for recall. With one site, the truth is that of this site.
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
MEAN_LOGIT, OF_SENTENCE, OF_SITE, OF_UTTERANCE = -1.7, 0.7, 0.3, 0.7
DIMENSION, NOISE, NOISE_OF_SENTENCE, NOISE_OF_SITE = 16, 0.9, 0.3, 0.2


def character_errors(random: Generator, *, sites: int, sentences: int = SENTENCES) -> tuple[Floats, Floats]:
    """Errors and characters (S,Q) of one test set."""
    characters = np.broadcast_to(random.integers(6, 18, sentences), (sites, sentences))
    logit = MEAN_LOGIT + random.normal(0, OF_UTTERANCE, (sites, sentences))
    logit = logit + random.normal(0, OF_SENTENCE, sentences)
    if sites > 1:  # a single site does not vary: it is the site that the interval speaks of
        logit = logit + random.normal(0, OF_SITE, sites)[:, None]
    errors = random.binomial(characters, 1 / (1 + np.exp(-logit)))
    return errors.astype(np.float64), characters.astype(np.float64)


def true_error_rate(sites: int) -> float:
    """Expected error rate, by Gauss-Hermite quadrature over the sum of all effects."""
    of_site = OF_SITE if sites > 1 else 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    logit = MEAN_LOGIT + math.sqrt(OF_SENTENCE**2 + of_site**2 + OF_UTTERANCE**2) * nodes
    return float((weights / (1 + np.exp(-logit))).sum() / weights.sum())


def interval_of_library(errors: Floats, characters: Floats, random: Generator) -> Interval:
    """What scripts/decode.py gives."""
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
    """Percentiles of resampled utterances, as if these were independent."""
    drawn = random.integers(errors.size, size=(RESAMPLES, errors.size))
    rates = errors.ravel()[drawn].sum(axis=1) / characters.ravel()[drawn].sum(axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def coverage_of_error_rates(
    *,
    sites: int,
    data_sets: int,
    seed: int,
    method: Callable[[Floats, Floats, Generator], Interval] = interval_of_library,
) -> float:
    """Share of the test sets whose interval holds the true error rate."""
    random, truth = np.random.default_rng((seed, sites)), true_error_rate(sites)
    held = 0
    for _ in range(data_sets):
        low, high = method(*character_errors(random, sites=sites), random)
        held += low <= truth <= high
    return held / data_sets


def retrieval_hits(random: Generator, *, sites: int) -> Floats:
    """Hits (2S,2S,Q) of one test set: the first S sites are one group, the others another."""
    sentences = random.normal(size=(SENTENCES, DIMENSION))
    size = NOISE * np.exp(random.normal(0, NOISE_OF_SENTENCE, SENTENCES))
    of_sites = random.normal(0, NOISE_OF_SITE if sites > 1 else 0.0, 2 * sites)
    size = size * np.exp(of_sites)[:, None]  # (2S,Q)
    frames = sentences + size[..., None] * random.normal(size=(2 * sites, SENTENCES, DIMENSION))
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    hits = np.full((2 * sites, 2 * sites, SENTENCES), np.nan)
    for a in range(sites):
        for b in range(sites, 2 * sites):
            hits[a, b] = (frames[a] @ frames[b].T).argmax(axis=1) == np.arange(SENTENCES)
    return hits


def coverage_of_recall(
    *, sites: int, data_sets: int, seed: int, shown: bool = False
) -> tuple[float, float, float]:
    """Share of the test sets whose interval of recall@1 holds the true one.

    Args:
        sites: of each of the two groups.
        data_sets: that are simulated.
        seed: of all draws.
        shown: a progress bar.

    Returns:
        Coverage by percentiles of the resamples, coverage by the library, and the true recall, which is the
        mean over 2,000 further test sets.
    """
    random = np.random.default_rng((seed, sites))
    truth = float(np.mean([np.nanmean(retrieval_hits(random, sites=sites)) for _ in range(2000)]))
    groups, first, second = np.repeat([0, 1], sites), np.arange(sites), np.arange(sites, 2 * sites)
    percentiles, ours = 0, 0
    for number in track(range(data_sets), f"{sites} sites a group", transient=True, disable=not shown):
        hits = retrieval_hits(random, sites=sites)
        draws = Resamples.draw(groups, SENTENCES, resamples=RESAMPLES, seed=number)
        replicates = draws.recall(hits, first, second)
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
    for name in ("rate", "sites", "true value %", "before", "after"):
        table.add_column(name, justify="left" if name == "rate" else "right")
    common = {"data_sets": options.data_sets, "seed": options.seed}
    for sites in (1, 2, 3, 5, 10):
        before = coverage_of_error_rates(sites=sites, **common, method=percentiles_of_utterances)
        after = coverage_of_error_rates(sites=sites, **common)
        truth = 100 * true_error_rate(sites)
        table.add_row("CER", str(sites), f"{truth:.1f}", f"{before:.2f}", f"{after:.2f}")
    for sites in (1, 2, 3, 5, 10):
        before, after, truth = coverage_of_recall(sites=sites, **common, shown=True)
        table.add_row("recall@1", f"{sites} a group", f"{100 * truth:.1f}", f"{before:.2f}", f"{after:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
