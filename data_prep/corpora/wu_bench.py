"""``corpus=wu_bench``: the recognition test of WenetSpeech-Wu-Bench, 9.75 hours of Shanghai and Suzhou Wu.

Layout: ``understanding/asr.parquet`` with ``utt_id``, ``label`` (the transcript) and ``audio`` (the bytes
of a WAV file). ``understanding/ast.parquet`` is the test of translation: the same columns, with the text in
standard Mandarin as ``label``. An utterance that is in both has its translation beside the transcript. Those
of the second table alone have no transcript; they are counted and not used. The tables do not say which
variety is spoken. The files are written to the data directory once. Lhotse has no recipe.
"""

import logging
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

logger = logging.getLogger(__name__)

TABLE = Path("understanding") / "asr.parquet"
TRANSLATIONS = Path("understanding") / "ast.parquet"


@dataclass
class WuBenchConfig:
    """Where the benchmark lies.

    Attributes:
        root: the folder WenetSpeech-Wu-Bench.
    """

    root: str = MISSING


def _tables(config: WuBenchConfig) -> list[Path]:
    tables = [Path(config.root) / TABLE, Path(config.root) / TRANSLATIONS]
    return [tables[0], *(table for table in tables[1:] if table.is_file())]


@register_corpus(
    "wu_bench",
    WuBenchConfig,
    inputs=_tables,
    finish=compare_sizes(Published("test", utterances=4_851)),
    scoring="wsyue",
    licence="Apache-2.0, as stated by its page at Hugging Face",
    origin="https://huggingface.co/datasets/ASLP-lab/WenetSpeech-Wu-Bench",
)
def prepare_wu_bench(config: WuBenchConfig, directory: Path) -> CorpusManifests:
    """Manifests of the test; its audio is written first, where an earlier run has not done so."""
    return manifests_of(_utterances(corpus_root(config.root, str(TABLE)), directory / "audio"), directory)


def _utterances(root: Path, folder: Path) -> Iterator[Utterance]:
    translations = _translations(root / TRANSLATIONS)
    for count, row in enumerate(read_parquet(root / TABLE, ("utt_id", "label", "audio")), start=1):
        name = str(row["utt_id"])
        yield Utterance(
            id=f"wubench-{name}",
            audio=written_audio(row["audio"], folder / f"{name}.wav"),
            text=row["label"] or "",
            dialect=variety_of_id("wuu"),
            split="test",
            origin=f"{TABLE.name}, row {count}",
            translation=translations.pop(name, None),
        )
    if translations:
        logger.warning(
            "%d utterances of %s have no transcript in %s and are not used",
            len(translations),
            TRANSLATIONS,
            TABLE,
        )


def _translations(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    return {str(row["utt_id"]): row["label"] or "" for row in read_parquet(table, ("utt_id", "label"))}
