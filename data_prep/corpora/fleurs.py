"""``corpus=fleurs``: the same sentences read in Mandarin and Cantonese (FLEURS).

Layout: ``data/<language>/{train,dev,test}.tsv`` and ``data/<language>/audio/<split>/*.wav``. The tables
have no header; their columns are id, file, raw text, text, characters, samples and gender. Ids are shared
by all languages, so they serve as sentence numbers for retrieval. There are no speaker ids. Lhotse's
recipe reads another layout, takes the sentence for the speaker and stops at an empty field.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_fields
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of
from zipformer.errors import UserError

LANGUAGES = ("cmn_hans_cn", "yue_hant_hk")
COLUMNS = ("id", "file", "raw", "text", "characters", "samples", "gender")
_RATE = 16000  # Hz, of the column samples


@dataclass
class FleursConfig:
    """Which languages are read.

    Attributes:
        root: the folder data, with a folder for each language and its archives in audio unpacked.
        languages: cmn_hans_cn, yue_hant_hk or both.
    """

    root: str = MISSING
    languages: list[str] = field(default_factory=lambda: list(LANGUAGES))

    def __post_init__(self) -> None:
        if not self.languages or set(self.languages) - set(LANGUAGES):
            raise UserError(f"corpus.languages is {self.languages}; choose from {', '.join(LANGUAGES)}")


def _lists(config: FleursConfig) -> list[Path]:
    root = Path(config.root)
    return [root / name / f"{part}.tsv" for name in config.languages for part in ("train", "dev", "test")]


@register_corpus(
    "fleurs",
    FleursConfig,
    inputs=_lists,
    finish=compare_sizes(
        Published("train", "cmn_hans_cn", utterances=3_246),
        Published("valid", "cmn_hans_cn", utterances=409),
        Published("test", "cmn_hans_cn", utterances=945),
        Published("test", "yue_hant_hk", utterances=819),
    ),
    licence="CC BY 4.0, as stated by its page at Hugging Face",
    origin="https://huggingface.co/datasets/google/fleurs",
)
def prepare_fleurs(config: FleursConfig, directory: Path) -> CorpusManifests:
    """Manifests of the official splits of all languages together."""
    root = corpus_root(config.root, *config.languages)
    return manifests_of(_utterances(root, config.languages), directory)


def _utterances(root: Path, languages: list[str]) -> Iterator[Utterance]:
    for language in languages:
        for part in ("train", "dev", "test"):
            for row in read_fields(root / language / f"{part}.tsv", COLUMNS, header=COLUMNS):
                samples = row.number("samples")
                yield Utterance(
                    id=f"fleurs-{language}-{Path(row['file']).stem}",
                    audio=root / language / "audio" / part / row["file"],
                    text=row["raw"],
                    dialect=variety_of(language),
                    split="valid" if part == "dev" else part,
                    part=language,
                    origin=f"{language}/{row.origin}",
                    gender=row["gender"],
                    duration=samples / _RATE if samples else None,
                    sentence_id=f"fleurs-{row['id']}",
                )
