"""Frame embeddings on disk: one array with all frames and one index table.

A store is a folder::

    frames.npy        (total_frames, D) float32 or float16, read by memory map, so that it may be larger
                      than memory
    index.tsv         utterance_id, offset, frames, dialect, subdialect, site, sentence_id
    embeddings.json   description: embedder, fingerprint, D, type, the weights of a model directory, data set

It grows in ``<folder>.partial`` and is renamed when complete. Frames of an utterance are written before its
line of the index, so that after a kill the index lists only whole utterances; the next run with the same
fingerprint resumes after them.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError
from zipformer.files import replace_folder, write_text
from zipformer.lock import one_writer

logger = logging.getLogger(__name__)

FRAMES, INDEX, DESCRIPTION = "frames.npy", "index.tsv", "embeddings.json"
STORAGE_TYPES = ("float32", "float16")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of the index: position of the frames, dialect, subdialect, site and sentence."""

    utterance_id: str
    offset: int
    frames: int
    dialect: str
    subdialect: str = ""
    site: str = ""
    sentence_id: str = ""


COLUMNS = tuple(field.name for field in fields(Utterance))


def fingerprint(files: Iterable[Path], options: Mapping[str, object]) -> str:
    """SHA-256 of files (weights, cuts) and options; equal if the embeddings are equal."""
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=str).encode())
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class EmbeddingWriter:
    """Appends utterances to a store; a context manager that renames the store into place after success.

    Args:
        directory: final folder; replaced at the end.
        dimension: dimension D of every frame.
        dtype: ``float32`` or ``float16`` (half the disk space; cosines change by about 1e-3).
        embedder: name of the embedder for the description.
        fingerprint: fingerprint of the inputs. Unfinished work with the same fingerprint is kept, other
            unfinished work is deleted.
        weights: SHA-256 of the weights of the model directory (:mod:`retrieval.results.weights`); None if the
            frames do not depend on them.
        dataset: record of the embedded data set (:mod:`zipformer.data.dataset`).

    Raises:
        UserError: the dtype is not known, or (when the block begins) another process writes the same store.
    """

    def __init__(
        self,
        directory: Path,
        *,
        dimension: int,
        dtype: str,
        embedder: str,
        fingerprint: str,
        weights: str | None = None,
        dataset: Mapping[str, str] | None = None,
    ) -> None:
        if dtype not in STORAGE_TYPES:
            raise UserError(f"storage type must be one of {', '.join(STORAGE_TYPES)}; found {dtype!r}")
        self.directory = directory
        self.partial = directory.with_name(directory.name + ".partial")
        self.dimension = dimension
        self.dtype = np.dtype(dtype)
        self.description = {
            "embedder": embedder,
            "fingerprint": fingerprint,
            "dimension": dimension,
            "dtype": dtype,
            "weights": weights,
            "dataset": None if dataset is None else dict(dataset),
        }
        self.written: dict[str, Utterance] = {}
        self.total_frames = 0
        self._header_bytes = 0
        self._frames: BinaryIO | None = None
        self._index: TextIO | None = None
        self._alone = ExitStack()

    def __enter__(self) -> "EmbeddingWriter":
        with ExitStack() as stack:
            stack.enter_context(one_writer(self.directory, wait=False))
            self._open()
            self._alone = stack.pop_all()
        return self

    def _open(self) -> None:
        if self.partial.exists() and self._description_on_disk() != self.description:
            logger.info("%s was made by another model or from other data: starting again", self.partial)
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True, exist_ok=True)
        frames_path, index_path = self.partial / FRAMES, self.partial / INDEX
        if not self._recover(frames_path, index_path):
            frames_path.write_bytes(b"")
            index_path.write_text("\t".join(COLUMNS) + "\n", encoding="utf-8")
            (self.partial / DESCRIPTION).write_text(json.dumps(self.description, indent=2) + "\n", "utf-8")
        self._frames = frames_path.open("r+b")
        self._write_header()
        self._header_bytes = self._frames.tell()
        self._frames.seek(0, os.SEEK_END)
        self._index = index_path.open("a", encoding="utf-8")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._frames is not None
        assert self._index is not None
        with self._alone:
            if kind is None:
                self._frames.seek(0)
                self._write_header()
                if self._frames.tell() != self._header_bytes:
                    raise RuntimeError(f"numpy changed the length of the header of {self.partial / FRAMES}")
            self._frames.close()
            self._index.close()
            if kind is None:
                replace_folder(self.partial, self.directory)

    def add(
        self,
        utterance_id: str,
        frames: NDArray[np.floating],
        *,
        dialect: str,
        subdialect: str = "",
        site: str = "",
        sentence_id: str = "",
    ) -> None:
        """Append the frames (T',D) of one utterance.

        Raises:
            UserError: the id is a duplicate, the shape is wrong, there are no frames, a value is not finite
                in the storage type, or a field has a tab or line break.
        """
        if self._frames is None or self._index is None:
            raise RuntimeError("open the writer with a `with` statement before adding to it")
        if utterance_id in self.written:
            raise UserError(f"utterance {utterance_id} is embedded twice: utterance ids must be unique")
        if frames.ndim != 2 or frames.shape[1] != self.dimension or len(frames) == 0:
            raise UserError(
                f"utterance {utterance_id}: embeddings must be (frames >= 1, {self.dimension}),"
                f" found {frames.shape}; leave out utterances that are too short for the model"
            )
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(frames, dtype=self.dtype)
        if not np.isfinite(stored).all():
            raise UserError(
                f"utterance {utterance_id}: the embeddings hold values that are not finite in {self.dtype}; "
                "check its features, or store float32 if the values are only large"
            )
        entry = Utterance(
            utterance_id, self.total_frames, len(stored), dialect, subdialect, site, sentence_id
        )
        line = "\t".join(str(value) for value in astuple(entry))
        if line.count("\t") != len(COLUMNS) - 1 or len(line.splitlines()) != 1:
            raise UserError(
                f"utterance {utterance_id!r}: a tab or line break in {entry}; the index cannot hold it"
            )
        self._frames.write(stored.tobytes())
        self._frames.flush()
        self._index.write(line + "\n")
        self._index.flush()
        self.written[utterance_id] = entry
        self.total_frames += len(stored)

    def _write_header(self) -> None:
        # numpy leaves room in the header for a longer first axis, so it can be rewritten in place.
        assert self._frames is not None
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.total_frames, self.dimension),
        }
        np.lib.format.write_array_header_1_0(self._frames, header)

    def _description_on_disk(self) -> object:
        path = self.partial / DESCRIPTION
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:  # killed while writing it
            return None

    def _recover(self, frames_path: Path, index_path: Path) -> bool:
        """Keep the utterances whose frames and index line are whole, and truncate the files after them.

        Returns:
            False if there is nothing to keep; damaged files are reported in the log.
        """
        if not (index_path.exists() and frames_path.exists()):
            return False
        try:
            self._keep_whole(frames_path, index_path)
        except ValueError as error:
            logger.warning("What an earlier run left is damaged, starting again: %s", error)
            return False
        return True

    def _keep_whole(self, frames_path: Path, index_path: Path) -> None:
        """See :meth:`_recover`; raises UserError for a damaged header or index."""
        text = index_path.read_text(encoding="utf-8", errors="replace")
        whole_lines = text.splitlines(keepends=True)
        if whole_lines and not whole_lines[-1].endswith("\n"):
            whole_lines.pop()
        with frames_path.open("rb") as file:
            header = file.read(6)
            available = 0
            if header:
                file.seek(0)
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                start = file.tell()
                available = (frames_path.stat().st_size - start) // (self.dimension * self.dtype.itemsize)
        kept: list[Utterance] = []
        for entry in _parse_index(whole_lines, index_path):
            if entry.offset + entry.frames > available:
                break
            kept.append(entry)
        self.written = {entry.utterance_id: entry for entry in kept}
        self.total_frames = sum(entry.frames for entry in kept)
        lines = [COLUMNS, *(astuple(entry) for entry in kept)]
        write_text(index_path, "".join("\t".join(map(str, line)) + "\n" for line in lines))
        if header:
            os.truncate(frames_path, start + self.total_frames * self.dimension * self.dtype.itemsize)
        logger.info("Resuming after %d utterances that are embedded already", len(kept))


