"""Completeness of every site: sentences that are present and missing."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora.yubao import SENTENCES
from data_prep.corpora.yubao.metadata import Sentence
from data_prep.corpora.yubao.sites import BenchmarkSite
from zipformer.files import replacing

COLUMNS = (
    "group",
    "site_id",
    "site",
    "sentences_in_table",
    "recordings",
    "below_threshold",
    "not_in_table",
    "without_recording",
)


@dataclass(frozen=True)
class SiteCompleteness:
    """The missing sentences, of 50, of a site.

    Attributes:
        site: the site.
        not_in_table: numbers of the sentences that are not in the metadata.
        without_recording: numbers of the sentences in the metadata without an audio file.
    """

    site: BenchmarkSite
    not_in_table: tuple[int, ...]
    without_recording: tuple[int, ...]

    @property
    def sentences_in_table(self) -> int:
        return SENTENCES - len(self.not_in_table)

    @property
    def recordings(self) -> int:
        """Number of sentences that are in the table and have an audio file."""
        return self.sentences_in_table - len(self.without_recording)


def completeness(
    sites: Sequence[BenchmarkSite],
    sentences: Mapping[str, Mapping[int, Sentence]],
    files: Mapping[str, Path],
) -> list[SiteCompleteness]:
    """Compare the metadata (by site id and number) and the files (by utterance id) with the benchmark."""
    numbers = range(1, SENTENCES + 1)
    return [
        SiteCompleteness(
            site,
            not_in_table=tuple(n for n in numbers if n not in sentences[site.site_id]),
            without_recording=tuple(
                n
                for n, sentence in sorted(sentences[site.site_id].items())
                if sentence.utterance_id not in files
            ),
        )
        for site in sites
    ]


def write_completeness(path: Path, found: Sequence[SiteCompleteness], threshold: int) -> None:
    """Write ``completeness.tsv``: one line for each site, with missing sentences as ranges (``3,17-19``)."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in found:
            writer.writerow(
                [
                    one.site.group,
                    one.site.site_id,
                    one.site.name,
                    one.sentences_in_table,
                    one.recordings,
                    "yes" if one.recordings < threshold else "no",
                    ranges(one.not_in_table),
                    ranges(one.without_recording),
                ]
            )


def ranges(numbers: Sequence[int]) -> str:
    """Increasing numbers as text, with ranges for consecutive numbers.

    >>> ranges([3, 17, 18, 19])
    '3,17-19'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def summary(found: Sequence[SiteCompleteness], threshold: int, shown: int = 8) -> str:
    """One line for the log, e.g. ``78 sites, 3499 of 3900 sentences; 12 sites have less than 45: ...``."""
    recordings = sum(one.recordings for one in found)
    line = f"{len(found)} sites, {recordings} of {SENTENCES * len(found)} sentences"
    below = [f"{one.site.name} {one.recordings}" for one in found if one.recordings < threshold]
    if not below:
        return line
    names = ", ".join(below[:shown]) + (", ..." if len(below) > shown else "")
    return f"{line}; {len(below)} sites have less than {threshold}: {names}"
