"""``corpus=folder``: your own recordings, described by a table.

The table (TSV, UTF-8, with a header) has a row for each utterance: path of the audio, transcript, dialect,
and optionally speaker, site, sentence number, split, translation, and pronunciation in IPA or a romanisation.
The names of the columns can be set (``corpus.columns``), so that tables made for other tools can be read
unchanged.
"""

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from omegaconf import MISSING

from data_prep.audio.decoding import UndecodableError, read_header
from data_prep.corpora import register_corpus
from data_prep.delimited import read_text
from data_prep.manifests import SPLITS, CorpusManifests
from data_prep.progress import progress
from data_prep.splitting import Sentence, SplitConfig, split_by_sentence, warn_of_few
from data_prep.tables import Columns, Row, read_table
from data_prep.taxonomy import UnknownDialectError, Variety, variety_of
from data_prep.text.normaliser import TextNormaliser
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

_HEADER_THREADS = 8
_UNREADABLE_RATE = 16000  # Lhotse needs a rate even for audio that cannot be read


@dataclass
class FolderConfig:
    """A folder of recordings and its table.

    Attributes:
        tsv: file of the table.
        audio_dir: folder for relative paths in the table; by default the folder of the table.
        delimiter: character between the values of a line of the table.
        quoted: true if quotation marks enclose values of the table, as in CSV; false if they are ordinary
            characters. By default true unless the delimiter is a tab.
        encoding: encoding of the table, if it is neither UTF-8 nor UTF-16, e.g. ``gb18030`` or ``big5hkscs``.
        columns: names of the columns of the table.
        keep: values of the rows to use, by column, e.g. ``{lang: [yue, nan]}``; all rows if empty.
        dialect_map: id or label of the taxonomy for each dialect label of the table that is not in the
            taxonomy or is ambiguous.
        dialect_map_file: text file with further mappings, one in each line: label, tab, id. For labels that
            cannot be keys on Hydra's command line, such as Chinese characters.
        split_map: train, valid or test for each value of the split column, e.g. ``{dev: valid}``.
        split: number and choice of held-out sentences, for a table without a split column.
        id_prefix: prefix of every utterance id, so that two prepared folders can be used together.
    """

    tsv: str = MISSING
    audio_dir: str | None = None
    delimiter: str = "\t"
    quoted: bool | None = None
    encoding: str = "utf-8"
    columns: Columns = field(default_factory=Columns)
    keep: dict[str, list[str]] = field(default_factory=dict)
    dialect_map: dict[str, str] = field(default_factory=dict)
    dialect_map_file: str | None = None
    split_map: dict[str, str] = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    id_prefix: str = ""


def _tables_of(config: FolderConfig) -> list[Path]:
    return [Path(config.tsv), *([Path(config.dialect_map_file)] if config.dialect_map_file else [])]


@register_corpus("folder", FolderConfig, inputs=_tables_of)
def prepare_folder(config: FolderConfig, directory: Path) -> CorpusManifests:
    """Manifests of the recordings in a table.

    Unknown or ambiguous dialect labels, empty transcripts and bad audio files are reported later by the
    checks, with the line of the table.

    Raises:
        UserError: the table itself cannot be used; the message names the line.
    """
    table = Path(config.tsv)
    rows = read_table(
        table, config.columns, config.delimiter, config.keep, quoted=config.quoted, encoding=config.encoding
    )
    varieties = _varieties(rows, config)
    audio_dir = Path(config.audio_dir) if config.audio_dir else table.parent
    files = [_resolved(audio_dir / row["path"]) for row in rows]
    ids = [config.id_prefix + _utterance_id(row) for row in rows]
    splits = _splits(rows, config)
    logger.info("%s: %d rows, reading the headers of their audio", table, len(rows))
    with (
        progress(f"headers of {table.name}", len(rows), "recordings") as advance,
        ThreadPoolExecutor(_HEADER_THREADS) as threads,
    ):
        recordings = []
        for recording in threads.map(_recording, ids, files):
            recordings.append(recording)
            advance(1)

    parts: dict[str, tuple[dict[str, Recording], list[SupervisionSegment]]] = {}
    for row, split, recording in zip(rows, splits, recordings, strict=True):
        split_recordings, split_supervisions = parts.setdefault(split, ({}, []))
        split_recordings.setdefault(recording.id, recording)  # the checks report a second row with this id
        split_supervisions.append(_supervision(row, recording, varieties.get(row["dialect"])))
    return {
        split: (RecordingSet.from_recordings(found.values()), SupervisionSet.from_segments(supervisions))
        for split, (found, supervisions) in parts.items()
    }


