"""``corpus=stcmds``: ST-CMDS-20170001_1, 110 hours of read Mandarin commands of 855 speakers.

Layout: one folder with ``20170001P00001A0001.{wav,txt,metadata}``; characters 9 to 15 of the name are the
speaker. There are no official splits, so speakers are held out. Lhotse's recipe is right but opens every
file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_lines
from data_prep.corpora.utterances import Utterance, manifests_of, split_of_speaker
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

_SPEAKER = slice(8, 15)


@dataclass
class StcmdsConfig:
    """Where ST-CMDS lies.

    Attributes:
        root: the folder with the files.
        valid_speakers: share of the speakers who are held out for validation.
        test_speakers: share of the speakers who are held out for the test.
    """

    root: str = MISSING
    valid_speakers: float = 0.01
    test_speakers: float = 0.02


@register_corpus(
    "stcmds",
    StcmdsConfig,
    licence="CC BY-NC-ND 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/38",
)
def prepare_stcmds(config: StcmdsConfig, directory: Path) -> CorpusManifests:
    """Manifests of all files, divided by speaker."""
    return manifests_of(_utterances(corpus_root(config.root), config), directory)


def _utterances(root: Path, config: StcmdsConfig) -> Iterator[Utterance]:
    names = sorted(path.stem for path in root.glob("*.wav"))
    if not names:
        raise UserError(f"{root} has no *.wav; set corpus.root to the folder ST-CMDS-20170001_1-OS")
    for name in names:
        transcript = root / f"{name}.txt"
        text = " ".join(line.text for line in read_lines(transcript)) if transcript.is_file() else ""
        speaker = f"stcmds-{name[_SPEAKER]}"
        yield Utterance(
            id=f"stcmds-{name}",
            audio=root / f"{name}.wav",
            text=text,
            dialect=variety_of_id("cmn"),
            split=split_of_speaker(speaker, config.valid_speakers, config.test_speakers),
            origin=f"{transcript.name}:1",
            speaker=speaker,
        )
