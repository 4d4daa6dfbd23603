"""Speech encoders of the Hugging Face Hub as embedders.

There are three families, which differ in the input:

- Whisper reads windows of a fixed length (30 s), padded with silence. Only the frames of the utterance are
kept,
  ceil(samples / 320) at 16 kHz (50 a second): the encoder has states for the padding too, which would be
  compared like speech (Ma et al., arXiv 2407.01130).
- Encoders of waveforms: wav2vec 2.0, XLS-R, HuBERT, WavLM and relatives (50 frames a second).
- w2v-BERT 2.0, which reads log mel energies, two frames stacked (50 a second).

The feature extractor of each model prepares and normalises the audio. In some models the output depends on
the padding, for example if the first convolution is normalised over time (wav2vec 2.0 base, HuBERT base). For
these, and for all models that are not known to be free of this, utterances are embedded one by one.

Layers are counted as hidden states: 0 is the input of the first block, the number of blocks is the output of
the encoder, after the final normalisation if the model has one. Other states are not normalised.

Front ends, masks, layers and numbers of frames are tested on small models with random weights, not on the
published models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.embedding.embedder import Embedder, EmbedderKind
from zipformer.errors import UserError

# Families in which the padding of a batch does not affect the frames of an utterance.
MASKED = ("wav2vec2", "hubert", "wavlm", "wav2vec2-bert")


@dataclass
class HuggingFaceConfig:
    """Model of the embedder ``huggingface``.

    ``model`` is a name on the Hub (``openai/whisper-small``), downloaded once and cached by
    ``transformers``, or a folder that ``save_pretrained`` of the model and of its feature extractor wrote.
    ``revision`` is a branch, tag or commit on the Hub; a commit never changes.
    """

    model: str = ""  # name on the Hub, or a folder that save_pretrained wrote
    revision: str = "main"  # branch, tag or commit on the Hub

    @property
    def short_name(self) -> str:
        """Last part of the name, used in the names of result folders.

        Raises:
            UserError: another embedder has this name.
        """
        name = Path(self.model).name
        if name in {kind.value for kind in EmbedderKind}:
            raise UserError(
                f"huggingface.model={self.model} would be called {name}, as another embedder is: rename the"
                " folder"
            )
        return name


class HuggingFaceEmbedder(Embedder):
    """Hidden states of a speech encoder of ``transformers``.

    Args:
        model: encoder, or a model with encoder and decoder, whose encoder is used.
        extractor: feature extractor of the model.
        layer: number of the hidden state; None is the output.
        device: device that computes.
        name: name in the description of the embeddings.

    Raises:
        UserError: the family is not known, the encoder has no such layer, or it has an adapter, which would
            merge frames.
    """

    def __init__(
        self,
        model: Any,
        extractor: Any,
        *,
        layer: int | None = None,
        device: torch.device | str = "cpu",
        name: str = "huggingface",
    ) -> None:
        config = model.config
        blocks = int(config.num_hidden_layers)
        if layer is not None and not 0 <= layer <= blocks:
            raise UserError(f"layer={layer}: {name} has layers 0 to {blocks}")
        if getattr(config, "add_adapter", False):
            raise UserError(f"{name} has an adapter behind its encoder: take the model that it was made from")
        self.name = name
        self.layer = None if layer == blocks else layer
        self.device = torch.device(device)
        self.extractor = extractor
        self.sampling_rate = int(extractor.sampling_rate)
        self.family = str(config.model_type)
        self.dimension = int(config.hidden_size)
        self.whisper = self.family == "whisper"
        if self.whisper:
            self.maximum_frames = 100 * int(extractor.chunk_length)
        elif extractor.model_input_names[0] == "input_values" and hasattr(config, "conv_kernel"):
            # Number of 10 ms frames that the first frame of the convolutions needs.
            self.minimum_frames = ceil(100 * receptive_field(config) / self.sampling_rate)
        elif self.family == "wav2vec2-bert":
            self.minimum_frames = 4  # two windows of 25 ms, 10 ms apart
        else:
            raise UserError(
                f"{name} is of the family {self.family}; embedder=huggingface knows Whisper, encoders of"
                " waveforms such as wav2vec 2.0, XLS-R, HuBERT and WavLM, and w2v-BERT 2.0"
            )
        self.one_by_one = not self.whisper and (
            self.family not in MASKED or getattr(config, "feat_extract_norm", "layer") == "group"
        )
        encoder = model.get_encoder() if config.is_encoder_decoder else model
        self.encoder = encoder.to(self.device).float().eval()

    @torch.inference_mode()
    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`."""
        audio = [row[:length].numpy() for row, length in zip(batch, lengths.tolist(), strict=True)]
        at_once = 1
        if self.whisper:  # every utterance is padded to a window, so fewer fit into memory
            at_once = max(1, batch.numel() // int(self.extractor.n_samples))
        elif not self.one_by_one:
            at_once = len(audio)
        return [
            frames
            for start in range(0, len(audio), at_once)
            for frames in self._frames(audio[start : start + at_once])
        ]

    def _frames(self, audio: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Hidden states (T',D) of utterances that pass the encoder together."""
        inputs = self.extractor(
            audio,
            sampling_rate=self.sampling_rate,
            padding="max_length" if self.whisper else True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        samples = torch.tensor([len(array) for array in audio])
        if self.whisper:
            lengths = -(-samples // (2 * self.extractor.hop_length))
            output = self.encoder(inputs.input_features, output_hidden_states=True)
        elif self.family == "wav2vec2-bert":
            lengths = inputs.attention_mask.sum(dim=1)
            output = self.encoder(**inputs, output_hidden_states=True)
        else:
            lengths = self.encoder._get_feat_extract_output_lengths(samples)
            mask = None if self.one_by_one else inputs.attention_mask
            output = self.encoder(inputs.input_values, attention_mask=mask, output_hidden_states=True)
        hidden = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        arrays = hidden.float().cpu().numpy()
        return [array[:length] for array, length in zip(arrays, lengths.tolist(), strict=True)]


def load(
    config: HuggingFaceConfig, *, layer: int | None = None, device: torch.device | str = "cpu"
) -> tuple[HuggingFaceEmbedder, list[Path]]:
    """The embedder of a model, and the files of a local folder behind it (none for the Hub).

    Raises:
        UserError: there is no such model, or no connection and no cached copy, ``transformers`` is not
            installed, or see :class:`HuggingFaceEmbedder`.
    """
    transformers = import_transformers("embedder=huggingface")
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(config.model, revision=config.revision)
        model = transformers.AutoModel.from_pretrained(config.model, revision=config.revision)
        described = transformers.utils.cached_file(config.model, "config.json", revision=config.revision)
    except OSError as error:
        raise UserError(
            f"huggingface.model={config.model} cannot be loaded: {error}. Give a name on the Hub and a"
            " connection, or a folder that save_pretrained of the model and of its feature extractor wrote"
        ) from error
    folder = Path(config.model)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    embedder = HuggingFaceEmbedder(model, extractor, layer=layer, device=device, name=config.short_name)
    embedder.commit = transformers.utils.extract_commit_hash(described, None)
    return embedder, files


def receptive_field(config: Any) -> int:
    """Number of samples in the receptive field of one frame of the convolutions over a waveform."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def import_transformers(setting: str) -> ModuleType:
    """Import the package ``transformers``, an extra, for a setting that needs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise UserError(
            f"{setting} needs transformers, which is not installed: pip install 'fangyan[huggingface]'"
        ) from error
    module: ModuleType = transformers
    return module
