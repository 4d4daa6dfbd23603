"""What prepared corpora hold: amounts by split and dialect group, sentences, speakers, problems, licences.

Manifests are read once, line by line. Memory is 16 bytes for each different sentence and speaker of a split,
which are kept as 64-bit hashes: among 50 million sentences, the chance that any two are confused is 1 in
15,000.
"""

import csv
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from data_prep.corpora import UNKNOWN, corpora
from data_prep.fbank import ORIGINAL_SPEED, recorded_speed
from data_prep.manifests import SPLITS, final_cuts_file
from data_prep.pipeline import PROBLEMS_FILE
from data_prep.progress import progress
from zipformer.data.dataset import name_of
from zipformer.data.manifest import PREPARATION_FILE, read_lines, read_summaries
from zipformer.data.remote import CacheConfig, is_remote
from zipformer.data.shar import open_data
from zipformer.errors import UserError
from zipformer.typed_json import read_json

Hashes = NDArray[np.int64]

BIN_SECONDS = 0.1  # of the distribution of durations
_COMPACT_FROM = 1 << 20
_ADVANCE = 1000  # cuts between two reports of progress


class Distinct:
    """Different texts, and how often each occurs."""

    def __init__(self) -> None:
        self._new = array("q")
        self._values: Hashes = np.empty(0, np.int64)
        self._counts: Hashes = np.empty(0, np.int64)

    def add(self, text: str) -> None:
        """Count a text once more."""
        self._new.append(hash(text))  # equal within this process, and nothing is kept for another
        if len(self._new) >= max(_COMPACT_FROM, len(self._values)):
            self._compact()

    @property
    def values(self) -> Hashes:
        """(n,) hashes of the different texts, sorted."""
        self._compact()
        return self._values

    @property
    def counts(self) -> Hashes:
        """(n,) occurrences of each of ``values``."""
        self._compact()
        return self._counts

    def _compact(self) -> None:
        if not self._new:
            return
        new, new_counts = np.unique(np.frombuffer(self._new, np.int64), return_counts=True)
        values, place = np.unique(np.concatenate([self._values, new]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, place, np.concatenate([self._counts, new_counts]))
        self._values, self._counts, self._new = values, counts, array("q")


def union(sets: Iterable[Distinct]) -> Hashes:
    """(n,) hashes of what is in any of the sets, sorted."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(one.values for one in sets)]))


@dataclass
class Amount:
    """An amount of speech, as it was recorded.

    Attributes:
        utterances: number of utterances, without copies at other speeds.
        seconds: duration of these utterances.
        seconds_of_copies: duration of their copies at other speeds.
        characters: characters of their normalised transcripts, without spaces.
        durations: number of utterances by duration, rounded to tenths of a second.
        shortest, longest: seconds.
    """

    utterances: int = 0
    seconds: float = 0.0
    seconds_of_copies: float = 0.0
    characters: int = 0
    durations: Counter[int] = field(default_factory=Counter)
    shortest: float = float("inf")
    longest: float = 0.0

    def add(self, seconds: float, characters: int) -> None:
        """Count an utterance."""
        self.utterances += 1
        self.seconds += seconds
        self.characters += characters
        self.durations[round(seconds / BIN_SECONDS)] += 1
        self.shortest = min(self.shortest, seconds)
        self.longest = max(self.longest, seconds)

    def quantile(self, share: float) -> float:
        """Seconds that the share of the utterances does not exceed, to a tenth of a second."""
        below = 0
        for number in sorted(self.durations):
            below += self.durations[number]
            if below >= share * self.utterances:
                return number * BIN_SECONDS
        raise ValueError("there are no utterances")


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of several amounts."""
    whole = Amount()
    for amount in amounts:
        whole.utterances += amount.utterances
        whole.seconds += amount.seconds
        whole.seconds_of_copies += amount.seconds_of_copies
        whole.characters += amount.characters
        whole.durations.update(amount.durations)
        whole.shortest = min(whole.shortest, amount.shortest)
        whole.longest = max(whole.longest, amount.longest)
    return whole


@dataclass
class Contents:
    """What one prepared corpus holds.

    Attributes:
        name: name of the prepared corpus; different on every corpus of a card.
        place: folder or URL.
        trained: whether its training split is trained on (its weight in a mixture is not 0).
        licence, origin: as ``data_prep.corpora.Corpus`` has them.
        amounts: by split and dialect group.
        sentences: different normalised transcripts by split.
        speakers: different names of speakers by split and dialect group.
        without_speaker: number of utterances without the name of a speaker by split.
        dropped: number of utterances that preparation did not use by split; None if unknown.
        problems: how often preparation found a problem, by (problem, severity, split); None if unknown.
    """

    name: str
    place: str
    trained: bool = True
    licence: str = UNKNOWN
    origin: str = UNKNOWN
    amounts: dict[tuple[str, str], Amount] = field(default_factory=lambda: defaultdict(Amount))
    sentences: dict[str, Distinct] = field(default_factory=lambda: defaultdict(Distinct))
    speakers: dict[tuple[str, str], Distinct] = field(default_factory=lambda: defaultdict(Distinct))
    without_speaker: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, int] | None = None
    problems: Counter[tuple[str, str, str]] | None = None

    @property
    def splits(self) -> list[str]:
        """Splits that are there, in the order train, valid, test."""
        return [split for split in SPLITS if any(split == there for there, _ in self.amounts)]

    def speakers_of(self, *splits: str) -> Hashes:
        """(n,) hashes of the speakers of some splits, in all dialect groups."""
        return union(names for (split, _), names in self.speakers.items() if split in splits)

    def sentences_of(self, *splits: str) -> Hashes:
        """(n,) hashes of the sentences of some splits."""
        return union(sentences for split, sentences in self.sentences.items() if split in splits)


