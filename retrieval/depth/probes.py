"""Linear probes: properties that a linear classifier can predict from an embedding (Alain and Bengio 2016).

A probe is a logistic regression on standardised embeddings. Its accuracy alone is hard to interpret:

* Training and test must have nothing in common but the property: cross-validation holds out whole groups
  (speakers, sites, dialects), so that the voice of a speaker is no cue to the dialect. If every value of a
  property occurs in one group only, property and group cannot be told apart, and there is no result. Speakers
  are probed within one site, sites within one dialect, tones within one variety (*strata*): otherwise knowing
  the dialect, for example, would raise the accuracy for the site.
* A probe may memorise instead of finding the property. The control task (Hewitt and Liang 2019) gives every
  *type* a random label, drawn once in proportion to the labels; the probe can solve it only by memory.
  Selectivity is the accuracy minus that of the control. If folds hold out whole types, nothing can be
  memorised, and the control is at chance.

Intervals are over folds, by Student's t with the variance of Nadeau and Bengio (2003), because the folds
share most of their training data.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from retrieval.depth.probe_design import Fold, Names, ProbeConfig, ProbeTask, control_labels, folds_of
from zipformer.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeScore:
    """Result of a probe; accuracies in per cent, selectivities in points.

    ``control`` is the accuracy of the control task, ``chance`` that of the most frequent class. ``low`` and
    ``high`` are the ends of the 95 % interval.
    """

    task: str
    accuracy: float
    low: float
    high: float
    control: float
    selectivity: float
    selectivity_low: float
    selectivity_high: float
    chance: float
    classes: int
    samples: int
    folds: int


def check_installed() -> None:
    """Raise UserError with an installation command if scikit-learn is missing."""
    if find_spec("sklearn") is None:
        raise UserError(
            "probes need scikit-learn: pip install -e '.[probes]', or leave them out: steps=[retrieval,exits]"
        )


def probe(embeddings: NDArray[np.floating], task: ProbeTask, config: ProbeConfig) -> ProbeScore:
    """Train and test a probe and its control.

    Args:
        embeddings: embeddings (M,D) of the units of the task.
        task: property to probe.
        config: settings of the probe.

    Raises:
        UserError: the number of embeddings is not that of the units, a value is not finite, or the task
            cannot be divided into folds.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(task.labels):
        raise UserError(
            f"probe {task.name}: {embeddings.shape} embeddings for {len(task.labels)} {task.unit}s"
        )
    if not np.isfinite(embeddings).all():
        raise UserError(f"probe {task.name}: an embedding holds values that are not finite; embed again")
    folds = folds_of(task, config)
    right, control = (
        _fold_accuracies(embeddings, labels, task.strata, folds, config, f"{task.name}{suffix}")
        for labels, suffix in ((task.labels, ""), (control_labels(task, config.seed), ", control"))
    )
    tested = [sum(len(part.test) for part in fold) for fold in folds]
    trained = [float(np.mean([len(part.train) for part in fold])) for fold in folds]
    ratio = float(np.mean(np.array(tested) / np.array(trained)))
    low, high = fold_interval(right, ratio)
    selectivity_low, selectivity_high = fold_interval(right - control, ratio)
    return ProbeScore(
        task.name,
        accuracy=100 * float(right.mean()),
        low=100 * max(0.0, low),
        high=100 * min(1.0, high),
        control=100 * float(control.mean()),
        selectivity=100 * float((right - control).mean()),
        selectivity_low=100 * max(-1.0, selectivity_low),
        selectivity_high=100 * min(1.0, selectivity_high),
        chance=100 * task.chance,
        classes=len(set(zip(task.strata.tolist(), task.labels.tolist(), strict=True))),
        samples=len(task.labels),
        folds=len(folds),
    )


def _fold_accuracies(
    embeddings: NDArray[np.floating],
    labels: Names,
    strata: Names,
    folds: Sequence[Sequence[Fold]],
    config: ProbeConfig,
    name: str,
) -> NDArray[np.float64]:
    """Share of the test units of each fold that are classified correctly."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, number = np.unique(labels, return_inverse=True)  # scikit-learn reads labels of digits as numbers
    accuracies, fits, unfinished = [], 0, 0
    for fold in folds:
        right = 0
        for part in fold:
            for stratum in np.unique(strata[part.test]):
                train = part.train[strata[part.train] == stratum]
                test = part.test[strata[part.test] == stratum]
                if len(np.unique(number[train])) < 2:  # the random labels of a control may all be equal
                    right += int(np.sum(number[test] == number[train[0]]))
                    continue
                regression = LogisticRegression(
                    C=config.inverse_penalty,
                    max_iter=config.iterations,
                    tol=1e-3,
                    class_weight=_weights(number[train], number[strata == stratum]),
                )
                model = make_pipeline(StandardScaler(), regression)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # reported once for all fits below
                    model.fit(embeddings[train], number[train])
                fits += 1
                unfinished += int(np.max(regression.n_iter_) >= config.iterations)
                right += int(np.sum(model.predict(embeddings[test]) == number[test]))
        accuracies.append(right / sum(len(part.test) for part in fold))
    if unfinished:
        logger.warning(
            "probe %s: %d of %d fits had not converged after probes.iterations=%d",
            name,
            unfinished,
            fits,
            config.iterations,
        )
    return np.array(accuracies)


def _weights(train: NDArray[np.intp], everywhere: NDArray[np.intp]) -> dict[int, float]:
    """Class weights that give a training part the class shares of all data.

    The classes that a fold holds out are rarer in its training. Without weights, the prior would favour wrong
    answers, and a probe without any cue would be far below chance.
    """
    expected, found = (Counter(labels.tolist()) for labels in (everywhere, train))
    return {
        label: (expected[label] / len(everywhere)) / (count / len(train)) for label, count in found.items()
    }


def fold_interval(
    values: NDArray[np.float64], test_to_train: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of values (K,) of K folds (Nadeau and Bengio 2003, equation 8).

    The variance of the mean is that of the folds times (1/K + n_test/n_train): the folds share training data,
    so their mean varies more than 1/K implies.
    """
    K = len(values)
    mean = float(values.mean())
    if K < 2:
        raise UserError("an interval needs at least two folds")
    spread = float(np.sqrt(values.var(ddof=1) * (1 / K + test_to_train)))
    reach = float(stats.t.ppf((1 + confidence) / 2, K - 1)) * spread
    return mean - reach, mean + reach
