"""What a pass over a long manifest selected, kept on disk, so that one process makes that pass, and once.

A manifest of 50 million cuts takes minutes to select from. The result is a number or two for each cut: it
lies in ``selections/<key>`` beside the manifest, and every later start and every other process of the run
maps it into memory. The key is a digest of all that the result depends on: the bytes of the manifest, the
settings, the tokenizer, the texts and speakers that are kept out, and the source code that selects.

Beside it lies where the lines of the manifest are (:mod:`zipformer.data.line_index`), so that a run that
resumes reads them from the middle.
"""

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from zipformer.data import cuts, line_index, manifest, selection, tokenizer
from zipformer.data.line_index import write_line_index
from zipformer.data.manifest import read_summaries
from zipformer.data.selection import DataConfig, Selection, TextEncoder, select_utterances
from zipformer.data.tokenizer import Tokenizer
from zipformer.files import (
    StorageError,
    file_sha256,
    place_errors,
    remove_folder,
    replacing_folder,
    write_json,
)

SELECTIONS_FOLDER = "selections"  # beside the manifest
INDEXED_BYTES = 16 << 20  # size from which a manifest gets an index; a smaller one is read in a few seconds
_RECORD_FILE = "selection.json"
_ARRAY_FILES = ("durations.npy", "numbers.npy")
_LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_SELECTING_MODULES = (cuts, line_index, manifest, selection, tokenizer)
_SELECTING_LIBRARIES = ("lhotse", "sentencepiece")
# Settings that form batches. All others, also ones yet to come, are taken to decide what is selected.
_NOT_SELECTING = {
    *("max_duration", "max_cuts", "quadratic_duration", "num_buckets", "buffer_size", "drop_last"),
    *("num_workers", "prefetch_batches", "mixing", "distortion", "spec_augment"),
    "cache",
    "keep_out",  # folders; the key holds the texts that are read from them
}

logger = logging.getLogger(__name__)


def indexed_selection(
    path: Path,
    config: DataConfig,
    encoder: TextEncoder | None,
    *,
    repeats_need_blank: bool,
    fields: Sequence[str] = (),
    kept_out: frozenset[str] = frozenset(),
    kept_out_speakers: frozenset[str] = frozenset(),
) -> Selection:
    """:func:`select_utterances` of a manifest, read from its index where there is one.

    Of several processes that need the same index, one makes it while the others wait. Where no index can be
    written, each process reads the manifest, which the log says.

    Args:
        path: the manifest.
        encoder: encodes the transcripts. There is no index for one that is not a ``Tokenizer``.

    Returns:
        what ``select_utterances`` returns; the arrays of an index are mapped, not read.

    Raises:
        UserError: as ``select_utterances`` and ``read_summaries``.
    """

    def select() -> Selection:
        return select_utterances(
            read_summaries(path),
            config,
            encoder,
            repeats_need_blank=repeats_need_blank,
            fields=fields,
            kept_out=kept_out,
            kept_out_speakers=kept_out_speakers,
        )

    if path.stat().st_size < INDEXED_BYTES or not isinstance(encoder, Tokenizer | None):
        return select()
    folder = path.parent / SELECTIONS_FOLDER
    source = file_sha256(path)
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_SELECTING}
    kept = sorted(kept_out), sorted(kept_out_speakers)
    key = _key(source, settings, encoder, repeats_need_blank, list(fields), *kept)
    place = folder / key
    if (found := _read(place)) is not None:
        return found
    try:
        with _alone(folder):
            found = _read(place)  # another process may have made it meanwhile
            if found is None:
                logger.info("selecting utterances of %s: two passes over the file, kept in %s", path, place)
                found = select()
                _write(found, place, manifest=path, source=source)
                found.line_index = place
    except StorageError as error:
        logger.warning("no index of %s, so every start reads it anew: %s", path, error)
    return found or select()


def _key(source: str, *parts: object) -> str:
    digest = hashlib.sha256(source.encode())
    for part in parts:
        text = part.sha256 if isinstance(part, Tokenizer) else json.dumps(part, sort_keys=True)
        digest.update(f"{text}\n".encode())
    for module in _SELECTING_MODULES:
        digest.update(file_sha256(Path(str(module.__file__))).encode())
    for library in _SELECTING_LIBRARIES:
        digest.update(importlib.metadata.version(library).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block; a process that dies leaves it.

    Raises:
        StorageError: the folder cannot be written, or has no locks.
    """
    remedy = "make the folder writable to start faster"
    with place_errors(folder, remedy):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise StorageError(f"{folder}: the file system has no locks") from error
        yield
    finally:
        os.close(descriptor)


def _write(found: Selection, place: Path, *, manifest: Path, source: str) -> None:
    with (
        place_errors(place, "make room to start faster"),
        replacing_folder(place, keep_others=False) as folder,
    ):
        for name, values in zip(_ARRAY_FILES, (found.durations, found.numbers), strict=True):
            np.save(folder / name, np.asarray(values))
        files = [*_ARRAY_FILES, *write_line_index(manifest, folder)]
        record = {
            "manifest": manifest.name,
            "source": source,
            "files": {name: file_sha256(folder / name) for name in files},
            "utterances": found.utterances,
            "seconds": found.seconds,
            "seconds_by_dialect": found.seconds_by_dialect,
            "dialects": sorted(found.dialects),
            "places": found.places,
            "dropped": found.dropped,
            "feature_files": sorted(found.feature_files),
            "digest": found.digest,
        }
        content = json.dumps(record, sort_keys=True)
        _remove_outdated(place.parent, manifest.name, source)
        write_json(folder / _RECORD_FILE, {**record, "sha256": hashlib.sha256(content.encode()).hexdigest()})


def _read(place: Path) -> Selection | None:
    """The selection that a folder holds; None where there is no such folder or it is damaged."""
    if not place.is_dir():
        return None
    try:
        record = json.loads((place / _RECORD_FILE).read_text(encoding="utf-8"))
        expected = record.pop("sha256")
        content = json.dumps(record, sort_keys=True)
        if hashlib.sha256(content.encode()).hexdigest() != expected:
            raise ValueError(f"{_RECORD_FILE} was changed")
        for name, digest in record["files"].items():
            if file_sha256(place / name) != digest:
                raise ValueError(f"{name} was changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the index %s is damaged (%s): it is made again", place, error)
        return None
    durations, numbers = (np.load(place / name, mmap_mode="r") for name in _ARRAY_FILES)
    return Selection(
        utterances=record["utterances"],
        seconds=record["seconds"],
        seconds_by_dialect=Counter(record["seconds_by_dialect"]),
        dialects=set(record["dialects"]),
        durations=durations,
        places=record["places"],
        numbers=numbers,
        dropped=defaultdict(list, record["dropped"]),
        feature_files=set(record["feature_files"]),
        digest=record["digest"],
        line_index=place,
    )


def _remove_outdated(folder: Path, manifest: str, source: str) -> None:
    """Remove the indices of a manifest that has been rewritten since. Who has mapped one keeps it."""
    for place in folder.iterdir():
        try:
            record = json.loads((place / _RECORD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if record.get("manifest") == manifest and record.get("source") != source:
            remove_folder(place)
