"""Sources of words and frames: the model, Whisper, a table of another aligner, stored embeddings."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray

from retrieval.embedding.cuts import collate
from retrieval.embedding.embedder import EmbedderKind, EncoderEmbedder
from retrieval.embedding.store import EmbeddingStore
from retrieval.interpretation import whisper
from retrieval.interpretation.config import InterpretConfig
from retrieval.interpretation.run import SpokenUtterance
from retrieval.interpretation.words import FrameClock, Word, read_words
from zipformer.alignment import (
    FIRST_FRAME_SECONDS,
    FRAME_SECONDS,
    Segmenter,
    align_cuts,
)
from zipformer.data.audio import load_audio
from zipformer.data.tokenizer import Tokenizer
from zipformer.device import choose_device
from zipformer.encoder.taps import FRONT_END_RATE
from zipformer.errors import UserError
from zipformer.model import AsrModel
from zipformer.model_dir import check_model_files

ENCODER_CLOCK = FrameClock(FRAME_SECONDS, FIRST_FRAME_SECONDS)
FACTORS = (1, 2, 4, 8, 16)  # downsampling factors of stacks and of the output


def from_model(
    config: InterpretConfig, cuts: Mapping[str, Cut], segment: Segmenter
) -> Iterator[SpokenUtterance]:
    """Words aligned by the model, with the frames of the encoder or of a store."""
    model_dir, device = Path(config.model_dir), choose_device(config.device)
    check_model_files(model_dir)
    model = AsrModel.from_pretrained(model_dir).to(device).eval()
    store = None if config.embeddings is None else EmbeddingStore(Path(config.embeddings))
    for utterance in align_cuts(
        model,
        Tokenizer.load(model_dir),
        CutSet.from_cuts(cuts.values()),
        aligner=config.aligner,
        segment=segment,
        transcript=config.transcript,
        median_frames=config.median_frames,
        max_duration=config.max_duration,
        device=device,
    ):
        words = [Word(span.text, span.start_seconds, span.end_seconds) for span in utterance.words]
        if store is None:
            yield SpokenUtterance(utterance.id, utterance.frames.numpy(), ENCODER_CLOCK, words)
        else:
            yield from_store(store, cuts[utterance.id], words)


def from_whisper(
    config: InterpretConfig, cuts: Mapping[str, Cut], segment: Segmenter
) -> Iterator[SpokenUtterance]:
    """Words aligned by Whisper, with the frames of our encoder or of a store."""
    device = choose_device(config.device)
    store = None if config.embeddings is None else EmbeddingStore(Path(config.embeddings))
    embedder = None
    if store is None:
        model_dir = Path(config.model_dir)
        check_model_files(model_dir)
        model = AsrModel.from_pretrained(model_dir).to(device).eval()
        embedder = EncoderEmbedder(
            model.encode, dimension=model.config.encoder.output_dim, margin=model.margin, device=device
        )
    aligner = whisper.load(config.whisper, device=device)
    for name, words in whisper.align_with_whisper(
        aligner, cuts, segment=segment, transcript=config.transcript
    ):
        if embedder is not None:
            (frames,) = embedder.embed(*collate([cuts[name]], embedder.margin))
            yield SpokenUtterance(name, frames, ENCODER_CLOCK, words)
        elif store is not None:
            yield from_store(store, cuts[name], words)


def from_table(config: InterpretConfig, cuts: Mapping[str, Cut]) -> Iterator[SpokenUtterance]:
    """Words from a table of another aligner, with the frames of a store.

    Raises:
        UserError: the centre of a word lies after its utterance, or see :func:`from_store`.
    """
    assert config.words is not None
    assert config.embeddings is not None
    words, store = read_words(Path(config.words)), EmbeddingStore(Path(config.embeddings))
    for name, cut in cuts.items():
        for word in words.get(name, ()):
            if (word.start + word.end) / 2 > cut.duration:
                raise UserError(
                    f"{config.words}: {word.text!r} is spoken from {word.start:g} to {word.end:g} s in"
                    f" {name}, which lasts {cut.duration:g} s; give seconds from the start of the utterance"
                )
        if name in words:
            yield from_store(store, cut, words[name])


def from_store(store: EmbeddingStore, cut: Cut, words: list[Word]) -> SpokenUtterance:
    """An utterance of a store.

    Raises:
        UserError: the store lacks the utterance.
    """
    if cut.id not in store.utterances:
        raise UserError(f"{store.directory} has no utterance {cut.id}; embed the same split again")
    frames = store[cut.id]
    return SpokenUtterance(cut.id, frames, clock_of(store, cut, len(frames)), words)


def clock_of(store: EmbeddingStore, cut: Cut, frames: int) -> FrameClock:
    """Times of the frames of an utterance in a store.

    In a stack with downsampling factor f, our encoder has 50/f frames a second, and each covers f frames of
    the front end; so the first frames of all layers begin at the same time. Frames of other embedders divide
    the utterance evenly.
    """
    # Embeddings of a layer are named "zipformer layer03" or the like.
    kind = str(store.description.get("embedder")).split(" ")[0]
    if kind in (EmbedderKind.zipformer.value, EmbedderKind.random.value):
        of_front_end = (cut.num_frames - 7) // 2
        for factor in FACTORS:
            if frames == -(-of_front_end // factor):
                return FrameClock(factor / FRONT_END_RATE, FIRST_FRAME_SECONDS)
    return FrameClock(cut.duration / frames)


def sound(config: InterpretConfig, cut: Cut) -> tuple[NDArray[np.floating], int] | None:
    """Samples (T,) of a cut and their rate; None if there is no recording or none is wanted.

    Raises:
        UserError: the file of the recording is missing.
    """
    if not config.audio or not cut.has_recording:
        return None
    for source in cut.recording.sources:
        if source.type == "file" and not Path(source.source).is_file():
            raise UserError(
                f"the recording of {cut.id} is not at {source.source}; put it there, or set audio=false"
            )
    return load_audio(cut)[0], cut.sampling_rate
