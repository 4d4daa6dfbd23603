"""The Zipformer encoder: a U-Net of stacks at different frame rates (Yao et al. 2024).

"Zipformer: A faster and better encoder for automatic speech recognition", ICLR 2024.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zipformer.encoder.layer import StackSizes
from zipformer.encoder.stack import EncoderStack
from zipformer.errors import UserError
from zipformer.layers.resampling import Downsample, match_channels
from zipformer.layers.schedule import Clock, Schedule

OUTPUT_DOWNSAMPLING = 2
_FEATURE_MASK_RATE = 0.125
DROPOUT_BATCHES = 20000.0


@dataclass
class EncoderConfig:
    """Sizes and training schedule of the encoder; the defaults are Zipformer-M.

    The lists have one entry for each stack, or a single entry for all stacks.

    Attributes:
        num_encoder_layers: number of layers of each stack.
        downsampling_factor: number of frames (50 per second) merged into one inside each stack; the length of
            this list is the number of stacks. A larger factor is faster and gives a wider context, with less
            time resolution.
        encoder_dim: channels of each stack; the output has as many as the widest stack.
        encoder_unmasked_dim: channels that are never masked in training; of the other channels of a stack,
            the first half is set to zero for about one sequence in eight, the second half for one in four.
            Equal to encoder_dim: no mask.
        feedforward_dim: hidden channels of the second feedforward module; the first has 3/4, the third 5/4 of
            this number.
        num_heads: number of attention heads.
        query_head_dim: channels of query and key per head.
        value_head_dim: channels of value per head.
        pos_head_dim: channels of the projected position per head.
        pos_dim: channels of the relative position table, even.
        cnn_module_kernel: width of the depthwise convolutions in frames of the stack, odd.
        frontend_channels: channels of the three convolutions of the front end.
        initial_dropout: dropout at the first batch; it falls linearly to final_dropout at batch 20000.
        final_dropout: dropout from batch 20000 on.
        warmup_batches: length of the warm-up in batches. At the start every layer is skipped for half of the
            sequences; during the warm-up the stacks lower this rate one after the other.
        causal: use causal convolutions and chunked attention, so that the model can stream.
        chunk_size: chunk lengths in frames at 50 per second, -1 = the whole utterance; training draws one for
            each batch, evaluation uses the first. Only for causal models.
        left_context_frames: frames at 50 per second that attention sees left of the chunk, -1 = all; drawn in
            the same way.
    """

    num_encoder_layers: list[int] = field(default_factory=lambda: [2, 2, 3, 4, 3, 2])
    downsampling_factor: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 4, 2])
    encoder_dim: list[int] = field(default_factory=lambda: [192, 256, 384, 512, 384, 256])
    encoder_unmasked_dim: list[int] = field(default_factory=lambda: [192, 192, 256, 256, 256, 192])
    feedforward_dim: list[int] = field(default_factory=lambda: [512, 768, 1024, 1536, 1024, 768])
    num_heads: list[int] = field(default_factory=lambda: [4, 4, 4, 8, 4, 4])
    query_head_dim: list[int] = field(default_factory=lambda: [32])
    value_head_dim: list[int] = field(default_factory=lambda: [12])
    pos_head_dim: list[int] = field(default_factory=lambda: [4])
    pos_dim: int = 48
    cnn_module_kernel: list[int] = field(default_factory=lambda: [31, 31, 15, 15, 15, 31])
    frontend_channels: list[int] = field(default_factory=lambda: [8, 32, 128])
    initial_dropout: float = 0.3
    final_dropout: float = 0.1
    warmup_batches: float = 4000.0
    causal: bool = False
    chunk_size: list[int] = field(default_factory=lambda: [16, 32, 64, -1])
    left_context_frames: list[int] = field(default_factory=lambda: [64, 128, 256, -1])

    def __post_init__(self) -> None:
        for index, stack in enumerate(self.stacks()):
            if stack.unmasked_dim > stack.dim:
                raise UserError(
                    f"encoder.encoder_unmasked_dim={stack.unmasked_dim} of stack {index} is greater than its "
                    f"encoder.encoder_dim={stack.dim}; lower it"
                )
            if stack.dim % 4:
                raise UserError(
                    f"encoder.encoder_dim={stack.dim} of stack {index} is not a multiple of 4, which the "
                    "nonlinear attention needs"
                )
            if stack.kernel_size % 2 == 0:
                raise UserError(
                    f"encoder.cnn_module_kernel={stack.kernel_size} of stack {index} is even; the "
                    "convolutions are centred and need an odd width"
                )
        if len(self.frontend_channels) != 3:
            raise UserError(f"encoder.frontend_channels={self.frontend_channels} must have three entries")

    def stacks(self) -> list[StackSizes]:
        """Sizes of every stack.

        Raises:
            UserError: a list has neither one entry nor one for each stack.
        """

        def per_stack(name: str) -> list[int]:
            values = list(getattr(self, name))
            if len(values) not in (1, num_stacks):
                raise UserError(
                    f"encoder.{name}={values} has {len(values)} entries; give one, or {num_stacks} as in "
                    "encoder.downsampling_factor"
                )
            return values * (num_stacks // len(values))

        num_stacks = len(self.downsampling_factor)
        columns = {
            "num_layers": "num_encoder_layers",
            "downsampling_factor": "downsampling_factor",
            "dim": "encoder_dim",
            "unmasked_dim": "encoder_unmasked_dim",
            "feedforward_dim": "feedforward_dim",
            "num_heads": "num_heads",
            "query_head_dim": "query_head_dim",
            "value_head_dim": "value_head_dim",
            "pos_head_dim": "pos_head_dim",
            "kernel_size": "cnn_module_kernel",
        }
        table = {column: per_stack(name) for column, name in columns.items()}
        return [
            StackSizes(
                **{column: values[i] for column, values in table.items()},
                pos_dim=self.pos_dim,
                causal=self.causal,
            )
            for i in range(num_stacks)
        ]

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output."""
        return max(self.encoder_dim)


