"""Outputs of every layer and every stack of the encoder, and early exits.

Layers are counted over the whole encoder: 0 is the output of the front end, 1 that of the first layer of the
first stack, and so on. Inside a stack with downsampling factor f there are 50/f frames a second; the output
of a layer keeps this rate, with its own lengths and channels. At a common rate, the outputs would include the
effect of resampling as well as that of the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zipformer.encoder.stack import EncoderStack
from zipformer.encoder.zipformer import EncoderConfig, Zipformer
from zipformer.errors import UserError
from zipformer.layers.resampling import match_channels

FRONT_END_RATE = 50.0  # frames a second


@dataclass(frozen=True)
class LayerPlace:
    """Position and sizes of a layer.

    Attributes:
        number: number of the layer, counted over the whole encoder, 0 = the front end.
        stack: number of the stack, counted from 1; 0 for the front end.
        dim: number of channels.
        downsampling_factor: number of frames at 50 per second in one frame of the layer.
    """

    number: int
    stack: int
    dim: int
    downsampling_factor: int

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return FRONT_END_RATE / self.downsampling_factor


def layer_places(config: EncoderConfig) -> list[LayerPlace]:
    """The front end and all layers of an encoder, in order."""
    stacks = config.stacks()
    places = [LayerPlace(0, 0, stacks[0].dim, 1)]
    for number, sizes in enumerate(stacks, start=1):
        places += [
            LayerPlace(len(places) + i, number, sizes.dim, sizes.downsampling_factor)
            for i in range(sizes.num_layers)
        ]
    return places


class LayerOutputs:
    """Outputs of all layers of an encoder for one batch.

    Args:
        encoder: encoder in evaluation mode; in training mode it masks channels, which :meth:`exit` cannot
            repeat.
        frames: outputs of the front end and of every layer, (N, ceil(T / f), dim of the stack).
        lengths: number of valid frames at 50 a second (N,).

    Raises:
        UserError: the encoder is in training mode, or the number of tensors is not that of the layers.
    """

    def __init__(self, encoder: Zipformer, frames: list[Tensor], lengths: Tensor) -> None:
        self.places = layer_places(encoder.config)
        if encoder.training:
            raise UserError("outputs of layers are for evaluation; call model.eval() first")
        if len(frames) != len(self.places):
            raise UserError(f"{len(frames)} outputs for {len(self.places)} layers (with the front end)")
        self._encoder = encoder
        self._frames = frames
        self._lengths = lengths

    @classmethod
    def compute(
        cls,
        encoder: Zipformer,
        x: Tensor,
        lengths: Tensor,
        *,
        chunk_size: int | None = None,
        left_context_frames: int | None = None,
    ) -> LayerOutputs:
        """Run the encoder once; arguments as in :meth:`zipformer.encoder.zipformer.Zipformer.forward`."""
        frames: list[Tensor] = []
        encoder(
            x,
            lengths,
            chunk_size=chunk_size,
            left_context_frames=left_context_frames,
            layer_outputs=frames,
        )
        return cls(encoder, frames, lengths)

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Output of a layer.

        Returns:
            Frames (N, ceil(T / f), dim of the stack) at 50/f a second, and lengths (N,): a frame is valid if
            the first of its f frames is valid.

        Raises:
            UserError: no such layer.
        """
        factor = self.places[self._checked(number)].downsampling_factor
        return self._frames[number], torch.div(self._lengths + factor - 1, factor, rounding_mode="floor")

    def stack(self, number: int) -> tuple[Tensor, Tensor]:
        """Output of a stack, counted from 1: upsampled and combined with the input of the stack.

        Returns:
            Frames (N, T, dim of the stack) at 50 a second and lengths (N,).

        Raises:
            UserError: no such stack.
        """
        last = self.places[-1]
        if not 1 <= number <= last.stack:
            raise UserError(f"stack {number} is not there; the encoder has stacks 1 to {last.stack}")
        return self._stack_outputs(last.number)[number - 1], self._lengths

    def exit(self, number: int) -> tuple[Tensor, Tensor]:
        """Output of the encoder if every layer after this one is skipped ("early exit").

        Layers are skipped as in training, where the bypass of a layer sometimes passes a sequence unchanged
        (Yao et al. 2024, section 3.2.2). Everything else remains: up- and downsampling of the stacks, their
        bypasses, the matching of channels, and the combination at the end. So the heads get frames of the
        kind that they were trained on. At the last layer this is the output of the whole encoder.

        Returns:
            Frames (N, (T+1)//2, output_dim) at 25 a second and lengths (N,).

        Raises:
            UserError: no such layer.
        """
        outputs = self._stack_outputs(self._checked(number))
        return self._encoder.finish(outputs), (self._lengths + 1) // 2

    def _checked(self, number: int) -> int:
        if not 0 <= number < len(self.places):
            raise UserError(
                f"layer {number} is not there; the encoder has layers 0 (front end) to {len(self.places) - 1}"
            )
        return number

    def _stack_outputs(self, number: int) -> list[Tensor]:
        """Outputs (N, T, dim) of all stacks if the layers after this one are skipped."""
        outputs = []
        x, last = self._frames[0], 0
        for stack, sizes in zip(self._encoder.stacks, self._encoder.stack_sizes, strict=True):
            assert isinstance(stack, EncoderStack)
            original = match_channels(x, sizes.dim)
            before, last = last, last + sizes.num_layers
            reached = min(number, last)
            inside = self._frames[reached] if reached > before else stack.enter(original)
            x = stack.leave(inside, original)
            outputs.append(x)
        return outputs
