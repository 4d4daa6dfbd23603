"""Recognise a split with a model directory and print the character error rate of each dialect."""

import sys
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from retrieval.results import trained_groups
from zipformer.command_line import command
from zipformer.evaluation import DecodeConfig, decode
from zipformer.files import StorageError, place_errors
from zipformer.results_place import REMEDY, results_place
from zipformer.scoring import align_all, score
from zipformer.scoring.files import rate_table, write_results

ConfigStore.instance().store(name="decode_schema", node=DecodeConfig)


@command("decode")
def main(settings: DictConfig) -> None:
    try:
        config = cast(DecodeConfig, OmegaConf.to_object(settings))
        config.model_dir = str(results_place(Path(config.model_dir), config.results_dir))
        trained = trained_groups(Path(config.model_dir))
        with place_errors(config.folder, REMEDY):
            directory, transcripts = decode(config)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    scored = align_all(transcripts)
    rows = score(scored, replications=config.bootstrap_replications, seed=config.seed)
    header = {
        "method": config.method,
        "split": config.split,
        "reference": config.reference,
        "model_dir": config.model_dir,
    }
    try:
        with place_errors(directory, REMEDY):
            write_results(directory, scored, rows, header=header)
    except StorageError as error:
        sys.exit(f"error: {error}")
    console = Console()
    title = f"{config.split}, {config.method}"
    if config.reference != "text":
        title += f", against the {config.reference}"
    console.print(rate_table(rows, title=title, trained=trained))
    console.print(f"hypotheses, alignments and confusions: {directory}", soft_wrap=True)


if __name__ == "__main__":
    main()
