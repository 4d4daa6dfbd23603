"""``corpus=primewords``: Primewords Chinese Corpus Set 1, 99 hours of read Mandarin.

Layout: ``set1_transcript.json``, a list of ``{id, user_id, file, length, text}``, and
``audio_files/<first character>/<first two>/<file>``. There are no official splits, so speakers are held
out. Lhotse's recipe walks over the audio and fails on a file without an entry; the list is read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_json_array
from data_prep.corpora.utterances import Utterance, manifests_of, split_of_speaker
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id

LIST = "set1_transcript.json"


@dataclass
class PrimewordsConfig:
    """Where Primewords lies.

    Attributes:
        root: the folder primewords_md_2018_set1.
        valid_speakers: share of the speakers who are held out for validation.
        test_speakers: share of the speakers who are held out for the test.
    """

    root: str = MISSING
    valid_speakers: float = 0.02
    test_speakers: float = 0.03


@register_corpus(
    "primewords",
    PrimewordsConfig,
    inputs=lambda config: [Path(config.root) / LIST],
    licence="CC BY-NC-ND 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/47",
)
def prepare_primewords(config: PrimewordsConfig, directory: Path) -> CorpusManifests:
    """Manifests of all utterances of the list, divided by speaker."""
    return manifests_of(_utterances(corpus_root(config.root, LIST, "audio_files"), config), directory)


def _utterances(root: Path, config: PrimewordsConfig) -> Iterator[Utterance]:
    for row in read_json_array(root / LIST):
        file, speaker = row["file"], f"primewords-{row['user_id']}"
        yield Utterance(
            id=f"primewords-{Path(file).stem}",
            audio=root / "audio_files" / file[:1] / file[:2] / file,
            text=row["text"],
            dialect=variety_of_id("cmn"),
            split=split_of_speaker(speaker, config.valid_speakers, config.test_speakers),
            origin=row.origin,
            speaker=speaker,
            duration=row.number("length"),
        )
