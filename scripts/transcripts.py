"""Write the transcripts of a prepared corpus otherwise: another script, another normalisation.

python scripts/transcripts.py source=data/mini data_dir=data/mini-customary +scripts.yue=s2hk
"""

from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from data_prep.transcripts import TranscriptsConfig, rewrite_transcripts
from fangyan.command_line import command

ConfigStore.instance().store(name="transcripts_schema", node=TranscriptsConfig)


@command("transcripts")
def main(settings: DictConfig) -> None:
    rewrite_transcripts(cast(TranscriptsConfig, OmegaConf.to_object(settings)))


if __name__ == "__main__":
    main()
