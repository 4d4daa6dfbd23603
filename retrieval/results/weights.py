"""Records the weights and data set behind each result, so that results of different ones are not mixed.

fangyan average writes new weights into a model directory and keeps the results of the old ones. Therefore
every result records the SHA-256 of the weights that it was computed with, and every reader compares it with
the current file. In the same way a result records its data set (:mod:`zipformer.data.dataset`).
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
# result that depends only on the architecture has CONFIG followed by the digest of config.json.
Digests = list[str] | None
CONFIG = "config:"


def weights_of(model_dir: Path) -> str | None:
    """SHA-256 of the weights in a model directory; None if there are none.

    It equals the output of ``sha256sum``. The file is read in blocks.
    """
    return _sha256(model_dir / WEIGHTS_FILE)


def architecture_of(model_dir: Path) -> str | None:
    """Digest of the architecture: ``CONFIG`` and the SHA-256 of ``config.json``; None without this file."""
    digest = _sha256(model_dir / CONFIG_FILE)
    return None if digest is None else CONFIG + digest


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def weights_behind(descriptions: Iterable[object]) -> Digests:
    """Digests of the weights behind several embeddings; None if one does not record them.

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
    """Digests of the data sets behind several embeddings; None if one does not record it."""
    found = [
        dataset_behind(description.get("dataset")) if isinstance(description, Mapping) else None
        for description in descriptions
    ]
    return None if None in found else sorted({data.digest for data in found if data is not None})


def recorded_data(content: Mapping[str, Any]) -> Digests:
    """Digest in the field ``dataset`` of a result file; None if missing or malformed."""
    return data_behind([content])


def recorded_weights(content: Mapping[str, Any]) -> Digests:
    """Field ``weights`` of a result file; None if missing or malformed."""
    weights = content.get("weights")
    if isinstance(weights, list) and all(isinstance(digest, str) for digest in weights):
        return weights
    return None


class Result(Protocol):
    """Interface of results that a :class:`Sieve` can check."""

    @property
    def weights(self) -> Digests:
        """See :data:`Digests`."""

    @property
    def data(self) -> Digests:
        """See :data:`Digests`."""


Kept = TypeVar("Kept", bound=Result)


class Sieve:
    """Excludes results of other weights than the model directory has now, or of other data.

    Args:
        model_dir: model directory.
        data: data set of the results; None = any.

    Attributes:
        warnings: a line for each excluded result, with the reason and the command that makes it again; each
            line is also logged.
    """

    def __init__(self, model_dir: Path, data: DataSet | None = None) -> None:
        self.model_dir = model_dir
        self.data = data
        self.present = weights_of(model_dir)
        self.architecture = architecture_of(model_dir)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Add a warning, unless it is already there."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("%s", text)

    def keep(self, result: Kept | None, path: Path, maker: str) -> Kept | None:
        """The result, or None if it does not pass (:meth:`passes`)."""
        if result is None or not self.passes(result.weights, result.data, path, maker):
            return None
        return result

    def require(self, weights: Digests, path: Path, maker: str) -> None:
        """Check a result that a command needs.

        Args:
            weights: digests of the weights behind the result.
            path: file of the result.
            maker: command that makes the result, e.g. ``fangyan decode``.

        Raises:
            UserError: it was computed with other weights than the model directory has now.
        """
        if not self.passes(weights, [], path, maker):
            raise UserError(self.warnings[-1].replace(" is left out: it ", " cannot be used: it ", 1))

    def passes(self, weights: Digests, data: Digests, path: Path, maker: str) -> bool:
        """Whether a result may be shown; if not, add a warning with the reason.

        Args:
            weights: digests of the weights behind the result.
            data: digests of the data sets behind it.
            path: file of the result.
            maker: command that makes the result, e.g. ``fangyan decode``.
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
    """Check that results are on the same recordings; their transcripts may differ in script.

    Args:
        results: name of each result and its record of the data set; results without a record are not checked.

    Raises:
        UserError: two results are on different recordings.
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
