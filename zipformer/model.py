"""The speech recognition model: front end, Zipformer encoder, transducer, CTC and attention-decoder heads."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zipformer.device import on_host, upload
from zipformer.encoder.frontend import ConvFrontend
from zipformer.encoder.margin import padding_margin
from zipformer.encoder.taps import LayerOutputs
from zipformer.encoder.zipformer import DROPOUT_BATCHES, Zipformer
from zipformer.errors import UserError
from zipformer.files import replacing_folder, write_tensors
from zipformer.heads.attention_decoder import AttentionDecoder
from zipformer.heads.joiner import Joiner
from zipformer.heads.predictor import Predictor
from zipformer.heads.text_alignment import TextAlignment
from zipformer.layers.linear import scaled_linear
from zipformer.layers.schedule import Clock, Schedule
from zipformer.losses.ctc import ctc_loss
from zipformer.losses.pruned_joiner import pruned_joiner_loss
from zipformer.losses.rnnt import prune_ranges, smoothed_rnnt_loss
from zipformer.model_config import AsrModelConfig, read_config, write_config
from zipformer.model_dir import CONFIG_FILE, WEIGHTS_FILE

BLANK = 0
LOSSES = ("simple", "pruned", "ctc", "attention", "translation", "text_alignment")
MIN_FRAMES = 9  # features of the shortest utterance that gives one encoder frame


class AsrModel(nn.Module):
    """Encoder with its heads.

    Attributes ``predictor``, ``joiner``, ``simple_am_proj`` and ``simple_lm_proj`` are there with a
    transducer, ``ctc_head`` (frames to log-probabilities), ``attention_decoder`` and ``text_alignment`` where
    configured; otherwise they are None. ``clock`` drives every training schedule: the trainer sets
    ``clock.batch``.

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

        self.predictor: Predictor | None = None
        self.joiner: Joiner | None = None
        self.simple_am_proj: nn.Linear | None = None
        self.simple_lm_proj: nn.Linear | None = None
        if config.transducer:
            self.predictor = Predictor(
                config.vocab_size, config.predictor_dim, config.context_size, clock=clock
            )
            self.joiner = Joiner(
                encoder.output_dim, config.predictor_dim, config.joiner_dim, config.vocab_size
            )
            self.simple_am_proj = scaled_linear(encoder.output_dim, config.vocab_size, initial_scale=0.25)
            self.simple_lm_proj = scaled_linear(config.predictor_dim, config.vocab_size, initial_scale=0.25)
        self.ctc_head: nn.Sequential | None = None
        if config.ctc:
            self.ctc_head = nn.Sequential(
                nn.Dropout(0.1), nn.Linear(encoder.output_dim, config.vocab_size), nn.LogSoftmax(dim=-1)
            )
        self.attention_decoder: AttentionDecoder | None = None
        if config.attention_decoder.num_layers:
            self.attention_decoder = AttentionDecoder(
                config.attention_decoder, config.vocab_size, encoder.output_dim
            )
        self.text_alignment: TextAlignment | None = None
        if config.text_alignment.enabled:
            self.text_alignment = TextAlignment(config.text_alignment, encoder.output_dim)

    @property
    def margin(self) -> int:
        """Feature frames of silence that must follow the longest utterance
        (:mod:`zipformer.encoder.margin`).
        """
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
            features: (N, T, feature_dim) float, 100 frames a second.
            lengths: (N,) int64, valid frames, each at least 9.
            chunk_size: frames of a chunk at 50 per second, -1 = no chunks; None = as configured. Causal
                models only.
            left_context_frames: frames at 50 per second that attention sees left of the chunk, -1 = all.
            layer: give the output of this layer instead, counted over the whole encoder (0 = front end).

        Returns:
            Frames (N, T', output_dim) at 25 a second and their lengths (N,); T' = ((T-7)//2+1)//2. Of a layer
            they are at the frame rate and have the channels of its stack.

        Raises:
            UserError: features too short for one encoder frame, a chunk size the model cannot run with, or
                no such layer.
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
        """The outputs of every layer and stack from one pass; arguments and errors as of :meth:`encode`."""
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
        prune_range: int = 5,
        lm_scale: float = 0.25,
        am_scale: float = 0.0,
        backend: str = "native",
        only: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of every configured head, each summed over the batch, in nats and fp32.

        Args:
            features: (N, T, feature_dim).
            lengths: (N,) valid frames.
            tokens: N transcripts, without blank and sos/eos.
            translations: tokens of the translations of the N utterances, for the loss ``translation``; None
                leaves that loss out.
            sentences: (M, text_dim) embeddings of the different sentences of the batch, for the loss
                ``text_alignment``; None leaves that loss out.
            spoken: (N,) int64, which of these each utterance says.
            prune_range: label positions a frame of the pruned transducer loss looks at; more is exacter and
                slower.
            lm_scale: weight of the predictor alone in the simple loss.
            am_scale: weight of the encoder alone in the simple loss.
            backend: who sums over the transducer's lattice, see :mod:`zipformer.losses.backend`.
            only: names of the losses to compute; none = all. The parameters of the heads that are left out
                get a gradient of zero: with several processes, every one must take part in every step.

        Returns:
            ``simple`` and ``pruned`` (transducer; Kuang et al. 2022), ``ctc``, ``attention``,
            ``translation``, ``text_alignment``. An utterance with more tokens than frames makes a loss
            infinite.

        Raises:
            UserError: as :meth:`encode`, or the number of transcripts is not N.
        """
        if len(tokens) != features.shape[0]:
            raise UserError(f"{len(tokens)} transcripts for a batch of {features.shape[0]} utterances")
        frames, frame_lengths = self.encode(features, lengths)
        symbols = pad_sequence(
            [torch.tensor(utterance, dtype=torch.int64) for utterance in tokens], batch_first=True
        )  # (N, U), padded with 0
        symbols = upload(symbols, frames.device)
        symbol_lengths = upload(torch.tensor([len(utterance) for utterance in tokens]), frames.device)

        losses: dict[str, Tensor] = {}
        wanted = frozenset(LOSSES if only is None else only)
        if self.config.transducer and wanted & {"simple", "pruned"}:
            losses["simple"], losses["pruned"] = self._transducer_losses(
                frames, frame_lengths, symbols, symbol_lengths, prune_range, lm_scale, am_scale, backend
            )
        if self.ctc_head is not None and "ctc" in wanted:
            log_probs = self.ctc_head(frames)
            with torch.autocast(frames.device.type, enabled=False):
                losses["ctc"] = ctc_loss(
                    log_probs.float(), symbols, frame_lengths, symbol_lengths, blank=BLANK
                )
        if self.attention_decoder is not None and "attention" in wanted:
            losses["attention"] = self.attention_decoder.loss(frames, frame_lengths, tokens)
        if self._translates and translations is not None and "translation" in wanted:
            assert self.attention_decoder is not None
            losses["translation"] = self.attention_decoder.loss(
                frames, frame_lengths, translations, translate=True
            )
        if self.text_alignment is not None and sentences is not None and "text_alignment" in wanted:
            assert spoken is not None
            losses["text_alignment"] = self.text_alignment.loss(frames, frame_lengths, sentences, spoken)
        if torch.is_grad_enabled() and losses:
            name = next(iter(losses))
            losses[name] = losses[name] + self._idle(losses)
        return losses

    def _idle(self, losses: Collection[str]) -> Tensor | float:
        """A zero that depends on the parameters of the heads that none of ``losses`` is from."""
        idle: list[nn.Module | None] = []
        if "simple" not in losses:
            idle += [self.predictor, self.joiner, self.simple_am_proj, self.simple_lm_proj]
        if "ctc" not in losses:
            idle.append(self.ctc_head)
        # Of a decoder that also translates, each of its two losses leaves a parameter out.
        if "attention" not in losses or (self._translates and "translation" not in losses):
            idle.append(self.attention_decoder)
        if "text_alignment" not in losses:
            idle.append(self.text_alignment)
        return sum(0.0 * p.sum() for head in idle if head is not None for p in head.parameters())

    @property
    def _translates(self) -> bool:
        return self.config.attention_decoder.translation

    # DistributedDataParallel hooks into forward.
    forward = losses

    def _transducer_losses(
        self,
        frames: Tensor,
        frame_lengths: Tensor,
        symbols: Tensor,
        symbol_lengths: Tensor,
        prune_range: int,
        lm_scale: float,
        am_scale: float,
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        """Simple loss, whose occupations say where the paths run, and the joiner's loss along them."""
        assert self.predictor is not None
        assert self.joiner is not None
        assert self.simple_am_proj is not None
        assert self.simple_lm_proj is not None
        states = self.predictor(F.pad(symbols, (1, 0), value=BLANK))  # (N, U+1, D)
        am, lm = self.simple_am_proj(frames), self.simple_lm_proj(states)
        with torch.autocast(frames.device.type, enabled=False):
            simple, occupations = smoothed_rnnt_loss(
                am.float(),
                lm.float(),
                symbols,
                frame_lengths,
                symbol_lengths,
                blank=BLANK,
                lm_scale=lm_scale,
                am_scale=am_scale,
                backend=backend,
            )
            ranges = prune_ranges(*occupations, frame_lengths, symbol_lengths, prune_range)  # (N, T', R)
        pruned = pruned_joiner_loss(
            self.joiner.encoder_proj(frames),
            self.joiner.decoder_proj(states),
            self.joiner.output_linear.weight,
            self.joiner.output_linear.bias,
            symbols,
            ranges,
            frame_lengths,
            symbol_lengths,
            blank=BLANK,
            backend=backend,
        )
        return simple.sum(), pruned

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a directory, created where needed.

        Both change together or not at all; other files of the directory stay.
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
            UserError: a file of the directory is missing.
            UserError: a file that cannot be read, another format version, an unknown or missing key, or
                missing, unexpected or misshapen tensors.
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
    """The first lines, and how many more there are: models of two sizes differ in a thousand tensors."""
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
