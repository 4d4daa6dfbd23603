"""Segmenters, which divide a text without spaces into words."""

import logging
import warnings
from collections.abc import Iterable

from zipformer.alignment.spans import Segmenter
from zipformer.errors import UserError

SEGMENTERS = ("characters", "jieba", "longest_match")


def choose_segmenter(name: str, vocabulary: Iterable[str] = ()) -> Segmenter:
    """The segmenter with a name.

    Args:
        name: ``characters`` (every character is a word), ``jieba`` (a dictionary of Mandarin and a hidden
            Markov model for what it lacks; extra ``words``), or ``longest_match`` (the longest word of the
            vocabulary that begins at each place).
        vocabulary: words of ``longest_match``, and additional words for ``jieba``.

    Raises:
        UserError: the name is not known, jieba is not installed, or ``longest_match`` has no vocabulary.
    """
    words = frozenset(vocabulary) - {""}
    if name == "characters":
        return list
    if name == "jieba":
        return _jieba(words)
    if name == "longest_match":
        if not words:
            raise UserError("segmenter=longest_match needs words to look for; give them by table=FILE.tsv")
        return _longest_match(words)
    raise UserError(f"segmenter={name} is not known; choose one of {', '.join(SEGMENTERS)}")


def _jieba(words: frozenset[str]) -> Segmenter:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
            import jieba
    except ImportError as error:
        raise UserError(
            "segmenter=jieba needs the package jieba; install it with: pip install 'fangyan[words]'"
        ) from error
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    for word in sorted(words):
        tokenizer.add_word(word)
    return lambda text: list(tokenizer.cut(text))


def _longest_match(words: frozenset[str]) -> Segmenter:
    longest = max(map(len, words))

    def segment(text: str) -> list[str]:
        result: list[str] = []
        position = 0
        while position < len(text):
            lengths = range(min(longest, len(text) - position), 1, -1)
            length = next((n for n in lengths if text[position : position + n] in words), 1)
            result.append(text[position : position + length])
            position += length
        return result

    return segment