class Zipformer(nn.Module):
    """Encoder from front-end frames (50 per second) to output frames (25 per second).

    Args:
        config: sizes and schedule.
        clock: the model's clock.

    Attributes:
        checkpointing: in training, store only the inputs of the layers, and recompute each layer in backward:
            about a third more time, a fraction of the memory, the same numbers.
    """

    def __init__(self, config: EncoderConfig, *, clock: Clock) -> None:
        super().__init__()
        self.config = config
        self.clock = clock
        self.checkpointing = False
        self.stack_sizes = config.stacks()
        dropout = Schedule(clock, (0.0, config.initial_dropout), (DROPOUT_BATCHES, config.final_dropout))
        # The first part of the warm-up is for the front end, then there is one part for each stack.
        part = config.warmup_batches / (len(self.stack_sizes) + 1)
        self.stacks = nn.ModuleList(
            EncoderStack(sizes, clock=clock, dropout=dropout, warmup=(part * (i + 1), part * (i + 2)))
            for i, sizes in enumerate(self.stack_sizes)
        )
        self.downsample_output = Downsample(OUTPUT_DOWNSAMPLING)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        *,
        chunk_size: int | None = None,
        left_context_frames: int | None = None,
        layer_outputs: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            x: front-end frames (N, T, dim of the first stack).
            lengths: number of valid frames (N,).
            chunk_size: frames of a chunk at 50 per second, -1 = no chunks; None = as configured. Causal
                models only.
            left_context_frames: frames that attention sees left of the chunk, -1 = all; None = as configured.
            layer_outputs: list that receives ``x`` as layer 0 and the output of every layer, each at the
                frame rate of its stack; see :mod:`zipformer.encoder.taps`.

        Returns:
            Frames (N, (T+1)//2, output_dim) and lengths (N,), (lengths+1)//2.

        Raises:
            UserError: a chunk size or left context that the model cannot run with.
        """
        chunk_size, left_chunks = self._chunking(chunk_size, left_context_frames)
        frame = torch.arange(x.shape[1], device=x.device)
        padding_mask = frame >= lengths[:, None]
        attn_mask = None
        if chunk_size > 0:
            chunk = frame // chunk_size
            behind = chunk[:, None] - chunk  # number of chunks from target back to source
            attn_mask = behind < 0 if left_chunks < 0 else (behind < 0) | (behind > left_chunks)

        if layer_outputs is not None:
            layer_outputs.append(x)
        outputs = []
        for stack, sizes, feature_mask in zip(
            self.stacks, self.stack_sizes, self._feature_masks(x), strict=True
        ):
            x = stack(
                match_channels(x, sizes.dim),
                padding_mask=padding_mask,
                attn_mask=attn_mask,
                feature_mask=feature_mask,
                chunk_size=chunk_size,
                checkpointing=self.checkpointing and self.training and torch.is_grad_enabled(),
                layer_outputs=layer_outputs,
            )
            outputs.append(x)
        return self.finish(outputs), (lengths + 1) // 2

    def finish(self, outputs: list[Tensor]) -> Tensor:
        """Map the outputs (N, T, dim) of all stacks to that of the encoder (N, (T+1)//2, output_dim)."""
        frames: Tensor = self.downsample_output(_combine(outputs))
        return frames

    def _chunking(self, chunk_size: int | None, left_context_frames: int | None) -> tuple[int, int]:
        """Frames of a chunk and chunks of left context for this call, -1 = unlimited."""
        config = self.config
        if not config.causal:
            if chunk_size is not None or left_context_frames is not None:
                raise UserError(
                    "chunk_size and left_context_frames need a causal model; train one with "
                    "encoder.causal=true"
                )
            return -1, -1
        # Processes may draw different sizes: the chunk size changes masks, not the set of used parameters.
        choose = self.clock.random.choice if self.training else _first
        chunk_size = choose(config.chunk_size) if chunk_size is None else chunk_size
        if chunk_size < 0:
            return -1, -1
        left = choose(config.left_context_frames) if left_context_frames is None else left_context_frames
        left_chunks = -1 if left < 0 else max(1, left // chunk_size)
        for sizes in self.stack_sizes:
            if chunk_size % sizes.downsampling_factor:
                raise UserError(
                    f"encoder.chunk_size {chunk_size} is not a multiple of the downsampling factor "
                    f"{sizes.downsampling_factor} of a stack"
                )
            needed = sizes.kernel_size // 2 * sizes.downsampling_factor
            if 0 <= left_chunks * chunk_size < needed:
                raise UserError(
                    f"encoder.left_context_frames {left} in chunks of {chunk_size} is less than the {needed} "
                    "frames that a convolution of the model reaches back; raise it"
                )
        return chunk_size, left_chunks

    def _feature_masks(self, x: Tensor) -> list[Tensor | None]:
        """Mask (N, 1, dim) for each stack, or None if nothing is masked.

        All stacks share the random draws, so that the whole encoder is narrower for a masked sequence: the
        second half of the maskable channels is masked wherever the first half is.
        """
        if not self.training:
            return [None] * len(self.stack_sizes)
        keep = torch.rand(2, x.shape[0], 1, 1, device=x.device) > _FEATURE_MASK_RATE
        first, second = keep[0].to(x.dtype), (keep[0] & keep[1]).to(x.dtype)  # (N, 1, 1)
        masks: list[Tensor | None] = []
        for sizes in self.stack_sizes:
            maskable = sizes.dim - sizes.unmasked_dim
            if maskable == 0:
                masks.append(None)
                continue
            widths = (sizes.unmasked_dim, maskable // 2, maskable - maskable // 2)
            parts = (torch.ones_like(first), first, second)
            masks.append(
                torch.cat(
                    [part.expand(-1, -1, width) for part, width in zip(parts, widths, strict=True)], dim=-1
                )
            )
        return masks


def _first(values: list[int]) -> int:
    return values[0]


def _combine(outputs: list[Tensor]) -> Tensor:
    """Output of the last stack; missing channels are taken from the latest stack that has them."""
    pieces = [outputs[-1]]
    width = outputs[-1].shape[-1]
    for output in reversed(outputs[:-1]):
        if output.shape[-1] > width:
            pieces.append(output[..., width:])
            width = output.shape[-1]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)
