"""Prepare a corpus: ``python scripts/prepare.py corpus=mini data_dir=data/mini``.

Settings are in conf/prepare.yaml and conf/corpus/; ``--help`` shows them. A run that was killed resumes
when the same command is started again.
"""

import os
import sys
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from data_prep.corpora import corpora
from data_prep.pipeline import PrepareConfig, prepare
from fangyan.command_line import command
from zipformer.files import check_writable, place_errors
from zipformer.lock import sole_use
from zipformer.stopping import ending_at_once

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"


def register_configs() -> None:
    """Make the settings known to Hydra: a wrong key or type is then an error that names it."""
    store = ConfigStore.instance()
    store.store(name="prepare_schema", node=PrepareConfig)
    for corpus in corpora().values():
        store.store(group="corpus", name=f"{corpus.name}_schema", node=corpus.config_class)
        if not (CONF_DIR / "corpus" / f"{corpus.name}.yaml").is_file():
            store.store(group="corpus", name=corpus.name, node=corpus.config_class)


register_configs()


@command("prepare")
def main(config: DictConfig) -> None:
    try:
        settings = cast(PrepareConfig, OmegaConf.to_object(config))
        directory, remedy = Path(settings.data_dir), "free space there, or choose another data_dir"
        check_writable(directory, "choose another data_dir")
        with ending_at_once(), sole_use(directory), place_errors(directory, remedy):
            prepare(settings)
    except SystemExit as end:  # a signal; see Workers why nothing is waited for
        sys.stdout.flush()
        os._exit(cast(int, end.code))


if __name__ == "__main__":
    main()
