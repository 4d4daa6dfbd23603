"""``corpus=hat``: HAT-Vol1 and HAT-Vol2, the Taiwanese Hakka of the challenges FSR-2023 and FSR-2025.

Layout: one table or more with ``檔名, 客語漢字, 客語拼音, 備註`` (``*_edit.csv``; FSR-2023 has ``train.csv``)
and the WAV files in any folder below. A name such as ``F0010001A2007_1_07`` begins with the speaker: ``DF``
and ``DM`` speak Dapu, ``ZF`` and ``ZM`` Zhao'an; other names do not say it (``corpus.dialect``).
Rows whose note (``備註``) says that the sentence was misread are left out and counted; ``*`` marks syllables
that are fused in speech, and is deleted. The numbers of the romanisation are citation tones. The splits are
by speaker. Lhotse has no recipe.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import Fields, corpus_root, read_fields
from data_prep.corpora.utterances import (
    Utterance,
    manifests_of,
    sentence_id_of,
    split_of_speaker,
    variety_or_label,
)
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import Variety
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

TEXTS = {"han": "客語漢字", "pinyin": "客語拼音"}
DIALECTS = {"D": "hak-dapu", "Z": "hak-zhaoan"}
_SPEAKER = re.compile(r"([DZ]?)([FM])\d+")
_SPEAKER_LENGTH = {"": 4, "D": 5, "Z": 5}  # characters: F001, DF101
_GROUP = "hak"
_NOTES_SHOWN = 10


@dataclass
class HatConfig:
    """Which tables and which writing are read.

    Attributes:
        root: folder with the tables and the audio.
        text: ``han`` for 客語漢字, scored by characters; ``pinyin`` for 客語拼音, scored by syllables.
        misread: words in 備註 by which a row is left out.
        dialect: variety of the speakers whose names do not tell it, an id or label of the taxonomy.
        valid_speakers, test_speakers: share of the speakers who are held out.
    """

    root: str = MISSING
    text: str = "han"
    misread: list[str] = field(default_factory=lambda: ["錯", "誤", "不正確"])
    dialect: str = _GROUP
    valid_speakers: float = 0.1
    test_speakers: float = 0.1

    def __post_init__(self) -> None:
        if self.text not in TEXTS:
            raise UserError(f"corpus.text is {self.text!r}; it must be one of {', '.join(TEXTS)}")


def _tables(root: Path) -> list[Path]:
    return sorted([*root.rglob("*_edit.csv"), *root.rglob("train.csv")])


@register_corpus(
    "hat",
    HatConfig,
    inputs=lambda config: _tables(Path(config.root)),
    scoring="syllables",
    licence="by registration, as stated by the Formosa Speech project; no public licence is known",
    origin="Formosa Speech in the Wild (FSW)",
)
def prepare_hat(config: HatConfig, directory: Path) -> CorpusManifests:
    """Manifests of all tables below the folder."""
    root = corpus_root(config.root)
    if not (tables := _tables(root)):
        raise UserError(
            f"{root} has neither a table *_edit.csv nor train.csv; set corpus.root to the folder of "
            "the unpacked corpus"
        )
    return manifests_of(_utterances(root, tables, config), directory)


def _utterances(root: Path, tables: list[Path], config: HatConfig) -> Iterator[Utterance]:
    files = {path.stem: path for path in sorted(root.rglob("*.wav"))}
    left_out, other_notes = 0, Counter[str]()
    for table in tables:
        for row in read_fields(table, ("檔名", *TEXTS.values()), ",", quoted=True):
            if any(word in row["備註"] for word in config.misread):
                left_out += 1
                continue
            if row["備註"]:
                other_notes[row["備註"]] += 1
            yield _utterance(table, row, files, config)
    if left_out:
        logger.warning("%d rows are marked as misread (%s) and left out", left_out, ", ".join(config.misread))
    if other_notes:
        most = ", ".join(f"{note!r} {count}" for note, count in other_notes.most_common(_NOTES_SHOWN))
        logger.info("%d rows have other notes and are used: %s", other_notes.total(), most)


def _utterance(table: Path, row: Fields, files: dict[str, Path], config: HatConfig) -> Utterance:
    name = row["檔名"].removesuffix(".wav")
    match = _SPEAKER.match(name)
    kind = match[1] if match else ""
    speaker = name[: _SPEAKER_LENGTH[kind]] if match else None
    dialect: Variety | str = variety_or_label(DIALECTS.get(kind, config.dialect))
    return Utterance(
        id=f"hat-{name}",
        audio=files.get(name, table.parent / f"{name}.wav"),
        text=row[TEXTS[config.text]].replace("*", ""),
        dialect=dialect,
        split=split_of_speaker(f"hat-{speaker}", config.valid_speakers, config.test_speakers),
        origin=row.origin,
        speaker=f"hat-{speaker}" if speaker else None,
        gender=match[2] if match else "",
        sentence_id=sentence_id_of(row[TEXTS["han"]].replace("*", "")),
        romanisation=row[TEXTS["pinyin"]].replace("*", "") or None,
    )
