"""What the checks find in a training split."""

import csv
import io

from lhotse import MonoCut, Recording, SupervisionSegment

from data_prep.audio.probe import AudioProbe
from data_prep.checks import CheckConfig, CorpusChecker
from data_prep.problems import ProblemLog, Severities
from data_prep.text.normaliser import TextNormaliser


def check(
    recordings: list[tuple[Recording, AudioProbe]], supervisions: list[SupervisionSegment]
) -> tuple[list[str], list[MonoCut]]:
    """Kinds of the problems of a training split, and the cuts that are left."""
    stream = io.StringIO()
    checker = CorpusChecker(CheckConfig(), TextNormaliser(), 16000, ProblemLog(stream, Severities()))
    left = list(checker.check_split("train", recordings, supervisions))
    stream.seek(0)
    return [row["problem"] for row in csv.DictReader(stream, delimiter="\t")], left
