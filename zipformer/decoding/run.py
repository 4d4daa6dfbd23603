"""Recognise a split with a model directory and print the character error rate of each dialect."""

import logging
from pathlib import Path

from zipformer.console import print_tables
from zipformer.data.dataset import read_dataset
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding.methods import DecodeConfig
from zipformer.decoding.recognise import decode
from zipformer.files import place_errors
from zipformer.model_dir import trained_groups
from zipformer.results_place import REMEDY, results_place
from zipformer.scoring import align_all, score
from zipformer.scoring.files import rate_table, write_results
from zipformer.scoring.token_coverage import coverage_of, with_no_token

logger = logging.getLogger(__name__)


def main(config: DecodeConfig) -> None:
    """Recognise a split, score it, print and write the tables."""
    config.model_dir = str(results_place(Path(config.model_dir), config.results_dir))
    trained = trained_groups(Path(config.model_dir))
    with place_errors(config.folder, REMEDY):
        directory, transcripts = decode(config)
    dataset = read_dataset(Path(config.data_dir), config.split, config.dataset)
    tokenizer = Tokenizer.load(config.model_dir)
    coverage = coverage_of(((item.reference, item.dialect) for item in transcripts), tokenizer)
    scored = align_all(transcripts)
    rows = score(scored)
    rows = with_no_token(rows, transcripts, coverage.known)
    header = {
        "method": config.method,
        "split": config.split,
        "reference": config.reference,
        "dataset": dataset.record(),
        "model_dir": config.model_dir,
    }
    with place_errors(directory, REMEDY):
        write_results(directory, scored, rows, header=header)
    title = f"{dataset.name}, {config.split}, {config.method}"
    if config.reference != "text":
        title += f", against the {config.reference}"
    print_tables([rate_table(rows, title=title, trained=trained)])
    if warning := coverage.warning(f"the references of {dataset.name}, {config.split},"):
        logger.warning("%s", warning)
    print(f"hypotheses, alignments and confusions: {directory}")
