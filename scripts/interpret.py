"""Which words of parallel utterances match, by the encoder's frames alone, and are they alike as texts?"""

import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from retrieval.cuts import open_cuts
from retrieval.interpretation.compare import tests_table
from retrieval.interpretation.config import InterpretConfig
from retrieval.interpretation.run import Corpus, SpokenUtterance, interpret
from retrieval.interpretation.text_similarity import TranslationTable
from retrieval.interpretation.words import FrameClock, Word
from zipformer.alignment import (
    FIRST_FRAME_SECONDS,
    FRAME_SECONDS,
    AlignedUtterance,
    align_cuts,
    choose_segmenter,
)
from zipformer.evaluation import check_model_files, choose_device
from zipformer.model import AsrModel
from zipformer.tokenizer import Tokenizer

ConfigStore.instance().store(name="interpret_schema", node=InterpretConfig)
CLOCK = FrameClock(FRAME_SECONDS, FIRST_FRAME_SECONDS)


@hydra.main(version_base="1.3", config_path="../conf", config_name="interpret")
def main(settings: DictConfig) -> None:
    try:
        config = cast(InterpretConfig, OmegaConf.to_object(settings))
        directory, outcome = run(config)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    console = Console()
    for similarity in outcome.overall:
        console.print(tests_table(outcome, similarity, config.confidence))
    console.print(f"words, matches, figures and page: {directory}", soft_wrap=True)