class EmbeddingStore:
    """Reads a store; the frames stay on disk until they are used.

    Attributes:
        frames: memory map (total_frames, D).
        utterances: index entries by utterance id, in the order of the index.
        description: embedder, fingerprint, dimension, dtype, weights, dataset.

    Raises:
        UserError: there is no such store (the message names the command that makes it), or the index does not
            fit the array.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in (FRAMES, INDEX, DESCRIPTION):
            if not (directory / name).is_file():
                raise UserError(
                    f"no embeddings at {directory} ({name} is missing): make them with fangyan embed"
                )
        try:
            text = (directory / DESCRIPTION).read_text(encoding="utf-8")
            self.description: dict[str, object] = json.loads(text)
            self.frames: NDArray[np.floating] = np.load(directory / FRAMES, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise UserError(f"the embeddings in {directory} are damaged ({error}): embed again") from error
        if not isinstance(self.description, dict):
            raise UserError(f"{directory / DESCRIPTION} is not a description of embeddings: embed again")
        index_path = directory / INDEX
        with index_path.open(encoding="utf-8") as file:
            entries = list(_parse_index(file, index_path))
        self.utterances = {entry.utterance_id: entry for entry in entries}
        total = sum(entry.frames for entry in entries)
        if self.frames.ndim != 2 or self.frames.shape[1] != self.description.get("dimension"):
            raise UserError(
                f"{directory / FRAMES} holds an array {self.frames.shape} and {DESCRIPTION} says"
                f" {self.description.get('dimension')} dimensions: embed again"
            )
        if total != len(self.frames):
            raise UserError(
                f"{index_path} describes {total} frames and {FRAMES} holds {len(self.frames)}: embed again"
            )

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances.values())

    def __getitem__(self, utterance_id: str) -> NDArray[np.floating]:
        """Frames (T',D) of an utterance.

        Raises:
            KeyError: the utterance is not in the index.
        """
        entry = self.utterances.get(utterance_id)
        if entry is None:
            raise KeyError(f"no utterance {utterance_id!r} among the {len(self)} of {self.directory}")
        return self.frames[entry.offset : entry.offset + entry.frames]

    def mean_frame(self, *, block: int = 1 << 16) -> NDArray[np.float64]:
        """Mean (D,) of all frames, in float64, reading ``block`` frames at a time."""
        total = np.zeros(self.frames.shape[1])
        for start in range(0, len(self.frames), block):
            total += self.frames[start : start + block].sum(axis=0, dtype=np.float64)
        return total / len(self.frames)


def is_complete(directory: Path, fingerprint: str) -> bool:
    """Whether there is a complete store with this fingerprint; a damaged store is reported in the log."""
    if not directory.exists():
        return False
    try:
        description = EmbeddingStore(directory).description
    except UserError as error:
        logger.warning("Made again, because what is there is damaged: %s", error)
        return False
    return description.get("fingerprint") == fingerprint


def _parse_index(lines: Iterable[str], path: Path) -> Iterator[Utterance]:
    """Entries of an index, with checks of columns, numbers, unique ids and consecutive offsets."""
    seen: set[str] = set()
    offset = 0
    for number, line in enumerate(lines, start=1):
        values = line.rstrip("\n").split("\t")
        if number == 1:
            if tuple(values) != COLUMNS:
                raise UserError(
                    f"{path}, line 1: columns must be {', '.join(COLUMNS)}; found {', '.join(values)}"
                )
            continue
        if len(values) != len(COLUMNS) or not (values[1].isdecimal() and values[2].isdecimal()):
            raise UserError(
                f"{path}, line {number}: not an entry of an index: {line.rstrip()!r}; embed again"
            )
        entry = Utterance(values[0], int(values[1]), int(values[2]), *values[3:])
        if entry.utterance_id in seen:
            raise UserError(
                f"{path}, line {number}: utterance {entry.utterance_id} is there twice; embed again"
            )
        if entry.offset != offset or entry.frames < 1:
            raise UserError(
                f"{path}, line {number}: utterance {entry.utterance_id} has offset {entry.offset} and"
                f" {entry.frames} frames, expected offset {offset}; embed again"
            )
        seen.add(entry.utterance_id)
        offset += entry.frames
        yield entry
