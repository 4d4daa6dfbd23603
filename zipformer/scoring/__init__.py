"""Error rates: conventions, alignments, counts by dialect and site, intervals, confusions.

A `Transcript` is one utterance with its reference and its hypothesis. `align_all` aligns them by a
`Convention`; `score` makes the rows of the table of error rates, `confusions` the list of frequent errors.
"""

from zipformer.scoring.alignment import Alignment, ErrorCounts, align, align_units, characters
from zipformer.scoring.conventions import CONVENTIONS, PLAIN, Convention, choose_convention
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
    empty_references,
    score,
)

__all__ = [
    "CONVENTIONS",
    "LEVELS",
    "PLAIN",
    "Alignment",
    "Confusion",
    "Convention",
    "Design",
    "ErrorCounts",
    "Interval",
    "ScoreRow",
    "ScoredUtterance",
    "Transcript",
    "align",
    "align_all",
    "align_units",
    "character_error_rate",
    "characters",
    "choose_convention",
    "confusions",
    "empty_references",
    "error_rate_interval",
    "score",
]
