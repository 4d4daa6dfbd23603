"""Character error rate: alignments, counts by dialect and site, bootstrap intervals, confusions.

The unit of scoring is a `Transcript`, one utterance with its reference and its hypothesis. `align_all` aligns
them; `score` makes the rows of the error-rate table of that, `confusions` the list of most frequent errors.
"""

from zipformer.scoring.alignment import Alignment, ErrorCounts, align, characters
from zipformer.scoring.bootstrap import Interval, bootstrap_ratio
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
    "ErrorCounts",
    "Interval",
    "ScoreRow",
    "ScoredUtterance",
    "Transcript",
    "align",
    "align_all",
    "bootstrap_ratio",
    "character_error_rate",
    "characters",
    "confusions",
    "score",
]
