"""Settings of challenge sets: what to remove from retrieval, and how to measure it."""

from dataclasses import dataclass, field
from enum import Enum

from retrieval.embedding.cuts import PRONUNCIATIONS
from retrieval.protocol.sites import Duplicates, Level
from zipformer.errors import UserError

TAGS = {
    "none": [],
    # jieba.posseg: persons, places, organisations, other proper nouns, numerals and phrases with a numeral
    "jieba": ["nr", "ns", "nt", "nz", "m"],
    "spacy": ["PROPN", "NUM"],  # universal parts of speech
}


class Removal(str, Enum):
    """Properties that make a query easy and can be removed."""

    sound = "sound"
    names = "names"
    duration = "duration"

    @property
    def set_name(self) -> str:
        """Name of the challenge set with only this removal."""
        return {"sound": "no-close-sound", "names": "no-names", "duration": "duration-matched"}[self.value]


COMBINED = "combined"  # name of the set with all removals
RANDOM_ENDING = "-random"  # end of the name of a random counterpart


class SoundMeasure(str, Enum):
    """Measure of the distance between two pronunciations.

    ``auto`` takes phones if the utterances have them, and the acoustic distance if none has.
    """

    auto = "auto"
    phones = "phones"
    acoustic = "acoustic"


class Notation(str, Enum):
    """Notation of phones: ``ipa`` without spaces between phones, or ``spaced`` (any romanisation)."""

    ipa = "ipa"
    spaced = "spaced"


class TaggerKind(str, Enum):
    """Part-of-speech taggers that can be chosen by name."""

    none = "none"
    jieba = "jieba"
    spacy = "spacy"


class TaggedText(str, Enum):
    """Text of an utterance to tag: the Mandarin translation or the transcript."""

    translation = "translation"
    transcript = "transcript"


@dataclass
class SoundConfig:
    """Rule for right answers that are too close to the query by sound.

    All pairs of sites share one threshold, so that the sentences that are kept are equally dissimilar in all
    of them; closely related groups lose more sentences than distant ones.

    Attributes:
        measure: see :class:`SoundMeasure`.
        field: field of the supervision's ``custom`` that holds the phones; null = ``ipa`` or
            ``romanisation``, whichever more utterances have. Romanisations of two dialects are comparable
            only if they spell the same sounds alike.
        phones_file: table with the columns utterance_id and phones, instead of the field.
        notation: notation of the phones.
        tones: compare tones too. The contours of the tones of cognate words differ between dialects, so tones
            tend to hide similar pronunciations.
        control: folder of the embeddings for the acoustic distance; null = the MFCCs in the model directory.
        threshold: drop a right answer if its distance is at most this. Phones: 0 (equal) to 1 (nothing in
            common). Acoustic: 0 to about 1, the median distance of different sentences. null = from
            ``quantile``.
        quantile: share of the right answers between groups to drop, the closest first; every pair of groups
            has the same weight.
    """

    measure: SoundMeasure = SoundMeasure.auto
    field: str | None = None
    phones_file: str | None = None
    notation: Notation = Notation.ipa
    tones: bool = False
    control: str | None = None
    threshold: float | None = None
    quantile: float = 0.5

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold < 0:
            raise UserError(f"sound.threshold={self.threshold} is negative; distances are 0 or more")
        if not 0 < self.quantile < 1:
            raise UserError(
                f"sound.quantile={self.quantile} must be between 0 and 1; 0.5 drops the closer half"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that may hold the phones."""
        return PRONUNCIATIONS if self.field is None else (self.field,)


@dataclass
class NamesConfig:
    """Settings for finding sentences with a proper noun or a number.

    Attributes:
        tagger: ``jieba`` or ``spacy``.
        text: text to tag. Taggers are made for Mandarin and make errors in transcripts of dialects.
        spacy_model: name or folder of the spaCy pipeline.
        tags: beginnings of the tags of words that count; empty = proper nouns and numbers.
    """

    tagger: TaggerKind = TaggerKind.jieba
    text: TaggedText = TaggedText.translation
    spacy_model: str = "zh_core_web_sm"
    tags: list[str] = field(default_factory=list)

    @property
    def chosen_tags(self) -> list[str]:
        return list(self.tags) or TAGS[self.tagger.value]


@dataclass
class DurationConfig:
    """Number of utterances that a query is compared with: the right answer and the nearest in duration.

    If two sites have fewer sentences, all are compared, and a warning gives the number of such pairs.
    """

    candidates: int = 10  # utterances that a query is compared with, the right one included

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise UserError(
                f"duration.candidates={self.candidates} leaves the right answer without a rival; give 2 or"
                " more"
            )


@dataclass
class ChallengeConfig:
    """Settings of building challenge sets.

    Attributes:
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus among the results in ``model_dir``; null = the name from preparation.
        model_dir: model directory with MFCC embeddings, needed only for the acoustic distance.
        out_dir: folder for the sets; null = ``challenge-{split}`` in the data directory. The sets belong to
            the corpus: every model gets the same queries.
        removals: properties to remove, each in a set of its own; if there are several, a set ``combined``
            removes all of them.
        random: build a random counterpart of each set, with as many sentences in every pair of sites and as
            many rivals, both drawn at random. It shows the effect of the pool size alone.
        seed: random seed of these draws.
        sound: settings of the removal by sound.
        names: settings of the removal of proper nouns and numbers.
        duration: settings of the removal by duration.
        level: dialect groups, or varieties (subdialects), as in the retrieval.
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
    """

    data_dir: str
    split: str = "test"
    dataset: str | None = None
    model_dir: str | None = None
    out_dir: str | None = None
    removals: list[Removal] = field(default_factory=lambda: [Removal.sound, Removal.names, Removal.duration])
    random: bool = True
    seed: int = 0
    sound: SoundConfig = field(default_factory=SoundConfig)
    names: NamesConfig = field(default_factory=NamesConfig)
    duration: DurationConfig = field(default_factory=DurationConfig)
    level: Level = Level.group
    duplicates: Duplicates = Duplicates.error

    def __post_init__(self) -> None:
        if not self.removals or len(set(self.removals)) < len(self.removals):
            raise UserError(
                f"removals={[r.value for r in self.removals]}: give one or more, each once, of"
                f" {', '.join(r.value for r in Removal)}"
            )
        if Removal.names in self.removals and self.names.tagger is TaggerKind.none:
            rest = ",".join(r.value for r in self.removals if r is not Removal.names)
            raise UserError(
                "names are to be removed but names.tagger=none finds none: set names.tagger=jieba or spacy"
                + (f", or removals=[{rest}]" if rest else "")
            )
