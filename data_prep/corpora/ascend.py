"""``corpus=ascend``: ASCEND, 10.6 hours of conversation in Mandarin and English from Hong Kong.

Layout: Parquet tables ``{train,validation,test}-*.parquet`` in any folder, with ``id``, ``audio`` (the bytes
of a WAV file), ``transcription``, ``duration`` (seconds), ``language`` (zh, en or mixed),
``original_speaker_id`` and ``session_id``. Numbers of sessions repeat between the splits; speakers do not.
The files are written to the data directory once. Error rates are shown by ``language`` too. Lhotse has no
recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root
from data_prep.corpora.parquet import read_parquet, written_audio
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

PARTS = {"train": "train", "validation": "valid", "test": "test"}
COLUMNS = ("id", "audio", "transcription", "duration", "language", "original_speaker_id")


@dataclass
class AscendConfig:
    """Where ASCEND lies.

    Attributes:
        root: folder with the Parquet tables.
    """

    root: str = MISSING


def _tables(root: Path, part: str) -> list[Path]:
    return sorted(root.rglob(f"{part}-*.parquet"))


@register_corpus(
    "ascend",
    AscendConfig,
    inputs=lambda config: [table for part in PARTS for table in _tables(Path(config.root), part)],
    finish=compare_sizes(
        Published("train", utterances=9_869),
        Published("valid", utterances=1_130),
        Published("test", utterances=1_315),
    ),
    scoring="mer",
    licence="CC BY-SA 4.0, as stated by its page at Hugging Face",
    origin="https://huggingface.co/datasets/CAiRE/ASCEND",
)
def prepare_ascend(config: AscendConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits; their audio is written first."""
    root = corpus_root(config.root)
    for part in PARTS:
        if not _tables(root, part):
            raise UserError(
                f"{root / f'{part}-*.parquet'}: there is no such table; download the corpus completely, or "
                "correct corpus.root"
            )
    return manifests_of(_utterances(root, directory / "audio"), directory)


def _utterances(root: Path, folder: Path) -> Iterator[Utterance]:
    for part, split in PARTS.items():
        for table in _tables(root, part):
            for count, row in enumerate(read_parquet(table, COLUMNS), start=1):
                speaker = row["original_speaker_id"]
                yield Utterance(
                    id=f"ascend-{part}-{row['id']}",
                    audio=written_audio(row["audio"], folder / part / f"{row['id']}.wav"),
                    text=row["transcription"] or "",
                    dialect=variety_of_id("cmn"),
                    split=split,
                    part=row["language"],
                    origin=f"{table.name}, row {count}",
                    speaker=None if speaker is None else f"ascend-{speaker}",
                    duration=row["duration"],
                )
