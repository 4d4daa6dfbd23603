"""The metadata tables: what is said in which recording.

A table is a Parquet file or TSV (UTF-8, with a header) with the columns of ``COLUMNS`` and a row per
utterance. The platform's whole table has some 57,000 rows of 1,250 sites; only those of the wanted sites are
kept.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import PreparationError, listed
from data_prep.yubao import SENTENCES
from data_prep.yubao.sites import SITE_ID_LENGTH, BenchmarkSite, same_name

COLUMNS = ("transcript", "translation", "ipa", "english", "utterance_id", "site", "subgrouping")
# 15J15mb01yf0001: site 15J15, its speaker mb01, sentence 1 of the part yf (grammar).
UTTERANCE_ID = re.compile(r"(?P<speaker>(?P<site_id>[0-9A-Z]{5})[0-9A-Za-z]*?)(?:yf)?(?P<number>[0-9]{4})")


@dataclass(frozen=True)
class Sentence:
    """One row: what is said in one recording.

    Attributes:
        utterance_id: name of the recording, without suffix.
        site: where.
        speaker: the part of the utterance id that names site and speaker.
        number: of the sentence, 1 to 50; the same number is the same sentence at every site.
        transcript: in the words of the dialect, as the table has it.
        translation: in Mandarin, as the table has it.
        ipa: in the International Phonetic Alphabet with tone digits; may be empty.
        english: in English; may be empty.
        subgrouping: the platform's own words on the dialect; may be empty.
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
    """What the tables say of the wanted sites.

    Attributes:
        sentences: by site id, then by number. A wanted site without rows has none.
        namesakes: by wanted site id, ids of other sites of the same name that are in the tables as well.
        disagreements: numbers of sentences whose English text is not the same at all sites, with the texts.
    """

    sentences: dict[str, dict[int, Sentence]]
    namesakes: dict[str, list[str]]
    disagreements: dict[int, list[str]]


def metadata_files(path: Path) -> list[Path]:
    """The tables: ``path`` itself, or the ``*.parquet`` or else the ``*.tsv`` anywhere below a folder.

    Raises:
        PreparationError: there are none.
    """
    if path.is_file():
        return [path]
    for pattern in ("*.parquet", "*.tsv"):
        if found := sorted(path.rglob(pattern)):
            return found
    raise PreparationError(
        f"no metadata at {path}: set corpus.metadata to a .parquet or .tsv file with the columns "
        f"{', '.join(COLUMNS)}, or to a folder that has some; recipes/yubao/README.md says how to obtain them"
    )


def read_metadata(files: Sequence[Path], sites: Sequence[BenchmarkSite]) -> Metadata:
    """Read the rows of the wanted sites.

    Raises:
        PreparationError: a table cannot be read or lacks columns; or rows that cannot be used: an id that is
            no utterance id, that is there twice, or that belongs to a site of another name; a sentence that
            a site has twice. One message names all of them.
    """
    reader = _Reader(sites)
    for file in files:
        for number, values in _rows(file):
            reader.read(values, f"{file.name}:{number}")
    return reader.finish()


class _Reader:
    """Collects the wanted rows, and what is wrong with them."""

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
            raise PreparationError(
                listed("rows of the metadata that cannot be used; correct them", self._faults)
            )
        return Metadata(self._sentences, namesakes, self._disagreements())

    def _disagreements(self) -> dict[int, list[str]]:
        texts: dict[int, dict[str, None]] = defaultdict(dict)
        for sentences in self._sentences.values():
            for number, sentence in sentences.items():
                if sentence.english:
                    texts[number].setdefault(sentence.english)
        return {number: list(found) for number, found in sorted(texts.items()) if len(found) > 1}


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their number: the line of a TSV file, the place from 1 in a Parquet file."""
    yield from (_parquet_rows if file.suffix.lower() == ".parquet" else _tsv_rows)(file)


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise PreparationError(
            f"reading {file} needs pyarrow: pip install 'fangyan[yubao]', or save the table as TSV"
        ) from error
    try:
        with parquet.ParquetFile(file) as table:
            _require_columns(file, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(columns=list(COLUMNS)):
                for record in batch.to_pylist():
                    number += 1
                    yield number, {name: str(value or "").strip() for name, value in record.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise PreparationError(f"{file} cannot be read as Parquet: {error}; obtain it again") from error


def _tsv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = [name.strip() for name in next(lines, [])]
            _require_columns(file, header)
            for number, values in enumerate(lines, start=2):
                if values and len(values) != len(header):
                    raise PreparationError(
                        f"{file}:{number}: {len(values)} values instead of {len(header)}; a value must not "
                        "hold tabs or line breaks"
                    )
                if values:
                    record = dict(zip(header, values, strict=True))
                    yield number, {name: record[name].strip() for name in COLUMNS}
    except UnicodeDecodeError as error:
        raise PreparationError(f"{file}: not UTF-8 ({error.reason}); save the table as UTF-8 text") from error


def _require_columns(file: Path, found: Sequence[str]) -> None:
    if missing := [name for name in COLUMNS if name not in found]:
        raise PreparationError(
            f"{file}: the table has no column {', '.join(missing)}; "
            f"its columns are {', '.join(found) or 'none'}"
        )
