"""``corpus=speechio``: the Mandarin test sets of the SpeechIO leaderboard, 00 to 26.

Layout: a folder for each set with ``metadata.tsv`` (``ID AUDIO DURATION TEXT``) and ``wav``. All of them
are the split test, and ``part`` is the name of the set. Lhotse's recipe puts the whole path into the ids
and may read a text of digits as a number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_fields
from data_prep.corpora.utterances import Utterance, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

METADATA = "metadata.tsv"


@dataclass
class SpeechioConfig:
    """Where the test sets lie.

    Attributes:
        root: folder that holds SPEECHIO_ASR_ZH00001 and others.
    """

    root: str = MISSING


def _sets(root: Path) -> list[Path]:
    return sorted(root.glob("SPEECHIO_ASR_ZH*"))


@register_corpus(
    "speechio",
    SpeechioConfig,
    inputs=lambda config: [folder / METADATA for folder in _sets(Path(config.root))],
    scoring="speechio",
    origin="https://github.com/SpeechColab/Leaderboard",
)
def prepare_speechio(config: SpeechioConfig, directory: Path) -> CorpusManifests:
    """Manifests of all sets that are there.

    Raises:
        UserError: there is none.
    """
    root = corpus_root(config.root)
    if not _sets(root):
        raise UserError(f"{root} holds no folder SPEECHIO_ASR_ZH*; set corpus.root to the folder of the sets")
    return manifests_of(_utterances(root), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    for folder in _sets(root):
        for row in read_fields(folder / METADATA, ("ID", "AUDIO", "DURATION", "TEXT")):
            yield Utterance(
                id=f"{folder.name}-{row['ID']}",
                audio=folder / row["AUDIO"],
                text=row["TEXT"],
                dialect=variety_of_id("cmn"),
                split="test",
                part=folder.name,
                origin=f"{folder.name}/{row.origin}",
                duration=row.number("DURATION"),
            )
