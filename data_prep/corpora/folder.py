"""``corpus=folder``: recordings of one's own, described by a table.

The table (TSV, UTF-8, with a header) has a row per utterance: the path of its audio, its transcript, its
dialect, and where known its speaker, site, sentence number, split, translation, and pronunciation in IPA or
a romanisation. Column names are free (``corpus.columns``), so that tables made for other tools can be read as
they are.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from omegaconf import MISSING

from data_prep.corpora import SPLITS, CorpusManifests, register_corpus
from data_prep.decoding import UndecodableError, read_header
from data_prep.errors import PreparationError
from data_prep.splitting import Sentence, SplitConfig, split_by_sentence
from data_prep.tables import Columns, Row, read_table
from data_prep.taxonomy import UnknownDialectError, variety_of
from data_prep.text import TextNormaliser

logger = logging.getLogger(__name__)

_HEADER_THREADS = 8
_UNREADABLE_RATE = 16000  # Lhotse wants a rate even where there is no audio to have one


@dataclass
class FolderConfig:
    """A folder of recordings and its table.

    Attributes:
        tsv: the table.
        audio_dir: folder that relative paths of the table start from; the table's own folder if not given.
        delimiter: between the values of a line of the table.
        columns: names of the table's columns.
        keep: by column, the values of the rows to use, e.g. ``{lang: [yue, nan]}``; all rows if empty.
        dialect_map: from a dialect label of the table to an id or label of the taxonomy, for labels that the
            taxonomy does not know.
        split_map: from a value of the split column to train, valid or test, e.g. ``{dev: valid}``.
        split: how sentences are held out where the table has no split column.
        id_prefix: put before every utterance id, so that two prepared folders can be used together.
    """

    tsv: str = MISSING
    audio_dir: str | None = None
    delimiter: str = "\t"
    columns: Columns = field(default_factory=Columns)
    keep: dict[str, list[str]] = field(default_factory=dict)
    dialect_map: dict[str, str] = field(default_factory=dict)
    split_map: dict[str, str] = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    id_prefix: str = ""


def _table_of(config: FolderConfig) -> list[Path]:
    return [Path(config.tsv)]


@register_corpus("folder", FolderConfig, inputs=_table_of)
def prepare_folder(config: FolderConfig, directory: Path) -> CorpusManifests:
    """Manifests of the recordings in a table.

    A dialect label that nobody knows, an empty transcript or a bad audio file is left for the checks to
    report, together with the line of the table.

    Raises:
        PreparationError: the table itself cannot be used; the message names the line.
    """
    table = Path(config.tsv)
    rows = read_table(table, config.columns, config.delimiter, config.keep)
    audio_dir = Path(config.audio_dir) if config.audio_dir else table.parent
    files = [_resolved(audio_dir / row["path"]) for row in rows]
    ids = [config.id_prefix + _utterance_id(row) for row in rows]
    splits = _splits(rows, config)
    logger.info("%s: %d rows, reading the headers of their audio", table, len(rows))
    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        recordings = list(threads.map(_recording, ids, files))

    parts: dict[str, tuple[dict[str, Recording], list[SupervisionSegment]]] = {}
    for row, split, recording in zip(rows, splits, recordings, strict=True):
        split_recordings, split_supervisions = parts.setdefault(split, ({}, []))
        split_recordings.setdefault(
            recording.id, recording
        )  # a second row of this id is for the checks to report
        split_supervisions.append(_supervision(row, recording, config))
    return {
        split: (RecordingSet.from_recordings(found.values()), SupervisionSet.from_segments(supervisions))
        for split, (found, supervisions) in parts.items()
    }


def _utterance_id(row: Row) -> str:
    """The id column, or else the path without its suffix (``wav/a/1.flac`` is ``wav-a-1``)."""
    path = Path(row["path"])
    return row.get("id") or "-".join([*path.parts[:-1], path.stem]).lstrip("/-.") or row["path"]


def _resolved(path: Path) -> Path:
    """A path without links; one that no file can have stays as it is, for the checks to report."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL character
        return path.absolute()


def _splits(rows: Sequence[Row], config: FolderConfig) -> list[str]:
    if "split" in rows[0].values:
        return [_split_of_row(row, config) for row in rows]
    normaliser = TextNormaliser()
    sentences = [Sentence(row.get("sentence_id"), normaliser(row["text"]), row["dialect"]) for row in rows]
    return split_by_sentence(sentences, config.split)


def _split_of_row(row: Row, config: FolderConfig) -> str:
    split = config.split_map.get(row["split"], row["split"])
    if split not in SPLITS:
        raise PreparationError(
            f"{row.origin}: split {row['split']!r} is not one of {', '.join(SPLITS)}; map it, e.g. "
            f"'+corpus.split_map={{{row['split'] or 'dev'}: valid}}'"
        )
    return split


def _recording(recording_id: str, file: Path) -> Recording:
    """Recording as its header describes it; without samples where the file cannot be read."""
    frames, rate, channels = 0, _UNREADABLE_RATE, 1
    try:
        header = read_header(file)
        frames, rate, channels = header.num_samples, header.sampling_rate, header.num_channels
    except (FileNotFoundError, UndecodableError) as error:
        # The checks decode every file and report this one by utterance id.
        logger.debug("%s: %s", file, error)
    return Recording(
        id=recording_id,
        sources=[AudioSource(type="file", channels=list(range(channels)), source=str(file))],
        sampling_rate=rate,
        num_samples=frames,
        duration=frames / rate,
    )


def _supervision(row: Row, recording: Recording, config: FolderConfig) -> SupervisionSegment:
    try:
        variety = variety_of(row["dialect"], config.dialect_map)
        language, subdialect = variety.group, variety.subdialect
    except UnknownDialectError:
        language, subdialect = row["dialect"], None  # reported by the checks
    custom = {
        "subdialect": subdialect,
        "site": row.get("site"),
        "sentence_id": row.get("sentence_id"),
        "translation": row.get("translation"),
        "ipa": row.get("ipa"),
        "romanisation": row.get("romanisation"),
        "origin": row.origin,
    }
    return SupervisionSegment(
        id=recording.id,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        # All channels: which of them are used is for audio.channel to say.
        channel=recording.channel_ids if recording.num_channels > 1 else 0,
        text=row["text"],
        language=language,
        speaker=row.get("speaker"),
        custom={name: value for name, value in custom.items() if value is not None},
    )
