"""Recognise a split with a model directory and print the character error rate of each dialect."""

import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from retrieval.results import trained_groups
from zipformer.evaluation import DecodeConfig, decode
from zipformer.scoring import align_all, score
from zipformer.scoring.files import rate_table, write_results

ConfigStore.instance().store(name="decode_schema", node=DecodeConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="decode")
def main(settings: DictConfig) -> None:
    try:
        config = cast(DecodeConfig, OmegaConf.to_object(settings))
        trained = trained_groups(Path(config.model_dir))
        directory, transcripts = decode(config)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    scored = align_all(transcripts)
    rows = score(scored)
    header = {
        "method": config.method,
        "split": config.split,
        "reference": config.reference,
        "model_dir": config.model_dir,
    }
    write_results(directory, scored, rows, header=header)
    console = Console()
    title = f"{config.split}, {config.method}"
    if config.reference != "text":
        title += f", against the {config.reference}"
    console.print(rate_table(rows, title=title, trained=trained))
    console.print(f"hypotheses, alignments and confusions: {directory}", soft_wrap=True)


if __name__ == "__main__":
    main()
