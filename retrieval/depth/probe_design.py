"""The design of a probe: units and labels, held-out groups, and the control task.

:mod:`retrieval.depth.probes` gives the reasons.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError

ATTEMPTS = 50  # most random assignments of groups to folds, to get every class into every training part

Names = NDArray[np.str_]


@dataclass
class ProbeConfig:
    """Settings of training and testing the probes.

    Attributes:
        folds: number of folds of the cross-validation; if there are fewer groups, one fold for each group.
        inverse_penalty: C of the logistic regression; a larger value lets the probe fit more closely.
        iterations: largest number of steps of the optimiser.
        max_classes: largest number of characters or tones to probe, the most frequent ones; the time grows
            with it.
        max_samples: largest number of occurrences of characters, drawn at random; the time grows with it.
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
        held_out: description of the held-out part of a fold.
        rows: indices (M,) of the units among all units of this kind.
        labels: label (M,) of each unit: the value of the property.
        groups: group (M,) of each unit; the units of a group are held out together.
        types: type (M,) of each unit; the control task gives each type one random label.
        strata: stratum (M,) of each unit; a probe is trained and tested within each stratum, and accuracies
            are over all strata.
        crossed: further value (M,) of each unit; values in the test do not occur in training. All empty =
            none. Needed if the value would be a cue to the answer, or to a wrong answer, as with two speakers
            who read different sentences.
        note: remark for readers of the numbers, e.g. on units that were left out.
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
        """Accuracy of always predicting the most frequent class of the stratum."""
        counts = Counter(zip(self.strata.tolist(), self.labels.tolist(), strict=True))
        highest: dict[str, int] = {}
        for (stratum, _), count in counts.items():
            highest[stratum] = max(highest.get(stratum, 0), count)
        return sum(highest.values()) / len(self.labels)


@dataclass(frozen=True)
class NotIdentifiable:
    """A property that cannot be probed in these data, and the reason."""

    name: str
    reason: str


class NoFoldsError(UserError):
    """A task that cannot be divided into folds, and the reason."""

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
    """A task on the units whose class can occur both in training and in test.

    Units without a label or a group are left out, then rare classes, then classes that occur in only one
    group or are alone in their stratum.

    Args:
        name, unit, held_out: see :class:`ProbeTask`.
        labels, groups, types, strata, crossed: values of all units; empty where unknown.
        coincides: reason to report if every class has a single group.
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
    """A random label (M,) for every unit, the same for all units of a type.

    The labels of a stratum are given to its types in proportion, by systematic sampling in random order. With
    independent draws and few types, one label could be too frequent by accident, and the control would have
    another chance level.
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
    """Indices of the units for training and for testing a probe."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


def folds_of(task: ProbeTask, config: ProbeConfig) -> list[list[Fold]]:
    """Divide a task into folds; every training part has every class.

    A fold holds out whole groups and is a list of parts. With ``crossed`` there are several parts: each tests
    a share of the crossed values, which are absent from its training. Otherwise there is one part.

    Raises:
        NoFoldsError: no assignment of groups to folds keeps every class in training.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    of_unit = np.char.add(np.char.add(task.strata, "\t"), task.labels)
    classes, counts = np.unique(of_unit, return_counts=True)
    number = min(config.folds, len(np.unique(task.groups)), int(counts.max()))
    for attempt in range(ATTEMPTS):
        seed = config.seed + attempt
        splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # scikit-learn warns of classes with fewer members than folds; whether that matters is checked
            # below
            warnings.simplefilter("ignore", UserWarning)
            halves = list(splitter.split(np.zeros(len(of_unit)), of_unit, task.groups))
        folds = [_crossed(Fold(train, test), task.crossed, number, seed) for train, test in halves]
        if all(
            fold and all(len(np.unique(of_unit[part.train])) == len(classes) for part in fold)
            for fold in folds
        ):
            return folds
    # More folds hold out less at a time, fewer are easier to fill. Only characters have a least frequency.
    rarer = ", or a higher probes.min_occurrences" if task.unit == "character" else ""
    raise NoFoldsError(
        task.name,
        f"in none of {ATTEMPTS} divisions of the {len(np.unique(task.groups))} groups into {number} folds "
        f"does every class remain in training; try another number of probes.folds{rarer}",
    )


def _crossed(fold: Fold, crossed: Names, parts: int, seed: int) -> list[Fold]:
    """Divide a fold into parts; the training of a part has no crossed value of the test."""
    if not np.any(crossed != ""):
        return [fold] if len(fold.test) else []
    values, number = np.unique(crossed, return_inverse=True)
    block = np.random.default_rng(seed).permutation(len(values))[number] % parts  # (M,)
    split = [Fold(fold.train[block[fold.train] != b], fold.test[block[fold.test] == b]) for b in range(parts)]
    return [part for part in split if len(part.test)]
