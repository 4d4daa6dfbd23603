"""With which weights and on which data results were computed, so that those of two are not shown as one's.

scripts/average.py writes new weights into a model directory and leaves the results of the old ones. So every
result says which weights it was computed with, by the SHA-256 of their file, and whoever reads it holds that
against the file that is there. In the same way it says which data set it is of
(:mod:`zipformer.data.dataset`).
"""

import logging
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from zipformer.data.dataset import SHOWN_DIGITS, DataSet, dataset_behind
from zipformer.errors import UserError
from zipformer.files import file_sha256
from zipformer.model import WEIGHTS_FILE
from zipformer.model_config import CONFIG_FILE

logger = logging.getLogger(__name__)

MODEL = "zipformer"  # the embedder whose embeddings depend on the weights; "zipformer layer03" is one, too

# Of the weights behind a result, or of its data: [] = it depends on none, None = not recorded. What depends
# on the architecture alone has the digest of config.json, after CONFIG.
Digests = list[str] | None
CONFIG = "config:"


def weights_of(model_dir: Path) -> str | None:
    """SHA-256 of the weights in a model directory, None where there are none.

    It is what ``sha256sum`` prints. The file is read in blocks, at the speed of the disk.
    """
    return _sha256(model_dir / WEIGHTS_FILE)


def architecture_of(model_dir: Path) -> str | None:
    """What an untrained encoder depends on: SHA-256 of ``config.json``, after ``CONFIG``; None without it."""
    digest = _sha256(model_dir / CONFIG_FILE)
    return None if digest is None else CONFIG + digest


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def weights_behind(descriptions: Iterable[object]) -> Digests:
    """The weights that some embeddings were computed with.

    Args:
        descriptions: of :class:`retrieval.embedding.store.EmbeddingStore`. Earlier versions recorded no
            weights; then the name of the embedder says whether there were any.
    """
    found: set[str] = set()
    for description in descriptions:
        if not isinstance(description, Mapping):
            return None
        weights = description.get("weights")
        if isinstance(weights, str):
            found.add(weights)
        elif "weights" not in description and str(description.get("embedder", MODEL)).split(" ")[0] == MODEL:
            return None
    return sorted(found)


def data_behind(descriptions: Iterable[object]) -> Digests:
    """The digests of the data sets that some embeddings are of; None where one does not say it."""
    found = [
        dataset_behind(description.get("dataset")) if isinstance(description, Mapping) else None
        for description in descriptions
    ]
    return None if None in found else sorted({data.digest for data in found if data is not None})


def recorded_data(content: Mapping[str, Any]) -> Digests:
    """The digest in the field ``dataset`` of a result file; None where it is missing or is anything else."""
    return data_behind([content])


def recorded_weights(content: Mapping[str, Any]) -> Digests:
    """The field ``weights`` of a result file; None where it is missing or holds anything else."""
    weights = content.get("weights")
    if isinstance(weights, list) and all(isinstance(digest, str) for digest in weights):
        return weights
    return None


class Result(Protocol):
    """What a :class:`Sieve` can keep."""

    @property
    def weights(self) -> Digests:
        """See :data:`Digests`."""

    @property
    def data(self) -> Digests:
        """See :data:`Digests`."""


Kept = TypeVar("Kept", bound=Result)


class Sieve:
    """Keeps apart what was computed with other weights than the model directory has now, or on other data.

    Args:
        model_dir: model directory.
        data: the data set that results are wanted of; None = whatever data.

    Attributes:
        warnings: what was left out, what could not be judged, and the commands that make it anew; each is
            logged, too.
    """

    def __init__(self, model_dir: Path, data: DataSet | None = None) -> None:
        self.model_dir = model_dir
        self.data = data
        self.present = weights_of(model_dir)
        self.architecture = architecture_of(model_dir)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Add a warning; one that is there already is not repeated."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("%s", text)

    def keep(self, result: Kept | None, path: Path, remedy: str) -> Kept | None:
        """The result, or None where it is of other weights or data."""
        if result is None or not self.passes(result.weights, result.data, path, remedy):
            return None
        return result

    def require(self, weights: Collection[str] | None, path: Path, remedy: str) -> None:
        """For results that are the whole point of a command.

        Raises:
            ValueError: they are of other weights than the model directory has.
        """
        if not self.passes(weights, [], path, remedy):
            raise UserError(self.warnings[-1].replace(" is left out: it ", " cannot be used: it ", 1))

    def passes(
        self, weights: Collection[str] | None, data: Collection[str] | None, path: Path, remedy: str
    ) -> bool:
        """Whether a result may be shown. One that does not say its weights may, with a warning.

        Args:
            weights, data: see :data:`Digests`.
            path: of the file that holds the result.
            remedy: command that makes it anew.
        """
        if self.data is not None and (data is None or set(data) - {self.data.digest}):
            of = "does not say which data it is of" if data is None else f"is of other data ({_shown(data)})"
            self.warn(
                f"{path} is left out: it {of}, and {self.data.name} stands for {_shown([self.data.digest])}"
                f" here. Make it anew: {remedy}"
            )
            return False
        if weights is None:
            self.warn(
                f"{path} does not say which weights it was computed with, as results of earlier versions do"
                " not: it may be of another model than the one that is there now. To be sure, make it anew:"
                f" {remedy}"
            )
            return True
        others = sorted(set(weights) - {self.present, self.architecture})
        if not others:
            return True
        if all(digest.startswith(CONFIG) for digest in others):
            self.warn(
                f"{path} is left out: it was computed with the architecture {_shown(others)}, and"
                f" {self.model_dir / CONFIG_FILE} is {_shown([self.architecture or 'missing'])} now. Make it"
                f" anew: {remedy}"
            )
            return False
        names = _shown(others)
        if self.present is None:
            self.warn(
                f"{path} was computed with the weights {names}, and there is no {WEIGHTS_FILE} in"
                f" {self.model_dir} to hold that against: put it there, or make it with scripts/average.py"
            )
            return True
        self.warn(
            f"{path} is left out: it was computed with the weights {names}, and"
            f" {self.model_dir / WEIGHTS_FILE} is {self.present[:SHOWN_DIGITS]} now. Make it anew: {remedy}"
        )
        return False


def _shown(digests: Iterable[str]) -> str:
    return ", ".join(digest.removeprefix(CONFIG)[:SHOWN_DIGITS] for digest in digests)


def command(script: str, config_type: type[Any], settings: Mapping[str, Any]) -> str:
    """The call of a script that makes a result again with the same settings; default ones are left out.

    Args:
        script: name of the script.
        config_type: dataclass of its configuration.
        settings: as the result file has them.
    """
    return shlex.join(["python", f"scripts/{script}.py", *_changed(config_type, settings)])


def _changed(config_type: type[Any], settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """``name=value`` of what is not as it is by default."""
    for field in fields(config_type):
        if field.name not in settings:
            continue
        value = settings[field.name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default) and isinstance(value, Mapping):
            yield from _changed(type(default), value, f"{prefix}{field.name}.")
        elif value != default:
            yield f"{prefix}{field.name}={_hydra_value(value)}"


def _hydra_value(value: object) -> str:
    """A value as Hydra's command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_hydra_value(item) for item in value)}]"
    return str(value)
