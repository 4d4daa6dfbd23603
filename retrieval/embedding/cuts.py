"""Makes a store of embeddings from a CutSet with stored features or recordings."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from lhotse.audio import AudioLoadingError
from lhotse.cut import Cut
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retrieval.embedding.acoustic import FbankConfig, MfccConfig
from retrieval.embedding.embedder import Embedder, EmbedderKind
from retrieval.embedding.huggingface import HuggingFaceConfig
from retrieval.embedding.store import STORAGE_TYPES, EmbeddingWriter
from retrieval.results.naming import result_folder
from zipformer.data.audio import load_audio
from zipformer.data.batches import PADDING_VALUE
from zipformer.data.dataset import name_of
from zipformer.data.manifest import check_feature_files
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

# Keys of supervision.custom: syllables separated by spaces, with tones at the ends, one for each character.
PRONUNCIATIONS = ("ipa", "romanisation")
WINDOW = 2000  # cuts to read ahead and sort by duration, so that a batch has little padding


@dataclass
class EmbedConfig:
    """Settings of fangyan embed: the speech to embed, and the embedder.

    Attributes:
        model_dir: model directory; its ``results`` receive the embeddings. Any folder will do for embedders
            other than ``zipformer`` and ``random``.
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus, for the folder of its results; null = the name from preparation.
        embedder: ``zipformer`` for the encoder in ``model_dir``, ``random`` for the same encoder without
            training; ``fbank``, ``mfcc`` and ``duration`` for controls without a model; ``huggingface`` for
            the encoder ``huggingface.model``, ``speech_embedding`` for a small published encoder (extra
            ``speech-embedding``). The last two need the recordings of the cuts.
        layer: layer to read; null = the output. ``huggingface`` counts hidden states: 0 is the input of the
            first block, the number of blocks is the output of the last. ``zipformer`` and ``random`` count
            layers over all stacks, 0 = front end, each at the frame rate of its stack (SeqSim does not change
            when frames are repeated).
        seed: random seed of the weights of ``random``.
        fbank: settings of ``fbank``.
        mfcc: settings of ``mfcc``.
        huggingface: settings of ``huggingface``.
        storage: number type of the embeddings, ``float32``, or ``float16`` for half the disk space.
        batch_seconds: seconds of padded audio in a batch; larger batches are faster on a GPU and need more
            memory. 0 embeds one utterance at a time.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        results_dir: folder that receives the embeddings of a model directory that cannot be written
            (:func:`zipformer.results_place.results_place`); null = ``results`` in ``model_dir``.
    """

    model_dir: str
    data_dir: str
    split: str = "test"
    dataset: str | None = None
    embedder: EmbedderKind = EmbedderKind.zipformer
    layer: int | None = None
    seed: int = 0
    fbank: FbankConfig = field(default_factory=FbankConfig)
    mfcc: MfccConfig = field(default_factory=MfccConfig)
    huggingface: HuggingFaceConfig = field(default_factory=HuggingFaceConfig)
    storage: str = "float32"
    batch_seconds: float = 60.0
    device: str = "auto"
    results_dir: str | None = None

    def __post_init__(self) -> None:
        if self.storage not in STORAGE_TYPES:
            raise UserError(f"storage={self.storage} is not known; choose one of {', '.join(STORAGE_TYPES)}")
        if self.batch_seconds < 0:
            raise UserError(f"batch_seconds={self.batch_seconds} is negative; give 0 or more")
        if self.embedder is EmbedderKind.huggingface:
            if not self.huggingface.model:
                raise UserError(
                    "embedder=huggingface needs huggingface.model=NAME, a model of the Hub such as"
                    " openai/whisper-small, or a folder that save_pretrained wrote"
                )
        elif self.layer is not None and not self.embedder.has_layers:
            raise UserError(
                f"layer={self.layer} is a layer of an encoder; embedder={self.embedder.value} has none"
            )

    @property
    def name(self) -> str:
        """Name of the embedder in result folders and in the setting ``embedder`` of fangyan retrieve."""
        if self.embedder is EmbedderKind.huggingface:
            return self.huggingface.short_name
        return self.embedder.value

    @property
    def folder(self) -> Path:
        """Folder of the embeddings."""
        return result_folder(
            Path(self.model_dir),
            "embeddings",
            self.split,
            dataset=name_of(Path(self.data_dir), self.dataset),
            embedder=self.name,
            layer=self.layer,
        )

    @property
    def options(self) -> dict[str, object]:
        """Settings that the embeddings depend on, without input files."""
        options: dict[str, object] = {"embedder": self.name, "storage": self.storage, "layer": self.layer}
        if self.embedder is EmbedderKind.random:
            options["seed"] = self.seed
        elif self.embedder in (EmbedderKind.fbank, EmbedderKind.mfcc, EmbedderKind.huggingface):
            options |= asdict(getattr(self, self.embedder.value))
        return options


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of an utterance in the index of the embeddings."""

    dialect: str
    subdialect: str
    site: str
    sentence_id: str


