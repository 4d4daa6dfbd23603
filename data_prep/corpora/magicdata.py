"""``corpus=magicdata``: MagicData Mandarin Chinese Read Speech Corpus, 755 hours of 1,080 speakers.

Layout: ``{train,dev,test}/TRANS.txt`` with ``UtteranceID SpeakerID Transcription``,
``{train,dev,test}/<speaker>/<utterance>.wav`` and ``SPKINFO.txt``. Transcripts have labels such as
``[FIL]``, marks of byte order and ideographic spaces inside. Lhotse's recipe deletes the letters FIL and
SPK of any word.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_fields
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id

logger = logging.getLogger(__name__)

PARTS = {"train": "train", "dev": "valid", "test": "test"}
BAD = ("16_4013_20170819121429", "18_1565_20170712000170")  # their audio is damaged


@dataclass
class MagicDataConfig:
    """Where MagicData lies.

    Attributes:
        root: the folder with train, dev and test.
    """

    root: str = MISSING


def _lists(config: MagicDataConfig) -> list[Path]:
    return [Path(config.root) / part / "TRANS.txt" for part in PARTS]


@register_corpus(
    "magicdata",
    MagicDataConfig,
    inputs=_lists,
    finish=compare_sizes(Published("test", characters=239_927)),
    licence="CC BY-NC-ND 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/68",
)
def prepare_magicdata(config: MagicDataConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    return manifests_of(_utterances(corpus_root(config.root, *PARTS)), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    speakers = {}
    if (table := root / "SPKINFO.txt").is_file():
        speakers = {row["SPKID"]: (row["Gender"], row["Dialect"]) for row in read_fields(table, ("SPKID",))}
    for part, split in PARTS.items():
        columns = ("UtteranceID", "SpeakerID", "Transcription")
        for row in read_fields(root / part / "TRANS.txt", columns):
            file, speaker = row["UtteranceID"], row["SpeakerID"]
            name = file.removesuffix(".wav")
            if name in BAD:
                logger.warning("%s is not used: its audio is known to be damaged", name)
                continue
            gender, place = speakers.get(speaker, ("", ""))
            yield Utterance(
                id=f"magicdata-{name}",
                audio=root / part / speaker / f"{name}.wav",
                text=row["Transcription"],
                dialect=variety_of_id("cmn"),
                split=split,
                origin=f"{part}/{row.origin}",
                speaker=f"magicdata-{speaker}",
                gender=gender,
                site=place or None,
            )
