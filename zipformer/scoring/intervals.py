"""Confidence intervals of error rates: the variation over other sentences, and other sites or speakers.

Utterances of a test set are not independent. A sentence that is hard at one site is hard at others, and bad
recordings of a site affect all its sentences. An interval that assumes independent utterances is too narrow,
and the more sites read the same sentences, the worse it is. Therefore sentences and places (sites or
speakers) are two crossed random factors. The variance of a rate is the sum of their contributions, each with
its own degrees of freedom; Student's t with the combined degrees of freedom (Satterthwaite, Biometrics
Bulletin 2(6), 1946) widens the interval if there are few places. The interval is symmetric on the logit
scale, so that it stays within the possible rates.

The contributions are those of one-way clustered residuals (Cameron, Gelbach & Miller, Journal of Business &
Economic Statistics 29(2), 2011). The variance of single utterances is included in both and is not subtracted
once: with few places its estimate is noisy, and the coverage would be too low. A sentence that is spoken at
only one place varies with that place and is counted there.

``python -m benchmarks.coverage`` measures how often the intervals contain the true rate: 92 to 97 % if sites
vary little, and 94 to 96 % if they vary much, but 86 % with two such sites, which are too few to estimate the
variation.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from zipformer.errors import UserError


class Interval(NamedTuple):
    low: float
    high: float


class Component(NamedTuple):
    """Contribution of one random factor to the variance of an estimate.

    Attributes:
        variance: variance of the estimate, in its unit squared.
        freedom: degrees of freedom of that variance, >= 1: number of units minus one.
    """

    variance: float
    freedom: int


class Design(NamedTuple):
    """Factors of N utterances: utterances with the same number belong together.

    Attributes:
        sentences: number of the sentence (N,).
        places: number of the site or speaker (N,).
        strata: number of the group that the place is drawn from (N,): the dialect, if several dialects are
            scored together. A place belongs to one stratum.
    """

    sentences: NDArray[np.intp]
    places: NDArray[np.intp]
    strata: NDArray[np.intp]


def half_width(components: Sequence[Component], confidence: float = 0.95) -> float:
    """Student's t times the standard error of an estimate; 0 if nothing varies.

    Args:
        components: independent components of the variance.
        confidence: confidence level, e.g. 0.95.

    Raises:
        UserError: the confidence level is outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise UserError(f"confidence must be between 0 and 1, found {confidence}")
    total = sum(component.variance for component in components)
    if total <= 0:
        return 0.0
    freedom = 1 / sum((variance / total) ** 2 / freedom for variance, freedom in components)
    return float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(total)


def rate_interval(rate: float, width: float, *, largest: float = 1.0) -> Interval:
    """Interval of a rate that is symmetric on the logit scale of 0 to ``largest``.

    Args:
        rate: rate between 0 and ``largest``.
        width: half-width from :func:`half_width`.
        largest: largest possible rate.
    """
    if width == 0:
        return Interval(rate, rate)
    if not 0 < rate < largest:
        return Interval(max(0.0, rate - width), min(largest, rate + width))
    logit = math.log(rate / (largest - rate))
    distance = width * largest / (rate * (largest - rate))
    low, high = (largest / (1 + math.exp(min(700.0, -end))) for end in (logit - distance, logit + distance))
    return Interval(low, high)


def possible_rate(trials: int, confidence: float) -> float:
    """Upper limit for a rate after ``trials`` misses and no hit (Clopper and Pearson)."""
    return 1 - ((1 - confidence) / 2) ** (1 / trials)


