"""``corpus=talcs``: TALCS, 587 hours of lessons in Mandarin with English words.

Layout: ``{train_set,dev_set,test_set}/label.txt`` (``id text``) and
``{train_set,dev_set,test_set}/wav/<id>.wav``. Some letters of English words are full-width. There are no
speaker ids; Lhotse's recipe takes the utterance for one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_pairs
from data_prep.corpora.utterances import Utterance, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id

PARTS = {"train_set": "train", "dev_set": "valid", "test_set": "test"}


@dataclass
class TalcsConfig:
    """Where TALCS lies.

    Attributes:
        root: the folder TALCS_corpus.
    """

    root: str = MISSING


@register_corpus(
    "talcs",
    TalcsConfig,
    inputs=lambda config: [Path(config.root) / part / "label.txt" for part in PARTS],
    scoring="mer",
    licence="by application, as stated by its authors; no public licence is known",
    origin="TAL Education (company), by application",
)
def prepare_talcs(config: TalcsConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    return manifests_of(_utterances(corpus_root(config.root, *PARTS)), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    for part, split in PARTS.items():
        for origin, name, text in read_pairs(root / part / "label.txt"):
            yield Utterance(
                id=f"talcs-{name}",
                audio=root / part / "wav" / f"{name}.wav",
                text=text,
                dialect=variety_of_id("cmn"),
                split=split,
                origin=f"{part}/{origin}",
            )
