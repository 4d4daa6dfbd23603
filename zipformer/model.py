"""The model: front end, Zipformer encoder, and the heads on top of it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from lhotse import SupervisionSegment
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zipformer.device import on_host, upload
from zipformer.encoder.frontend import ConvFrontend
from zipformer.encoder.margin import padding_margin
from zipformer.encoder.taps import LayerOutputs
from zipformer.encoder.zipformer import DROPOUT_BATCHES, Zipformer
from zipformer.errors import UserError
from zipformer.files import replacing_folder, write_tensors
from zipformer.heads import heads
from zipformer.heads.head import EncodedBatch, Head, HeadSizes
from zipformer.layers.schedule import Clock, Schedule
from zipformer.model_config import AsrModelConfig, read_config, write_config
from zipformer.model_dir import CONFIG_FILE, WEIGHTS_FILE

MIN_FRAMES = 9  # feature frames of the shortest utterance with one encoder frame

H = TypeVar("H", bound=Head)


class AsrModel(nn.Module):
    """Front end and encoder, with the configured heads.

    ``clock`` drives every training schedule: the trainer sets ``clock.batch``.

    Raises:
        UserError: the configuration has no vocabulary size.
    """

    def __init__(self, config: AsrModelConfig) -> None:
        super().__init__()
        if config.vocab_size < 1 and config.has_tokens:
            raise UserError(
                f"model.vocab_size={config.vocab_size}; set it to the number of tokens "
                "(Tokenizer.load(...).size)"
            )
        self.config = config
        self.clock = clock = Clock()
        encoder = config.encoder
        channels1, channels2, channels3 = encoder.frontend_channels
        self.frontend = ConvFrontend(
            config.feature_dim,
            encoder.encoder_dim[0],
            clock=clock,
            channels=(channels1, channels2, channels3),
            dropout=Schedule(clock, (0.0, encoder.initial_dropout), (DROPOUT_BATCHES, encoder.final_dropout)),
        )
        self.encoder = Zipformer(encoder, clock=clock)
        self.heads = nn.ModuleDict()
        sizes = HeadSizes(encoder.output_dim, config.vocab_size, clock)
        for name, settings in config.head_settings().items():
            self.heads[name] = heads()[name].head_class.build(settings, sizes)

    def all_heads(self) -> list[Head]:
        """All heads of this model, in the order in which they were built."""
        return [head for head in self.heads.values() if isinstance(head, Head)]

    def find(self, head_class: type[H]) -> H | None:
        """The head of a class; None if the model has none."""
        return next((head for head in self.heads.values() if isinstance(head, head_class)), None)

    def head(self, head_class: type[H]) -> H:
        """The head of a class.

        Raises:
            UserError: the model has no such head.
        """
        found = self.find(head_class)
        if found is None:
            raise UserError(f"the model has no {head_class.name} head: it needs {head_class.setting}")
        return found

    @property
    def margin(self) -> int:
        """Feature frames of silence needed after the longest utterance (:mod:`zipformer.encoder.margin`)."""
        return padding_margin(self.config.encoder)

    def encode(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        chunk_size: int | None = None,
        left_context_frames: int | None = None,
        layer: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encoder frames of a batch.

        Args:
            features: features (N, T, feature_dim), 100 frames a second.
            lengths: number of valid frames, (N,) int64, each at least 9.
            chunk_size: frames of a chunk at 50 per second, -1 = no chunks; None = as configured. Causal
                models only.
            left_context_frames: frames at 50 per second that attention sees left of the chunk, -1 = all.
            layer: return the output of this layer instead, counted over the whole encoder (0 = front end).

        Returns:
            Frames (N, T', output_dim) at 25 a second and their lengths (N,); T' = ((T-7)//2+1)//2. With
            ``layer`` they have the frame rate and the channels of its stack.

        Raises:
            UserError: the features are too short for one encoder frame, the model cannot run with the chunk
                size, or there is no such layer.
        """
        if layer is not None:
            outputs = self.encode_layers(
                features, lengths, chunk_size=chunk_size, left_context_frames=left_context_frames
            )
            return outputs.layer(layer)
        x, lengths = self._front_end(features, lengths)
        frames, frame_lengths = self.encoder(
            x, lengths, chunk_size=chunk_size, left_context_frames=left_context_frames
        )
        return frames, frame_lengths

    def encode_layers(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        chunk_size: int | None = None,
        left_context_frames: int | None = None,
    ) -> LayerOutputs:
        """The outputs of every layer and stack from one pass; arguments and errors as in :meth:`encode`."""
        x, lengths = self._front_end(features, lengths)
        return LayerOutputs.compute(
            self.encoder, x, lengths, chunk_size=chunk_size, left_context_frames=left_context_frames
        )

    def _front_end(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, T, dim of the first stack) at 50 a second and their lengths (N,)."""
        if features.shape[1] < MIN_FRAMES or (on_host(lengths) and int(lengths.min()) < MIN_FRAMES):
            raise UserError(
                f"an utterance of the batch has fewer than {MIN_FRAMES} feature frames (features "
                f"{tuple(features.shape)}, lengths {lengths.tolist()}), too few for one encoder frame; leave "
                "it out"
            )
        x, lengths = self.frontend(features, upload(lengths, features.device))
        return x, lengths

    def losses(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Sequence[Sequence[int]],
        *,
        translations: Sequence[Sequence[int]] | None = None,
        sentences: Tensor | None = None,
        spoken: Tensor | None = None,
        supervisions: Sequence[SupervisionSegment] = (),
        only: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of every head, each summed over the batch, in nats and fp32.

        Args:
            features: features (N, T, feature_dim).
            lengths: number of valid frames (N,).
            tokens: tokens of the N transcripts, without blank and sos/eos.
            translations, sentences, spoken, supervisions: further targets, see
                :class:`zipformer.heads.head.EncodedBatch`. Losses without their targets are left out.
            only: names of the losses to compute; None = all. The parameters of the heads that are left out
                get a zero gradient: with several processes, every parameter must have a gradient in every
                step.

        Returns:
            Losses by name, in the order of the heads. A loss is infinite if an utterance has more tokens than
            frames.

        Raises:
            UserError: the number of transcripts is not N, or see :meth:`encode`.
        """
        if len(tokens) != features.shape[0]:
            raise UserError(f"{len(tokens)} transcripts for a batch of {features.shape[0]} utterances")
        frames, frame_lengths = self.encode(features, lengths)
        batch = EncodedBatch(frames, frame_lengths, tokens, translations, sentences, spoken, supervisions)
        losses: dict[str, Tensor] = {}
        idle: list[Head] = []
        for head in self.all_heads():
            losses |= head.losses(batch, head.loss_names if only is None else only)
            # A head with only one of its losses leaves out parameters too, such as the start of translations.
            if not losses.keys() >= set(head.loss_names):
                idle.append(head)
        if torch.is_grad_enabled() and losses:
            first = next(iter(losses))
            zeros = [0.0 * parameter.sum() for head in idle for parameter in head.parameters()]
            losses[first] = losses[first] + sum(zeros)
        return losses

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a directory, which is created if missing.

        Both are replaced together or not at all; other files in the directory are kept.
        """
        with replacing_folder(Path(directory)) as folder:
            write_config(self.config, folder)
            weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
            write_tensors(weights, folder / WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "AsrModel":
        """Read a model that :meth:`save_pretrained` wrote.

        Returns:
            The model on CPU, in evaluation mode.

        Raises:
            UserError: a file is missing or cannot be read, the format version is different, a key is unknown
                or missing, or tensors are missing, unexpected or misshapen.
        """
        directory = Path(directory)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (directory / name).is_file():
                raise UserError(
                    f"{directory / name} is missing; a model directory is what fangyan average writes "
                    "(EXP_DIR/averaged): give that folder, or write it again"
                )
        model = cls(read_config(directory))
        weights = directory / WEIGHTS_FILE
        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise UserError(
                f"{weights} is not a readable safetensors file ({error}); write it again"
            ) from error
        problems = tensor_mismatches(model.state_dict(), state)
        if problems:
            raise UserError(
                f"{weights} does not fit the {CONFIG_FILE} beside it; both must come from one save, write "
                "the directory again:\n  " + "\n  ".join(shortened(problems))
            )
        model.load_state_dict(state)
        return model.eval()


def shortened(lines: Sequence[str], most: int = 10) -> list[str]:
    """The first lines and the number of the others, because models of two sizes differ in many tensors."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]


def tensor_mismatches(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """One line for every missing, unexpected or misshapen tensor of two state dicts."""
    problems = [f"missing: {name}" for name in expected if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in expected]
    return problems + [
        f"misshapen: {name} is {tuple(given[name].shape)}, the configuration makes it {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
