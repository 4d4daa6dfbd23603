"""Reads the metadata tables, which describe the recordings.

A table is a Parquet file or TSV (UTF-8, with a header) with the columns ``COLUMNS`` and a row for each
utterance. The whole table of the platform has about 57,000 rows of 1,250 sites; only the rows of the wanted
sites are kept.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.corpora.yubao import SENTENCES
from data_prep.corpora.yubao.sites import SITE_ID_LENGTH, BenchmarkSite, same_name
from data_prep.delimited import read_records
from zipformer.errors import UserError, listed
from zipformer.files import files_below

logger = logging.getLogger(__name__)

COLUMNS = ("transcript", "translation", "ipa", "english", "utterance_id", "site", "subgrouping")
# 15J15mb01yf0001: site 15J15, its speaker mb01, sentence 1 of the part yf (grammar).
UTTERANCE_ID = re.compile(r"(?P<speaker>(?P<site_id>[0-9A-Z]{5})[0-9A-Za-z]*?)(?:yf)?(?P<number>[0-9]{4})")


@dataclass(frozen=True)
class Sentence:
    """One row, which describes one recording.

    Attributes:
        utterance_id: name of the recording, without suffix.
        site: site of the recording.
        speaker: part of the utterance id with site and speaker.
        number: number of the sentence, 1 to 50; equal numbers are the same sentence at every site.
        transcript: sentence in the words of the dialect, unchanged from the table.
        translation: sentence in Mandarin, unchanged from the table.
        ipa: pronunciation in the International Phonetic Alphabet with tone digits; may be empty.
        english: sentence in English; may be empty.
        subgrouping: dialect in the words of the platform; may be empty.
        origin: file and row.
    """

    utterance_id: str
    site: BenchmarkSite
    speaker: str
    number: int
    transcript: str
    translation: str
    ipa: str
    english: str
    subgrouping: str
    origin: str


@dataclass(frozen=True)
class Metadata:
    """Metadata of the wanted sites.

    Attributes:
        sentences: wanted sentences by site id, then by number; empty for a wanted site without rows.
        namesakes: ids of other sites with the same name in the tables, by wanted site id.
        disagreements: English texts of sentences for which they differ between sites, by number.
    """

    sentences: dict[str, dict[int, Sentence]]
    namesakes: dict[str, list[str]]
    disagreements: dict[int, list[str]]


def metadata_files(path: Path) -> list[Path]:
    """The tables: ``path`` itself, or the Parquet files or else the TSV files anywhere below a folder.

    The folder may be a cache of the Hugging Face Hub (``hf download``): of several revisions of a data set in
    it, the newest is used.

    Raises:
        UserError: there are no tables.
    """
    if path.is_file():
        return [path]
    files = _newest_revisions(files_below(path)) if path.is_dir() else []
    for suffix in (".parquet", ".tsv"):
        if found := [file for file in files if file.suffix.lower() == suffix]:
            return found
    raise UserError(
        f"no metadata at {path}: set corpus.metadata to a .parquet or .tsv file with the columns "
        f"{', '.join(COLUMNS)}, or to a folder that has some; recipes/yubao/README.md says how to obtain them"
    )


def read_metadata(files: Sequence[Path], sites: Sequence[BenchmarkSite]) -> Metadata:
    """Read the rows of the wanted sites.

    Raises:
        UserError: a table cannot be read or lacks columns, or rows cannot be used: the id is not an utterance
            id, occurs twice, or belongs to a site with another name; or a site has a sentence twice. One
            message names all of them.
    """
    reader = _Reader(sites)
    others = []
    for file in files:
        if missing := [name for name in COLUMNS if name not in (found := _columns(file))]:
            there = ", ".join(found) or "none"
            others.append(f"{file}: the table has no column {', '.join(missing)}; its columns are {there}")
            continue
        for number, values in _rows(file):
            reader.read(values, f"{file.name}:{number}")
    if len(others) == len(files):
        raise UserError(
            listed("no table of utterances (yubao_videos) is among the metadata", others)
            + "\nSet corpus.metadata to it; recipes/yubao/README.md says how to obtain it"
        )
    for other in others:
        logger.info("not a table of utterances, not used: %s", other)
    return reader.finish()


def _newest_revisions(files: Sequence[Path]) -> list[Path]:
    """Remove older revisions in a Hugging Face cache (``datasets--NAME/snapshots/REVISION/...``)."""
    revision_of: dict[Path, Path | None] = {}
    newest: dict[Path, tuple[float, Path]] = {}
    for file in files:
        revision = next((p for p in file.parents if p.parent.name == "snapshots"), None)
        revision_of[file] = revision
        if revision is not None:
            snapshots = revision.parent
            age = (revision.stat().st_mtime, revision)
            newest[snapshots] = max(newest.get(snapshots, age), age)
    return [
        file
        for file, revision in revision_of.items()
        if revision is None or newest[revision.parent][1] == revision
    ]


class _Reader:
    """Collects the wanted rows and their faults."""

    def __init__(self, sites: Sequence[BenchmarkSite]) -> None:
        self._by_id = {site.site_id: site for site in sites}
        self._by_name = {same_name(site.name): site for site in sites}
        self._sentences: dict[str, dict[int, Sentence]] = {site.site_id: {} for site in sites}
        self._named_otherwise: dict[str, dict[str, str]] = defaultdict(dict)  # wanted id -> other id -> row
        self._faults: list[str] = []

    def read(self, values: Mapping[str, str], origin: str) -> None:
        utterance_id, name = values["utterance_id"], values["site"]
        by_id = self._by_id.get(utterance_id[:SITE_ID_LENGTH])
        by_name = self._by_name.get(same_name(name))
        if by_id is None and by_name is None:
            return
        match = UTTERANCE_ID.fullmatch(utterance_id)
        if match is None or not 1 <= int(match["number"]) <= SENTENCES:
            self._faults.append(
                f"{origin}: {utterance_id!r} is no utterance id: it must be a site id of five characters, a "
                f"speaker, and a number of four digits from 0001 to {SENTENCES:04d}, like 15J15mb01yf0001"
            )
        elif by_id is None:
            assert by_name is not None
            self._named_otherwise[by_name.site_id].setdefault(match["site_id"], f"{origin}: {utterance_id}")
        elif by_id is not by_name:
            self._faults.append(
                f"{origin}: {utterance_id} belongs to site {by_id}, but its row names the site {name!r}"
            )
        else:
            self._keep(
                Sentence(
                    utterance_id=utterance_id,
                    site=by_id,
                    speaker=match["speaker"],
                    number=int(match["number"]),
                    **{
                        column: values[column] for column in COLUMNS if column not in ("utterance_id", "site")
                    },
                    origin=origin,
                )
            )

    def _keep(self, sentence: Sentence) -> None:
        first = self._sentences[sentence.site.site_id].setdefault(sentence.number, sentence)
        if first is sentence:
            return
        if first.utterance_id == sentence.utterance_id:
            fault = f"{sentence.utterance_id} is there twice, first in {first.origin}"
        else:
            fault = (
                f"{sentence.utterance_id} is sentence {sentence.number} of site {sentence.site}, which "
                f"{first.utterance_id} ({first.origin}) is already"
            )
        self._faults.append(f"{sentence.origin}: {fault}; remove one of the two rows")

    def finish(self) -> Metadata:
        namesakes = {}
        for site_id, others in self._named_otherwise.items():
            if self._sentences[site_id]:  # two sites of one name, and the wanted one is there
                namesakes[site_id] = sorted(others)
                continue
            for other, row in others.items():
                self._faults.append(
                    f"{row} has site id {other}, but {self._by_id[site_id]} is the site of this name"
                )
        if self._faults:
            raise UserError(listed("rows of the metadata that cannot be used; correct them", self._faults))
        return Metadata(self._sentences, namesakes, self._disagreements())

    def _disagreements(self) -> dict[int, list[str]]:
        texts: dict[int, dict[str, None]] = defaultdict(dict)
        for sentences in self._sentences.values():
            for number, sentence in sentences.items():
                if sentence.english:
                    texts[number].setdefault(sentence.english)
        return {number: list(found) for number, found in sorted(texts.items()) if len(found) > 1}


def _columns(file: Path) -> list[str]:
    if _is_parquet(file):
        with _parquet_file(file) as table:
            return list(table.schema_arrow.names)
    return read_records(file)[0]


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their number: the line in a TSV file, or the index from 1 in a Parquet file."""
    yield from (_parquet_rows if _is_parquet(file) else _tsv_rows)(file)


def _is_parquet(file: Path) -> bool:
    # A file in the blobs of a Hugging Face cache has no suffix.
    if file.suffix.lower() == ".parquet":
        return True
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


@contextmanager
def _parquet_file(file: Path) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"reading {file} needs pyarrow: pip install 'fangyan[yubao]', or save the table as TSV"
        ) from error
    try:
        with parquet.ParquetFile(file) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as Parquet: {error}; obtain it again") from error


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with _parquet_file(file) as table:
        number = 0
        for batch in table.iter_batches(columns=list(COLUMNS)):
            for record in batch.to_pylist():
                number += 1
                yield number, {name: str(value or "").strip() for name, value in record.items()}


def _tsv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    header, records, faults = read_records(file)
    for record in records:
        values = dict(zip(header, record.values, strict=True))
        yield record.line, {name: values[name] for name in COLUMNS}
    if faults:
        raise UserError(
            listed(
                "lines of the metadata that cannot be used; a value must not hold tabs or line breaks", faults
            )
        )
