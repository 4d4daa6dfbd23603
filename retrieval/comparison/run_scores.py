"""The command ``scores``: compares scores of retrieval, such as SeqSim and pooling, on the same embeddings.

The settings are described in retrieval/comparison/runs.py.
"""

from dataclasses import asdict
from pathlib import Path

from retrieval.comparison.runs import ScoresConfig, baseline_of, variants_of_scores
from retrieval.comparison.variant_tables import variant_rows, variants_view, write_tables
from retrieval.comparison.variants import VariantMeasures
from zipformer.console import print_tables
from zipformer.device import choose_device


def main(config: ScoresConfig) -> None:
    """Compare the scores, print and write the tables."""
    comparison = VariantMeasures(
        variants_of_scores(config, choose_device(config.device)),
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
        paired=True,
    )
    baseline = baseline_of(config)
    rows = variant_rows(comparison, baseline)
    directory = Path(config.out_dir)
    header = {"settings": asdict(config), "single_site_groups": comparison.single_site_groups}
    write_tables(directory, rows, [], baseline=baseline, header=header)
    title = f"{config.split}, {100 * config.confidence:g} % intervals"
    print_tables([variants_view(rows, title, comparison.resampled)])
    print(f"tables: {directory}")
