"""The command ``interpret``: matches words of parallel utterances and tests their text similarity."""

from pathlib import Path

from retrieval.embedding.store import EmbeddingStore
from retrieval.interpretation.compare import Interpretation, tests_table
from retrieval.interpretation.config import WHISPER, InterpretConfig
from retrieval.interpretation.run import interpret, pairs_of_cuts
from retrieval.interpretation.sources import from_model, from_table, from_whisper, sound
from retrieval.interpretation.text_similarity import TranslationTable, choose_similarity
from retrieval.results.weights import check_same_recordings
from zipformer.alignment import (
    choose_segmenter,
)
from zipformer.console import print_tables
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.data.dataset import read_dataset
from zipformer.results_place import writable_results


def main(config: InterpretConfig) -> None:
    """Match the words, print and write the results."""
    with writable_results(Path(config.model_dir)):
        directory, outcome = run(config)
    print_tables(tests_table(outcome, similarity, config.confidence) for similarity in outcome.overall)
    print(f"words, matches, figures and page: {directory}")


def run(config: InterpretConfig) -> tuple[Path, Interpretation]:
    """Align the words, match them and write the results; returns the folder and the counts and tests."""
    data_dir = Path(config.data_dir)
    cuts = list(read_cuts(find_manifest(data_dir, config.split)))
    dataset = read_dataset(data_dir, config.split, config.dataset)
    if config.embeddings is not None:
        embedded = EmbeddingStore(Path(config.embeddings)).description.get("dataset")
        check_same_recordings([(str(data_dir), dataset.record()), (config.embeddings, embedded)])
    pairs = pairs_of_cuts(cuts, config)
    table = None if config.table is None else TranslationTable(Path(config.table), config.table_columns)
    similarities = [choose_similarity(name, table) for name in config.similarities]
    needed = {name for pair in pairs for name in (pair.source_id, pair.target_id)}
    chosen = {cut.id: cut for cut in cuts if cut.id in needed}
    if config.words is not None:
        utterances = from_table(config, chosen)
    else:
        segment = choose_segmenter(config.segmenter, () if table is None else table.words)
        read = from_whisper if config.aligner == WHISPER else from_model
        utterances = read(config, chosen, segment)
    outcome = interpret(
        config, pairs, utterances, similarities, lambda name: sound(config, chosen[name]), dataset
    )
    return config.folder, outcome
