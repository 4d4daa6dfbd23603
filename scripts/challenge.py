"""Build challenge sets of a split: retrieval without what is easy by sound, by name or by duration."""

from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fangyan.command_line import command
from retrieval.challenge.build import build_challenges
from retrieval.challenge.comparison import sets_overview
from retrieval.challenge.sets import read_challenge
from retrieval.challenge.settings import ChallengeConfig
from retrieval.protocol.tables import print_tables

ConfigStore.instance().store(name="challenge_schema", node=ChallengeConfig)


@command("challenge")
def main(settings: DictConfig) -> None:
    paths: list[Path] = build_challenges(cast(ChallengeConfig, OmegaConf.to_object(settings)))
    print_tables([sets_overview([read_challenge(path) for path in paths])])
    for path in paths:
        print(f"ask it with scripts/retrieve.py challenge={path}")


if __name__ == "__main__":
    main()
