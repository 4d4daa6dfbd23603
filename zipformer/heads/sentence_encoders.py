"""Frozen text encoders, the teachers of text alignment: from a sentence to one vector.

``ngrams`` needs no weights: a sentence is the bag of its character n-grams, brought to few dimensions by a
fixed random projection. It knows which characters two sentences share, and nothing of synonyms. Any other
name is a text encoder of Hugging Face, by name or directory, whose token states are averaged; that one brings
what it has learnt of meaning.
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
    """Which text encoder teaches.

    Attributes:
        encoder: ``ngrams``, or the name or directory of a Hugging Face model (needs the extra
            ``huggingface``).
        field: where the sentence stands in a supervision: ``text``, or a field of its ``custom``.
        ngram_dim: dimension of ``ngrams``. The cosine of two sentences without a common n-gram is about
            1/sqrt(ngram_dim) off from 0.
        longest_ngram: characters of the longest n-gram; 1 = no order of the characters.
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
    """Text encoder; equal sentences have equal embeddings."""

    @property
    def dim(self) -> int: ...

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Embeddings (M, dim), fp32, without gradient."""
        ...


class NgramEncoder:
    """Bags of character n-grams under a fixed random projection.

    The vector of an n-gram is drawn from a normal distribution whose seed is a hash of the n-gram, so that
    nothing is stored or fitted and every machine has the same. The inner product of two sentences is in
    expectation that of their n-gram counts (Johnson and Lindenstrauss 1984).

    Args:
        dim: dimension of the embeddings.
        longest: characters of the longest n-gram.
        device: where the embeddings are computed.
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
        """N-grams of all lengths, as often as they occur; longer ones may hold the ends of the sentence."""
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
        name: name of a model of Hugging Face, or its directory.
        device: where it runs.

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
    """A function of sentences that remembers the embeddings of those used last.

    Corpora say their sentences many times, and a sentence must have one embedding, not one for every
    neighbour that it was padded with.
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
    """The text encoder of a configuration.

    Raises:
        UserError: see :class:`HuggingFaceEncoder`.
    """
    if config.encoder == NGRAMS:
        return NgramEncoder(config.ngram_dim, config.longest_ngram, device)
    return HuggingFaceEncoder(config.encoder, device)


def encoder_problem(name: str) -> str | None:
    """Why an encoder cannot be used here; None if it can."""
    if name != NGRAMS and find_spec("transformers") is None:
        return (
            "the package transformers is not installed; install the extra huggingface, or set "
            f"teacher.encoder={NGRAMS}"
        )
    return None


def different_sentences(sentences: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different sentences (M) in the order of their first use, and for each sentence its number (N,)."""
    numbers = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    return list(numbers), [numbers[sentence] for sentence in sentences]
