"""Similarity of two words as texts, which matches by sound are compared with."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError


class TextSimilarity(Protocol):
    """Similarity of words, 1 for a word and itself."""

    name: str

    def matrix(self, source: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
        """Similarities (W,V) of W words with V words."""
        ...


class CharacterOverlap:
    """Dice's coefficient of the characters: twice those that two words share over those that both have."""

    name = "characters"

    def matrix(self, source: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`TextSimilarity`."""
        return np.array([[dice(a, b) for b in target] for a in source]).reshape(len(source), len(target))


def dice(a: str, b: str) -> float:
    """Shared characters of two words, counted as often as both have them; 0 where one is empty."""
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared / (len(a) + len(b)) if a and b else 0.0


class TranslationTable:
    """1 for two words that a line of a table gives as translations of each other, else 0.

    The table is tab-separated with a head line; a line is one meaning and a column one variety, an empty cell
    says nothing. Equal words are translations of each other. A word that is no cell of the table (a single
    character of a longer word, say) stands for the cells that contain it.

    Args:
        path: the table.
        columns: columns of the table to read; empty = all.

    Attributes:
        words: all cells.

    Raises:
        UserError: there is no such file.
        UserError: a column that is not there, or a table without words.
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
        """Numbers of the lines in which a word stands, by itself or, if nowhere, as a part."""
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
    """Cosine of the embeddings that a text model gives, e.g. ``sentence-transformers/LaBSE``.

    Args:
        name: name of a model that the package sentence-transformers can load, or its directory.

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
    """The similarity of a name: ``characters``, ``table``, or else a sentence-transformers model.

    Raises:
        UserError: ``table`` without a table, or as :class:`SentenceEmbeddings`.
    """
    if name == CharacterOverlap.name:
        return CharacterOverlap()
    if name == TranslationTable.name:
        if table is None:
            raise UserError("similarity table needs a translation table; give it by table=FILE.tsv")
        return table
    return SentenceEmbeddings(name)
