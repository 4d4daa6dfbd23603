"""The control ``permuted``: recall of the model when wrong sentences count as right answers.

Each of D draws relabels the sentences of every group at random (:mod:`retrieval.statistics.significance`) and
counts how often the new right answer has the highest score. For any scores, the mean over all relabellings is
exactly chance, so only the draws vary: the recall is the mean of the draws, with a t interval over the draws,
not over sentences and sites. A mean that is not at chance shows an error in the experiment.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import stats

from retrieval.protocol.estimates import Pair
from retrieval.protocol.tables import RecallTable, SummaryRow
from retrieval.statistics.bootstrap import possible_rate
from retrieval.statistics.ranks import ROUNDING, Floats
from zipformer.errors import UserError


def permuted_table(
    model: RecallTable, permuted: Mapping[Pair, Floats], *, confidence: float = 0.95
) -> RecallTable:
    """Recall@1 with permuted sentences, for the pairs of groups of the model's table and their means.

    Args:
        model: table of the same scores with the right sentences.
        permuted: metrics (D,M) of each pair of groups, as in
            :class:`retrieval.protocol.outcome.Outcome`.
        confidence: confidence level of the intervals, such as 0.95.
    """
    rows = []
    for row in model.pairs:
        draws = permuted[row.source, row.target][:, 0]
        recall, low, high = (100 * value for value in mean_of_draws(draws, confidence))
        rows.append(replace(row, recall_at_1=recall, low=low, high=high))
    summary = []
    for mean in model.summary:
        if mean.name in model.parts:
            draws = np.mean([permuted[pair][:, 0] for pair in model.parts[mean.name]], axis=0)  # (D,)
            recall, low, high = (100 * value for value in mean_of_draws(draws, confidence))
            summary.append(replace(mean, recall_at_1=recall, low=low, high=high))
    return replace(model, pairs=rows, within=[], summary=summary, metrics=[])


def mean_of_draws(draws: Floats, confidence: float) -> tuple[float, float, float]:
    """Mean of the rates (D,) in 0..1 of independent draws, and the ends of the t interval.

    If no draw has a hit, the upper end is that of D misses (Clopper and Pearson).

    Raises:
        UserError: fewer than two draws.
    """
    if len(draws) < 2:
        raise UserError(f"{len(draws)} draws give no interval; take permuted_draws=20")
    mean = float(draws.mean())
    if mean <= ROUNDING:
        return mean, 0.0, possible_rate(len(draws), confidence)
    width = float(stats.t.ppf((1 + confidence) / 2, len(draws) - 1) * draws.std(ddof=1)) / math.sqrt(
        len(draws)
    )
    return mean, max(0.0, mean - width), min(1.0, mean + width)


def square_and_add(first: SummaryRow, second: SummaryRow) -> tuple[float, float, float]:
    """Difference of two independent recalls, with an interval computed from their intervals.

    The distances of both recalls from the ends of their intervals are combined like standard errors, as the
    root of the sum of squares (Newcombe, Statistics in Medicine 17(8), 1998; Zou & Donner, the same journal
    27(10), 2008). The permutations are independent of the resamples of sentences and sites, so the difference
    cannot be computed resample by resample.
    """
    difference = first.recall_at_1 - second.recall_at_1
    below = math.hypot(first.recall_at_1 - first.low, second.high - second.recall_at_1)
    above = math.hypot(first.high - first.recall_at_1, second.recall_at_1 - second.low)
    return difference, max(-100.0, difference - below), min(100.0, difference + above)
