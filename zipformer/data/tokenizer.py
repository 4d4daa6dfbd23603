"""Conversion of text to token ids and back.

A ``Tokenizer`` uses the sentencepiece model of data preparation: the characters of the corpus are pieces, and
any other character is spelt by its bytes in UTF-8, so that no text is lost. Ids 0, 1 and 2 are ``<blk>``,
``<sos/eos>`` and ``<unk>``.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from zipformer.errors import UserError

TOKENS_FILE = "tokens.model"
TOKEN_TABLE_FILE = "tokens.txt"
BLANK, SOS_EOS, UNKNOWN = 0, 1, 2
SPECIAL_PIECES = ("<blk>", "<sos/eos>", "<unk>")

_SPACE_PIECE = "▁"  # a space in sentencepiece
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_UNKNOWN_SIGN = "⁇"


class Tokenizer:
    """Sentencepiece model with the id convention of the toolkit.

    Attributes:
        pieces: the pieces by id.
    """

    def __init__(self, model: bytes) -> None:
        """
        Args:
            model: a serialised sentencepiece model.

        Raises:
            UserError: the bytes are not a sentencepiece model, or it has other special ids.
        """
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise UserError(f"not a sentencepiece model ({len(model)} bytes)") from error
        size = self._processor.get_piece_size()
        self.pieces: list[str] = [self._processor.id_to_piece(i) for i in range(size)]
        if tuple(self.pieces[:3]) != SPECIAL_PIECES:
            raise UserError(f"the first pieces are {self.pieces[:3]}, expected {list(SPECIAL_PIECES)}")
        self._bytes = [_bytes_of(piece) for piece in self.pieces]

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a model file, or ``tokens.model`` in a directory.

        Raises:
            UserError: there is no such file, or it is not a model of this toolkit.
        """
        path = Path(path)
        file = path / TOKENS_FILE if path.is_dir() else path
        if not file.is_file():
            raise UserError(
                f"{file}: no tokenizer there. Data preparation writes it to <data_dir>/tokens, training to "
                "every model directory"
            )
        try:
            return cls(file.read_bytes())
        except ValueError as error:
            raise UserError(f"{file}: {error}. Prepare the data again, or copy the file again") from error

    def save(self, directory: str | Path) -> None:
        """Write ``tokens.model`` and ``tokens.txt`` (one line ``piece id`` per token)."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENS_FILE).write_bytes(self._model)
        lines = "".join(f"{piece} {i}\n" for i, piece in enumerate(self.pieces))
        (directory / TOKEN_TABLE_FILE).write_text(lines, encoding="utf-8", newline="\n")

    @property
    def size(self) -> int:
        """Number of tokens, including special tokens and bytes."""
        return len(self.pieces)

    @property
    def sha256(self) -> str:
        """SHA-256 of ``tokens.model`` in hexadecimal digits."""
        return hashlib.sha256(self._model).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never ``<blk>``, ``<sos/eos>`` or ``<unk>``."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. ``decode(encode(text)) == text``, except that ``▁`` becomes a space.

        ``<blk>`` and ``<sos/eos>`` give nothing, ``<unk>`` gives ``⁇``; bytes that are not valid UTF-8, which
        a model may emit, give the replacement character U+FFFD.

        Raises:
            IndexError: an id is not below ``size``.
        """
        return b"".join(self._bytes[i] for i in ids).decode("utf-8", errors="replace")


def is_byte_piece(piece: str) -> bool:
    """Whether a piece is a byte of a character that has no piece of its own."""
    return _BYTE_PIECE.fullmatch(piece) is not None


def _bytes_of(piece: str) -> bytes:
    if piece in SPECIAL_PIECES:
        return _UNKNOWN_SIGN.encode() if piece == SPECIAL_PIECES[UNKNOWN] else b""
    if byte := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(byte[1], 16)])
    return piece.replace(_SPACE_PIECE, " ").encode()
