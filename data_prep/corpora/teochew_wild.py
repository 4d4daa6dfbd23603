"""``corpus=teochew_wild``: Teochew-Wild, 18.87 hours of Teochew (Southern Min) from 20 speakers.

Layout: ``annotation.txt`` (``wav|speaker|text|peng'im``), the unpacked ``teochew_wild.zip`` and the official
split ``label_for_qwen_asr/{train,val,test}.jsonl``, whose ``audio`` ends in the name of a WAV file. All
speakers are in all splits. Utterances that are in no split are counted and not used. Lhotse has no recipe.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_fields, read_json_lines
from data_prep.corpora.utterances import Utterance, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

ANNOTATION = "annotation.txt"
COLUMNS = ("wav", "speaker", "text", "pinyin")
LABELS = {name: Path("label_for_qwen_asr") / f"{name}.jsonl" for name in ("train", "val", "test")}


@dataclass
class TeochewWildConfig:
    """Where Teochew-Wild lies.

    Attributes:
        root: folder with annotation.txt, label_for_qwen_asr and the audio in any folder below.
    """

    root: str = MISSING


@register_corpus(
    "teochew_wild",
    TeochewWildConfig,
    inputs=lambda config: [Path(config.root) / file for file in (Path(ANNOTATION), *LABELS.values())],
    licence="CC BY 4.0, as stated by its page at Hugging Face",
    origin="https://huggingface.co/datasets/panlr/teochew_wild",
)
def prepare_teochew_wild(config: TeochewWildConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    return manifests_of(
        _utterances(corpus_root(config.root, ANNOTATION, *map(str, LABELS.values()))), directory
    )


def _splits(root: Path) -> dict[str, str]:
    """Split by name of the WAV file."""
    splits = {}
    for name, file in LABELS.items():
        for row in read_json_lines(root / file):
            if not row["audio"]:
                raise UserError(
                    f"{root / file}:{row.origin.rpartition(':')[2]}: no value audio; copy the file again"
                )
            audio = PurePosixPath(row["audio"].replace("\\", "/"))
            splits[audio.stem] = "valid" if name == "val" else name
    return splits


def _utterances(root: Path) -> Iterator[Utterance]:
    variety, splits = variety_of_id("nan-chaoshan"), _splits(root)
    files = {path.stem: path for path in sorted(root.rglob("*.wav"))}
    without = 0
    for row in read_fields(root / ANNOTATION, COLUMNS, "|", header=COLUMNS):
        name = PurePosixPath(row["wav"]).stem
        if name not in splits:
            without += 1
            continue
        yield Utterance(
            id=f"teochew_wild-{name}",
            audio=files.get(name, root / row["wav"]),
            text=row["text"],
            dialect=variety,
            split=splits[name],
            origin=row.origin,
            speaker=f"teochew_wild-{row['speaker']}",
            romanisation=row["pinyin"] or None,
        )
    if without:
        logger.warning("%d utterances of %s are in no official split and are not used", without, ANNOTATION)
