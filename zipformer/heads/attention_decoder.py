"""Attention decoder: a pre-norm Transformer that reads encoder frames and predicts the transcript.

Vaswani et al., "Attention is all you need" (2017); pre-norm: Xiong et al. (2020). It is the third head beside
the transducer and CTC. Its loss helps to train the encoder; retrieval does not need it, and
:mod:`zipformer.decoding.attention` decodes with it.

It can write two texts of an utterance, the transcript and the translation, as in models that recognise and
translate speech with one decoder. The start token selects one of the two.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zipformer.data.tokenizer import SOS_EOS
from zipformer.device import upload
from zipformer.errors import UserError
from zipformer.heads.head import EncodedBatch, Head, HeadSizes, register_head
from zipformer.layers.regularizers import penalize_abs_values_gt

_IGNORED = -1


@dataclass
class AttentionDecoderConfig:
    """Sizes of the attention decoder.

    ``num_layers`` 0 leaves the decoder out. ``dim`` is the width of the layers, ``feedforward_dim`` the width
    inside their feedforward modules, ``attention_dim`` the total width of the ``num_heads`` heads.
    ``dropout`` applies to the embedded tokens, inside the feedforward modules and to each residual branch.
    ``label_smoothing`` is the share of the target probability that is spread evenly over the vocabulary.
    ``translation`` trains the decoder for translations too.
    """

    num_layers: int = 0  # 0 = no attention decoder
    dim: int = 512  # channels of the layers
    attention_dim: int = 512  # total channels of all heads
    num_heads: int = 8  # number of attention heads
    feedforward_dim: int = 2048  # hidden channels of the feedforward modules
    dropout: float = 0.1  # on embedded tokens, inside the feedforward, on each residual branch
    label_smoothing: float = 0.1  # share of the target probability that is spread evenly over the vocabulary
    translation: bool = False  # let the decoder write translations too

    def __post_init__(self) -> None:
        if self.translation and not self.num_layers:
            raise UserError(
                "attention_decoder.translation=true needs a decoder: set attention_decoder.num_layers"
            )
        if self.attention_dim % self.num_heads:
            raise UserError(
                f"attention_decoder.attention_dim={self.attention_dim} is not a multiple of "
                f"attention_decoder.num_heads={self.num_heads}; change one of them"
            )
        if self.dim % 2:
            raise UserError(
                f"attention_decoder.dim={self.dim} is odd; the sine and cosine positions need an even number"
            )


def sinusoidal_positions(
    length: int, dim: int, device: torch.device | None = None, *, first: int = 0
) -> Tensor:
    """Position table (length, dim): sines in even columns, cosines in odd, wavelengths 2 pi to 20000 pi.

    ``first`` is the position of the first row.
    """
    position = torch.arange(first, first + length, dtype=torch.float32, device=device)
    frequency = torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-math.log(10000.0) / dim)
    )
    angle = position[:, None] * frequency  # (length, dim / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention from ``dim`` channels to memory of ``memory_dim`` channels."""

    def __init__(self, dim: int, attention_dim: int, num_heads: int, memory_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear_q = nn.Linear(dim, attention_dim)
        self.linear_k = nn.Linear(memory_dim, attention_dim)
        self.linear_v = nn.Linear(memory_dim, attention_dim)
        self.out_proj = nn.Linear(attention_dim, dim)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            query: queries (N, S, dim).
            memory: memory (N, T, memory_dim).
            mask: bool, broadcastable to (N, S, T); True = hidden. Every query must see at least one position.

        Returns:
            (N, S, dim).
        """
        return self.attend(query, *self.keys_and_values(memory), mask)

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (N, H, T, attention_dim / H), of a memory (N, T, memory_dim)."""
        return self._split_heads(self.linear_k(memory)), self._split_heads(self.linear_v(memory))

    def attend(self, query: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Like :meth:`forward`, with the keys and values of the memory."""
        weights = self._weights(query, k, mask)
        return self.out_proj((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))

    def weights(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attention weights of each head, (N, H, S, T); arguments as in :meth:`forward`."""
        return self._weights(query, self._split_heads(self.linear_k(memory)), mask)

    def _weights(self, query: Tensor, k: Tensor, mask: Tensor) -> Tensor:
        q = self._split_heads(self.linear_q(query))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (N, H, S, T)
        if self.training:
            # Beyond 50 the softmax is saturated and passes no gradient: keep scores from drifting there.
            scores = penalize_abs_values_gt(scores, limit=50.0, penalty=1e-4)
        return scores.masked_fill(mask.unsqueeze(1), float("-inf")).softmax(dim=-1)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


@dataclass
class LayerMemory:
    """Keys and values of N utterances in one layer, each (N, H, ., attention_dim / H).

    Attributes:
        tokens: keys and values of the tokens so far.
        frames: keys and values of the encoder frames.
    """

    tokens: tuple[Tensor, Tensor]
    frames: tuple[Tensor, Tensor]


class AttentionDecoderLayer(nn.Module):
    """Self-attention, attention to the frames, feedforward; each on normalised input, with a residual."""

    def __init__(self, config: AttentionDecoderConfig, memory_dim: int) -> None:
        super().__init__()
        dim = config.dim
        self.norm_self_attn = nn.LayerNorm(dim)
        self.self_attn = MultiHeadAttention(dim, config.attention_dim, config.num_heads, dim)
        self.norm_src_attn = nn.LayerNorm(dim)
        self.src_attn = MultiHeadAttention(dim, config.attention_dim, config.num_heads, memory_dim)
        self.norm_ff = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, config.feedforward_dim),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward_dim, dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, causal_mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Map x (N, S, dim) to (N, S, dim); masks as in :class:`MultiHeadAttention`."""
        normed = self.norm_self_attn(x)
        x = x + self.dropout(self.self_attn(normed, normed, causal_mask))
        x = x + self.dropout(self.src_attn(self.norm_src_attn(x), memory, memory_mask))
        return x + self.dropout(self.feed_forward(self.norm_ff(x)))

    def step(self, x: Tensor, memory: LayerMemory, memory_mask: Tensor) -> Tensor:
        """Row of :meth:`forward` for one more token, x (N, 1, dim), which is added to the memory."""
        normed = self.norm_self_attn(x)
        k, v = self.self_attn.keys_and_values(normed)
        memory.tokens = torch.cat((memory.tokens[0], k), dim=2), torch.cat((memory.tokens[1], v), dim=2)
        sees_all = memory_mask.new_zeros(1, 1, 1)
        x = x + self.self_attn.attend(normed, *memory.tokens, sees_all)
        x = x + self.src_attn.attend(self.norm_src_attn(x), *memory.frames, memory_mask)
        return x + self.feed_forward(self.norm_ff(x))


@dataclass
class Prefixes:
    """N unfinished texts of equal length: the state between calls of :meth:`AttentionDecoder.step`.

    Attributes:
        translate: True if the texts are translations.
        length: number of tokens so far, with the start.
        mask: padding mask of the encoder frames, (N, 1, T) bool, True = padding.
        layers: memory of every layer.
    """

    translate: bool
    length: int
    mask: Tensor
    layers: list[LayerMemory]

    def keep(self, rows: Tensor) -> None:
        """Continue with only the given (n,) utterances."""
        self.mask = self.mask[rows]
        for layer in self.layers:
            layer.tokens = layer.tokens[0][rows], layer.tokens[1][rows]
            layer.frames = layer.frames[0][rows], layer.frames[1][rows]


@register_head("attention_decoder", AttentionDecoderConfig)
class AttentionDecoder(Head):
    """Autoregressive decoder over encoder frames.

    Args:
        config: sizes; ``num_layers`` at least 1.
        vocab_size: number of tokens; id 1 starts and ends every transcript.
        memory_dim: channels of the encoder frames.
    """

    setting: ClassVar[str] = "model.attention_decoder.num_layers above 0"
    vocabulary_modules: ClassVar[tuple[str, ...]] = ("embed", "output_layer")

    def __init__(self, config: AttentionDecoderConfig, vocab_size: int, memory_dim: int) -> None:
        super().__init__()
        self.loss_names = ("attention", "translation") if config.translation else ("attention",)
        self.label_smoothing = config.label_smoothing
        self.embed = nn.Embedding(vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            AttentionDecoderLayer(config, memory_dim) for _ in range(config.num_layers)
        )
        self.output_layer = nn.Linear(config.dim, vocab_size)
        # Replaces the embedding of SOS_EOS at the start of a translation.
        self.translation_start = nn.Parameter(torch.randn(config.dim)) if config.translation else None

    @classmethod
    def build(cls, settings: AttentionDecoderConfig, sizes: HeadSizes) -> "AttentionDecoder":
        return cls(settings, sizes.vocab_size, sizes.frame_dim)

    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        """``attention`` for the transcripts, ``translation`` for the translations, if there are any."""
        losses = {}
        if "attention" in wanted:
            losses["attention"] = self.loss(batch.frames, batch.lengths, batch.tokens)
        if "translation" in self.loss_names and "translation" in wanted and batch.translations is not None:
            losses["translation"] = self.loss(batch.frames, batch.lengths, batch.translations, translate=True)
        return losses

    def logits(
        self, memory: Tensor, memory_lengths: Tensor, tokens: Tensor, *, translate: bool = False
    ) -> Tensor:
        """Unnormalised log-probabilities of the token that follows each prefix.

        Args:
            memory: encoder frames (N, T, memory_dim).
            memory_lengths: number of valid frames (N,), each at least 1.
            tokens: token ids, (N, S) int64; column 0 is ``SOS_EOS``. Tokens after position s do not affect
                row s, so any id can be used for padding at the end.
            translate: True if the tokens are those of a translation.

        Returns:
            (N, S, vocab_size).
        """
        length = tokens.shape[1]
        x = self.dropout(self._embed(tokens, 0, translate))
        causal_mask = torch.ones(1, length, length, dtype=torch.bool, device=x.device).triu(1)
        memory_mask = _padding(memory, memory_lengths)
        for layer in self.layers:
            x = layer(x, causal_mask, memory, memory_mask)
        return self.output_layer(x)

    def begin(self, memory: Tensor, memory_lengths: Tensor, *, translate: bool = False) -> Prefixes:
        """Empty texts; arguments as in :meth:`logits`."""
        layers = []
        for layer in self.layers:
            assert isinstance(layer, AttentionDecoderLayer)
            frames = layer.src_attn.keys_and_values(memory)
            nothing = memory.new_empty(len(memory), 0, self.embed.embedding_dim)
            layers.append(LayerMemory(layer.self_attn.keys_and_values(nothing), frames))
        return Prefixes(translate, 0, _padding(memory, memory_lengths), layers)

    def step(self, prefixes: Prefixes, tokens: Tensor) -> Tensor:
        """Add one token to each prefix; returns the last row of :meth:`logits`, using the stored state.

        Args:
            prefixes: unfinished texts; changed in place.
            tokens: next token of each text, (N,) int64; ``SOS_EOS`` at the first step.

        Returns:
            Logits (N, vocab_size), without dropout and gradient penalties: for a decoder in evaluation mode.
        """
        x = self._embed(tokens.unsqueeze(1), prefixes.length, prefixes.translate)
        prefixes.length += 1
        for layer, memory in zip(self.layers, prefixes.layers, strict=True):
            assert isinstance(layer, AttentionDecoderLayer)
            x = layer.step(x, memory, prefixes.mask)
        return self.output_layer(x.squeeze(1))

    def _embed(self, tokens: Tensor, first: int, translate: bool) -> Tensor:
        """Embeddings (N, S, dim), with positions, of tokens (N, S) from position ``first`` on."""
        x = self.embed(tokens)
        if translate and first == 0:
            assert self.translation_start is not None, "the decoder was not made for translation"
            x = torch.cat((self.translation_start.expand(len(x), 1, -1), x[:, 1:]), dim=1)
        length, dim = x.shape[1:]
        return x * math.sqrt(dim) + sinusoidal_positions(length, dim, x.device, first=first)

    def loss(
        self,
        memory: Tensor,
        memory_lengths: Tensor,
        tokens: Sequence[Sequence[int]],
        *,
        translate: bool = False,
    ) -> Tensor:
        """Label-smoothed cross entropy of the texts, summed over all tokens and ends of sentence.

        Args:
            memory: (N, T, memory_dim) encoder frames.
            memory_lengths: number of valid frames (N,).
            tokens: tokens of the N texts, without ``SOS_EOS``.
            translate: True if the texts are translations.

        Returns:
            Scalar, in nats.
        """
        inputs = pad_sequence(
            [torch.tensor([SOS_EOS, *utterance]) for utterance in tokens],
            batch_first=True,
            padding_value=SOS_EOS,
        )
        targets = pad_sequence(
            [torch.tensor([*utterance, SOS_EOS]) for utterance in tokens],
            batch_first=True,
            padding_value=_IGNORED,
        )
        logits = self.logits(memory, memory_lengths, upload(inputs, memory.device), translate=translate)
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            upload(targets.flatten(), memory.device),
            ignore_index=_IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )


def _padding(memory: Tensor, lengths: Tensor) -> Tensor:
    """Padding mask (N, 1, T), True where frames (N, T, .) are after the lengths (N,)."""
    frame = torch.arange(memory.shape[1], device=memory.device)
    return (frame >= lengths[:, None]).unsqueeze(1)
