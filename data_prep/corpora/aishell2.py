"""``corpus=aishell2``: AISHELL-2, 1,000 hours of read Mandarin of 1,991 speakers, recorded on iOS.

Layout: ``{data,dev,test}/wav.scp`` (``id wav/<speaker>/<id>.wav``), ``{data,dev,test}/trans.txt``
(``id<TAB>text``, with carriage returns) and the files. dev and test are those of AISHELL2-2018A-EVAL.
Lhotse's recipe replaces hyphens in the raw text, so the lists are read here.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, joined
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id

logger = logging.getLogger(__name__)

PARTS = {"data": "train", "dev": "valid", "test": "test"}
BAD_SPEAKER = "C0932"  # the transcripts do not fit the audio


@dataclass
class Aishell2Config:
    """Where AISHELL-2 lies.

    Attributes:
        root: the folder AISHELL-2/iOS, with data, dev and test.
    """

    root: str = MISSING


def _lists(config: Aishell2Config) -> list[Path]:
    return [Path(config.root) / part / name for part in PARTS for name in ("wav.scp", "trans.txt")]


@register_corpus(
    "aishell2",
    Aishell2Config,
    inputs=_lists,
    finish=compare_sizes(Published("valid", utterances=2_500), Published("test", utterances=5_000)),
    licence="for academic research by application, as stated by AISHELL",
    origin="AISHELL (company), by application",
)
def prepare_aishell2(config: Aishell2Config, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    return manifests_of(_utterances(corpus_root(config.root, *PARTS)), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    bad = 0
    for part, split in PARTS.items():
        folder = root / part
        for origin, name, file, (text,) in joined(folder / "wav.scp", [folder / "trans.txt"]):
            speaker = PurePosixPath(file).parent.name
            if speaker == BAD_SPEAKER:
                bad += 1
                continue
            yield Utterance(
                id=f"aishell2-{name}",
                audio=folder / file,
                text=text,
                dialect=variety_of_id("cmn"),
                split=split,
                origin=f"{part}/{origin}",
                speaker=f"aishell2-{speaker}",
            )
    if bad:
        message = "%d utterances of speaker %s are not used: their transcripts belong to other audio"
        logger.warning(message, bad, BAD_SPEAKER)
