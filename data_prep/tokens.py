"""Tokens: the characters of the training text, and bytes for everything else.

The model is a sentencepiece character model. Its training depends only on the counts of the characters, so it
receives these counts instead of the text: memory does not grow with the corpus, and the same counts give the
same model, byte for byte.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sentencepiece
from lhotse import load_manifest_lazy

from data_prep.manifests import final_cuts_file
from zipformer.data.tokenizer import TOKEN_TABLE_FILE, TOKENS_FILE
from zipformer.errors import UserError
from zipformer.files import replacing

SPECIAL_PIECES = ("<blk>", "<sos/eos>", "<unk>")
_BYTES = 256


@dataclass
class TokenConfig:
    """Choice of the tokens.

    Attributes:
        min_count: a character that occurs less often in the training text is spelt in bytes. A larger value
            keeps the vocabulary small; 1 makes every character of the training text a token.
        further_data_dirs: prepared data directories whose training text is counted too, to share one
            vocabulary in a model that is trained on all of them.
        reuse: existing tokens.model (or its directory) to use instead of training one, e.g. that of a model
            to be fine-tuned.
    """

    min_count: int = 1
    further_data_dirs: list[str] = field(default_factory=list)
    reuse: str | None = None


def train_token_model(texts: Iterable[str], min_count: int = 1) -> bytes:
    """Train the sentencepiece model.

    Args:
        texts: normalised training transcripts; iterated once.
        min_count: least number of occurrences of a character for it to become a token.

    Returns:
        The serialised model: ids 0 to 2 are ``<blk>``, ``<sos/eos>``, ``<unk>``, then 256 bytes, then the
        characters from the most to the least frequent. Spaces are pieces ``▁``; none is added at the
        beginning.

    Raises:
        UserError: there is no text, or no character is frequent enough.
    """
    counts = Counter(character for text in texts for character in text)
    kept = sorted((c for c in counts.items() if c[1] >= min_count), key=lambda c: (-c[1], c[0]))
    if not kept:
        raise UserError(
            f"no character occurs {min_count} times in the training text ({counts.total()} characters): "
            "check that the split train has transcripts, or lower tokens.min_count"
        )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{character}\t{count}" for character, count in kept]),
        input_format="tsv",
        model_writer=model,
        model_type="char",
        vocab_size=len(SPECIAL_PIECES) + _BYTES + len(kept),
        character_coverage=1.0,
        byte_fallback=True,
        pad_id=0,
        pad_piece=SPECIAL_PIECES[0],
        bos_id=1,
        bos_piece=SPECIAL_PIECES[1],
        unk_id=2,
        unk_piece=SPECIAL_PIECES[2],
        eos_id=-1,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def further_manifests(data_dirs: Sequence[str]) -> list[Path]:
    """Files of the training cuts of ``further_data_dirs``.

    Raises:
        UserError: one of the directories has no training cuts.
    """
    files = [final_cuts_file(Path(directory), "train") for directory in data_dirs]
    for file in files:
        if not file.is_file():
            raise UserError(f"tokens.further_data_dirs: {file} does not exist; prepare {file.parent} first")
    return files


def further_texts(data_dirs: Sequence[str]) -> Iterator[str]:
    """Training transcripts of ``further_data_dirs``; raises the errors of :func:`further_manifests`."""
    for file in further_manifests(data_dirs):
        for cut in load_manifest_lazy(file):
            yield cut.supervisions[0].text


def write_tokens(model: bytes, directory: Path) -> int:
    """Write ``tokens.model`` and ``tokens.txt`` (lines ``piece id``); returns the number of tokens."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    size: int = processor.get_piece_size()
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / TOKEN_TABLE_FILE) as temporary:
        lines = "".join(f"{processor.id_to_piece(i)} {i}\n" for i in range(size))
        temporary.write_text(lines, encoding="utf-8", newline="\n")
    with replacing(directory / TOKENS_FILE) as temporary:
        temporary.write_bytes(model)
    return size


def read_token_model(path: str | Path) -> bytes:
    """Read a token model to be reused.

    Raises:
        UserError: there is no token model, or its special ids are not those of this toolkit.
    """
    path = Path(path)
    file = path / TOKENS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"tokens.reuse: {file} does not exist; give a tokens.model or a directory that has one"
        )
    model = file.read_bytes()
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(f"tokens.reuse: {file} is not a sentencepiece model") from error
    first = tuple(processor.id_to_piece(i) for i in range(len(SPECIAL_PIECES)))
    if first != SPECIAL_PIECES:
        raise UserError(f"tokens.reuse: {file} begins with the pieces {first}, expected {SPECIAL_PIECES}")
    return model
