"""The command ``prepare``, which also resumes a killed run."""

import os
import sys
from pathlib import Path
from typing import cast

from data_prep.corpora import corpora
from data_prep.pipeline import PrepareConfig, prepare
from zipformer.files import check_writable, place_errors
from zipformer.lock import sole_use
from zipformer.stopping import ending_at_once


def config_groups() -> dict[str, dict[str, type]]:
    """Choices of ``corpus=NAME``: the name and the config class of every corpus."""
    return {"corpus": {corpus.name: corpus.config_class for corpus in corpora().values()}}


def main(config: PrepareConfig) -> None:
    """Prepare the corpus; a signal ends the process at once."""
    try:
        directory, remedy = Path(config.data_dir), "free space there, or choose another data_dir"
        check_writable(directory, "choose another data_dir")
        with ending_at_once(), sole_use(directory), place_errors(directory, remedy):
            prepare(config)
    except SystemExit as end:  # a signal; see Workers for why this does not wait
        sys.stdout.flush()
        os._exit(cast(int, end.code))
