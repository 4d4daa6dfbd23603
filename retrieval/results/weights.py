"""The weights and the data set behind a result, so that results of two models or two corpora are not mixed.

fangyan average writes new weights into a model directory and leaves the results of the old ones. So every
result records the SHA-256 of the weights that it was computed with, and every reader compares that with the
file that is there now. In the same way a result records its data set (:mod:`zipformer.data.dataset`).
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from zipformer.data.dataset import SHOWN_DIGITS, DataSet, dataset_behind
from zipformer.errors import UserError
from zipformer.files import file_sha256
from zipformer.model_dir import CONFIG_FILE, WEIGHTS_FILE

logger = logging.getLogger(__name__)

# Digests of the weights behind a result, or of its data sets: [] = it depends on none, None = not recorded. A
# result that depends on the architecture alone has the digest of config.json, after CONFIG.
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
    """Digests of the weights that some embeddings were computed with; None where one does not record it.

    Args:
        descriptions: descriptions of stores (:class:`retrieval.embedding.store.EmbeddingStore`).
    """
    found: set[str] = set()
    for description in descriptions:
        if not isinstance(description, Mapping) or "weights" not in description:
            return None
        if description["weights"] is not None:
            found.add(description["weights"])
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
    """Leaves out results of weights or data that are not those of the model directory now.

    Args:
        model_dir: model directory.
        data: data set that the results must be of; None = any.

    Attributes:
        warnings: a line for each result left out, with the reason and the command that makes it again; each
            is logged, too.
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

    def keep(self, result: Kept | None, path: Path, maker: str) -> Kept | None:
        """The result, or None where it does not pass (:meth:`passes`)."""
        if result is None or not self.passes(result.weights, result.data, path, maker):
            return None
        return result

    def require(self, weights: Digests, path: Path, maker: str) -> None:
        """Check a result that a command cannot do without.

        Args:
            weights: digests of the weights behind the result.
            path: file that holds the result.
            maker: command that makes it, e.g. ``fangyan decode``.

        Raises:
            UserError: it was computed with other weights than the model directory has now.
        """
        if not self.passes(weights, [], path, maker):
            raise UserError(self.warnings[-1].replace(" is left out: it ", " cannot be used: it ", 1))

    def passes(self, weights: Digests, data: Digests, path: Path, maker: str) -> bool:
        """Whether a result may be shown; if not, a warning says why.

        Args:
            weights: digests of the weights behind the result.
            data: digests of the data sets behind it.
            path: file that holds the result.
            maker: command that makes it, e.g. ``fangyan decode``.
        """
        remedy = f"Make it again with {maker}"
        if self.data is not None and (data is None or set(data) - {self.data.digest}):
            of = "does not say which data it is of" if data is None else f"is of other data ({_shown(data)})"
            self.warn(
                f"{path} is left out: it {of}, and {self.data.name} stands for {_shown([self.data.digest])}"
                f" here. {remedy}"
            )
            return False
        if weights is None:
            self.warn(f"{path} is left out: it does not say which weights it was computed with. {remedy}")
            return False
        others = sorted(set(weights) - {self.present, self.architecture})
        if not others:
            return True
        names = _shown(others)
        if all(digest.startswith(CONFIG) for digest in others):
            self.warn(
                f"{path} is left out: it was computed with the architecture {names}, and"
                f" {self.model_dir / CONFIG_FILE} is {_shown([self.architecture or 'missing'])} now. {remedy}"
            )
            return False
        if self.present is None:
            self.warn(
                f"{path} was computed with the weights {names}, and {self.model_dir} has no {WEIGHTS_FILE} to"
                " compare them with: copy it there, or make it with fangyan average"
            )
            return True
        self.warn(
            f"{path} is left out: it was computed with the weights {names}, and"
            f" {self.model_dir / WEIGHTS_FILE} is {self.present[:SHOWN_DIGITS]} now. {remedy}"
        )
        return False


def _shown(digests: Iterable[str]) -> str:
    return ", ".join(digest.removeprefix(CONFIG)[:SHOWN_DIGITS] for digest in digests)


def check_same_recordings(results: Iterable[tuple[str, object]]) -> None:
    """Check that results are of the same recordings; their transcripts may differ in script.

    Args:
        results: name of each result, and its record of its data set; one without a record is not checked.

    Raises:
        UserError: two are of different recordings.
    """
    known = [(name, data) for name, record in results if (data := dataset_behind(record)) is not None]
    for name, data in known[1:]:
        first_name, first = known[0]
        if data.recordings != first.recordings:
            raise UserError(
                f"{first_name} and {name} cannot be compared: they are of different recordings, the first of"
                f" {first.name} ({first.recordings[:SHOWN_DIGITS]}), the second of {data.name}"
                f" ({data.recordings[:SHOWN_DIGITS]}). Use one prepared corpus for both"
            )
