"""Frozen text encoders, which map a sentence to one vector: the teachers of text alignment.

``ngrams`` needs no weights: a sentence is a bag of character n-grams, reduced to few dimensions by a fixed
random projection. It represents the characters that two sentences share, but no synonyms. Any other name is
the name or directory of a Hugging Face text encoder, whose token states are averaged; it adds learnt
knowledge of meaning.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zipformer.device import upload
from zipformer.errors import UserError

NGRAMS = "ngrams"
_CACHED_SENTENCES = 20_000


@dataclass
class TeacherConfig:
    """Settings of the text encoder.

    Attributes:
        encoder: ``ngrams``, or the name or directory of a Hugging Face model (needs the extra
            ``huggingface``).
        field: field of the supervision with the sentence: ``text``, or a field of ``custom``.
        ngram_dim: dimension of ``ngrams``. The cosine of two sentences without a common n-gram deviates from
            0 by about 1/sqrt(ngram_dim).
        longest_ngram: length of the longest n-gram in characters; 1 ignores the order of characters.
    """

    encoder: str = NGRAMS
    field: str = "translation"
    ngram_dim: int = 256
    longest_ngram: int = 2

    def __post_init__(self) -> None:
        for name in ("ngram_dim", "longest_ngram"):
            if getattr(self, name) < 1:
                raise UserError(f"teacher.{name}={getattr(self, name)} must be at least 1")


class SentenceEncoder(Protocol):
    """Interface of text encoders; equal sentences have equal embeddings."""

    @property
    def dim(self) -> int: ...

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Embeddings (M, dim), fp32, without gradient."""
        ...


class NgramEncoder:
    """Bags of character n-grams with a fixed random projection.

    The vector of an n-gram is drawn from a normal distribution with a hash of the n-gram as seed, so that
    nothing is stored or fitted and every machine gets the same vectors. The expected inner product of two
    sentences is that of their n-gram counts (Johnson and Lindenstrauss 1984).

    Args:
        dim: dimension of the embeddings.
        longest: length of the longest n-gram in characters.
        device: device of the embeddings.
    """

    def __init__(self, dim: int, longest: int, device: torch.device | str = "cpu") -> None:
        self.dim = dim
        self.longest = longest
        self._device = torch.device(device)
        self._vector = lru_cache(maxsize=100_000)(self._draw)
        self._embed = _Cache(self._bags)

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        return upload(self._embed(sentences), self._device)

    def _bags(self, sentences: Sequence[str]) -> Tensor:
        sums = [torch.stack([self._vector(ngram) for ngram in self.ngrams(s)]).sum(0) for s in sentences]
        return F.normalize(torch.stack(sums), dim=-1)

    def ngrams(self, sentence: str) -> Iterable[str]:
        """N-grams of all lengths, with repetitions; longer ones may include marks of the sentence ends."""
        bounded = f"\x02{sentence}\x03"
        for length in range(1, self.longest + 1):
            text = sentence if length == 1 else bounded
            yield from (text[start : start + length] for start in range(len(text) - length + 1))

    def _draw(self, ngram: str) -> Tensor:
        seed = int.from_bytes(hashlib.blake2b(ngram.encode(), digest_size=8).digest(), "big")
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(self.dim, dtype=np.float32))


class HuggingFaceEncoder:
    """Mean over the last token states of a pretrained text encoder, special tokens included.

    Args:
        name: name or directory of a Hugging Face model.
        device: device of the model.

    Raises:
        UserError: the extra ``huggingface`` is not installed, or there is no such model.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        if problem := encoder_problem(name):
            raise UserError(f"teacher.encoder={name}: {problem}")
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            self._model = AutoModel.from_pretrained(name).to(device).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"teacher.encoder={name} cannot be loaded ({error}): give {NGRAMS}, a directory that holds a "
                "text encoder, or a name that Hugging Face knows"
            ) from error
        self._embed = _Cache(self._states)

    @property
    def dim(self) -> int:
        return int(self._model.config.hidden_size)

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        return self._embed(sentences)

    @torch.no_grad()
    def _states(self, sentences: Sequence[str]) -> Tensor:
        batch = self._tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
        batch = {name: tensor.to(self._model.device) for name, tensor in batch.items()}
        states = self._model(**batch).last_hidden_state.float()  # (M, S, dim)
        mask = batch["attention_mask"].unsqueeze(-1)
        return (states * mask).sum(1) / mask.sum(1)


class _Cache:
    """Caches the embeddings of the sentences that were used last.

    Sentences recur often in corpora, and each must have one embedding, independent of the padding in a batch.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Tensor]) -> None:
        self._embed = embed
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._known]
        if new:
            self._known.update(zip(new, self._embed(new).unbind(), strict=True))
        for sentence in sentences:
            self._known.move_to_end(sentence)
        rows = torch.stack([self._known[sentence] for sentence in sentences])
        while len(self._known) > _CACHED_SENTENCES:
            self._known.popitem(last=False)
        return rows


def build_sentence_encoder(config: TeacherConfig, device: torch.device | str = "cpu") -> SentenceEncoder:
    """Build the text encoder of a configuration.

    Raises:
        UserError: see :class:`HuggingFaceEncoder`.
    """
    if config.encoder == NGRAMS:
        return NgramEncoder(config.ngram_dim, config.longest_ngram, device)
    return HuggingFaceEncoder(config.encoder, device)


def encoder_problem(name: str) -> str | None:
    """Reason why an encoder cannot be used; None if it can."""
    if name != NGRAMS and find_spec("transformers") is None:
        return (
            "the package transformers is not installed; install the extra huggingface, or set "
            f"teacher.encoder={NGRAMS}"
        )
    return None


def different_sentences(sentences: Sequence[str]) -> tuple[list[str], list[int]]:
    """Distinct sentences (M) in the order of first use, and the index of each sentence among them (N,)."""
    numbers = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    return list(numbers), [numbers[sentence] for sentence in sentences]
