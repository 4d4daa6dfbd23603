"""``corpus=common_voice``: one Chinese locale of one release of Mozilla Common Voice (MP3).

Layout: ``<locale>/{train,dev,test,validated,...}.tsv``, ``<locale>/clips/*.mp3`` and, since release 16.1,
``<locale>/clip_durations.tsv``. The columns depend on the release: ``accent`` became ``accents`` and
``variant`` was added in 13, ``sentence_id`` in 17. Quotation marks in sentences are ordinary characters
and need not match. Lhotse's recipe fails on releases without the newer columns and decodes every clip for
its length.

The splits are drawn anew for every release, so a CER is comparable within one release only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import Fields, corpus_root, read_fields
from data_prep.corpora.utterances import Utterance, manifests_of, sentence_id_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import Variety, variety_of_id
from zipformer.errors import UserError

VARIETIES = {
    "yue": "yue",
    "zh-HK": "yue-hongkong",
    "zh-TW": "cmn-taiwan",
    "zh-CN": "cmn-mainland",
    "nan-tw": "nan-taiwan",
}
SPLITS = {"test": "test", "valid": "dev"}
# 食飯 (tsia̍h-pn̄g): Han characters, then the same in Latin letters.
_WITH_ROMANISATION = re.compile(
    r"(?P<han>.*[\u3400-\u9fff\U00020000-\U000323af].*?)[(（](?P<latin>[^()（）]+)[)）]\W*"
)
_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U000323af]")


@dataclass
class CommonVoiceConfig:
    """Which locale is read.

    Attributes:
        root: folder of the release, which holds a folder for each locale (cv-corpus-25.0-2026-03-09).
        locale: yue, zh-HK, zh-TW, zh-CN or nan-tw.
        train: list to train on: train, or validated for all validated clips that are not in dev or test.
            The checks leave out those whose sentence or speaker is in dev or test.
    """

    root: str = MISSING
    locale: str = MISSING
    train: str = "train"

    def __post_init__(self) -> None:
        if self.locale not in (*VARIETIES, MISSING):
            raise UserError(f"corpus.locale is {self.locale!r}; it must be one of {', '.join(VARIETIES)}")
        if self.train not in ("train", "validated"):
            raise UserError(f"corpus.train is {self.train!r}; it must be train or validated")


def _lists(config: CommonVoiceConfig) -> list[Path]:
    folder = Path(config.root) / config.locale
    return [folder / f"{name}.tsv" for name in (config.train, "dev", "test", "clip_durations")]


@register_corpus(
    "common_voice",
    CommonVoiceConfig,
    inputs=_lists,
    licence="CC0, as stated by Mozilla",
    origin="Mozilla Data Collective (account needed)",
)
def prepare_common_voice(config: CommonVoiceConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three splits of a locale."""
    folder = corpus_root(config.root, config.locale) / config.locale
    return manifests_of(_utterances(folder, config), directory)


def _utterances(folder: Path, config: CommonVoiceConfig) -> Iterator[Utterance]:
    variety = variety_of_id(VARIETIES[config.locale])
    seconds = _durations(folder / "clip_durations.tsv")
    held_out: set[str] = set()
    for split, name in {**SPLITS, "train": config.train}.items():
        for row in read_fields(folder / f"{name}.tsv", ("client_id", "path", "sentence")):
            if split != "train":
                held_out.add(row["path"])
            elif row["path"] in held_out:
                continue  # validated.tsv lists the clips of dev and test too
            yield _utterance(row, split, name, folder, variety, seconds.get(row["path"]))


def _utterance(
    row: Fields, split: str, part: str, folder: Path, variety: Variety, seconds: float | None
) -> Utterance:
    text = row["sentence"]
    romanisation = None
    if variety.group == "nan":
        if found := _WITH_ROMANISATION.fullmatch(text):
            romanisation = found["latin"].strip()
        elif not _HAN.search(text):
            romanisation = text
    return Utterance(
        id=f"cv-{Path(row['path']).stem}",
        audio=folder / "clips" / row["path"],
        text=text,
        dialect=variety,
        split=split,
        part=part,
        origin=row.origin,
        speaker=f"cv-{row['client_id']}",
        gender=row["gender"],
        duration=seconds,
        site=row["accents"] or row["accent"] or None,
        sentence_id=sentence_id_of(text),
        romanisation=romanisation,
    )


def _durations(path: Path) -> dict[str, float]:
    """Seconds by clip; empty for releases without this list."""
    if not path.is_file():
        return {}
    rows = read_fields(path, ("clip", "duration[ms]"))
    return {row["clip"]: (row.number("duration[ms]") or 0.0) / 1000 for row in rows}
