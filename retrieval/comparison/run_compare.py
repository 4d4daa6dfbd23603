"""The command ``compare``: compares finished retrievals, with intervals and paired tests."""

from dataclasses import asdict
from pathlib import Path

from retrieval.comparison.figure import comparison_figure
from retrieval.comparison.finished import check_same_queries, read_finished
from retrieval.comparison.models import CompareConfig, Comparison, compare, write_comparison
from retrieval.comparison.views import comparison_views
from retrieval.figures.style import save_png
from zipformer.console import print_tables
from zipformer.errors import UserError
from zipformer.files import replacing_folder


def main(config: CompareConfig) -> None:
    """Compare finished retrievals, print and write the tables."""
    compared, directory = run(config)
    print_tables(comparison_views(compared, config.confidence))
    print(f"tables and figure: {directory}")


def run(config: CompareConfig) -> tuple[Comparison, Path]:
    """Compare finished retrievals and write the results; returns the comparison and its folder."""
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
    directory = beside(models[0].path) if config.output is None else Path(config.output)
    with replacing_folder(directory) as path:
        write_comparison(path, compared, models, asdict(config))
        save_png(comparison_figure(compared), path / "comparison.png")
    return compared, directory


def beside(results: Path) -> Path:
    """Folder of a comparison beside results: ``comparison-test-mfcc`` beside ``retrieval-test-mfcc``.

    Raises:
        UserError: the folder of the results does not begin with ``retrieval-``.
    """
    name = results.name.removeprefix("retrieval-")
    if name == results.name:
        raise UserError(f"{results} is not named retrieval-...: say with output=FOLDER where to write")
    return results.with_name(f"comparison-{name}")