def read_corpus(
    place: str, cache: CacheConfig, *, trained: bool = True, console: Console | None = None
) -> Contents:
    """Read the manifests and problems of a prepared corpus.

    Args:
        place: folder that was prepared, or Lhotse Shar in a folder or at a URL.
        cache: where files at a URL are kept.
        trained: whether its training split is trained on.
        console: where progress is shown; the log by default.

    Raises:
        UserError: nothing is prepared there, or a file is damaged.
    """
    folder = open_data(place, cache)
    record: dict[str, Any] = read_json(folder / PREPARATION_FILE, "prepare") or {}
    found = Contents(place if is_remote(place) else name_of(Path(place)), place, trained)
    registered = corpora().get(record.get("settings", {}).get("corpus", ""))
    if registered is not None:
        found.licence, found.origin = registered.licence, registered.origin
    for split in SPLITS:
        file = final_cuts_file(folder, split)
        if is_remote(place) and split != "train" and split not in record.get("stages", {}).get("cuts", {}):
            continue
        if is_remote(place):
            file = final_cuts_file(open_data(place, cache, split), split)
        if file.is_file():
            known = record.get("stages", {}).get("cuts", {}).get(split, {}).get("cuts")
            count = sum(1 for _ in read_lines(file)) if known is None else known
            with progress(f"read {found.name}, {split}", count, "cuts", console=console) as advance:
                _read_split(found, split, file, advance)
    if not found.amounts:
        raise UserError(f"{place} has no cuts_train.jsonl.gz or other split with cuts: run fangyan prepare")
    utterances = record.get("stages", {}).get("checks", {}).get("utterances")
    if utterances is not None:
        found.dropped = {split: count["dropped"] for split, count in utterances.items()}
    found.problems = _read_problems(folder / PROBLEMS_FILE)
    return found


def _read_split(found: Contents, split: str, file: Path, advance: Callable[[int], None]) -> None:
    speed, copies = recorded_speed(file.parent) if split == "train" else (ORIGINAL_SPEED, ())
    for number, cut in enumerate(read_summaries(file), start=1):
        if number % _ADVANCE == 0:
            advance(_ADVANCE)
        supervision = cut.supervisions[0] if cut.supervisions else None
        group = (supervision and supervision.language) or UNKNOWN
        amount = found.amounts[split, group]
        if copies and cut.id.endswith(copies):
            amount.seconds_of_copies += cut.duration
            continue
        text = (supervision and supervision.text) or ""
        amount.add(cut.duration * speed, len("".join(text.split())))
        if text:
            found.sentences[split].add(text)
        if supervision and supervision.speaker:
            found.speakers[split, group].add(supervision.speaker)
        else:
            found.without_speaker[split] += 1


def _read_problems(file: Path) -> Counter[tuple[str, str, str]] | None:
    if not file.is_file():
        return None
    counts: Counter[tuple[str, str, str]] = Counter()
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            key = (row.get("problem"), row.get("severity"), row.get("split"))
            if None in key:
                raise UserError(f"{file} has no column problem, severity or split: run fangyan prepare again")
            counts[cast(tuple[str, str, str], key)] += 1
    return counts
