"""The dictionary of the embedded corpus: a concept and its word in each variety.

``lexicon.tsv`` has one line a concept: its name, the word classes that the grammar asks for, the Mandarin
word, and the words of those groups and varieties that use another word. An empty cell means the word of the
group, an empty group the Mandarin word.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from zipformer.errors import UserError

LEXICON_FILE: Final = Path(__file__).with_name("lexicon.tsv")
STANDARD: Final = "cmn"


@dataclass(frozen=True)
class Entry:
    """One concept.

    Attributes:
        concept: name of the concept in English, e.g. ``umbrella``.
        classes: word classes, e.g. ``("goods", "lent")``.
        words: word by group or variety; ``cmn`` is always there.
    """

    concept: str
    classes: tuple[str, ...]
    words: dict[str, str]

    def word(self, variety: str) -> str:
        """The word of a variety, e.g. ``wuu-suzhou``."""
        group = variety.partition("-")[0]
        return self.words.get(variety) or self.words.get(group) or self.words[STANDARD]


@lru_cache(maxsize=1)
def entries() -> dict[str, Entry]:
    """All entries by concept, in the order of the file.

    Raises:
        UserError: a concept stands in two lines, or has no Mandarin word.
    """
    result: dict[str, Entry] = {}
    with LEXICON_FILE.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        for row in reader:
            concept, classes = row.pop("concept"), tuple(row.pop("classes").split())
            words = {name: word for name, word in row.items() if word}
            if concept in result or STANDARD not in words:
                where = f"{LEXICON_FILE.name}, line {reader.line_num}"
                raise UserError(f"{where}: {concept!r} stands there twice or has no Mandarin word")
            result[concept] = Entry(concept, classes, words)
    return result


@lru_cache(maxsize=1)
def concepts_by_class() -> dict[str, tuple[str, ...]]:
    """The concepts of every word class."""
    classes = dict.fromkeys(name for entry in entries().values() for name in entry.classes)
    return {name: tuple(c for c, entry in entries().items() if name in entry.classes) for name in classes}


def words(concepts: Sequence[str], variety: str) -> list[str]:
    """A sentence, given as concepts, in the words of a variety."""
    return [entries()[concept].word(variety) for concept in concepts]


def text(concepts: Sequence[str], variety: str) -> str:
    """A sentence in the characters of a variety."""
    return "".join(words(concepts, variety))
