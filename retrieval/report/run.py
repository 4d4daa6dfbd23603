"""The commands ``report`` and ``summary``: show the results in a model directory as a page and as tables."""

from collections.abc import Sequence
from pathlib import Path

from retrieval.challenge.results import challenge_table
from retrieval.protocol.views import recall_matrix, recall_summary
from retrieval.report.page import Report, ReportConfig, collect, report_folder, write_report
from zipformer.console import print_tables
from zipformer.data.dataset import dataset_names
from zipformer.errors import UserError
from zipformer.results_place import writable_results
from zipformer.scoring.files import rate_table


def report(config: ReportConfig) -> None:
    """Write one self-contained HTML page for each data set from the results in a model directory."""
    model_dir = Path(config.model_dir)
    metrics = Path(config.metrics) if config.metrics else None
    # A page for each data set, or one on the training if there are no results yet.
    for name in _datasets(config):
        collected = collect(model_dir, config.split, dataset=name, metrics=metrics)
        with writable_results(model_dir):
            page = write_report(
                collected,
                report_folder(model_dir, name),
                samples=config.samples,
                confusions=config.confusions,
                seed=config.seed,
            )
        if collected.challenges is not None:
            print_tables([challenge_table(collected.challenges)])
        print(f"report: {page}")


def summary(config: ReportConfig) -> None:
    """Print the results in a model directory: error rates by method, recall, place of the page."""
    model_dir = Path(config.model_dir)
    found = {name: collect(model_dir, config.split, dataset=name) for name in _datasets(config)}
    if not any(results.decodings or results.recall is not None for results in found.values()):
        raise UserError(
            f"{config.model_dir} has no results of the split {config.split}: make them with"
            " fangyan decode, fangyan embed and fangyan retrieve"
        )
    for name, results in found.items():
        _show(results, report_folder(model_dir, name) / "index.html", name)


def _datasets(config: ReportConfig) -> Sequence[str | None]:
    """The chosen data set, or all with results; a single None if there are no results."""
    return [config.dataset] if config.dataset else dataset_names(Path(config.model_dir)) or [None]


def _show(results: Report, page: Path, dataset: str | None) -> None:
    """Print the tables of one data set and the path of its page."""
    tables = []
    for decoding in results.decodings:
        title = f"{dataset}, {results.split}, {decoding.method}"
        tables.append(
            rate_table(
                decoding.rows, title=title, trained=results.trained_groups, convention=decoding.scoring
            )
        )
    if results.recall is not None:
        tables.append(recall_matrix(results.recall.table))
        tables.append(recall_summary(results.recall.table, results.recall.settings["confidence"]))
    print_tables(tables)
    if page.is_file():
        print(f"report: {page.absolute()}")
