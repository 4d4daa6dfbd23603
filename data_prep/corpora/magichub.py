"""``corpus=magichub``: the dialect sets of MagicHub, scripted or conversational, one set a run.

- Scripted: ``UTTRANSINFO.txt`` (or ``UTTERANCEINFO.txt``) with ``CHANNEL UTTRANS_ID SPEAKER_ID PROMPT
  TRANSCRIPTION``, ``SPKINFO.txt`` and ``WAV/<speaker>/<utterance>``; the set of twelve cities of Sichuan
  and Chongqing has a folder with these files for each city. Its archive writes the names of the cities in
  GBK, which unzip may leave as other letters; they are put right.
- Conversational: ``TXT/<id>.txt``, lines ``[start,end]<TAB>speaker<TAB>gender<TAB>text`` in seconds,
  UTF-8 or GB 18030, and ``WAV/<id>.wav``. What is spoken by nobody, such as
  ``[0.0,2.1]<TAB>0<TAB>none<TAB>[ENS]``, has no speaker.

The sets have no official splits. Published systems are tested on them and not trained on them, so that
all of a set is the split test. Lhotse has no recipe.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_fields
from data_prep.corpora.turns import read_turns
from data_prep.corpora.utterances import Utterance, manifests_of, variety_or_label
from data_prep.manifests import SPLITS, CorpusManifests
from zipformer.errors import UserError

TABLES = ("UTTRANSINFO.txt", "UTTERANCEINFO.txt")
_HAN = re.compile(r"[\u4e00-\u9fff]+")


@dataclass
class MagicHubConfig:
    """A set and its dialect.

    Attributes:
        root: folder of the unpacked set.
        dialect: its dialect, an id or a label of the taxonomy, e.g. Guangzhou, Changsha or Nanchang; null
            where each folder of a table has the name of its city.
        dialect_map: id of the taxonomy for labels that it does not know.
        split: train, valid or test, for the whole set.
        name: beginning of the utterance ids, so that two sets can be used together; the folder's if null.
    """

    root: str = MISSING
    dialect: str | None = None
    dialect_map: dict[str, str] = field(default_factory=dict)
    split: str = "test"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"corpus.split is {self.split!r}; it must be one of {', '.join(SPLITS)}")


def _lists(config: MagicHubConfig) -> list[Path]:
    return _tables(Path(config.root)) or sorted((Path(config.root) / "TXT").glob("*.txt"))


def _tables(root: Path) -> list[Path]:
    return sorted(path for name in TABLES for path in root.rglob(name))


@register_corpus(
    "magichub",
    MagicHubConfig,
    inputs=_lists,
    licence="CC BY-NC-ND 4.0, as stated by MagicHub",
    origin="MagicHub, a page for each set (account needed)",
)
def prepare_magichub(config: MagicHubConfig, directory: Path) -> CorpusManifests:
    """Manifests of one set."""
    root = corpus_root(config.root)
    tables, conversations = _tables(root), sorted((root / "TXT").glob("*.txt"))
    if not tables and not conversations:
        raise UserError(
            f"{root} has neither {TABLES[0]} (a scripted set) nor TXT/*.txt (a conversational one); set "
            "corpus.root to the folder of the unpacked set"
        )
    for wav in [root / "WAV", *sorted(root.glob("*/WAV"))] if tables else []:
        if wav.is_dir() and not any(table.parent == wav.parent for table in tables):
            raise UserError(
                f"{wav.parent / tables[0].name} does not exist, although there is {wav}; unpack the set "
                "completely, or correct corpus.root"
            )
    if not tables and config.dialect is None:
        raise UserError("corpus.root is a conversational set: set its dialect, e.g. corpus.dialect=Guangzhou")
    utterances = (
        (one for table in tables for one in _scripted(table, config))
        if tables
        else (one for text in conversations for one in _conversation(root, text, config))
    )
    return manifests_of(utterances, directory)


def _scripted(table: Path, config: MagicHubConfig) -> Iterator[Utterance]:
    folder = table.parent
    city = city_name(folder.name) if config.dialect is None else None
    genders = {}
    if (speakers := folder / "SPKINFO.txt").is_file():
        genders = {row["SPEAKER_ID"]: row["GENDER"] for row in read_fields(speakers, ("SPEAKER_ID",))}
    name = config.name or Path(config.root).name
    variety = variety_or_label(config.dialect or city or "", config.dialect_map)
    for row in read_fields(table, ("UTTRANS_ID", "SPEAKER_ID", "TRANSCRIPTION")):
        file, speaker = row["UTTRANS_ID"], row["SPEAKER_ID"]
        yield Utterance(
            id=f"{name}-{file.removesuffix('.wav')}",
            audio=folder / "WAV" / speaker / (file if file.endswith(".wav") else f"{file}.wav"),
            text=row["TRANSCRIPTION"],
            dialect=variety,
            split=config.split,
            origin=f"{city}/{row.origin}" if city else row.origin,
            speaker=f"{name}-{speaker}",
            gender=genders.get(speaker, ""),
            site=city,
        )


def _conversation(root: Path, transcript: Path, config: MagicHubConfig) -> Iterator[Utterance]:
    name = config.name or Path(config.root).name
    recording = f"{name}-{transcript.stem}"
    variety = variety_or_label(config.dialect or "", config.dialect_map)
    for turn in read_turns(transcript, fallback="gb18030"):
        yield Utterance(
            id=f"{recording}-{turn.number:05d}",
            audio=root / "WAV" / f"{transcript.stem}.wav",
            text=turn.text,
            dialect=variety,
            split=config.split,
            origin=turn.origin,
            speaker=f"{name}-{turn.speaker}",
            gender=turn.gender,
            duration=turn.end - turn.start,
            start=turn.start,
            recording=recording,
        )


def city_name(folder: str) -> str:
    """Name of a folder that an archive has written in GBK, whatever unzip has made of it.

    Programs take the bytes for those of code page 437, or leave them as bytes that are no UTF-8.
    """
    if _HAN.search(folder):
        return folder
    try:
        undecoded = any("\ud800" <= character <= "\udfff" for character in folder)
        return (os.fsencode(folder) if undecoded else folder.encode("cp437")).decode("gb18030")
    except UnicodeError:
        return folder
