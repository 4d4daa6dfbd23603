"""One training set of several prepared corpora: common tokens and validation cuts, and the list of corpora.

The directory that is written is the ``data_dir`` of the training, with ``data.mixing.file`` naming the
``mixture.yaml`` in it. The training cuts stay where they are. The validation cuts are copied, because they
are few, with their files named where they are now: a corpus that moves needs the mixture written again.
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

from data_prep.fbank import recorded_speed
from data_prep.manifests import SPLITS, final_cuts_file, write_jsonl
from data_prep.taxonomy import groups
from data_prep.tokens import train_token_model, write_tokens
from zipformer.data.cuts import read_cuts
from zipformer.data.dataset import record_name
from zipformer.data.manifest import CutSummary, read_summaries
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
    """Which corpora become one training set.

    Attributes:
        file: YAML file that lists prepared corpora, see zipformer/data/mixture_file.py.
        data_dir: directory for tokens, validation cuts and ``mixture.yaml``.
        absent: ``error`` if a corpus of the file has no training cuts, ``skip`` to leave it out.
        held_out: dialect groups that are not trained on, for a test of speech that the model never heard.
            All their utterances go to the split test of data_dir, so that ``data.keep_out`` can name
            data_dir. They give no tokens, and are not in the validation.
        min_count: a character that occurs less often in the training text of all corpora is spelt in bytes.
        cache: where files of corpora at a URL are kept.
    """

    file: str = MISSING
    data_dir: str = MISSING
    absent: str = "error"
    held_out: list[str] = field(default_factory=list)
    min_count: int = 1
    cache: CacheConfig = field(default_factory=CacheConfig)


def write_mixture(config: MixtureConfig) -> None:
    """Write tokens, validation and held-out cuts, ``hours.tsv`` (by corpus and group) and ``mixture.yaml``.

    Raises:
        UserError: the file is wrong, a corpus is absent or of another dialect group, a held-out group is
            unknown, or an id occurs twice among the validation cuts or among the held-out cuts.
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
    held_out = frozenset(config.held_out)
    if unknown := sorted(held_out - set(groups())):
        raise UserError(f"held_out={', '.join(unknown)} is no dialect group; choose of {', '.join(groups())}")
    model = train_token_model(_texts(shares, folders, held_out, hours), config.min_count)
    size = write_tokens(model, directory / "tokens")
    logger.info("%d tokens of %d corpora in %s", size, len(shares), directory / "tokens")
    for folder in folders:
        _check_characters(folder, directory / "tokens")
    cuts = _validation_cuts(shares, folders, held_out)
    valid = write_jsonl(CutSet, cuts, final_cuts_file(directory, "valid"))
    logger.info("%d validation cuts", valid)
    _write_held_out(folders, held_out, final_cuts_file(directory, "test"))
    write_text(directory / HOURS_FILE, "corpus\tgroup\tutterances\thours\n" + "".join(hours))
    # Last: where this file is, the mixture is complete.
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


def _texts(
    shares: Sequence[CorpusShare], folders: Sequence[Path], held_out: frozenset[str], hours: list[str]
) -> Iterator[str]:
    """Training text of all corpora with a weight; checks the groups, and adds the lines of ``hours.tsv``."""
    for share, folder in zip(shares, folders, strict=True):
        if share.weight == 0:
            continue
        file = final_cuts_file(folder, "train")
        seconds: dict[str, float] = defaultdict(float)
        utterances: dict[str, int] = defaultdict(int)
        for cut in read_summaries(file):
            group = _group(cut)
            seconds[group] += cut.duration
            utterances[group] += 1
            for supervision in cut.supervisions:
                if share.group and supervision.language != share.group:
                    raise UserError(
                        f"{file}: the mixture says group {share.group}, but utterance {cut.id} is of "
                        f"{supervision.language}: correct the group, or leave it out"
                    )
                if supervision.language not in held_out:
                    yield supervision.text or ""
        for group in sorted(seconds):
            amount = seconds[group] / 3600
            logger.info("%s: %s, %d utterances, %.2f h", share.data_dir, group, utterances[group], amount)
            name = share.data_dir if is_remote(share.data_dir) else folder.resolve().name
            hours.append(f"{name}\t{group}\t{utterances[group]}\t{amount:.4f}\n")


def _group(cut: Cut | CutSummary) -> str:
    return (cut.supervisions[0].language if cut.supervisions else None) or "unknown"


def _check_characters(corpus: Path, tokens: Path) -> None:
    """Warn of characters of test sets that no training text has."""
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


def _validation_cuts(
    shares: Sequence[CorpusShare], folders: Sequence[Path], held_out: frozenset[str]
) -> Iterator[Cut]:
    seen: dict[str, str] = {}
    for share, folder in zip(shares, folders, strict=True):
        file = final_cuts_file(folder, "valid")
        if not file.is_file() or share.weight == 0:
            continue
        for cut in read_cuts(file):
            if _group(cut) in held_out:
                continue
            if cut.id in seen:
                raise UserError(
                    f"the validation cut {cut.id} is in {seen[cut.id]} and in {share.data_dir}: remove one "
                    "of them from the mixture"
                )
            seen[cut.id] = share.data_dir
            yield cut


def _write_held_out(folders: Sequence[Path], held_out: frozenset[str], target: Path) -> None:
    """Write the utterances of held-out groups, of all splits, without copies at other speeds."""
    target.unlink(missing_ok=True)
    if not held_out:
        return
    count = write_jsonl(CutSet, _held_out_cuts(folders, held_out), target)
    logger.info("%d utterances of %s are held out", count, ", ".join(sorted(held_out)))
    if not count:
        target.unlink()


def _held_out_cuts(folders: Sequence[Path], held_out: frozenset[str]) -> Iterator[Cut]:
    seen: dict[str, Path] = {}
    for folder in folders:
        _, copies = recorded_speed(folder)
        for split in SPLITS:
            file = final_cuts_file(folder, split)
            if not file.is_file() or not any(_group(cut) in held_out for cut in read_summaries(file)):
                continue
            for cut in read_cuts(file):
                if _group(cut) not in held_out or (split == "train" and cut.id.endswith(copies)):
                    continue
                if cut.id in seen:
                    raise UserError(
                        f"the held-out cut {cut.id} is in {seen[cut.id]} and in {folder}: remove one of them "
                        "from the mixture"
                    )
                seen[cut.id] = folder
                yield cut