def labels_of(cut: Cut) -> Labels:
    """Dialect, subdialect, site and sentence id of a cut with one supervision.

    Raises:
        UserError: the cut does not have exactly one supervision, or has no dialect.
    """
    if len(cut.supervisions) != 1:
        raise UserError(f"cut {cut.id} has {len(cut.supervisions)} supervisions; embeddings need exactly one")
    supervision = cut.supervisions[0]
    if not supervision.language:
        raise UserError(f"cut {cut.id} has no dialect (supervision.language): prepare the corpus again")
    values = [(supervision.custom or {}).get(key) for key in ("subdialect", "site", "sentence_id")]
    # An id may be a number, and 0 is one.
    return Labels(supervision.language, *("" if value is None else str(value) for value in values))


def embed_cuts(
    cuts: Iterable[Cut], embedder: Embedder, writer: EmbeddingWriter, *, batch_seconds: float = 60.0
) -> int:
    """Embed the cuts that are not yet in the writer.

    Args:
        cuts: cuts with one supervision each, and with stored features (T,F) or a recording, as the embedder
            needs; iterated twice, never held in memory all at once.
        embedder: embedder of features or audio.
        writer: open writer; receives every utterance under its cut id.
        batch_seconds: largest number of seconds of padded audio in a batch; 0 gives batches of one utterance.

    Returns:
        Number of utterances that this call embedded.

    Raises:
        UserError: two cuts have the same id, a cut has no features or recording, is too short or too long, or
            see :func:`labels_of`, the embedder and the writer.
    """
    before = frozenset(writer.written)
    total = count_cuts(
        cuts,
        embedder.minimum_frames,
        longest=embedder.maximum_frames,
        from_audio=embedder.sampling_rate is not None,
        embedder=embedder.name,
    )
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("embedding", total=total, completed=len(before))
        for batch in batches((cut for cut in cuts if cut.id not in before), batch_seconds):
            rate = embedder.sampling_rate
            padded, lengths = collate(batch, embedder.margin) if rate is None else collate_audio(batch, rate)
            for cut, frames in zip(batch, embedder.embed(padded, lengths), strict=True):
                labels = labels_of(cut)
                writer.add(
                    cut.id,
                    frames,
                    dialect=labels.dialect,
                    subdialect=labels.subdialect,
                    site=labels.site,
                    sentence_id=labels.sentence_id,
                )
            progress.advance(task, len(batch))
    return len(writer.written) - len(before)


