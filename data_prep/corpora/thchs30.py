"""``corpus=thchs30``: THCHS-30, 35 hours of read Mandarin.

Layout: ``data/A11_0.wav`` and ``data/A11_0.wav.trn`` (words, pinyin and phones on a line each); the
folders train, dev and test link to them. The ``.trn`` files there hold a path only, so texts are read in
data. Lhotse's recipe is right but keeps the spaces between words and opens every file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_lines
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id


@dataclass
class Thchs30Config:
    """Where THCHS-30 lies.

    Attributes:
        root: the folder data_thchs30, with data, train, dev and test.
    """

    root: str = MISSING


@register_corpus(
    "thchs30",
    Thchs30Config,
    finish=compare_sizes(Published("test", utterances=2_495, characters=81_139)),
    licence="Apache-2.0, as stated by OpenSLR",
    origin="https://www.openslr.org/18",
)
def prepare_thchs30(config: Thchs30Config, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    return manifests_of(_utterances(corpus_root(config.root, "data", "train", "dev", "test")), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    for part, split in {"train": "train", "dev": "valid", "test": "test"}.items():
        for name in sorted(path.name for path in (root / part).glob("*.wav")):
            transcript = root / "data" / f"{name}.trn"
            lines = [line.text for line in read_lines(transcript)] if transcript.is_file() else []
            words, pinyin = [*lines, "", ""][:2]
            stem = name.removesuffix(".wav")
            yield Utterance(
                id=f"thchs30-{stem}",
                audio=root / "data" / name,
                text=words,
                dialect=variety_of_id("cmn"),
                split=split,
                origin=f"{name}.trn:1",
                speaker=f"thchs30-{stem.partition('_')[0]}",
                romanisation=pinyin or None,
            )
