"""Settings of fangyan interpret."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.interpretation.compare import Scope
from retrieval.interpretation.matching import Matcher
from retrieval.interpretation.whisper import WhisperConfig
from retrieval.protocol.sites import Duplicates, Level
from zipformer.alignment import ALIGNERS, TRANSCRIPTS
from zipformer.data.batches import EVALUATION_SECONDS
from zipformer.data.dataset import name_of
from zipformer.errors import UserError

WHISPER = "whisper"
# Pattern and largest length of a list of groups or pairs in the name of a folder.
_PLAIN = re.compile(r"[A-Za-z0-9.]+(-[A-Za-z0-9.]+)*")
_LONGEST = 80


@dataclass
class InterpretConfig:
    """Settings of fangyan interpret: the words to match, and the text similarities for the tests.

    Attributes:
        model_dir: model directory; its ``results`` receive tables, figures and page.
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus, for the folder of its results; null = the name from preparation.
        level: level of the groups: dialects, or varieties (subdialects).
        groups: groups to compare, in this order; empty = all.
        pairs: pairs of groups or sites to compare, each as ``A:B``; empty = all pairs of sites of different
            groups.
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        aligner: source of the times of words: a head of the model (``ctc``, ``transducer`` or ``attention``),
            or ``whisper`` for the model ``whisper.model``, which needs the recordings of the cuts.
        whisper: settings of ``aligner=whisper``.
        transcript: ``reference``, or ``hypothesis`` for the recognition result of the model (or of Whisper).
        segmenter: ``characters``, ``jieba`` (extra ``words``) or ``longest_match`` (words of ``table``).
        words: table of words and times of another aligner (utterance_id, word, start, end in seconds), in
            place of ``aligner``; needs ``embeddings``.
        embeddings: folder of embeddings of another layer or model, for the frames of the words; null = the
            output of the encoder.
        matcher: ``mutual`` best matches, or optimal transport (extra ``transport``): ``unbalanced``, where a
            word may have several counterparts or none, or ``transport``, where all words must be matched; or
            the control ``position`` (the same relative position in the utterance).
        scope: match words of one sentence (``utterance``) or of all sentences of two sites (``site``).
        threshold: least share of the mass that a pair must move with ``transport`` and ``unbalanced``. A
            lower threshold keeps more, weaker pairs.
        penalty: penalty of ``unbalanced`` on words that move more or less mass than their share. A smaller
            penalty leaves more words unmatched, a large one approaches ``transport``.
        similarities: text similarities for the tests: ``characters``, ``table``, or names of
            sentence-transformers models (extra ``sentences``), which are downloaded unless they are
            directories.
        table: tab-separated translation table, with a meaning in each line and a variety in each column.
        table_columns: columns of the table to read; empty = all.
        median_frames: width of the median filter of ``aligner=attention``, in frames of 40 ms. Whisper uses
            its own setting, 7 frames of 20 ms.
        shown: number of pairs of utterances on the page, spread over the pairs of groups.
        audio: include the recordings in the page.
        confidence: confidence level of the intervals.
        max_duration: seconds of padded audio in a batch of the encoder.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
    """

    model_dir: str
    data_dir: str
    split: str = "test"
    dataset: str | None = None
    level: Level = Level.group
    groups: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    duplicates: Duplicates = Duplicates.error
    aligner: str = "ctc"
    whisper: WhisperConfig = field(default_factory=WhisperConfig)
    transcript: str = "reference"
    segmenter: str = "characters"
    words: str | None = None
    embeddings: str | None = None
    matcher: Matcher = Matcher.mutual
    scope: Scope = Scope.utterance
    threshold: float = 0.5
    penalty: float = 0.5
    similarities: list[str] = field(default_factory=lambda: ["characters"])
    table: str | None = None
    table_columns: list[str] = field(default_factory=list)
    median_frames: int = 3
    shown: int = 24
    audio: bool = True
    confidence: float = 0.95
    max_duration: float = EVALUATION_SECONDS
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(f"threshold={self.threshold} must be over 0 and at most 1")
        if not self.penalty > 0:
            raise UserError(f"penalty={self.penalty} must be over 0")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence} must be between 0 and 1")
        if self.shown < 0:
            raise UserError(f"shown={self.shown} is negative; give 0 for none")
        if not self.similarities or len(set(self.similarities)) < len(self.similarities):
            raise UserError(
                f"similarities={self.similarities} must name at least one, none twice; take [characters]"
            )
        if self.scope is Scope.site and self.matcher is Matcher.position:
            raise UserError("matcher=position compares places in one sentence; it needs scope=utterance")
        if self.words is not None and self.embeddings is None:
            raise UserError("words=FILE needs embeddings=FOLDER too: the frames that the words are times of")
        if self.words is None and self.aligner not in (*ALIGNERS, WHISPER):
            raise UserError(
                f"aligner={self.aligner} is not known; choose one of {', '.join((*ALIGNERS, WHISPER))}"
            )
        if self.words is None and self.aligner == WHISPER and not self.whisper.model:
            raise UserError(
                "aligner=whisper needs whisper.model=NAME, a model of the Hub such as openai/whisper-small,"
                " or a folder that save_pretrained wrote"
            )
        if self.transcript not in TRANSCRIPTS:
            raise UserError(
                f"transcript={self.transcript} is not known; choose one of {', '.join(TRANSCRIPTS)}"
            )

    @property
    def folder(self) -> Path:
        """Folder of the results. Runs that differ only in settings outside the name replace each other.

        The name is ``results/{dataset}/interpret-{split}-{aligner}``, the name of a Whisper model, then
        transcript, segmenter, embeddings, matcher, scope, level, groups (``yue+wuu``) and pairs
        (``yue_wuu+yue_hak``) where they are not the default. A digest replaces groups or pairs with unusual
        names or that are too many to write out (``pairs.1f0c9ad2``).
        """
        aligner = self.aligner if self.words is None else Path(self.words).stem
        parts = ["interpret", self.split, aligner]
        if self.words is None and self.aligner == WHISPER:
            parts.append(self.whisper.short_name)
        if self.transcript != "reference":
            parts.append(self.transcript)
        if self.segmenter != "characters":
            parts.append(self.segmenter)
        if self.embeddings is not None:
            parts.append(Path(self.embeddings).name)
        if self.matcher is not Matcher.mutual:
            parts.append(self.matcher.value)
        if self.scope is not Scope.utterance:
            parts.append(self.scope.value)
        if self.level is not Level.group:
            parts.append(self.level.value)
        if self.groups:
            parts.append(_listed("groups", [[group] for group in self.groups]))
        if self.pairs:
            parts.append(_listed("pairs", [pair.split(":") for pair in self.pairs]))
        name = name_of(Path(self.data_dir), self.dataset)
        return Path(self.model_dir) / "results" / name / "-".join(parts)


def _listed(setting: str, entries: Sequence[Sequence[str]]) -> str:
    """Entries joined by ``+``, their names by ``_``; a digest if that is too long or not plain."""
    text = "+".join("_".join(names) for names in entries)
    if len(text) <= _LONGEST and all(_PLAIN.fullmatch(name) for names in entries for name in names):
        return text
    return f"{setting}.{hashlib.sha256(repr(entries).encode()).hexdigest()[:8]}"
