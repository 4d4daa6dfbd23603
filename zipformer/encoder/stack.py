"""A stack of encoder layers with the same frame rate."""

from functools import partial

from torch import Tensor, nn

from zipformer.encoder.layer import EncoderLayer, StackSizes
from zipformer.layers.attention import RelPositionEncoding
from zipformer.layers.bypass import Bypass
from zipformer.layers.recompute import recomputed
from zipformer.layers.resampling import Downsample, Upsample
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike

_INITIAL_SKIP_RATE = 0.5
_FINAL_SKIP_RATE = 0.035


class EncoderStack(nn.Module):
    """Downsample, run the layers, upsample, and combine with the input through a learnt bypass.

    With ``downsampling_factor`` 1 there are only the layers. In training each layer is skipped for half of
    the sequences until its part of the warm-up; the parts of the layers divide ``warmup`` evenly, and during
    its own part the rate falls to ``0.035 * sqrt(downsampling_factor)``.

    Args:
        sizes: number and sizes of the layers.
        clock: the model's clock.
        dropout: rate inside the feedforward modules.
        warmup: first and last batch of the warm-up of the stack.
    """

    def __init__(
        self, sizes: StackSizes, *, clock: Clock, dropout: ScheduleLike, warmup: tuple[float, float]
    ) -> None:
        super().__init__()
        factor = sizes.downsampling_factor
        begin, end = warmup
        turn = (end - begin) / sizes.num_layers
        final_skip_rate = _FINAL_SKIP_RATE * factor**0.5
        self.clock = clock
        self.downsampling_factor = factor
        self.encoder_pos = RelPositionEncoding(sizes.pos_dim, dropout=0.15)
        self.layers = nn.ModuleList(
            EncoderLayer(
                sizes,
                clock=clock,
                dropout=dropout,
                skip_rate=Schedule(
                    clock,
                    (begin + i * turn, _INITIAL_SKIP_RATE),
                    (begin + (i + 1) * turn, final_skip_rate),
                ),
            )
            for i in range(sizes.num_layers)
        )
        if factor != 1:
            self.downsample = Downsample(factor)
            self.upsample = Upsample(factor)
            self.out_combiner = Bypass(sizes.dim, clock=clock)

    def forward(
        self,
        x: Tensor,
        *,
        padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
        chunk_size: int = -1,
        checkpointing: bool = False,
        layer_outputs: list[Tensor] | None = None,
    ) -> Tensor:
        """Run the stack; all arguments are at the frame rate of the input.

        Args:
            x: input (N, T, dim).
            padding_mask: bool (N, T), True = padding.
            attn_mask: bool (T, T), target by source, True = hidden from the target.
            feature_mask: mask (N, 1, dim), multiplied with the input and the output of every layer.
            chunk_size: frames of a chunk, a multiple of the downsampling factor; -1 for the whole sequence.
            checkpointing: store only the inputs of the layers, and recompute each layer in backward.
            layer_outputs: list that receives the output (N, ceil(T / factor), dim) of every layer.

        Returns:
            (N, T, dim).
        """
        factor = self.downsampling_factor
        original = x
        x = self.enter(x)
        if factor != 1:
            padding_mask = None if padding_mask is None else padding_mask[:, ::factor]
            attn_mask = None if attn_mask is None else attn_mask[::factor, ::factor]
            chunk_size = chunk_size if chunk_size < 0 else chunk_size // factor
        pos_emb = self.encoder_pos(x.shape[1], x.device)
        if feature_mask is not None:
            x = x * feature_mask
        for layer in self.layers:
            run = partial(recomputed, layer, self.clock) if checkpointing else layer
            x = run(x, pos_emb, padding_mask=padding_mask, attn_mask=attn_mask, chunk_size=chunk_size)
            if feature_mask is not None:
                x = x * feature_mask
            if layer_outputs is not None:
                layer_outputs.append(x)
        return self.leave(x, original)

    def enter(self, x: Tensor) -> Tensor:
        """Map the input of the stack (N, T, dim) to that of its first layer (N, ceil(T / factor), dim)."""
        if self.downsampling_factor == 1:
            return x
        downsampled: Tensor = self.downsample(x)
        return downsampled

    def leave(self, x: Tensor, original: Tensor) -> Tensor:
        """Map the output of a layer (N, ceil(T / factor), dim) and the input of the stack to (N, T, dim)."""
        if self.downsampling_factor == 1:
            return x
        combined: Tensor = self.out_combiner(original, self.upsample(x, original.shape[1]))
        return combined
