"""The command ``controls``: compares the recall@1 of a model with that of its controls."""

from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Table

from retrieval.comparison.controls import (
    MODEL,
    Control,
    ControlsConfig,
    control_rows,
    control_table,
    parse_controls,
    write_controls,
)
from retrieval.comparison.controls_figure import control_dots
from retrieval.comparison.permuted import permuted_table
from retrieval.embedding.build import embed
from retrieval.embedding.cuts import EmbedConfig
from retrieval.embedding.embedder import EmbedderKind
from retrieval.embedding.huggingface import HuggingFaceConfig
from retrieval.embedding.store import EmbeddingStore
from retrieval.figures.style import save_png
from retrieval.protocol.outcome import Outcome
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import labels_of_dialects, sites_of
from retrieval.protocol.tables import tabulate
from zipformer.console import print_tables
from zipformer.device import choose_device
from zipformer.errors import UserError
from zipformer.model_dir import check_trained, trained_groups
from zipformer.results_place import writable_results


def main(config: ControlsConfig) -> None:
    """Compare the model with its controls, print and write the table."""
    with writable_results(Path(config.model_dir)):
        table = run(config)
    print_tables([table])
    print(f"table and figure: {config.folder}")


def run(config: ControlsConfig) -> Table:
    """Embed, retrieve, compare, write; returns the table."""
    models = [HuggingFaceConfig(model) for model in config.huggingface]
    hugging = {model.short_name: model for model in models}
    if len(hugging) < len(models):
        raise UserError(
            f"two models of huggingface={config.huggingface} have one name, which names the results:"
            " save one to a folder of another name"
        )
    controls = parse_controls([*config.controls, *hugging], hugging)
    folders = {name: embed(_embed_config(config, name, hugging)) for name in _embedders(controls)}
    stores = {name: EmbeddingStore(folder) for name, folder in folders.items()}
    dialects = (entry.dialect for store in stores.values() for entry in store)
    check_trained(config.trained, dialects, Path(config.model_dir))
    trained = config.trained if config.trained is not None else trained_groups(Path(config.model_dir))
    outcomes: dict[str, Outcome] = {}
    results = {}
    draws = config.permuted_draws if any(control.permuted for control in controls) else 0
    for control in controls:
        if control.permuted:
            continue
        print(f"{control.label}:", flush=True)
        store = stores[control.embedder]
        sites = sites_of(store, level=config.level, duplicates=config.duplicates, groups=config.groups)
        outcome = retrieve(
            store,
            sites,
            score=control.score,
            permutations=draws if control.name == MODEL else 0,
            seed=config.seed,
            device=choose_device(config.device),
        )
        outcomes[control.name] = outcome
        results[control.name] = tabulate(
            replace(outcome, permuted=None),  # too few for tests
            trained_groups=None if trained is None else labels_of_dialects(store, trained, config.level),
            resamples=config.resamples,
            confidence=config.confidence,
            seed=config.seed,
        )
    for control in controls:
        if control.permuted:
            permuted = outcomes[MODEL].permuted
            assert permuted is not None
            results[control.name] = permuted_table(results[MODEL], permuted, confidence=config.confidence)
    rows = control_rows(
        outcomes,
        results,
        controls,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    header = {
        "split": config.split,
        "dataset": stores[MODEL].description.get("dataset"),
        "model_dir": config.model_dir,
        "settings": asdict(config),
        "groups": results[MODEL].groups,
        "trained_groups": results[MODEL].trained_groups,
        "single_site_groups": results[MODEL].single_site_groups,
        "embeddings": {name: store.description for name, store in stores.items()},
    }
    write_controls(config.folder, rows, results, header)
    save_png(control_dots(rows, confidence=config.confidence), config.folder / "controls.png")
    return control_table(rows, config.confidence, results[MODEL].resampled)


def _embedders(controls: list[Control]) -> list[str]:
    return list(dict.fromkeys(control.embedder for control in controls))


def _embed_config(config: ControlsConfig, name: str, hugging: dict[str, HuggingFaceConfig]) -> EmbedConfig:
    return EmbedConfig(
        model_dir=config.model_dir,
        data_dir=config.data_dir,
        split=config.split,
        dataset=config.dataset,
        embedder=EmbedderKind.huggingface if name in hugging else EmbedderKind(name),
        seed=config.seed,
        fbank=config.fbank,
        mfcc=config.mfcc,
        huggingface=hugging.get(name, HuggingFaceConfig()),
        storage=config.storage,
        batch_seconds=config.batch_seconds,
        device=config.device,
    )
