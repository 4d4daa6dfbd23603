"""Settings of challenge sets: what is removed from retrieval, and how it is measured."""

from dataclasses import dataclass, field
from enum import Enum

from retrieval.embedding.cuts import PRONUNCIATIONS
from retrieval.protocol.sites import Duplicates, Level
from zipformer.errors import UserError

TAGS = {
    "none": [],
    # jieba.posseg: persons, places, organisations, other proper nouns, numerals and what begins with one
    "jieba": ["nr", "ns", "nt", "nz", "m"],
    "spacy": ["PROPN", "NUM"],  # universal parts of speech
}


class Removal(str, Enum):
    """What makes a query easy, and is taken away."""

    sound = "sound"
    names = "names"
    duration = "duration"

    @property
    def set_name(self) -> str:
        """Name of the challenge set that has only this removed."""
        return {"sound": "no-close-sound", "names": "no-names", "duration": "duration-matched"}[self.value]


COMBINED = "combined"  # name of the set with all removals
RANDOM_ENDING = "-random"  # of the set with as many sentences drawn at random


class SoundMeasure(str, Enum):
    """How the distance of two pronunciations is measured.

    ``auto`` takes phones where the utterances have them and the acoustic distance where none has.
    """

    auto = "auto"
    phones = "phones"
    acoustic = "acoustic"


class Notation(str, Enum):
    """How phones are written: ``ipa`` without spaces between them, or ``spaced`` (any romanisation)."""

    ipa = "ipa"
    spaced = "spaced"


class TaggerKind(str, Enum):
    """Part-of-speech taggers that can be chosen by name."""

    none = "none"
    jieba = "jieba"
    spacy = "spacy"


class TaggedText(str, Enum):
    """Which text of an utterance is tagged: its Mandarin translation or its own transcript."""

    translation = "translation"
    transcript = "transcript"


@dataclass
class SoundConfig:
    """When a right answer counts as too close to the query by sound.

    One threshold serves all pairs of sites, so that what is kept is equally unlike in all of them; closely
    related groups lose more sentences than distant ones.

    Attributes:
        measure: see :class:`SoundMeasure`.
        field: field of the supervision's ``custom`` that holds the phones; null = ``ipa`` or
            ``romanisation``, whichever more utterances have. Romanisations of two dialects can be compared as
            far as they spell like sounds alike.
        phones_file: table with the columns utterance_id and phones, instead of the field.
        notation: notation of the phones.
        tones: compare tones too. Their shapes differ between dialects whose words are cognate, so they hide
            likeness more than they show it.
        control: folder of the embeddings for the acoustic distance; null = the MFCCs in the model directory.
        threshold: drop where the distance is at most this. Phones: 0 (equal) to 1 (nothing in common).
            Acoustic: 0 to about 1, the median distance of different sentences. null = by quantile.
        quantile: share of the right answers between groups that the threshold drops, the closest first; every
            pair of groups has the same weight.
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
        """Those that phones may be in."""
        return PRONUNCIATIONS if self.field is None else (self.field,)


@dataclass
class NamesConfig:
    """How sentences with a proper noun or a number are found.

    Attributes:
        tagger: ``jieba`` or ``spacy``.
        text: text that is tagged. Taggers know Mandarin; a dialect's transcript confuses them.
        spacy_model: name or folder of the pipeline.
        tags: a word counts whose tag begins with one of these; empty = proper nouns and numbers.
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
    """How many utterances a query is compared with: the right answer and those nearest to it in duration.

    If two sites keep fewer sentences, all are compared, and a warning counts such pairs.
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
    """What to build challenge sets from.

    Attributes:
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus among the results in ``model_dir``; null = as preparation recorded it.
        model_dir: model directory with MFCC embeddings, for the acoustic distance only.
        out_dir: receives the sets; null = ``challenge-{split}`` in the data directory. They belong to the
            corpus: every model is asked the same.
        removals: each gives a set of its own; several also give ``combined``, with all of them removed.
        random: build a random counterpart of each set, with as many sentences in every pair of sites and as
            many rivals, both drawn at random. It shows what pools of that size give, whatever is in them.
        seed: random seed of these draws.
        sound: closeness by sound.
        names: proper nouns and numbers.
        duration: rivals of like duration.
        level: dialect groups, or varieties (subdialects), as retrieval will be asked.
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
