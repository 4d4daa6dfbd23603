"""Proper nouns and numbers in a text, by a part-of-speech tagger.

Sentences with them are easy queries: names sound alike in all dialects, and a number can be recognised
without the rest of the sentence.
"""

import logging
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

from rich.progress import track

from data_prep.foreign_warnings import without_jieba_warnings
from retrieval.challenge.settings import NamesConfig, TaggerKind
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

Tagger = Callable[[str], list[tuple[str, str]]]  # words of a text and their tags


def named_words(texts: Iterable[str], config: NamesConfig) -> dict[str, list[str]]:
    """Proper nouns and numbers of each text, as ``word/tag``; empty for most texts.

    Raises:
        UserError: the tagger, or its model, is not installed.
    """
    tag = _tagger(config)
    wanted = tuple(config.chosen_tags)
    different = sorted(set(texts))
    return {
        text: [f"{word}/{label}" for word, label in tag(text) if label.startswith(wanted)]
        for text in track(different, description="tagging")
    }


def tagger_version(config: NamesConfig) -> str:
    """Name and version of the tagger, for the record."""
    if config.tagger is TaggerKind.jieba:
        return f"jieba {version('jieba')}"
    return f"spacy {version('spacy')}, {config.spacy_model}"


def _tagger(config: NamesConfig) -> Tagger:
    return _jieba() if config.tagger is TaggerKind.jieba else _spacy(config.spacy_model)


def _jieba() -> Tagger:
    try:
        with without_jieba_warnings():
            import jieba
    except ModuleNotFoundError as error:
        raise UserError(_absent("jieba", "challenge")) from error
    jieba.setLogLevel(logging.WARNING)  # it logs where its cache is
    tokenizer = _jieba_tokenizer()

    def tag(text: str) -> list[tuple[str, str]]:
        return [(pair.word, pair.flag) for pair in tokenizer.lcut(text)]

    return tag


@cache
def _jieba_tokenizer() -> Any:
    """A separate tokenizer: words that other code adds to jieba's global tokenizer would change the tags."""
    import jieba
    from jieba import posseg

    return posseg.POSTokenizer(jieba.Tokenizer())


def _spacy(model: str) -> Tagger:
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise UserError(_absent("spacy", "spacy")) from error
    try:
        pipeline = spacy.load(model)
    except OSError as error:
        raise UserError(
            f"no spaCy pipeline {model!r}: python -m spacy download {model}, or correct names.spacy_model"
        ) from error

    def tag(text: str) -> list[tuple[str, str]]:
        return [(token.text, token.pos_) for token in pipeline(text)]

    return tag


def _absent(package: str, extra: str) -> str:
    return (
        f"names.tagger={package} needs {package}, which is not installed: pip install 'fangyan[{extra}]',"
        " take another tagger, or leave names out of removals"
    )