def error_rate_interval(
    errors: NDArray[np.floating],
    characters: NDArray[np.floating],
    design: Design,
    *,
    confidence: float = 0.95,
) -> Interval | None:
    """Confidence interval of ``sum(errors) / sum(characters)`` over other sentences and other places.

    The places of a stratum with one place do not vary; the interval is then for that place. If all sentences
    have the same error rate (e.g. no error at all), a share of other sentences may still differ
    (:func:`possible_rate`), from completely right to completely wrong.

    Args:
        errors: number of errors of each utterance (N,).
        characters: number of characters of each reference, >= 0 (N,).
        design: sentence, place and stratum of each utterance.
        confidence: confidence level, e.g. 0.95.

    Returns:
        The two ends; None if there is no character, or nothing that could vary (a single sentence at a single
        place).

    Raises:
        ValueError: arrays are empty or differ in length.
    """
    wrong, spoken = np.asarray(errors, dtype=np.float64), np.asarray(characters, dtype=np.float64)
    shapes = {array.shape for array in (wrong, spoken, *design)}
    if len(shapes) > 1 or wrong.ndim != 1 or wrong.size == 0:
        raise ValueError(f"an error rate needs non-empty vectors of one length, got shapes {sorted(shapes)}")
    # Renumber without gaps, so that every sentence, place and stratum that is counted below has utterances.
    design = Design(*(np.unique(labels, return_inverse=True)[1] for labels in design))
    total = spoken.sum()
    if total == 0:
        return None
    rate = float(wrong.sum() / total)
    components = _components(wrong, spoken, design)
    if not components:
        return None
    rated = spoken > 0
    return bounded_error_interval(
        rate,
        half_width(components, confidence),
        worst=float((wrong[rated] / spoken[rated]).max()),
        sentences=int(design.sentences.max()) + 1,
        confidence=confidence,
    )


def bounded_error_interval(
    rate: float, width: float, *, worst: float, sentences: int, confidence: float
) -> Interval:
    """Interval of an error rate, which may exceed 1 if there are many insertions.

    If an utterance has more errors than characters, the largest possible rate is that of the worst utterance,
    and at least twice the rate, because the logit scale would compress the interval near this limit.

    Args:
        rate: the error rate, 1 = as many errors as characters.
        width: half-width from :func:`half_width`.
        worst: error rate of the worst utterance.
        sentences: number Q of different sentences in the rate.
        confidence: confidence level, e.g. 0.95; used only if no sentence varies.
    """
    if width > 1e-9 * max(rate, 1.0):  # smaller widths are rounding errors of sums
        return rate_interval(rate, width, largest=1.0 if worst <= 1 else max(worst, 2 * rate))
    reach = possible_rate(sentences, confidence)
    return Interval(rate * (1 - reach), rate + reach * max(0.0, 1 - rate))


def _components(
    errors: NDArray[np.floating], characters: NDArray[np.floating], design: Design
) -> list[Component]:
    """Contributions of the places of every stratum and of the sentences to the variance of the error rate."""
    sentences, places, strata = design
    stratum_errors, stratum_characters = (
        np.bincount(strata, weights=values) for values in (errors, characters)
    )
    # The sizes of strata are fixed by design, so that only their rates vary, not their shares.
    rates = stratum_errors / np.where(stratum_characters > 0, stratum_characters, np.inf)
    residuals = (errors - rates[strata] * characters) / characters.sum()  # (N,)
    stratum_of_place = np.zeros(places.max() + 1, dtype=np.intp)
    stratum_of_place[places] = strata
    of_places = np.bincount(places, weights=residuals)
    counts = np.bincount(stratum_of_place)  # places of each stratum
    squares = np.bincount(stratum_of_place, weights=of_places**2)
    components = [
        Component(float(square * count / (count - 1)), int(count - 1))
        for square, count in zip(squares, counts, strict=True)
        if count > 1
    ]
    # Sentences of a single place count with it, unless the place is the only one of its stratum and is fixed.
    first_place, last_place = np.full(sentences.max() + 1, places.max()), np.zeros(sentences.max() + 1, int)
    np.minimum.at(first_place, sentences, places)
    np.maximum.at(last_place, sentences, places)
    crossed = (first_place < last_place) | (counts[stratum_of_place[first_place]] == 1)
    number = int(crossed.sum())
    if number > 1:
        of_sentences = np.bincount(sentences, weights=residuals)[crossed]
        variance = float((of_sentences**2).sum() * number / (number - 1))
        components.append(Component(variance, number - 1))
    return components


def resampled(groups: Sequence[str], single: Sequence[str] | None, places: str = "sites") -> str:
    """Resampled units of intervals, for captions.

    Args:
        groups: names of all groups.
        single: names of the groups with a single place; None if not recorded.
        places: word for places in the caption.
    """
    if single is None:
        return f"sentences, and over {places} where a group has several"
    if not single:
        return f"sentences and {places}"
    if set(single) >= set(groups):
        return f"sentences; {places} cannot vary, since every group has one only"
    return f"sentences and {places}; {places} cannot vary for {', '.join(single)} (one each)"
