"""``corpus=wenetspeech_yue`` and ``corpus=wenetspeech_chuan``: Cantonese and Sichuanese from the web.

Both are published as metadata, one JSON object a line; the authors give the clips on request. Clips
that are missing are reported by utterance (``missing_audio``) and the others are used. Lhotse has no
recipe.

- Yue: ``wenetspeech_yue_meta.jsonl`` (types differ between lines), clips ``<key>.wav``. The test sets
  have audio: ``Short/{content.txt,wav_/<key>.wav}`` and ``Long/{content.txt,wav/<key>.wav}``.
- Chuan: ``wsc_metadata.jsonl``, clips by ``filename``. ``WSC-Eval-ASR/{Easy,Hard,Short,Long}`` with
  ``text`` and ``wav/<id>.wav``; Short and Long are another division of the audio of Easy and Hard. ``*``
  marks what nobody understood, and the words in parentheses are spoken.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import Fields, corpus_root, read_json_lines, read_pairs
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of, split_of_speaker
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import Variety, variety_of_id
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

YUE_METADATA = "wenetspeech_yue_meta.jsonl"
CHUAN_METADATA = "wsc_metadata.jsonl"


@dataclass
class WebSpeechConfig:
    """Where metadata, clips and test sets lie.

    Attributes:
        root: folder with the metadata; null to prepare the test sets alone.
        clips: folder of the clips; root if not given.
        clip: name of a clip in it, with {key} for the utterance's id and {source} for its recording's.
        eval_root: folder of the test sets; null for none.
        eval_sets: which of them are read.
        min_confidence: utterances that the recognisers agree on less are left out.
        valid: share of the recordings that are held out for validation.
    """

    root: str | None = None
    clips: str | None = None
    clip: str = "{key}.wav"
    eval_root: str | None = None
    eval_sets: list[str] = field(default_factory=list)
    min_confidence: float = 0.0
    valid: float = 0.001


@dataclass
class WenetSpeechYueConfig(WebSpeechConfig):
    """WenetSpeech-Yue, see :class:`WebSpeechConfig`."""

    eval_sets: list[str] = field(default_factory=lambda: ["Short", "Long"])


@dataclass
class WenetSpeechChuanConfig(WebSpeechConfig):
    """WenetSpeech-Chuan, see :class:`WebSpeechConfig`."""

    eval_sets: list[str] = field(default_factory=lambda: ["Easy", "Hard"])

    def __post_init__(self) -> None:
        if {"Easy", "Hard"} & set(self.eval_sets) and {"Short", "Long"} & set(self.eval_sets):
            raise UserError(
                "corpus.eval_sets: Easy and Hard hold the audio of Short and Long; choose one pair"
            )


def _lists(config: WebSpeechConfig, metadata: str, content: str) -> list[Path]:
    tests = [Path(config.eval_root) / name / content for name in config.eval_sets] if config.eval_root else []
    return [*([Path(config.root) / metadata] if config.root else []), *tests]


@register_corpus(
    "wenetspeech_yue",
    WenetSpeechYueConfig,
    inputs=lambda config: _lists(config, YUE_METADATA, "content.txt"),
    finish=compare_sizes(
        Published("test", "Short", utterances=7_060), Published("test", "Long", utterances=370)
    ),
    scoring="wsyue",
    licence="CC BY-NC 4.0 for the evaluation sets, as stated by their page at Hugging Face; "
    "training part unknown",
    origin="https://github.com/ASLP-lab/WenetSpeech-Yue",
)
def prepare_wenetspeech_yue(config: WenetSpeechYueConfig, directory: Path) -> CorpusManifests:
    """Manifests of the metadata and of the test sets."""

    def utterances() -> Iterator[Utterance]:
        folders = {"Short": "wav_", "Long": "wav"}
        yield from _test_sets(config, "wsyue", "content.txt", folders, variety_of_id("yue"))
        if config.root is not None:
            yield from _yue(corpus_root(config.root, YUE_METADATA), config)

    return manifests_of(utterances(), directory)


@register_corpus(
    "wenetspeech_chuan",
    WenetSpeechChuanConfig,
    inputs=lambda config: _lists(config, CHUAN_METADATA, "text"),
    finish=compare_sizes(
        Published("test", "Easy", utterances=6_981), Published("test", "Hard", utterances=1_392)
    ),
    scoring="wsyue",
    licence="Apache-2.0 for metadata and evaluation sets, as stated by their pages at "
    "Hugging Face; audio unknown",
    origin="https://github.com/ASLP-lab/WenetSpeech-Chuan",
)
def prepare_wenetspeech_chuan(config: WenetSpeechChuanConfig, directory: Path) -> CorpusManifests:
    """Manifests of the metadata and of the test sets."""
    variety = variety_of_id("mandarin-southwestern")

    def utterances() -> Iterator[Utterance]:
        yield from _test_sets(config, "wschuan", "text", {}, variety)
        if config.root is not None:
            yield from _chuan(corpus_root(config.root, CHUAN_METADATA), config, variety)

    return manifests_of(utterances(), directory)


def _test_sets(
    config: WebSpeechConfig, prefix: str, content: str, folders: dict[str, str], variety: Variety
) -> Iterator[Utterance]:
    """Utterances of the test sets.

    Args:
        config: where they lie.
        prefix: beginning of their ids.
        content: name of the list of a set.
        folders: folder of the audio of each set, where it is not wav.
        variety: what is spoken.

    Raises:
        UserError: neither metadata nor test sets are given.
    """
    if config.root is None and config.eval_root is None:
        raise UserError("set corpus.root (metadata and clips), corpus.eval_root (test sets) or both")
    if config.eval_root is None:
        return
    for name in config.eval_sets:
        folder = Path(config.eval_root) / name
        for origin, key, text in read_pairs(folder / content):
            yield Utterance(
                id=f"{prefix}-{name}-{key}",
                audio=folder / folders.get(name, "wav") / f"{key}.wav",
                text=text,
                dialect=variety,
                split="test",
                part=name,
                origin=f"{name}/{origin}",
            )


def _clip(config: WebSpeechConfig, root: Path, name: str) -> Path:
    return (Path(config.clips).absolute() if config.clips else root) / name


def _yue(root: Path, config: WebSpeechConfig) -> Iterator[Utterance]:
    yue, hong_kong = variety_of_id("yue"), variety_of_id("yue-hongkong")
    for row in _confident(root / YUE_METADATA, config.min_confidence):
        key = row["key"]
        source = key.rsplit("_", 2)[0]
        about, who = _nested(row, "meta_info"), _nested(row, "utt2spk_attributes")
        yield Utterance(
            id=f"wsyue-{key}",
            audio=_clip(config, root, config.clip.format(key=key, source=source)),
            text=row["rover_result"],
            # 广东 alone may be any Yue variety.
            dialect=hong_kong if about["region"] in ("香港", "Hong Kong") else yue,
            split=split_of_speaker(source, config.valid, 0.0),
            origin=row.origin,
            speaker=f"wsyue-{source}-{who['spk']}" if who["spk"] else None,
            gender=who["gender"],
            duration=row.number("duration"),
            site=about["region"] or None,
        )


def _confident(metadata: Path, least: float) -> Iterator[Fields]:
    """Entries with at least this confidence; those without one have 0 (Chuan writes it as text)."""
    left_out = 0
    for row in read_json_lines(metadata):
        if (row.number("confidence") or 0.0) >= least:
            yield row
        else:
            left_out += 1
    if left_out:
        logger.info(
            "%d utterances of %s are below corpus.min_confidence=%g and left out", left_out, metadata, least
        )


def _nested(row: Fields, name: str) -> Fields:
    value = row.values.get(name)
    return Fields(row.origin, value if isinstance(value, dict) else {})


def _chuan(root: Path, config: WebSpeechConfig, variety: Variety) -> Iterator[Utterance]:
    for row in _confident(root / CHUAN_METADATA, config.min_confidence):
        key = row["utt"]
        source = key.rsplit("_", 2)[0]
        name = row["filename"] or config.clip.format(key=key, source=source)
        yield Utterance(
            id=f"wschuan-{key}",
            audio=_clip(config, root, name),
            text=row["text"],
            dialect=variety,
            split=split_of_speaker(source, config.valid, 0.0),
            origin=row.origin,
            gender=row["gender"],
        )
