"""Reads finished retrievals for a comparison, and checks that they have the same queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.protocol.outcome import Outcome, read_ranks
from retrieval.protocol.reading import RETRIEVED_WITH, SAME_SETTINGS
from retrieval.results.naming import RANKS_FILE, RECALL_FILE, result_folder
from retrieval.results.weights import Sieve, check_same_recordings, weights_behind, weights_of
from zipformer.data.dataset import choose_dataset
from zipformer.errors import UserError
from zipformer.typed_json import MalformedResultError, read_json


@dataclass(frozen=True)
class Finished:
    """A finished retrieval: name in the comparison, ranks, and content of ``recall.json``."""

    name: str
    path: Path
    outcome: Outcome
    content: Mapping[str, Any]

    @property
    def dimension(self) -> int | None:
        """Dimension D of the embeddings, as recorded."""
        embeddings = self.content.get("embeddings")
        return embeddings.get("dimension") if isinstance(embeddings, dict) else None


def read_finished(
    paths: Sequence[Path], names: Sequence[str] = (), *, split: str = "test", dataset: str | None = None
) -> list[Finished]:
    """Read finished retrievals.

    Args:
        paths: folders of fangyan retrieve, or model directories; of these, the folder
            ``results/{dataset}/retrieval-{split}`` is read.
        names: name of each result; by default the parts of the paths that differ.
        split, dataset: names of the split and of the data set; None = the only data set with results.

    Raises:
        UserError: a folder lacks ``recall.json`` or ``ranks.npz``, a file is damaged, names are not unique,
            or results in a model directory were made with other weights than it has now.
    """
    folders = []
    for path in paths:
        if (path / RECALL_FILE).is_file() or not (path / "results").is_dir():
            folders.append(path)
        else:
            name = choose_dataset(path, dataset)
            folders.append(result_folder(path, "retrieval", split, dataset=name))
    chosen = list(names) or short_names(folders)
    if len(set(chosen)) < len(chosen):
        raise UserError(f"names of models must differ: {', '.join(chosen)}")
    finished = []
    for name, folder in zip(chosen, folders, strict=True):
        content = read_json(folder / RECALL_FILE, "retrieve")
        if content is None:
            raise UserError(f"no {RECALL_FILE} in {folder}: make it with fangyan retrieve")
        if not isinstance(content.get("settings"), dict):
            raise MalformedResultError(folder / RECALL_FILE, "settings are missing", "retrieve")
        _check_weights(folder, content)
        finished.append(Finished(name, folder, read_ranks(folder / RANKS_FILE), content))
    return finished


def _check_weights(folder: Path, content: Mapping[str, Any]) -> None:
    """Check that results in a model directory were made with its present weights."""
    if len(folder.absolute().parents) < 3 or weights_of(folder.absolute().parents[2]) is None:
        return
    model_dir = folder.absolute().parents[2]
    weights = weights_behind([content.get("embeddings")])
    Sieve(model_dir).require(weights, folder / RECALL_FILE, RETRIEVED_WITH)


def short_names(folders: Sequence[Path]) -> list[str]:
    """Short names of folders: the parts of their paths that differ.

    ``exp/a/averaged/results/mini/retrieval-test`` and ``exp/b/averaged/results/mini/retrieval-test`` become a
    and b.
    """
    parts = [folder.absolute().parts for folder in folders]
    longest = max(len(part) for part in parts)
    if any(len(part) != longest for part in parts):
        return [str(folder) for folder in folders]
    columns = [column for column in zip(*parts, strict=True) if len(set(column)) > 1]
    if not columns:
        return [folder.name for folder in folders]
    return ["/".join(column[n] for column in columns) for n in range(len(folders))]


def check_same_queries(models: Sequence[Finished], *, any_dimension: bool = False) -> None:
    """Check that all models have the same queries with the same candidates.

    Raises:
        UserError: there are fewer than two models, or the queries of two models differ.
    """
    if len(models) < 2:
        raise UserError("a comparison needs at least two models")
    first = models[0]
    check_same_recordings((str(model.path), model.content.get("dataset")) for model in models)
    for other in models[1:]:
        between = f"{first.path} and {other.path} cannot be compared"
        for key in ("split", "challenge", "challenge_fingerprint"):
            ours, theirs = first.content.get(key), other.content.get(key)
            if ours != theirs:
                raise UserError(f"{between}: {key} is {ours} and {theirs}")
        for key in SAME_SETTINGS:
            ours, theirs = (model.content["settings"].get(key) for model in (first, other))
            if ours != theirs:
                raise UserError(f"{between}: they were retrieved with {key}={ours} and {key}={theirs}")
        check_same_names(between, "site", *([str(s) for s in m.outcome.sites] for m in (first, other)))
        check_same_names(between, "sentence", *(m.outcome.sentences for m in (first, other)))
        if not np.array_equal(first.outcome.pool, other.outcome.pool):
            a, b, q = np.argwhere(first.outcome.pool != other.outcome.pool)[0]
            sites, sentence = first.outcome.sites, first.outcome.sentences[q]
            pools = [int(model.outcome.pool[a, b, q]) for model in (first, other)]
            raise UserError(
                f"{between}: sentence {sentence} of {sites[a]} has {pools[0]} and {pools[1]} candidates at"
                f" {sites[b]}; embed the same utterances with both, and retrieve with the same settings"
            )
        kinds = [(m.content.get("embedder"), m.content["settings"].get("layer")) for m in (first, other)]
        if kinds[0] == kinds[1] and not any_dimension:
            check_same_dimension(between, first.dimension, other.dimension)


def check_same_dimension(between: str, ours: object, theirs: object) -> None:
    """Check that embeddings of one kind have the same dimension; a different one may mean a wrong model.

    Raises:
        UserError: the dimensions differ.
    """
    if ours != theirs:
        raise UserError(
            f"{between}: their embeddings have {ours} and {theirs} dimensions. If models of different size"
            " are meant, set any_dimension=true"
        )


def check_same_names(between: str, what: str, ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Check that two results have the same sites or sentences in the same order.

    Raises:
        UserError: they differ; the message says what is missing where.
    """
    missing = sorted(set(ours) - set(theirs))
    extra = sorted(set(theirs) - set(ours))
    if missing or extra:
        which, names = ("second", missing) if missing else ("first", extra)
        more = f", ... {len(names)} in all" if len(names) > 3 else ""
        raise UserError(f"{between}: {what} {', '.join(names[:3])}{more} is missing in the {which}")
    if list(ours) != list(theirs):
        raise UserError(f"{between}: the order of their {what}s differs; retrieve with the same groups")
