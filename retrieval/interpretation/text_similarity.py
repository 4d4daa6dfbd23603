"""Text similarities of two words, to compare with matches by embeddings."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError


class TextSimilarity(Protocol):
    """Similarity of words; 1 for equal words."""

    name: str

    def matrix(self, source: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
        """Similarities (W,V) of W words with V words."""
        ...


class CharacterOverlap:
    """Dice coefficient of characters: twice the number of shared characters over the sum of both lengths."""

    name = "characters"

    def matrix(self, source: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`TextSimilarity`."""
        return np.array([[dice(a, b) for b in target] for a in source]).reshape(len(source), len(target))


def dice(a: str, b: str) -> float:
    """Dice coefficient of two words, with repeated characters counted; 0 if one is empty."""
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared / (len(a) + len(b)) if a and b else 0.0


class TranslationTable:
    """1 for two words that a line of a table gives as translations, else 0.

    The table is tab-separated with a header; each line is a meaning and each column a variety; empty cells
    are ignored. Equal words are translations of each other. A word that is not a cell of the table (e.g. a
    single character of a longer word) stands for all cells that contain it.

    Args:
        path: file of the table.
        columns: columns of the table to read; empty = all.

    Attributes:
        words: words in all cells.

    Raises:
        UserError: there is no such file or column, or the table has no words.
    """

    name = "table"

    def __init__(self, path: Path, columns: Sequence[str] = ()) -> None:
        if not path.is_file():
            raise UserError(f"no translation table at {path}; correct table=FILE.tsv")
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            header = list(reader.fieldnames or ())
            missing = [column for column in columns if column not in header]
            if missing:
                raise UserError(
                    f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header)}"
                )
            self._lines: dict[str, frozenset[int]] = {}
            for number, row in enumerate(reader):
                for cell in {row[column] for column in columns or header} - {None, ""}:
                    self._lines[cell] = self._lines.get(cell, frozenset()) | {number}
        if not self._lines:
            raise UserError(f"{path} holds no words")
        self.words = frozenset(self._lines)
        self._found: dict[str, frozenset[int]] = {}

    def lines(self, word: str) -> frozenset[int]:
        """Numbers of the lines with a word as a cell or, if there are none, as part of a cell."""
        if word not in self._found:
            whole = self._lines.get(word)
            self._found[word] = (
                whole
                if whole is not None
                else frozenset().union(*(lines for cell, lines in self._lines.items() if word in cell))
            )
        return self._found[word]

    def matrix(self, source: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`TextSimilarity`."""
        values = [[float(a == b or bool(self.lines(a) & self.lines(b))) for b in target] for a in source]
        return np.array(values).reshape(len(source), len(target))


class SentenceEmbeddings:
    """Cosine of the embeddings of a text model, e.g. ``sentence-transformers/LaBSE``.

    Args:
        name: name or directory of a model that the package sentence-transformers can load.

    Raises:
        UserError: the package is not installed, or the model cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UserError(
                f"similarity {name} needs the package sentence-transformers; install it with: pip install "
                "'fangyan[sentences]', or take similarities=[characters]"
            ) from error
        try:
            self._model = SentenceTransformer(name)
        except (OSError, ValueError) as error:
            raise UserError(
                f"similarity {name}: no such text model ({error}); give characters, table, or the name or"
                " directory of a sentence-transformers model"
            ) from error
        self.name = name
        self._embeddings: dict[str, NDArray[np.float64]] = {}

    def matrix(self, source: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`TextSimilarity`; every word is embedded once."""
        new = sorted({*source, *target} - self._embeddings.keys())
        if new:
            vectors = self._model.encode(new, normalize_embeddings=True, show_progress_bar=False)
            self._embeddings |= dict(zip(new, np.asarray(vectors, np.float64), strict=True))
        rows, columns = (np.stack([self._embeddings[word] for word in words]) for words in (source, target))
        return rows @ columns.T


def choose_similarity(name: str, table: TranslationTable | None) -> TextSimilarity:
    """Similarity by name: ``characters``, ``table``, or otherwise a sentence-transformers model.

    Raises:
        UserError: the name is ``table`` but there is no table, or see :class:`SentenceEmbeddings`.
    """
    if name == CharacterOverlap.name:
        return CharacterOverlap()
    if name == TranslationTable.name:
        if table is None:
            raise UserError("similarity table needs a translation table; give it by table=FILE.tsv")
        return table
    return SentenceEmbeddings(name)
