"""The commands ``decode`` and ``score``: recognise a split and print error rates; score it again."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipformer.console import print_tables
from zipformer.data.dataset import read_dataset
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding.hypothesis_file import HYPOTHESES_FILE, read_hypotheses
from zipformer.decoding.methods import DecodeConfig
from zipformer.decoding.recognise import decode
from zipformer.errors import UserError
from zipformer.files import place_errors
from zipformer.model_dir import trained_groups
from zipformer.results_place import REMEDY, results_place
from zipformer.scoring import Convention, Transcript, align_all, choose_convention, empty_references, score
from zipformer.scoring.files import CER_FILE, rate_table, write_results
from zipformer.scoring.token_coverage import TokenCoverage, with_no_token, written_characters
from zipformer.typed_json import json_object, require

logger = logging.getLogger(__name__)


@dataclass
class ScoreConfig:
    """Settings of fangyan score.

    Attributes:
        results: folder of fangyan decode, e.g. ``exp/mini/averaged/results/mini/decode-test-ctc``. Tables and
            alignments in it are replaced.
        scoring: convention by which errors are counted, as in fangyan decode.
    """

    results: str
    scoring: str

    def __post_init__(self) -> None:
        choose_convention(self.scoring)


def main(config: DecodeConfig) -> None:
    """Recognise a split, score it, print and write the tables."""
    config.model_dir = str(results_place(Path(config.model_dir), config.results_dir))
    with place_errors(config.folder, REMEDY):
        directory, transcripts = decode(config)
    header = {
        "method": config.method,
        "split": config.split,
        "reference": config.reference,
        "dataset": read_dataset(Path(config.data_dir), config.split, config.dataset).record(),
        "model_dir": config.model_dir,
    }
    _score(directory, transcripts, header, choose_convention(config.scoring), Path(config.model_dir))


def score_again(config: ScoreConfig) -> None:
    """Score the hypotheses of a finished decoding by another convention, print and write the tables.

    Raises:
        UserError: the folder has no results of a finished decoding.
    """
    directory = Path(config.results)
    path, hypotheses = directory / CER_FILE, directory / HYPOTHESES_FILE
    for file in (path, hypotheses):
        if not file.is_file():
            raise UserError(f"{file} is missing: give as results= a folder that fangyan decode has finished")
    header = json_object(path, path.read_text(encoding="utf-8"), "decode")
    require(header, {"method": str, "split": str, "reference": str, "dataset": dict}, path, "decode")
    del header["rows"]
    # MODEL_DIR/results/DATA/decode-SPLIT-METHOD, which may have been moved.
    model_dir = directory.resolve().parents[2]
    transcripts = read_hypotheses(hypotheses)
    _score(directory, transcripts, header, choose_convention(config.scoring), model_dir)


def _score(
    directory: Path,
    transcripts: Sequence[Transcript],
    header: Mapping[str, Any],
    convention: Convention,
    model_dir: Path,
) -> None:
    """Score transcripts, write the files and print the table.

    Args:
        directory: folder of the results.
        transcripts: references and hypotheses.
        header: fields of the decoding: method, split, reference, dataset, model_dir.
        convention: convention of counting errors.
        model_dir: model directory of the hypotheses.
    """
    known = convention.known(written_characters(Tokenizer.load(model_dir)))
    coverage = TokenCoverage(known)
    for transcript in transcripts:
        coverage.add(convention.text(transcript.reference), transcript.dialect)
    scored = align_all(transcripts, convention)
    rows = with_no_token(score(scored, convention=convention), scored, known)
    with place_errors(directory, REMEDY):
        write_results(directory, scored, rows, header=header, convention=convention)
    name = f"{header['dataset']['name']}, {header['split']}"
    title = f"{name}, {header['method']}"
    if header["reference"] != "text":
        title += f", against the {header['reference']}"
    print_tables([rate_table(rows, title=title, trained=trained_groups(model_dir), convention=convention)])
    if empty := empty_references(scored):
        logger.warning(
            "%d of %d references of %s are empty, scored as %s: what was recognised there is insertions",
            empty,
            len(scored),
            name,
            convention.name,
        )
    if warning := coverage.warning(f"the references of {name},"):
        logger.warning("%s", warning)
    print(f"hypotheses, alignments and confusions: {directory}")
