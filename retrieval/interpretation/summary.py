"""Summaries of the interpretations of a model for the report, one line each."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.results.weights import Sieve, recorded_data, recorded_weights
from zipformer.typed_json import MalformedResultError, read_json


@dataclass(frozen=True)
class InterpretationRow:
    """One run of fangyan interpret and one text similarity.

    Attributes:
        page: path of the page, relative to the folder of the results.
        timed_by: aligner, with the name of a Whisper model, or name of the table of words.
        frames: ``encoder``, or name of the folder of embeddings.
        segmenter: setting of the run, or "as timed" for words from a table.
        matcher, scope: settings of the run.
        compared: pairs or groups from the settings, or "all groups" or "all subdialects".
        similarity: name of the text similarity.
        word_pairs: number of matched pairs of words.
        matched_share: share of the words that are matched, in per cent.
        test: the fields of :class:`retrieval.interpretation.validation.PairedTest` over all sentences.
    """

    page: str
    timed_by: str
    frames: str
    segmenter: str
    matcher: str
    scope: str
    compared: str
    similarity: str
    word_pairs: int
    matched_share: float
    test: dict[str, float | None]


def read_interpretations(
    results: Path, split: str, sieve: Sieve | None = None
) -> list[InterpretationRow] | None:
    """All interpretations of a split of a data set, sorted by folder; None if there are none.

    Args:
        results: folder of a data set in the ``results`` of a model directory.
        split: split of the results.
        sieve: checks the results; by default one for the model directory.

    Raises:
        MalformedResultError: a summary is damaged.
    """
    model_dir = results.parents[1]
    sieve = sieve or Sieve(model_dir)
    rows = []
    for path in sorted(results.glob(f"interpret-{split}-*/summary.json")):
        summary = read_json(path, "interpret") or {}
        try:
            settings = summary["settings"]
            if settings["split"] != split:  # the name of another split may begin with this one
                continue
            weights, data = recorded_weights(summary), recorded_data(summary)
            if not sieve.passes(weights, data, path, "fangyan interpret"):
                continue
            words, embeddings, aligner = settings["words"], settings["embeddings"], settings["aligner"]
            if aligner == "whisper":
                aligner = f"whisper {Path(settings['whisper']['model']).name}"
            rows += [
                InterpretationRow(
                    f"{path.parent.name}/index.html",
                    aligner if words is None else Path(words).name,
                    "encoder" if embeddings is None else Path(embeddings).name,
                    settings["segmenter"] if words is None else "as timed",
                    settings["matcher"],
                    settings["scope"],
                    ", ".join(settings["pairs"] or settings["groups"]) or f"all {settings['level']}s",
                    similarity,
                    summary["word_pairs"],
                    100 * summary["matched_words"] / summary["words"],
                    tests["overall"],
                )
                for similarity, tests in summary["tests"].items()
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise MalformedResultError(path, f"{error} is missing or wrong", "interpret") from error
    return rows or None
