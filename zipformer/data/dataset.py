"""Identity of the data behind a result: name and digest of a prepared split, and the folder of its results.

Results on several test sets are side by side in ``model_dir/results/{name}``. The name is the one that
preparation recorded in ``data_dir/dataset.json``, or else that of the folder. ``results/{name}/dataset.json``
identifies the data behind the name, so that results on other data of the same name replace nothing.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from zipformer.errors import UserError
from zipformer.files import write_json

DATASET_FILE = "dataset.json"
# Prefixes of the names of result folders.
RESULT_KINDS = (
    "decode",
    "translation",
    "embeddings",
    "retrieval",
    "controls",
    "comparison",
    "hits",
    "interpret",
    "layers",
)
SHOWN_DIGITS = 12  # digits of a digest in messages

_NAME = re.compile(r"[\w+][\w.+-]*")
_NOT_IN_NAME = re.compile(r"[^\w.+-]+")
_LABELS = ("subdialect", "site", "sentence_id")
# Fields that no result depends on: the text before normalisation, and the place in the tables of the corpus.
_UNUSED = ("raw_text", "raw_translation", "origin")
# Key of features in Lhotse's chunked storage: offset in the file, then the bytes of each chunk.
_CHUNKS = re.compile(r"\d+(,\d+)+")


@dataclass(frozen=True)
class DataSet:
    """A split of a prepared corpus.

    Attributes:
        name: name of the corpus, and of the folder of its results.
        split: name of the split.
        digest: digest of all utterances: ids, times, texts, labels, and the sizes of the stored features,
            which change with the audio. It does not include the order of the utterances and the paths of
            files, so that it is the same if data are moved, or prepared again in the same way.
        recordings: digest without the texts; equal for two transcriptions of the same corpus.
    """

    name: str
    split: str
    digest: str
    recordings: str

    def record(self) -> dict[str, str]:
        """Record for result files."""
        return asdict(self)

    def claim(self, model_dir: Path) -> Path:
        """Reserve the folder of the results for this data set and return it; errors as in :meth:`check`."""
        self.check(model_dir)
        folder = model_dir / "results" / self.name
        splits = _claims(folder)
        if splits.get(self.split) != self:
            splits[self.split] = self
            content = {
                "name": self.name,
                "splits": {
                    split: {"digest": data.digest, "recordings": data.recordings}
                    for split, data in sorted(splits.items())
                },
            }
            # One process may decode while another process embeds.
            write_json(folder / DATASET_FILE, content, shared=True)
        return folder

    def check(self, model_dir: Path) -> None:
        """Check that the folder of the results is not used by another data set.

        Raises:
            UserError: there are results on other data with the same name and split.
        """
        folder = model_dir / "results" / self.name
        before = _claims(folder).get(self.split)
        if before is not None and before.digest != self.digest and _has_results(folder, self.split):
            raise UserError(
                f"{folder} holds results of the split {self.split} of other data, which have the same name"
                f" (digest {before.digest[:SHOWN_DIGITS]} there, {self.digest[:SHOWN_DIGITS]} now). If this"
                f" is another corpus, name it: dataset=NAME. If it was prepared anew, move or delete {folder}"
            )


def read_dataset(data_dir: Path, split: str, name: str | None = None) -> DataSet:
    """Name and digests of ``data_dir/cuts_{split}.jsonl.gz``, which is read once.

    Args:
        data_dir: prepared corpus.
        split: name of the split.
        name: name of the corpus; None = see :func:`name_of`.

    Raises:
        UserError: the manifest is missing or damaged, or the name is not a valid name of a folder.
    """
    manifest = data_dir / f"cuts_{split}.jsonl.gz"
    if not manifest.is_file():
        raise UserError(f"{manifest} does not exist; fangyan prepare makes it")
    state = manifest.stat()
    return DataSet(
        name_of(data_dir, name), split, *_digests(manifest.resolve(), state.st_mtime_ns, state.st_size)
    )


def name_of(data_dir: Path, name: str | None = None) -> str:
    """Name of a prepared corpus: the given name, or else the recorded name, or else that of the folder.

    Raises:
        UserError: the name is not a valid name of a folder.
    """
    if name is None:
        file = data_dir / DATASET_FILE
        if file.is_file():
            name = str(_read(file).get("name"))
        else:
            name = plain_name(data_dir.resolve().name)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"dataset={name!r} cannot be the name of a folder: give letters, digits, _, ., + and hyphens, not"
            " beginning with a dot or hyphen"
        )
    return name


def plain_name(text: str) -> str:
    """A text with underscores for characters that a data set name cannot have; may be empty."""
    return _NOT_IN_NAME.sub("_", text).lstrip(".-")


def record_name(data_dir: Path, name: str | None) -> str:
    """Record the name of a corpus in its directory, for :func:`name_of`; returns the name.

    None keeps the recorded name, or else records that of the folder.
    """
    name = name_of(data_dir, name)
    file = data_dir / DATASET_FILE
    if file.is_file() and _read(file).get("name") == name:
        return name
    write_json(file, {"name": name})
    return name


def dataset_names(model_dir: Path) -> list[str]:
    """Names of the data sets with results in a model directory."""
    return sorted(path.parent.name for path in (model_dir / "results").glob(f"*/{DATASET_FILE}"))


def choose_dataset(
    model_dir: Path, wanted: str | None, *, made_by: str = "fangyan decode and fangyan embed"
) -> str:
    """Choose the data set of the results to read: the wanted one, or the only one.

    Args:
        model_dir: model directory.
        wanted: name of the data set; None for the only one.
        made_by: commands that make missing results, for the message.

    Raises:
        UserError: there are no results, no results on the wanted data set, or several data sets to choose
            from.
    """
    names = dataset_names(model_dir)
    results = model_dir / "results"
    if wanted in names:
        return str(wanted)
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None and names:
        raise UserError(
            f"{results} holds results of {', '.join(names)}: choose one of them with dataset=NAME"
        )
    there = f"there are {', '.join(names)}" if names else f"make them with {made_by}"
    of = "" if wanted is None else f" of the data set {wanted}"
    raise UserError("; ".join([f"{results} holds no results{of}; {there}", *unplaced_results(model_dir)]))


def unplaced_results(model_dir: Path) -> list[str]:
    """Messages about results outside the folder of a data set; empty if there are none."""
    results = model_dir / "results"
    found = [
        path.name
        for kind in RESULT_KINDS
        for path in sorted(results.glob(f"{kind}-*"))
        if not (path / DATASET_FILE).is_file()
    ]
    if not found:
        return []
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return [
        f"{', '.join(found[:3])}{more} in {results} do not say which data they are of and are not read: make"
        " them anew, and they will lie in a folder of their data set"
    ]


def dataset_behind(record: object) -> DataSet | None:
    """Data set from the record in a result file; None if missing or malformed."""
    if not isinstance(record, Mapping):
        return None
    values = [record.get(key) for key in ("name", "split", "digest", "recordings")]
    if not all(isinstance(value, str) for value in values):
        return None
    return DataSet(*map(str, values))


def claimed(model_dir: Path, name: str, split: str) -> DataSet | None:
    """Data set behind a name among the results of a model; None if not recorded."""
    return _claims(model_dir / "results" / name).get(split)


def _claims(folder: Path) -> dict[str, DataSet]:
    file = folder / DATASET_FILE
    if not file.is_file():
        return {}
    content = _read(file)
    try:
        return {
            split: DataSet(folder.name, split, data["digest"], data["recordings"])
            for split, data in content["splits"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} does not say which data it is about ({error!r}); delete {folder}") from error


def _has_results(folder: Path, split: str) -> bool:
    """Whether there are finished results of a split."""
    found = folder.glob(f"*-{split}*")
    return any(path.is_dir() and path.suffix != ".partial" for path in found)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); delete it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged (not a JSON object); delete it")
    return content


@lru_cache(maxsize=16)
def _digests(manifest: Path, _modified: int, _size: int) -> tuple[str, str]:
    """``digest`` and ``recordings`` of the cuts in a manifest."""
    totals, count = [0, 0], 0
    try:
        with gzip.open(manifest) as file:
            for line in file:
                count += 1
                for which, content in enumerate(_contents(msgspec.json.decode(line))):
                    totals[which] += int.from_bytes(hashlib.blake2b(content, digest_size=32).digest(), "big")
    except (EOFError, OSError, zlib.error, msgspec.DecodeError, AttributeError, TypeError) as error:
        raise UserError(
            f"{manifest}, after line {count}, is damaged ({error}): prepare the data again"
        ) from error
    # Sums do not depend on the order, and sums of different cuts are hardly ever equal by accident.
    first, second = (hashlib.sha256(f"{count} {total}".encode()).hexdigest() for total in totals)
    return first, second


def _contents(cut: dict[str, Any]) -> tuple[bytes, bytes]:
    """Bytes for the two digests of a cut: all fields, and all fields except texts."""
    features, recording = cut.get("features"), cut.get("recording")
    if features:
        key = features.get("storage_key")
        sizes = key.partition(",")[2] if isinstance(key, str) and _CHUNKS.fullmatch(key) else None
        place = ("storage_path", "storage_key", "storage_type")
        features = {name: value for name, value in features.items() if name not in place} | {"sizes": sizes}
    if recording:
        recording = {name: value for name, value in recording.items() if name != "sources"}
    heard = cut | {"features": features, "recording": recording}
    texts, labels = [], []
    for supervision in cut.get("supervisions") or []:
        custom = supervision.get("custom") or {}
        texts.append(
            supervision | {"custom": {name: value for name, value in custom.items() if name not in _UNUSED}}
        )
        without_text = {name: value for name, value in supervision.items() if name != "text"}
        labels.append(without_text | {"custom": {name: custom.get(name) for name in _LABELS}})
    return (
        msgspec.json.encode(heard | {"supervisions": texts}, order="sorted"),
        msgspec.json.encode(heard | {"supervisions": labels}, order="sorted"),
    )
