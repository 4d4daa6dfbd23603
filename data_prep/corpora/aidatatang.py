"""``corpus=aidatatang``: aidatatang_200zh, 200 hours of read Mandarin of 600 speakers.

Layout: ``corpus/{train,dev,test}/G0013/T0055G0013S0001.wav`` (the archive of each speaker unpacked) and
``transcript/aidatatang_200_zh_transcript.txt``, lines ``id word word ...``. Lhotse's recipe is right but
keeps the spaces between words and opens every file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root
from data_prep.corpora.utterances import (
    Published,
    Utterance,
    compare_sizes,
    manifests_of,
    read_speaker_folders,
)
from data_prep.manifests import CorpusManifests

TRANSCRIPTS = Path("transcript") / "aidatatang_200_zh_transcript.txt"
_SPEAKER = slice(5, 10)


@dataclass
class AidatatangConfig:
    """Where aidatatang_200zh lies.

    Attributes:
        root: the folder with corpus and transcript.
    """

    root: str = MISSING


@register_corpus(
    "aidatatang",
    AidatatangConfig,
    inputs=lambda config: [Path(config.root) / TRANSCRIPTS],
    finish=compare_sizes(Published("test", characters=468_933)),
    licence="CC BY-NC-ND 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/62",
)
def prepare_aidatatang(config: AidatatangConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    root = corpus_root(config.root, "corpus", str(TRANSCRIPTS))
    return manifests_of(_utterances(root), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    return read_speaker_folders("aidatatang", root / "corpus", root / TRANSCRIPTS, _SPEAKER)
