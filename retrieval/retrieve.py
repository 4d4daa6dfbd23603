"""Cross-dialect retrieval in a split: all ordered pairs of groups, with interval, chance and tests.

Several model directories are asked the same and held against each other.
"""

from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from retrieval.challenge import read_challenge
from retrieval.challenge.sets import ChallengeSet
from retrieval.comparison import models as comparison
from retrieval.comparison.figure import comparison_figure
from retrieval.embedding.store import EmbeddingStore
from retrieval.figures.style import save_png
from retrieval.protocol import tables, views
from retrieval.protocol.recall import Challenge, RetrieveConfig, embed_call, retrieve
from retrieval.protocol.sites import Site, labels_of_dialects, sites_of
from retrieval.report.figures import recall_heat_map
from retrieval.results import finished
from retrieval.results.naming import result_folder
from retrieval.results.reading import check_trained, trained_groups
from retrieval.results.weights import Sieve, weights_behind
from zipformer.console import print_tables
from zipformer.data.dataset import choose_dataset
from zipformer.decoding.recognise import choose_device
from zipformer.errors import UserError
from zipformer.files import replacing_folder
from zipformer.results_place import writable_results


def main(config: RetrieveConfig) -> None:
    """Retrieve, print and write the tables."""
    with writable_results(Path(config.model_dir)):
        shown, directory = run(config)
    print_tables(shown)
    print(f"tables and figure: {directory}")


def run(config: RetrieveConfig) -> tuple[list[Table], Path]:
    """Ask all queries of all models, then write the results; returns what to print, and the last folder."""
    model_dirs = [Path(name) for name in (config.model_dir, *config.compare_with)]
    if len({model_dir.resolve() for model_dir in model_dirs}) < len(model_dirs):
        raise UserError("compare_with names a model directory twice")
    challenge = None if config.challenge is None else read_challenge(config.challenge)
    datasets = [choose_dataset(model_dir, config.dataset) for model_dir in model_dirs]
    opened = [open_model(config, *place) for place in zip(model_dirs, datasets, strict=True)]
    check_models(config, opened)
    if challenge is not None:
        check_challenge(challenge, opened[0][0])
    check_trained(config.trained, (entry.dialect for store, _ in opened for entry in store), model_dirs)
    models, results = [], []
    names = finished.short_names(model_dirs)
    for name, model_dir, dataset, (store, sites) in zip(names, model_dirs, datasets, opened, strict=True):
        outcome = retrieve(
            store,
            sites,
            within_groups=config.within,
            min_common=config.min_common,
            score=config.score,
            correction=config.correction,
            challenge=challenge,
            candidates=config.candidates,
            permutations=config.permutations,
            seed=config.seed,
            device=choose_device(config.device),
            half_precision=config.half_precision,
        )
        trained = config.trained if config.trained is not None else trained_groups(model_dir)
        table = tables.tabulate(
            outcome,
            trained_groups=None if trained is None else labels_of_dialects(store, trained, config.level),
            resamples=config.resamples,
            confidence=config.confidence,
            seed=config.seed,
        )
        header: dict[str, object] = {
            "split": config.split,
            "dataset": store.description.get("dataset"),
            "model_dir": str(model_dir),
            "embedder": config.embedder,
            "challenge": challenge.name if challenge else None,
            "challenge_fingerprint": challenge.fingerprint if challenge else None,
            "challenge_drawn_for": challenge.about.get("drawn_for") if challenge else None,
            "settings": asdict(config),
            "embeddings": store.description,
            "answers_not_among_candidates": outcome.missed,
        }
        directory = folder(config, model_dir, dataset, "retrieval", challenge)
        content = header | {"trained_groups": table.trained_groups}
        models.append(finished.Finished(name, directory, outcome, content))
        results.append((table, header))
    compared = None
    if len(models) > 1:
        finished.check_same_queries(models, any_dimension=config.any_dimension)
        compared = comparison.compare(
            models,
            resamples=config.resamples,
            confidence=config.confidence,
            permutations=config.permutations or RetrieveConfig.permutations,
            seed=config.seed,
        )
    for model, (table, header) in zip(models, results, strict=True):
        with replacing_folder(model.path) as path:
            tables.write_tables(path, table, model.outcome, header)
            save_png(recall_heat_map(table, confidence=config.confidence), path / "recall.png")
    if compared is None:
        return views.retrieval_views(results[0][0], config.confidence), models[0].path
    directory = folder(config, model_dirs[0], datasets[0], "comparison", challenge)
    with replacing_folder(directory) as path:
        comparison.write_comparison(path, compared, models, asdict(config))
        save_png(comparison_figure(compared), path / "comparison.png")
    return views.comparison_views(compared, config.confidence), directory


def folder(
    config: RetrieveConfig, model_dir: Path, dataset: str, what: str, challenge: Challenge | None
) -> Path:
    """Where results with these settings lie."""
    return result_folder(
        model_dir,
        what,
        config.split,
        dataset=dataset,
        embedder=config.embedder,
        layer=config.layer,
        score=config.score.value,
        correction=config.correction.value,
        challenge=challenge.name if challenge else None,
    )


def open_model(config: RetrieveConfig, model_dir: Path, dataset: str) -> tuple[EmbeddingStore, list[Site]]:
    """Embeddings of a data set in a model directory, and their sites.

    Raises:
        ValueError: they are of other weights than the model has now.
    """
    directory = result_folder(
        model_dir,
        "embeddings",
        config.split,
        dataset=dataset,
        embedder=config.embedder,
        layer=config.layer,
    )
    store = EmbeddingStore(directory)
    remedy = embed_call(model_dir, config.split, asdict(config))
    Sieve(model_dir).require(weights_behind([store.description]), directory, remedy)
    return store, sites_of(store, level=config.level, duplicates=config.duplicates, groups=config.groups)


def check_models(config: RetrieveConfig, opened: list[tuple[EmbeddingStore, list[Site]]]) -> None:
    """See that all models have the same sites, sentences and dimension, before anything is computed."""
    store, sites = opened[0]
    finished.check_same_recordings(
        (str(each.directory), each.description.get("dataset")) for each, _ in opened
    )
    for other, other_sites in opened[1:]:
        between = f"{store.directory} and {other.directory} cannot be compared"
        if not config.any_dimension:
            finished.check_same_dimension(between, store.frames.shape[1], other.frames.shape[1])
        finished.check_same_names(
            between, "site", [str(site) for site in sites], [str(site) for site in other_sites]
        )
        for ours, theirs in zip(sites, other_sites, strict=True):
            finished.check_same_names(
                between, f"{ours}: sentence", sorted(ours.utterances), sorted(theirs.utterances)
            )


def check_challenge(challenge: ChallengeSet, store: EmbeddingStore) -> None:
    """See that a challenge set is of the data that were embedded.

    Raises:
        ValueError: it is of other data.
    """
    made_of = (f"the challenge set {challenge.name}", challenge.about.get("dataset"))
    finished.check_same_recordings([(str(store.directory), store.description.get("dataset")), made_of])
