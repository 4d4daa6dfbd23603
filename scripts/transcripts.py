"""Write the transcripts of a prepared corpus otherwise: another script, another normalisation.

python scripts/transcripts.py source=data/mini data_dir=data/mini-customary +scripts.yue=s2hk
"""

import sys
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.command_line import run_main
from data_prep.errors import PreparationError
from data_prep.transcripts import TranscriptsConfig, rewrite_transcripts

ConfigStore.instance().store(name="transcripts_schema", node=TranscriptsConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="transcripts")
def main(settings: DictConfig) -> None:
    try:
        rewrite_transcripts(cast(TranscriptsConfig, OmegaConf.to_object(settings)))
    except (PreparationError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_main(main)
