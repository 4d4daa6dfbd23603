"""The command ``challenge``: builds the challenge sets of a split."""

from pathlib import Path

from retrieval.challenge.build import build_challenges
from retrieval.challenge.results import sets_overview
from retrieval.challenge.settings import ChallengeConfig
from retrieval.protocol.challenge_sets import read_challenge
from zipformer.console import print_tables


def main(config: ChallengeConfig) -> None:
    """Build the challenge sets and print an overview."""
    paths: list[Path] = build_challenges(config)
    print_tables([sets_overview([read_challenge(path) for path in paths])])
    for path in paths:
        print(f"ask it with fangyan retrieve challenge={path}")
