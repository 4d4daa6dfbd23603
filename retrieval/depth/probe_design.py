"""The design of a probe: what is asked of which units, what is held out, and the control task.

See :mod:`retrieval.depth.probes` for why.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError

ATTEMPTS = 50  # random assignments of groups to folds, until every class is in every training part

Names = NDArray[np.str_]


@dataclass
class ProbeConfig:
    """How the probes are trained and tested.

    Attributes:
        folds: number of folds of the cross-validation; with fewer groups, one a group.
        inverse_penalty: C of the logistic regression; a greater one lets the probe fit more closely.
        iterations: largest number of steps of the optimiser.
        max_classes: largest number of characters or tones that are probed, the most frequent; time grows
            with it.
        max_samples: largest number of characters, drawn at random; time grows with it.
        min_occurrences: smallest number of units of a class; rarer classes are left out.
        seed: random seed of folds, samples and control labels.
    """

    folds: int = 5
    inverse_penalty: float = 0.1
    iterations: int = 200
    max_classes: int = 50
    max_samples: int = 6000
    min_occurrences: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("folds", 2),
            ("iterations", 1),
            ("max_classes", 2),
            ("max_samples", 10),
            ("min_occurrences", 2),
        ):
            if getattr(self, name) < least:
                raise UserError(f"probes.{name}={getattr(self, name)} is too small; give {least} or more")
        if not self.inverse_penalty > 0:
            raise UserError(f"probes.inverse_penalty={self.inverse_penalty} must be greater than 0")


@dataclass(frozen=True)
class ProbeTask:
    """A property that is probed for.

    Attributes:
        name: name of the property.
        unit: kind of unit that has a label: ``utterance`` or ``character``.
        held_out: description of what a fold holds out.
        rows: numbers of the units (M,) among all of their kind.
        labels: (M,) the property.
        groups: (M,) group of each unit; the units of a group are held out together.
        types: (M,) type of each unit; the control task gives a type one random label.
        strata: (M,) stratum of each unit; a probe is trained and tested within each stratum, and accuracies
            are over all strata.
        crossed: (M,) further value of each unit; the values in the test are kept out of training. All empty =
            none. Needed where the value would be a cue to the answer, or, as with two speakers who read
            different sentences, to a wrong answer.
        note: remark for readers of the numbers, such as what was left out.
    """

    name: str
    unit: str
    held_out: str
    rows: NDArray[np.intp]
    labels: Names
    groups: Names
    types: Names
    strata: Names
    crossed: Names
    note: str = ""

    @property
    def chance(self) -> float:
        """Accuracy of always saying the most frequent class (of the stratum)."""
        counts = Counter(zip(self.strata.tolist(), self.labels.tolist(), strict=True))
        highest: dict[str, int] = {}
        for (stratum, _), count in counts.items():
            highest[stratum] = max(highest.get(stratum, 0), count)
        return sum(highest.values()) / len(self.labels)


@dataclass(frozen=True)
class NotIdentifiable:
    """A property that these data cannot be probed for, and why."""

    name: str
    reason: str


class NoFoldsError(UserError):
    """A task that cannot be divided into folds, and why."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f"probe {task}: {reason}")
        self.reason = reason


