"""``corpus=wu_bench``: the recognition test of WenetSpeech-Wu-Bench, 9.75 hours of Shanghai and Suzhou Wu.

Layout: ``understanding/asr.parquet`` with ``utt_id``, ``label`` (the transcript) and ``audio`` (the bytes
of a WAV file). The table does not say which variety is spoken. The files are written to the data
directory once. Lhotse has no recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError
from zipformer.files import replacing

TABLE = Path("understanding") / "asr.parquet"
COLUMNS = ["utt_id", "label", "audio"]
_ROWS = 64  # held in memory at a time


@dataclass
class WuBenchConfig:
    """Where the benchmark lies.

    Attributes:
        root: the folder WenetSpeech-Wu-Bench.
    """

    root: str = MISSING


@register_corpus(
    "wu_bench",
    WuBenchConfig,
    inputs=lambda config: [Path(config.root) / TABLE],
    finish=compare_sizes(Published("test", utterances=4_851)),
)
def prepare_wu_bench(config: WuBenchConfig, directory: Path) -> CorpusManifests:
    """Manifests of the test; its audio is written first, where an earlier run has not done so."""
    table = corpus_root(config.root, str(TABLE)) / TABLE
    return manifests_of(_utterances(table, directory / "audio"), directory)


def _utterances(table: Path, folder: Path) -> Iterator[Utterance]:
    for count, row in enumerate(_rows(table), start=1):
        name = str(row["utt_id"])
        audio = folder / f"{name}.wav"
        if not audio.is_file():
            with replacing(audio) as temporary:
                temporary.write_bytes(row["audio"] or b"")
        yield Utterance(
            id=f"wubench-{name}",
            audio=audio,
            text=row["label"] or "",
            dialect=variety_of_id("wuu"),
            split="test",
            origin=f"{table.name}, row {count}",
        )


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("pyarrow is missing: pip install 'fangyan[yubao]'") from error
    try:
        file = pyarrow.parquet.ParquetFile(table)
        if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
            raise UserError(
                f"{table}: no column {', '.join(missing)}; the columns are {file.schema_arrow.names}"
            )
        for batch in file.iter_batches(_ROWS, columns=COLUMNS):
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{table}: damaged or cut off ({error}); download it again") from error