def _utterance_id(row: Row) -> str:
    """The id column, or else the path without its suffix (``wav/a/1.flac`` is ``wav-a-1``)."""
    path = Path(row["path"])
    return row.get("id") or "-".join([*path.parts[:-1], path.stem]).lstrip("/-.") or row["path"]


def _resolved(path: Path) -> Path:
    """A path with links resolved; an impossible path is returned unchanged, and the checks report it."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL character
        return path.absolute()


def _varieties(rows: Sequence[Row], config: FolderConfig) -> dict[str, Variety]:
    """Variety of each label of the table, without unknown or ambiguous labels.

    Raises:
        UserError: a mapping does not lead to a variety, or its file cannot be read.
    """
    mapping = dict(config.dialect_map)
    if config.dialect_map_file:
        mapping.update(_dialect_map(Path(config.dialect_map_file)))
    for source, target in mapping.items():
        try:
            variety_of(source, {source: target})
        except UnknownDialectError as error:
            raise UserError(f"corpus.{error}") from error
    varieties = {}
    for label in dict.fromkeys(row["dialect"] for row in rows):
        try:
            varieties[label] = variety_of(label, mapping)
        except UnknownDialectError as error:
            logger.debug("%s", error)  # the checks report the utterances
    return varieties


def _dialect_map(file: Path) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        values = [value.strip() for value in line.split("\t")]
        if len(values) != 2 or not all(values):
            raise UserError(
                f"{file}:{number}: {line!r} is not a label, a tab and an id of data_prep/taxonomy.tsv"
            )
        mapping[values[0]] = values[1]
    return mapping


def _splits(rows: Sequence[Row], config: FolderConfig) -> list[str]:
    if "split" in rows[0].values:
        return [_split_of_row(row, config) for row in rows]
    normaliser = TextNormaliser()
    sentences = [Sentence(row.get("sentence_id"), normaliser(row["text"]), row["dialect"]) for row in rows]
    splits = split_by_sentence(sentences, config.split)
    warn_of_few(sentences, splits)
    return splits


def _split_of_row(row: Row, config: FolderConfig) -> str:
    split = config.split_map.get(row["split"], row["split"])
    if split.casefold() not in SPLITS:
        raise UserError(
            f"{row.origin}: split {row['split']!r} is not one of {', '.join(SPLITS)}; "
            + (
                f"map it, e.g. '+corpus.split_map={{{row['split']}: valid}}'"
                if re.fullmatch(r"[A-Za-z_][\w-]*", row["split"], re.ASCII)
                else "write one of them into the table"
            )
        )
    return split.casefold()


def _recording(recording_id: str, file: Path) -> Recording:
    """Recording as described by its header; without samples if the file cannot be read."""
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


def _supervision(row: Row, recording: Recording, variety: Variety | None) -> SupervisionSegment:
    custom = {
        "subdialect": variety.subdialect if variety else None,
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
        # All channels: audio.channel decides which are used.
        channel=recording.channel_ids if recording.num_channels > 1 else 0,
        text=row["text"],
        language=variety.group if variety else row["dialect"],  # which the checks report
        speaker=row.get("speaker"),
        custom={name: value for name, value in custom.items() if value is not None},
    )
