"""Cross-dialect retrieval in a split: recall@1 of all ordered pairs of groups, with interval and chance."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrieval import tables
from retrieval.embeddings import EmbeddingStore
from retrieval.figures import recall_heat_map, save_png
from retrieval.naming import result_folder
from retrieval.recall import Challenge, RetrieveConfig, labels_of_dialects, retrieve, sites_of
from retrieval.results import trained_groups
from zipformer.evaluation import choose_device

ConfigStore.instance().store(name="retrieve_schema", node=RetrieveConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="retrieve")
def main(settings: DictConfig) -> None:
    try:
        config = cast(RetrieveConfig, OmegaConf.to_object(settings))
        directory, table = run(config)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    tables.print_tables([tables.recall_matrix(table), tables.recall_summary(table, config.confidence)])
    print(f"tables and figure: {directory}")


def run(config: RetrieveConfig) -> tuple[Path, tables.RecallTable]:
    """Ask all queries, write the results; returns their folder and the table."""
    model_dir = Path(config.model_dir)
    store = EmbeddingStore(
        result_folder(
            model_dir, "embeddings", config.split, embedder=config.embedder.value, layer=config.layer
        )
    )
    challenge = read_challenge_of(config)
    sites = sites_of(store, level=config.level, duplicates=config.duplicates, groups=config.groups)
    outcome = retrieve(
        store,
        sites,
        within_groups=config.within,
        score=config.score,
        correction=config.correction,
        challenge=challenge,
        candidates=config.candidates,
        permutations=config.permutations,
        seed=config.seed,
        device=choose_device(config.device),
    )
    trained = config.trained if config.trained is not None else trained_groups(model_dir)
    table = tables.tabulate(
        outcome,
        trained_groups=None if trained is None else labels_of_dialects(store, trained, config.level),
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    directory = result_folder(
        model_dir,
        "retrieval",
        config.split,
        embedder=config.embedder.value,
        layer=config.layer,
        score=config.score.value,
        correction=config.correction.value,
        challenge=challenge.name if challenge else None,
    )
    directory.mkdir(parents=True, exist_ok=True)
    header: dict[str, object] = {
        "split": config.split,
        "model_dir": config.model_dir,
        "embedder": config.embedder.value,
        "settings": asdict(config),
        "embeddings": store.description,
        "answers_not_among_candidates": outcome.missed,
    }
    tables.write_recall_json(directory / "recall.json", table, header)
    tables.write_recall_csv(directory / "recall.csv", table)
    tables.write_site_pairs(directory / "site_pairs.csv", outcome)
    save_png(recall_heat_map(table), directory / "recall.png")
    return directory, table


def read_challenge_of(config: RetrieveConfig) -> Challenge | None:
    """The challenge set that the settings name."""
    if config.challenge is None:
        return None
    from retrieval.challenge import read_challenge

    return read_challenge(Path(config.challenge))


if __name__ == "__main__":
    main()
