"""Metrics of predictions against held-out truth, with bootstrap intervals, rounded so that they carry few bits.

Each metric follows the definition that scikit-learn documents under the same name, without sample weights.

>>> SCORERS["accuracy"].score([0, 1, 1, 0], [0, 1, 0, 0])
0.75
>>> SCORERS["roc_auc"].score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
0.75
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
DIGITS = 4
DRAWS = 1000
SEED = 2026


@dataclass(frozen=True)
class Scorer:
    """A metric: its function of truth and prediction, whether greater is better, and its smallest and largest value.

    ``kind`` is what predictions are: "label", or "number". ``binary`` metrics need a truth of 0 and 1.
    """

    function: Callable[[Values, Values], float]
    kind: str
    bounds: tuple[float, float]
    greater_is_better: bool = True
    binary: bool = False

    def score(self, truth: Sequence[Any] | Values, predicted: Sequence[Any] | Values) -> float:
        """The metric, not rounded; NaN where it is not defined, as for the AUC of one class."""
        with np.errstate(all="ignore"):
            return float(self.function(np.asarray(truth), np.asarray(predicted)))

    @property
    def bits(self) -> float:
        """The most bits of information that one rounded value can carry."""
        low, high = self.bounds
        return math.log2((high - low) * 10**DIGITS + 2)  # and "not defined"

    def rounded(self, value: float) -> float | None:
        """A value within the metric's bounds, with four decimal digits; None for NaN."""
        return None if math.isnan(value) else round(float(np.clip(value, *self.bounds)), DIGITS)

    def interval(self, truth: Values, predicted: Values) -> tuple[float | None, float | None]:
        """The 95 % interval of the metric: the percentiles of 1,000 bootstrap samples, with a fixed seed."""
        values = self.drawn(truth, predicted)
        values = values[~np.isnan(values)]
        if not len(values):
            return None, None
        low, high = np.percentile(values, [2.5, 97.5])
        return self.rounded(low), self.rounded(high)

    def drawn(self, truth: Values, predicted: Values) -> Values:
        """The metric of each bootstrap sample; the samples are the same for all predictions of one truth."""
        dice = np.random.default_rng(SEED)
        samples = (dice.integers(0, len(truth), len(truth)) for _ in range(DRAWS))
        return np.array([self.score(truth[rows], predicted[rows]) for rows in samples])


def _accuracy(truth: Values, predicted: Values) -> float:
    return float(np.mean(truth == predicted))


def _balanced_accuracy(truth: Values, predicted: Values) -> float:
    return float(np.mean([np.mean(predicted[truth == label] == label) for label in np.unique(truth)]))


def _f1_of(truth: Values, predicted: Values, label: Any) -> float:
    both = np.sum((truth == label) & (predicted == label))
    either = np.sum(truth == label) + np.sum(predicted == label)
    return float(2 * both / either) if either else 0.0


def _f1(truth: Values, predicted: Values) -> float:
    return _f1_of(truth, predicted, 1)


def _f1_macro(truth: Values, predicted: Values) -> float:
    return float(np.mean([_f1_of(truth, predicted, label) for label in np.union1d(truth, predicted)]))


def _matthews(truth: Values, predicted: Values) -> float:
    labels = np.union1d(truth, predicted)
    a = np.stack([truth == label for label in labels]).astype(float)
    b = np.stack([predicted == label for label in labels]).astype(float)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / spread) if spread else 0.0


def _ranks(values: Values) -> Values:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]  # ties share the mean of their ranks


def _roc_auc(truth: Values, predicted: Values) -> float:
    positive = int(np.sum(truth == 1))
    pairs = positive * (len(truth) - positive)
    ranks = _ranks(predicted)[truth == 1]
    return float((np.sum(ranks) - positive * (positive + 1) / 2) / pairs) if pairs else math.nan


def _average_precision(truth: Values, predicted: Values) -> float:
    order = np.argsort(-predicted, kind="stable")
    last = np.append(np.diff(predicted[order]) != 0, True)  # of each threshold
    found = np.cumsum(truth[order] == 1)[last]
    taken = (np.flatnonzero(last) + 1).astype(float)
    return float(np.sum(np.diff(found, prepend=0) * found / taken) / found[-1]) if found[-1] else math.nan


def _brier(truth: Values, predicted: Values) -> float:
    return float(np.mean((truth - predicted) ** 2))


def _log_loss(truth: Values, predicted: Values) -> float:
    chance = np.clip(predicted, 1e-15, 1 - 1e-15)
    return float(-np.mean(np.where(truth == 1, np.log(chance), np.log1p(-chance))))


def _rmse(truth: Values, predicted: Values) -> float:
    return math.sqrt(_brier(truth, predicted))


def _mae(truth: Values, predicted: Values) -> float:
    return float(np.mean(np.abs(truth - predicted)))


def _r2(truth: Values, predicted: Values) -> float:
    total = np.sum((truth - truth.mean()) ** 2)
    return float(1 - np.sum((truth - predicted) ** 2) / total) if total else math.nan


def _spearman(truth: Values, predicted: Values) -> float:
    a, b = _ranks(truth), _ranks(predicted)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else math.nan


UNIT, SIGNED, LARGE = (0.0, 1.0), (-1.0, 1.0), (0.0, 1e4)
SCORERS = {
    "accuracy": Scorer(_accuracy, "label", UNIT),
    "balanced_accuracy": Scorer(_balanced_accuracy, "label", UNIT),
    "f1": Scorer(_f1, "label", UNIT, binary=True),
    "f1_macro": Scorer(_f1_macro, "label", UNIT),
    "matthews_corrcoef": Scorer(_matthews, "label", SIGNED),
    "roc_auc": Scorer(_roc_auc, "number", UNIT, binary=True),
    "average_precision": Scorer(_average_precision, "number", UNIT, binary=True),
    "brier": Scorer(_brier, "number", UNIT, greater_is_better=False, binary=True),
    "log_loss": Scorer(_log_loss, "number", (0.0, 40.0), greater_is_better=False, binary=True),
    "rmse": Scorer(_rmse, "number", LARGE, greater_is_better=False),
    "mae": Scorer(_mae, "number", LARGE, greater_is_better=False),
    "r2": Scorer(_r2, "number", SIGNED),
    "spearman": Scorer(_spearman, "number", SIGNED),
}