def make_task(
    name: str,
    *,
    unit: str,
    held_out: str,
    labels: Sequence[str],
    groups: Sequence[str],
    types: Sequence[str],
    coincides: str,
    strata: Sequence[str] | None = None,
    crossed: Sequence[str] | None = None,
    max_classes: int | None = None,
    max_samples: int | None = None,
    min_occurrences: int = 2,
    seed: int = 0,
) -> ProbeTask | NotIdentifiable:
    """A task on the units whose class can be in training and in test at once.

    Units without a label or a group are left out, then rare classes, and at the end classes that a single
    group has, or that are alone in their stratum.

    Args:
        name, unit, held_out: see :class:`ProbeTask`.
        labels, groups, types, strata, crossed: values of all units; empty where unknown.
        coincides: reason to give if every class has a single group.
        max_classes: largest number of classes; the most frequent are kept.
        max_samples: largest number of units, drawn at random.
        min_occurrences: smallest number of units of a class.
        seed: random seed of the draw.
    """
    label, group, kind = (np.asarray(values, dtype=np.str_) for values in (labels, groups, types))
    stratum, cross = (
        np.full(len(label), "") if values is None else np.asarray(values, dtype=np.str_)
        for values in (strata, crossed)
    )
    rows = np.flatnonzero((label != "") & (group != ""))
    if not len(rows):
        return NotIdentifiable(name, f"no {unit} has both a label and a group to hold out")
    classes = np.char.add(np.char.add(stratum, "\t"), label)
    counts = Counter(classes[rows].tolist())
    frequent = [value for value, count in counts.most_common(max_classes) if count >= min_occurrences]
    rows = rows[np.isin(classes[rows], frequent)]
    if max_samples is not None and len(rows) > max_samples:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_samples, replace=False))
    groups_of: dict[str, set[str]] = {}
    for value, of in zip(classes[rows].tolist(), group[rows].tolist(), strict=True):
        groups_of.setdefault(value, set()).add(of)
    several = [value for value, found in groups_of.items() if len(found) > 1]
    in_stratum = Counter(value.split("\t")[0] for value in several)
    kept = [value for value in several if in_stratum[value.split("\t")[0]] > 1]
    if not kept:
        return NotIdentifiable(name, coincides)
    note = ""
    if len(kept) < len(groups_of):
        left_out = len(groups_of) - len(kept)
        note = f"{left_out} of {len(groups_of)} classes left out: a single group, or alone in their stratum"
    rows = rows[np.isin(classes[rows], kept)]
    return ProbeTask(
        name,
        unit,
        held_out,
        rows,
        label[rows],
        group[rows],
        kind[rows],
        stratum[rows],
        cross[rows],
        note,
    )


def control_labels(task: ProbeTask, seed: int) -> Names:
    """A random label (M,) for every type; the same for all its units.

    Types get the labels of their stratum in proportion, by systematic sampling in a random order: with few
    types, independent draws could favour one label by chance, and the control would have a chance level of
    its own.
    """
    random = np.random.default_rng(seed)
    result = task.labels.copy()
    for stratum in np.unique(task.strata):
        (members,) = np.nonzero(task.strata == stratum)
        types, number = np.unique(task.types[members], return_inverse=True)
        place = (np.arange(len(types)) + random.random()) * len(members) / len(types)
        drawn = np.sort(task.labels[members])[place.astype(np.intp)]
        result[members] = random.permutation(drawn)[number]
    return result


@dataclass(frozen=True)
class Fold:
    """Indices into a task's units: what a probe is trained on, and what it is then asked."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


def folds_of(task: ProbeTask, config: ProbeConfig) -> list[list[Fold]]:
    """The folds of a task; every training part has every class.

    A fold holds out whole groups. With ``crossed`` it is a list of several parts, each with a share of the
    crossed values in the test and without these in training; otherwise of one.

    Raises:
        NoFoldsError: no such assignment of the groups to folds was found.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    of_unit = np.char.add(np.char.add(task.strata, "\t"), task.labels)
    classes, counts = np.unique(of_unit, return_counts=True)
    number = min(config.folds, len(np.unique(task.groups)), int(counts.max()))
    for attempt in range(ATTEMPTS):
        seed = config.seed + attempt
        splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # scikit-learn tells of classes with fewer members than folds; whether that matters is seen below
            warnings.simplefilter("ignore", UserWarning)
            halves = list(splitter.split(np.zeros(len(of_unit)), of_unit, task.groups))
        folds = [_crossed(Fold(train, test), task.crossed, number, seed) for train, test in halves]
        if all(
            fold and all(len(np.unique(of_unit[part.train])) == len(classes) for part in fold)
            for fold in folds
        ):
            return folds
    # More folds hold out less at a time, fewer are easier to fill. Only of characters are rare ones left out.
    rarer = ", or a higher probes.min_occurrences" if task.unit == "character" else ""
    raise NoFoldsError(
        task.name,
        f"in none of {ATTEMPTS} divisions of the {len(np.unique(task.groups))} groups into {number} folds "
        f"does every class remain in training; try another number of probes.folds{rarer}",
    )


def _crossed(fold: Fold, crossed: Names, parts: int, seed: int) -> list[Fold]:
    """A fold, divided into parts; the training of a part has no crossed value of its test."""
    if not np.any(crossed != ""):
        return [fold] if len(fold.test) else []
    values, number = np.unique(crossed, return_inverse=True)
    block = np.random.default_rng(seed).permutation(len(values))[number] % parts  # (M,)
    split = [Fold(fold.train[block[fold.train] != b], fold.test[block[fold.test] == b]) for b in range(parts)]
    return [part for part in split if len(part.test)]
