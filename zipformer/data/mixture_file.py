"""The mixture file: a YAML file that lists the corpora of a training.

::

    corpora:
      - {data_dir: ../kespeech}
      - {data_dir: ../mdcc, weight: 2, group: yue}
      - {manifest: ../commonvoice/cuts_train.jsonl.gz, group: yue}

A folder is relative to the folder of the file; ``data_dir`` may also be Lhotse Shar, in a folder or at a URL
(:mod:`zipformer.data.shar`). ``manifest`` is for users of icefall and Auden, who list
manifests: it names the same as ``data_dir``, the folder of its ``cuts_train.jsonl.gz``. ``fangyan mixture``
checks such a file and writes what the corpora have in common; ``data.mixing.file`` trains on it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # a requirement of OmegaConf

from zipformer.data.mixing import ABSENT, CorpusShare, MixingConfig
from zipformer.data.remote import is_remote
from zipformer.errors import UserError

MIXTURE_FILE = "mixture.yaml"
TRAIN_CUTS = "cuts_train.jsonl.gz"
_KEYS = ("data_dir", "manifest", "weight", "group")


def read_mixture(file: Path, absent: str = "error") -> list[CorpusShare]:
    """The corpora that a mixture file lists.

    Args:
        file: the YAML file.
        absent: ``error``, or ``skip`` for leaving out a corpus without training cuts.

    Raises:
        UserError: the file is missing or wrong, lists a corpus twice, or lists a corpus that is absent.
    """
    if absent not in ABSENT:
        raise UserError(f"absent={absent} is not known: choose one of {', '.join(ABSENT)}")
    if not file.is_file():
        raise UserError(f"there is no mixture file {file}: fangyan mixture writes one")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a YAML file: {error}") from error
    entries = content.get("corpora") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file} lists no corpora: give 'corpora:' and a line '- {{data_dir: DIR}}' for each")
    shares = [_share(entry, f"{file}, corpus {number}", file) for number, entry in enumerate(entries, 1)]
    names = [
        share.data_dir if is_remote(share.data_dir) else str(Path(share.data_dir).resolve())
        for share in shares
    ]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"{file} lists {', '.join(twice)} twice: keep one entry, and give it a greater weight"
        )
    missing = [share for share in shares if not _is_prepared(share.data_dir)]
    if missing and absent == "error":
        named = ", ".join(share.data_dir for share in missing)
        raise UserError(
            f"{file} lists corpora without {TRAIN_CUTS}: {named}. Prepare them (fangyan prepare), remove "
            "them from the file, or leave them out by data.mixing.absent=skip (fangyan mixture: absent=skip)"
        )
    present = [share for share in shares if share not in missing]
    if not present:
        raise UserError(f"no corpus of {file} is prepared: run fangyan prepare for one of them")
    return present


def with_listed_corpora(config: MixingConfig) -> MixingConfig:
    """The mixture whose corpora are those of ``config.file``; the same mixture if it names no file.

    Raises:
        UserError: corpora are given in two ways, or see :func:`read_mixture`.
    """
    if config.file is None:
        return config
    if config.corpora:
        raise UserError("data.mixing.file and data.mixing.corpora both name corpora: give one of them")
    return replace(config, corpora=read_mixture(Path(config.file), config.absent))


def _is_prepared(place: str) -> bool:
    folder = Path(place)
    return is_remote(place) or (folder / TRAIN_CUTS).is_file() or any(folder.glob("cuts.*"))


def _share(entry: Any, place: str, file: Path) -> CorpusShare:
    if not isinstance(entry, dict):
        raise UserError(f"{place}: {entry!r} is no corpus; give {{data_dir: DIR, weight: 1}}")
    if unknown := sorted(str(key) for key in entry if key not in _KEYS):
        raise UserError(f"{place}: {', '.join(unknown)} is not known; the keys are {', '.join(_KEYS)}")
    if ("data_dir" in entry) == ("manifest" in entry):
        raise UserError(f"{place}: give either data_dir or manifest")
    for key in ("data_dir", "manifest", "group"):
        if key in entry and not isinstance(entry[key], str):
            raise UserError(f"{place}: {key} is {entry[key]!r}, not a text; put it in quotes")
    if "manifest" in entry:
        manifest = Path(entry["manifest"])
        if manifest.name != TRAIN_CUTS:
            raise UserError(f"{place}: {manifest} is not the {TRAIN_CUTS} of a prepared corpus")
        place_of_data = str(file.parent / manifest.parent)
    elif is_remote(entry["data_dir"]):
        place_of_data = entry["data_dir"]
    else:
        place_of_data = str(file.parent / entry["data_dir"])
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise UserError(f"{place}: weight is {weight!r}; give a number of 0 or more, 0 leaves the corpus out")
    return CorpusShare(place_of_data, float(weight), entry.get("group"))
