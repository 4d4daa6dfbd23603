"""Makes one training set of several prepared corpora: common tokens, validation cuts, and a list of corpora.

The directory that is written is the ``data_dir`` of the training, and the ``mixture.yaml`` in it is its
``data.mixing.file``. The training cuts stay where they are. The validation cuts, which are few, are copied
with the present paths of their files: if a corpus moves, the mixture must be written again.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # a requirement of OmegaConf
from lhotse import CutSet
from lhotse.cut import Cut
from omegaconf import MISSING

from data_prep.manifests import final_cuts_file, write_jsonl
from data_prep.tokens import train_token_model, write_tokens
from zipformer.data.cuts import read_cuts
from zipformer.data.dataset import record_name
from zipformer.data.manifest import read_summaries
from zipformer.data.mixing import CorpusShare
from zipformer.data.mixture_file import MIXTURE_FILE, read_mixture
from zipformer.data.remote import CacheConfig, is_remote
from zipformer.data.shar import open_data
from zipformer.errors import UserError
from zipformer.files import write_text
from zipformer.scoring.token_coverage import TokenCoverage

HOURS_FILE = "hours.tsv"

logger = logging.getLogger(__name__)


@dataclass
class MixtureConfig:
    """Settings of fangyan mixture.

    Attributes:
        file: YAML file with the list of prepared corpora, see zipformer/data/mixture_file.py.
        data_dir: directory for tokens, validation cuts and ``mixture.yaml``.
        absent: ``error`` if a corpus of the file has no training cuts, ``skip`` to leave it out.
        min_count: a character that occurs less often in the training text of all corpora is spelt in bytes.
        cache: settings of the cache for corpora at a URL.
    """

    file: str = MISSING
    data_dir: str = MISSING
    absent: str = "error"
    min_count: int = 1
    cache: CacheConfig = field(default_factory=CacheConfig)


def write_mixture(config: MixtureConfig) -> None:
    """Write tokens, validation cuts, ``hours.tsv`` (by corpus and dialect group) and ``mixture.yaml``.

    Raises:
        UserError: the file is wrong, a corpus is absent or of another dialect group, or an id occurs twice
            among the validation cuts.
    """
    directory = Path(config.data_dir).resolve()
    shares = read_mixture(Path(config.file), config.absent)
    if any(Path(share.data_dir).resolve() == directory for share in shares):
        raise UserError(
            f"data_dir={directory} is a corpus of the mixture, whose tokens would be replaced: "
            "give a directory of its own"
        )
    folders = [open_data(share.data_dir, config.cache) for share in shares]
    hours: list[str] = []
    model = train_token_model(_texts(shares, folders, hours), config.min_count)
    size = write_tokens(model, directory / "tokens")
    logger.info("%d tokens of %d corpora in %s", size, len(shares), directory / "tokens")
    for folder in folders:
        _check_characters(folder, directory / "tokens")
    valid = write_jsonl(CutSet, _validation_cuts(shares, folders), final_cuts_file(directory, "valid"))
    logger.info("%d validation cuts", valid)
    write_text(directory / HOURS_FILE, "corpus\tgroup\tutterances\thours\n" + "".join(hours))
    # Last, so that the mixture is complete if this file exists.
    entries = [
        {
            "data_dir": share.data_dir
            if is_remote(share.data_dir)
            else os.path.relpath(Path(share.data_dir).resolve(), directory),
            "weight": share.weight,
            **({"group": share.group} if share.group else {}),
        }
        for share in shares
    ]
    write_text(directory / MIXTURE_FILE, yaml.safe_dump({"corpora": entries}, allow_unicode=True))
    record_name(directory, None)


def _texts(shares: Sequence[CorpusShare], folders: Sequence[Path], hours: list[str]) -> Iterator[str]:
    """Training text of all corpora with a weight; checks the groups, and adds the lines of ``hours.tsv``."""
    for share, folder in zip(shares, folders, strict=True):
        if share.weight == 0:
            continue
        file = final_cuts_file(folder, "train")
        seconds: dict[str, float] = defaultdict(float)
        utterances: dict[str, int] = defaultdict(int)
        for cut in read_summaries(file):
            group = (cut.supervisions[0].language if cut.supervisions else None) or "unknown"
            seconds[group] += cut.duration
            utterances[group] += 1
            for supervision in cut.supervisions:
                if share.group and supervision.language != share.group:
                    raise UserError(
                        f"{file}: the mixture says group {share.group}, but utterance {cut.id} is of "
                        f"{supervision.language}: correct the group, or leave it out"
                    )
                yield supervision.text or ""
        for group in sorted(seconds):
            amount = seconds[group] / 3600
            logger.info("%s: %s, %d utterances, %.2f h", share.data_dir, group, utterances[group], amount)
            name = share.data_dir if is_remote(share.data_dir) else folder.resolve().name
            hours.append(f"{name}\t{group}\t{utterances[group]}\t{amount:.4f}\n")


def _check_characters(corpus: Path, tokens: Path) -> None:
    """Warn of characters in test sets that no training text has."""
    for split in ("valid", "test"):
        file = final_cuts_file(corpus, split)
        if not file.is_file():
            continue
        coverage = TokenCoverage.of_model(tokens)
        for cut in read_summaries(file):
            for supervision in cut.supervisions:
                coverage.add(supervision.text or "", supervision.language or "unknown")
        if warning := coverage.warning(f"the split {split} of {corpus}"):
            logger.warning("%s", warning)


def _validation_cuts(shares: Sequence[CorpusShare], folders: Sequence[Path]) -> Iterator[Cut]:
    seen: dict[str, str] = {}
    for share, folder in zip(shares, folders, strict=True):
        file = final_cuts_file(folder, "valid")
        if not file.is_file() or share.weight == 0:
            continue
        for cut in read_cuts(file):
            if cut.id in seen:
                raise UserError(
                    f"the validation cut {cut.id} is in {seen[cut.id]} and in {share.data_dir}: remove one "
                    "of them from the mixture"
                )
            seen[cut.id] = share.data_dir
            yield cut