def count_cuts(
    cuts: Iterable[Cut],
    shortest: int,
    *,
    longest: int | None = None,
    from_audio: bool = False,
    embedder: str = "the embedder",
) -> int:
    """Count the cuts and check all of them, before hours of computation.

    Args:
        cuts: cuts with one supervision each.
        shortest, longest: smallest and largest number of frames that the embedder accepts, at 100 a second;
            None = no limit.
        from_audio: True if the embedder needs recordings; otherwise it reads stored features.
        embedder: name of the embedder.

    Raises:
        UserError: there are no cuts, two have the same id, or one has no features, recording or labels, or is
            too short or too long.
    """
    seen: set[str] = set()
    feature_files: set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            raise UserError(f"cut {cut.id} is there twice: prepare the corpus again with unique ids")
        if from_audio and not cut.has_recording:
            raise UserError(
                f"cut {cut.id} has no recording, which {embedder} needs: prepare the corpus again, or"
                " choose an embedder of stored features"
            )
        if not from_audio and not cut.has_features:
            raise UserError(f"cut {cut.id} has no stored features: finish fangyan prepare for this corpus")
        frames = int(100 * cut.duration) if from_audio else cut.num_frames
        if frames < shortest:
            raise UserError(
                f"cut {cut.id} has {frames} frames of features, {embedder} needs {shortest}:"
                " leave it out of the corpus"
            )
        if longest is not None and frames > longest:
            raise UserError(
                f"cut {cut.id} lasts {cut.duration:g} s, {embedder} hears {longest / 100:g} s at a time:"
                " leave it out of the corpus"
            )
        if not from_audio:
            feature_files.add(cut.features.storage_path)
        labels_of(cut)
        seen.add(cut.id)
    check_feature_files(feature_files, Path())
    if not seen:
        raise UserError("there are no cuts to embed: prepare the data again or choose another split")
    return len(seen)


def batches(cuts: Iterable[Cut], batch_seconds: float) -> Iterator[list[Cut]]:
    """Batches of cuts of similar duration, each with one cut or at most ``batch_seconds`` with padding."""
    window: list[Cut] = []
    for cut in cuts:
        window.append(cut)
        if len(window) == WINDOW:
            yield from _batches_of_window(window, batch_seconds)
            window = []
    yield from _batches_of_window(window, batch_seconds)


def _batches_of_window(window: list[Cut], batch_seconds: float) -> Iterator[list[Cut]]:
    batch: list[Cut] = []
    for cut in sorted(window, key=lambda cut: (cut.duration, cut.id)):
        if batch and (len(batch) + 1) * cut.duration > batch_seconds:
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch


def collate(cuts: list[Cut], margin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N,T,F), each followed by at least ``margin`` frames of silence, and lengths (N,) of cuts."""
    arrays: list[NDArray[np.float32]] = [cut.load_features() for cut in cuts]
    lengths = torch.tensor([len(array) for array in arrays])
    shape = (len(arrays), int(lengths.max()) + margin, arrays[0].shape[1])
    features = torch.full(shape, PADDING_VALUE)  # (N,T,F)
    for row, array in zip(features, arrays, strict=True):
        row[: len(array)] = torch.from_numpy(np.array(array, dtype=np.float32))
    return features, lengths


def collate_audio(cuts: list[Cut], sampling_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples (N,T) of the recordings of cuts at a rate in Hz, padded with zeros, and lengths (N,).

    Raises:
        UserError: a recording cannot be read or has several channels.
    """
    arrays: list[NDArray[np.float32]] = []
    for cut in cuts:
        try:
            audio = load_audio(cut.resample(sampling_rate))  # (channels, T)
        except (OSError, AudioLoadingError) as error:
            raise UserError(
                f"the recording of cut {cut.id} cannot be read ({error}): relative paths are relative to the"
                " data directory; where the audio was moved, prepare the corpus again"
            ) from error
        if len(audio) != 1:
            raise UserError(f"cut {cut.id} has {len(audio)} channels: prepare the corpus with one")
        arrays.append(audio[0])
    lengths = torch.tensor([len(array) for array in arrays])
    samples = torch.zeros(len(arrays), int(lengths.max()))
    for row, array in zip(samples, arrays, strict=True):
        row[: len(array)] = torch.from_numpy(np.array(array, dtype=np.float32))
    return samples, lengths
