"""Confidence intervals of rates: what changes if other sentences, and other sites or speakers, were recorded.

Utterances of a test set are not independent. A sentence that is hard at one site is hard at others, and a
site whose recordings are bad is bad in all its sentences. An interval that takes utterances for independent
is too narrow, the more so the more sites read the same sentences. Sentences and places (sites or speakers)
are therefore two crossed random factors. The variance of a rate is the sum of what either contributes, each
with its own degrees of freedom; Student's t with those of the sum (Satterthwaite, Biometrics Bulletin 2(6),
1946) makes the interval as wide as a small number of places demands. The interval is symmetric on the logit
scale, so that it stays inside the possible rates.

The contributions are those of one-way clustered residuals (Cameron, Gelbach & Miller, Journal of Business &
Economic Statistics 29(2), 2011). Their difference, the variance of single utterances, is in both and is not
subtracted: with few places its estimate is noisy, and intervals would cover too little. A sentence
that is spoken at one place only varies with that place and is counted there.

``python -m benchmarks.coverage`` measures how often the intervals hold the true rate: 92 to 97 % where sites
vary little, and 94 to 96 % where they vary much, but 86 % with two such sites, which say too little of
others.
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
    """What one random factor adds to the variance of an estimate.

    Attributes:
        variance: variance of the estimate, in its unit squared.
        freedom: degrees of freedom of that variance, >= 1: units that were drawn, less one.
    """

    variance: float
    freedom: int


class Design(NamedTuple):
    """Which utterances vary together: equal numbers for each of N utterances of the same kind.

    Attributes:
        sentences: (N,) the sentence that is spoken.
        places: (N,) the site or speaker.
        strata: (N,) the group that the place is drawn from: its dialect, where several dialects are scored
            together. A place belongs to one stratum.
    """

    sentences: NDArray[np.intp]
    places: NDArray[np.intp]
    strata: NDArray[np.intp]


def half_width(components: Sequence[Component], confidence: float = 0.95) -> float:
    """Student's t times the standard error of an estimate; 0 where nothing varies.

    Args:
        components: independent parts of its variance.
        confidence: coverage of the interval, e.g. 0.95.

    Raises:
        UserError: a confidence outside (0, 1).
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
        rate: between 0 and ``largest``.
        width: half-width that :func:`half_width` gave.
        largest: possible rate.
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
    """The largest rate at which so many misses in a row are still likely enough (Clopper and Pearson)."""
    return 1 - ((1 - confidence) / 2) ** (1 / trials)


def error_rate_interval(
    errors: NDArray[np.floating],
    characters: NDArray[np.floating],
    design: Design,
    *,
    confidence: float = 0.95,
) -> Interval | None:
    """Confidence interval of ``sum(errors) / sum(characters)`` under other sentences and other places.

    A stratum of one place cannot vary its places; the interval then speaks of that place. Where no sentence
    differs from the others (no error at all), a share of all sentences may still be otherwise and missing
    among those at hand (:func:`possible_rate`); these can be right or wholly wrong.

    Args:
        errors: (N,) of each utterance.
        characters: (N,) of its reference, >= 0.
        design: which of them vary together.
        confidence: coverage of the interval, e.g. 0.95.

    Returns:
        The two ends, or None where there is no character, or nothing that could vary: a single sentence at a
        single place.

    Raises:
        ValueError: arrays that are empty or not of one length.
    """
    wrong, spoken = np.asarray(errors, dtype=np.float64), np.asarray(characters, dtype=np.float64)
    shapes = {array.shape for array in (wrong, spoken, *design)}
    if len(shapes) > 1 or wrong.ndim != 1 or wrong.size == 0:
        raise ValueError(f"an error rate needs non-empty vectors of one length, got shapes {sorted(shapes)}")
    # Numbers without gaps: every sentence, place and stratum that is counted below has utterances.
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
    """Interval of an error rate, which is at most 1 unless there are many insertions.

    Where an utterance has more errors than characters, the largest possible rate is taken to be that of the
    worst utterance, and no less than twice the rate, or the logit scale would press the interval against it.

    Args:
        rate: the error rate, 1 = as many errors as characters.
        width: half-width that :func:`half_width` gave.
        worst: error rate of the worst utterance.
        sentences: Q, the number of different sentences behind it.
        confidence: coverage of the interval, e.g. 0.95; used only where no sentence varies.
    """
    if width > 1e-9 * max(rate, 1.0):  # less is the rounding of sums
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
    # Strata are as large as somebody made them, so that only the rate of each varies, not its share.
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
    # Sentences of one place are part of it, unless this place is the only one of its stratum and stays.
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
    """What intervals are over, for captions.

    Args:
        groups: names of all groups.
        single: names of the groups that have a single place; None in results that do not say.
        places: word for the places in the caption.
    """
    if single is None:
        return f"sentences, and over {places} where a group has several"
    if not single:
        return f"sentences and {places}"
    if set(single) >= set(groups):
        return f"sentences; {places} cannot vary, since every group has one only"
    return f"sentences and {places}; {places} cannot vary for {', '.join(single)} (one each)"
