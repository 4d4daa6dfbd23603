"""Which sentences and speakers occur in more than one split or corpus.

Sentences are compared by their normalised transcripts, character for character, as ``data.keep_out`` does;
speakers by their names, as ``data.keep_out_speakers`` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.card.contents import Contents, Hashes


@dataclass(frozen=True)
class HeldOut:
    """How much of a validation or test split occurs in training.

    Attributes:
        corpus, split: the held-out split.
        sentences: number of different sentences.
        own_training: number of these that the training split of the same corpus has.
        all_training: number of these that a training split of any corpus has.
        utterances: number of utterances with a transcript.
        utterances_in_training: number of these whose sentence a training split of any corpus has.
        other_held_out: number of sentences that the corpus's other held-out split has.
        speakers: number of speakers with a name.
        speakers_own_training: number of these who speak in the training split of the same corpus.
        speakers_all_training: number of these who speak in a training split of any corpus.
        speakers_other_held_out: number of these who speak in the corpus's other held-out split.
        without_speaker: number of utterances without the name of a speaker.
    """

    corpus: str
    split: str
    sentences: int
    own_training: int
    all_training: int
    utterances: int
    utterances_in_training: int
    other_held_out: int
    speakers: int
    speakers_own_training: int
    speakers_all_training: int
    speakers_other_held_out: int
    without_speaker: int

    @property
    def share(self) -> float | None:
        """Share of the different sentences that training has; None where there are none."""
        return self.all_training / self.sentences if self.sentences else None


@dataclass(frozen=True)
class Shared:
    """What two corpora have in common over all their splits: different sentences, and speakers."""

    corpora: tuple[str, str]
    sentences: int
    speakers: int


def held_out_rows(corpora: Sequence[Contents]) -> list[HeldOut]:
    """A row for each validation and test split."""
    trained = [corpus for corpus in corpora if corpus.trained]
    sentences = _union([corpus.sentences_of("train") for corpus in trained])
    speakers = _union([corpus.speakers_of("train") for corpus in trained])
    rows = []
    for corpus in corpora:
        for split, other in (("valid", "test"), ("test", "valid")):
            if split not in corpus.splits:
                continue
            tested = corpus.sentences[split]
            names = corpus.speakers_of(split)
            rows.append(
                HeldOut(
                    corpus=corpus.name,
                    split=split,
                    sentences=len(tested.values),
                    own_training=_common(tested.values, corpus.sentences_of("train")),
                    all_training=_common(tested.values, sentences),
                    utterances=int(tested.counts.sum()),
                    utterances_in_training=int(tested.counts[_isin(tested.values, sentences)].sum()),
                    other_held_out=_common(tested.values, corpus.sentences_of(other)),
                    speakers=len(names),
                    speakers_own_training=_common(names, corpus.speakers_of("train")),
                    speakers_all_training=_common(names, speakers),
                    speakers_other_held_out=_common(names, corpus.speakers_of(other)),
                    without_speaker=corpus.without_speaker[split],
                )
            )
    return rows


def shared_rows(corpora: Sequence[Contents]) -> list[Shared]:
    """A row for each two corpora that have a sentence or a speaker in common."""
    everything = ("train", "valid", "test")
    sentences = [corpus.sentences_of(*everything) for corpus in corpora]
    speakers = [corpus.speakers_of(*everything) for corpus in corpora]
    rows = [
        Shared(
            (corpora[one].name, corpora[two].name),
            _common(sentences[one], sentences[two]),
            _common(speakers[one], speakers[two]),
        )
        for one in range(len(corpora))
        for two in range(one + 1, len(corpora))
    ]
    return [row for row in rows if row.sentences or row.speakers]


def _union(parts: Sequence[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))


def _isin(values: Hashes, others: Hashes) -> np.ndarray:
    """(n,) whether each of ``values`` is among ``others``, which are sorted."""
    if not len(others):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(others, values), len(others) - 1)
    return np.asarray(others[places] == values)


def _common(values: Hashes, others: Hashes) -> int:
    few, many = sorted((values, others), key=len)
    return int(_isin(few, many).sum())
