"""Character error rate: alignments, counts by dialect and site, intervals, confusions.

The unit of scoring is a `Transcript`, one utterance with its reference and its hypothesis. `align_all` aligns
them; `score` makes the rows of the error-rate table of that, `confusions` the list of most frequent errors.
"""

from zipformer.scoring.alignment import Alignment, ErrorCounts, align, characters
from zipformer.scoring.intervals import Design, Interval, error_rate_interval
from zipformer.scoring.tables import (
    LEVELS,
    Confusion,
    ScoredUtterance,
    ScoreRow,
    Transcript,
    align_all,
    character_error_rate,
    confusions,
    score,
)

__all__ = [
    "LEVELS",
    "Alignment",
    "Confusion",
    "Design",
    "ErrorCounts",
    "Interval",
    "ScoreRow",
    "ScoredUtterance",
    "Transcript",
    "align",
    "align_all",
    "character_error_rate",
    "characters",
    "confusions",
    "error_rate_interval",
    "score",
]
