"""Finished retrievals side by side, with intervals and paired tests of their differences."""

from dataclasses import asdict
from pathlib import Path

from retrieval.comparison.figure import comparison_figure
from retrieval.comparison.finished import check_same_queries, read_finished
from retrieval.comparison.models import CompareConfig, Comparison, compare, write_comparison
from retrieval.comparison.views import comparison_views
from retrieval.figures.style import save_png
from zipformer.console import print_tables
from zipformer.files import replacing_folder


def main(config: CompareConfig) -> None:
    compared = run(config)
    print_tables(comparison_views(compared, config.confidence))
    print(f"tables and figure: {config.output}")


def run(config: CompareConfig) -> Comparison:
    """Compare and write the results."""
    models = read_finished(
        [Path(path) for path in config.results], config.names, split=config.split, dataset=config.dataset
    )
    check_same_queries(models, any_dimension=config.any_dimension)
    compared = compare(
        models,
        resamples=config.resamples,
        confidence=config.confidence,
        permutations=config.permutations,
        seed=config.seed,
    )
    with replacing_folder(Path(config.output)) as path:
        write_comparison(path, compared, models, asdict(config))
        save_png(comparison_figure(compared), path / "comparison.png")
    return compared
