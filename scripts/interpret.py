"""Which words of parallel utterances match, by the encoder's frames alone, and are they alike as texts?"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrieval.embedding.cuts import open_cuts
from retrieval.embedding.store import EmbeddingStore
from retrieval.interpretation.compare import Outcome, tests_table
from retrieval.interpretation.config import InterpretConfig
from retrieval.interpretation.run import SpokenUtterance, interpret, pairs_of_cuts
from retrieval.interpretation.text_similarity import TranslationTable, choose_similarity
from retrieval.interpretation.words import FrameClock, Word, read_words
from retrieval.tables import print_tables
from zipformer.alignment import (
    FIRST_FRAME_SECONDS,
    FRAME_SECONDS,
    Segmenter,
    align_cuts,
    choose_segmenter,
)
from zipformer.data import encoder_frames
from zipformer.evaluation import check_model_files, choose_device
from zipformer.model import AsrModel
from zipformer.tokenizer import Tokenizer

ConfigStore.instance().store(name="interpret_schema", node=InterpretConfig)
ENCODER_CLOCK = FrameClock(FRAME_SECONDS, FIRST_FRAME_SECONDS)


@hydra.main(version_base="1.3", config_path="../conf", config_name="interpret")
def main(settings: DictConfig) -> None:
    try:
        config = cast(InterpretConfig, OmegaConf.to_object(settings))
        directory, outcome = run(config)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    print_tables(tests_table(outcome, similarity, config.confidence) for similarity in outcome.overall)
    print(f"words, matches, figures and page: {directory}")


def run(config: InterpretConfig) -> tuple[Path, Outcome]:
    """Time the words, match them, write the results; returns their folder and what came out."""
    data_dir = Path(config.data_dir)
    cuts = list(open_cuts(data_dir, config.split)[0])
    pairs = pairs_of_cuts(cuts, config)
    table = None if config.table is None else TranslationTable(Path(config.table), config.table_columns)
    similarities = [choose_similarity(name, table) for name in config.similarities]
    needed = {name for pair in pairs for name in (pair.source_id, pair.target_id)}
    chosen = {cut.id: cut for cut in cuts if cut.id in needed}
    if config.words is not None:
        utterances = from_table(config, chosen)
    else:
        segment = choose_segmenter(config.segmenter, () if table is None else table.words)
        utterances = from_model(config, chosen, segment)
    outcome = interpret(config, pairs, utterances, similarities, lambda name: sound(config, chosen[name]))
    return config.folder, outcome


def from_model(
    config: InterpretConfig, cuts: Mapping[str, Cut], segment: Segmenter
) -> Iterator[SpokenUtterance]:
    """Words timed by the model, with its encoder's frames or those of a store."""
    model_dir, device = Path(config.model_dir), choose_device(config.device)
    check_model_files(model_dir)
    model = AsrModel.from_pretrained(model_dir).to(device).eval()
    store = None if config.embeddings is None else EmbeddingStore(Path(config.embeddings))
    for utterance in align_cuts(
        model,
        Tokenizer.load(model_dir),
        CutSet.from_cuts(cuts.values()),
        Path(config.data_dir),
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


def from_table(config: InterpretConfig, cuts: Mapping[str, Cut]) -> Iterator[SpokenUtterance]:
    """Words timed by another aligner, with the frames of a store."""
    assert config.words is not None
    assert config.embeddings is not None
    words, store = read_words(Path(config.words)), EmbeddingStore(Path(config.embeddings))
    for name, cut in cuts.items():
        if name in words:
            yield from_store(store, cut, words[name])


def from_store(store: EmbeddingStore, cut: Cut, words: list[Word]) -> SpokenUtterance:
    """An utterance of a store.

    Raises:
        ValueError: the store lacks it.
    """
    if cut.id not in store.utterances:
        raise ValueError(f"{store.directory} has no utterance {cut.id}; embed the same split again")
    frames = store[cut.id]
    # Frames of another encoder share the utterance evenly.
    ours = len(frames) == encoder_frames(cut.num_frames)
    clock = ENCODER_CLOCK if ours else FrameClock(cut.duration / len(frames))
    return SpokenUtterance(cut.id, frames, clock, words)


def sound(config: InterpretConfig, cut: Cut) -> tuple[NDArray[np.floating], int] | None:
    """Samples (T,) of a cut and their rate, None where it has no recording or none is wanted.

    Raises:
        FileNotFoundError: the recording is not where the cut says.
    """
    if not config.audio or not cut.has_recording:
        return None
    for source in cut.recording.sources:
        if source.type == "file" and not Path(source.source).is_file():
            raise FileNotFoundError(
                f"the recording of {cut.id} is not at {source.source}; put it there, or set audio=false"
            )
    return cut.load_audio()[0], cut.sampling_rate


if __name__ == "__main__":
    main()
