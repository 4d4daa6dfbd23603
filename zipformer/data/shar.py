"""Lhotse Shar as training data: makes a prepared directory from a folder, a URL or a command.

Shar has the cuts in ``cuts.000000.jsonl.gz`` and their data in tar files beside it (``features.000000.tar``,
``recording.000000.tar``), numbered from 000000. Here the cuts of all shards are copied once into one
manifest, in which every cut names the tar with its data. Then Shar is a prepared corpus like any other, with
the same selection, mixtures, batches and resuming. A process reads only the data of its own utterances, each
by one read at a known position (:mod:`zipformer.data.tar`). A remote tar is fetched as a whole when the first
of its utterances is needed (:mod:`zipformer.data.remote`).

Instead of a data directory, a setting may give

- a folder of Shar, written by ``fangyan prepare storage=shar`` (``DIR/shar/train``) or by Lhotse;
- the URL of such a folder, or ``pipe:COMMAND`` with ``{}`` for the name of a file, as in
  ``pipe:aws s3 cp s3://bucket/corpus/{} -``;
- the URL or the command of a directory that ``fangyan prepare storage=shar`` wrote, with tokens and splits.
"""

import gzip
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from zipformer.data.dataset import DATASET_FILE
from zipformer.data.manifest import PREPARATION_FILE, read_lines
from zipformer.data.remote import CacheConfig, MissingFileError, Source, is_remote, open_source
from zipformer.data.tar import AUDIO_IN_TAR, FEATURES_IN_TAR, check_end
from zipformer.data.tokenizer import TOKEN_TABLE_FILE, TOKENS_FILE
from zipformer.errors import UserError
from zipformer.files import check_writable, replacing, write_json
from zipformer.typed_json import read_json

logger = logging.getLogger(__name__)

DATA_FIELDS = ("features", "recording")
INDEX_FILE = "shar.json"  # beside the manifest of a folder of Shar: record of its source

_FILE = re.compile(r"([^.]+)\.(\d{6,})\.(tar|jsonl|jsonl\.gz)")
_PLACEHOLDER = "shar"  # Lhotse's type of data in a tar
_THREADS = 16  # threads that check for remote files
_COMPRESSION = 1  # fast, because the manifest is a copy that is read often


@dataclass(frozen=True)
class Shards:
    """The files of one folder of Shar.

    Attributes:
        cuts: manifests, by shard.
        tars: tar of each shard, in the order of ``cuts``, by field; absolute, or relative to the manifest.
    """

    cuts: Sequence[Path]
    tars: Mapping[str, Sequence[str]]


def open_data(place: str, cache: CacheConfig, split: str = "train") -> Path:
    """The data directory for a place; a prepared folder is returned unchanged.

    Args:
        place: folder, URL or command, see the docstring of the module.
        cache: settings of the cache for manifests and remote files.
        split: name for the split that a folder of Shar contains.

    Raises:
        UserError: a file of a shard is missing or truncated, or a remote file cannot be fetched.
    """
    if not is_remote(place):
        folder = Path(place)
        if (folder / f"cuts_{split}.jsonl.gz").is_file() or not any(folder.glob("cuts.*")):
            return folder
        _check_cache(cache)
        return _with_manifest(
            cache.folder_of(str(folder.absolute())), _state(folder), split, lambda: shards_of(folder)
        )
    _check_cache(cache)
    source = open_source(place, cache)
    try:
        source.fetch_again(PREPARATION_FILE)
    except MissingFileError:
        shards = _remote_shards(source)
        names = [file.name for file in shards.cuts]
        return _with_manifest(source.folder, {"place": place, "cuts": names}, split, lambda: shards)
    return _prepared(source, split)


def shards_of(folder: Path) -> Shards:
    """The shards in a folder, checked by the names and ends of files.

    Raises:
        UserError: the file of a shard is missing, or a tar is truncated.
    """
    files: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _FILE.fullmatch(path.name):
            files.setdefault(match[1], {})[int(match[2])] = path
    cuts = files.get("cuts", {})
    fields = [field for field in DATA_FIELDS if field in files]
    if not fields:
        raise UserError(
            f"{folder} has cuts and neither features nor recordings (features.000000.tar): copy them there, "
            "or write it again (fangyan prepare storage=shar)"
        )
    numbers = range(1 + max(max(files[field]) for field in ("cuts", *fields)))
    for field in ("cuts", *fields):
        missing = [number for number in numbers if number not in files[field]]
        if missing:
            suffix = "jsonl.gz" if field == "cuts" else "tar"
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{folder} is not complete: {field}.{missing[0]:06d}.{suffix}{more} of {len(numbers)} shards "
                "is missing; copy it there, or write it again (fangyan prepare storage=shar)"
            )
    for field in fields:
        for path in files[field].values():
            check_end(path)
    tars = {field: [str(files[field][number].absolute()) for number in numbers] for field in fields}
    return Shards([cuts[number] for number in numbers], tars)


