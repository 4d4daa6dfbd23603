"""The command ``paper_table``: the 8 x 8 table of the YuBao paper from results in a model directory."""

from pathlib import Path

from data_prep.corpora.yubao.sites import read_sites, same_name
from retrieval.comparison.paper_table import (
    PaperTableConfig,
    deviations,
    paper_table,
    sites_asked,
    write_paper_table,
)
from retrieval.protocol.reading import RETRIEVED_WITH, read_recall
from retrieval.results.naming import RECALL_FILE, result_folder
from retrieval.results.weights import Sieve
from zipformer.console import print_tables
from zipformer.data.dataset import choose_dataset
from zipformer.errors import UserError


def main(config: PaperTableConfig) -> None:
    """Print and write the table."""
    model_dir = Path(config.model_dir)
    dataset = choose_dataset(model_dir, config.dataset, made_by="fangyan embed and fangyan retrieve")
    folder = result_folder(model_dir, "retrieval", config.split, dataset=dataset, embedder=config.embedder)
    recall = read_recall(folder / RECALL_FILE)
    if recall is None:
        raise UserError(f"no results at {folder}: make them with fangyan retrieve")
    Sieve(model_dir).require(recall.weights, folder / RECALL_FILE, RETRIEVED_WITH)
    differing = deviations(
        recall.table,
        {(group, same_name(site)) for group, site in sites_asked(folder)},
        {(site.group, same_name(site.name)) for site in read_sites()},
    )
    if differing and not config.allow_partial:
        # A table that is there belongs to earlier results, which fangyan retrieve has replaced.
        (folder / "paper_table.csv").unlink(missing_ok=True)
        raise UserError(
            f"the results in {folder} are not those of the whole benchmark: {'; '.join(differing)}. For "
            "a table of what there is, in which this is written, set allow_partial=true"
        )
    write_paper_table(folder / "paper_table.csv", recall.table, differing)
    print_tables([paper_table(recall.table, differing)])