def placed_cuts(file: Path, tars: Mapping[str, str]) -> Iterator[bytes]:
    """Lines of the cuts of a shard, with the names of the tars that have their data.

    Args:
        file: cuts of one shard.
        tars: tar of the shard, by field; a path as in manifests.

    Raises:
        UserError: a line is not a cut of Shar, or the file is damaged.
    """
    count = 0
    try:
        for line in read_lines(file):
            cut = msgspec.json.decode(line)
            for field, tar in tars.items():
                _place(cut, field, tar)
            yield msgspec.json.encode(cut)
            count += 1
    except (msgspec.DecodeError, EOFError, OSError, AttributeError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise UserError(
            f"{file}, after line {count}, is damaged ({error}): copy it there again, or write it again "
            "(fangyan prepare storage=shar)"
        ) from error


def _place(cut: dict[str, Any], field: str, tar: str) -> None:
    """Write into a cut where the data of a field are, unless it has none."""
    manifest = cut.get(field)
    if manifest is None:
        return
    if field == "features":
        if manifest["storage_type"] == _PLACEHOLDER:
            manifest |= {"storage_type": FEATURES_IN_TAR, "storage_path": tar, "storage_key": cut["id"]}
    else:
        for source in manifest["sources"]:
            if source["type"] == _PLACEHOLDER:
                source |= {"type": AUDIO_IN_TAR, "source": tar}


def write_manifest(shards: Shards, path: Path) -> None:
    """Write the cuts of all shards into one manifest, complete or not at all."""
    with replacing(path, shared=True) as temporary, gzip.open(temporary, "wb", _COMPRESSION) as file:
        for number, cuts in enumerate(shards.cuts):
            tars = {field: paths[number] for field, paths in shards.tars.items()}
            file.writelines(line + b"\n" for line in placed_cuts(cuts, tars))


def _check_cache(cache: CacheConfig) -> None:
    check_writable(Path(cache.directory).expanduser(), "choose another folder: data.cache.directory=DIR")


def _with_manifest(
    directory: Path, state: Mapping[str, Any], split: str, shards: Callable[[], Shards]
) -> Path:
    """A data directory with a manifest of the data in shards; made again if they have changed."""
    manifest = directory / f"cuts_{split}.jsonl.gz"
    record = directory / f"{split}-{INDEX_FILE}"
    found = shards()  # even if the manifest exists, because a tar may be missing
    if not manifest.is_file() or read_json(record, "train") != state:
        record.unlink(missing_ok=True)
        write_manifest(found, manifest)
        write_json(record, state, shared=True)
    return directory


def _state(folder: Path) -> dict[str, Any]:
    """State of a folder of Shar, which changes with its cuts."""
    states = {path.name: path.stat() for path in sorted(folder.glob("cuts.*"))}
    return {
        "place": str(folder.absolute()),
        "cuts": {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()},
    }


def _remote_shards(source: Source) -> Shards:
    """Fetch the cuts of all shards, up to the first missing number."""
    cuts: list[Path] = []
    while True:
        name = f"cuts.{len(cuts):06d}.jsonl.gz"
        try:
            cuts.append(source.fetch(name) if cuts else source.fetch_again(name))
        except MissingFileError as error:
            if not cuts:
                raise UserError(
                    f"{source.place} is neither a prepared directory nor Lhotse Shar: it has no "
                    f"{PREPARATION_FILE} and no cuts.000000.jsonl.gz. {error}"
                ) from error
            # A failed command may only have lost the connection: then this fails too.
            source.fetch_again(cuts[-1].name)
            break
    logger.info("%s: %d shards", source.place, len(cuts))
    tars: dict[str, list[str]] = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for field in DATA_FIELDS:
            names = [f"{field}.{number:06d}.tar" for number in range(len(cuts))]
            if not _said(cuts[0], field):
                continue
            there = list(threads.map(source.exists, [*names, f"{field}.{len(cuts):06d}.tar"]))
            missing = [name for name, found in zip(names, there, strict=False) if not found]
            if missing or (there[-1] and not source.place.startswith("pipe:")):
                name = missing[0] if missing else f"cuts.{len(cuts):06d}.jsonl.gz"
                raise UserError(f"{source.place} is not complete: {name} is missing; put it there")
            tars[field] = names
    if not tars:
        raise UserError(
            f"the cuts of {source.place} have neither features nor recordings in tar files: write it again "
            "(fangyan prepare storage=shar)"
        )
    return Shards(cuts, tars)


def _said(cuts: Path, field: str) -> bool:
    """Whether, by its first cut, a shard has the data of a field in a tar."""
    line = next(placed_cuts(cuts, {field: ""}), None)
    if line is None:
        return False
    manifest = msgspec.json.decode(line).get(field) or {}
    return FEATURES_IN_TAR in (
        manifest.get("storage_type"),
        *(s["type"] for s in manifest.get("sources", ())),
    )


def _prepared(source: Source, split: str) -> Path:
    """Fetch the files of a prepared directory that training reads before the first batch."""
    record = read_json(source.folder / PREPARATION_FILE, "prepare") or {}
    stages = record.get("stages", {})
    if "shar" not in stages:
        raise UserError(
            f"{source.place} was prepared with storage=files, which cannot be read from another machine: "
            "run the command that prepared it once more with storage=shar"
        )
    splits = stages["manifests"]["recordings"]
    if split not in splits:
        raise UserError(f"{source.place} has no split {split}, only {', '.join(splits)}")
    for name in [DATASET_FILE, *(f"cuts_{name}.jsonl.gz" for name in splits)]:
        source.fetch(name)
    if stages["tokens"]["tokens"]:
        for name in (TOKENS_FILE, TOKEN_TABLE_FILE):
            source.fetch(f"tokens/{name}")
    return source.folder
