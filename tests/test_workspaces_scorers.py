"""The scorers against scikit-learn's published definitions, written out by brute force."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from genokit.workspaces.scorers import SCORERS


def accuracy(truth, predicted):
    return sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth)


def recall(truth, predicted, label):
    of = [p for t, p in zip(truth, predicted, strict=True) if t == label]
    return sum(p == label for p in of) / len(of)


def balanced_accuracy(truth, predicted):
    labels = set(truth)
    return sum(recall(truth, predicted, label) for label in labels) / len(labels)


def f1_of(truth, predicted, label):
    pairs = list(zip(truth, predicted, strict=True))
    tp = sum(t == label == p for t, p in pairs)
    fp = sum(t != label == p for t, p in pairs)
    fn = sum(t == label != p for t, p in pairs)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def f1(truth, predicted):
    return f1_of(truth, predicted, 1)


def f1_macro(truth, predicted):
    labels = set(truth) | set(predicted)
    return sum(f1_of(truth, predicted, label) for label in labels) / len(labels)


def matthews_corrcoef(truth, predicted):
    """Gorodkin's formula, from the confusion matrix: (c s - sum p t) / sqrt((s2 - sum p2)(s2 - sum t2))."""
    labels = sorted(set(truth) | set(predicted))
    s, c = len(truth), sum(t == p for t, p in zip(truth, predicted, strict=True))
    t = [list(truth).count(label) for label in labels]
    p = [list(predicted).count(label) for label in labels]
    below = math.sqrt((s * s - sum(x * x for x in p)) * (s * s - sum(x * x for x in t)))
    return (c * s - sum(x * y for x, y in zip(p, t, strict=True))) / below if below else 0.0


def roc_auc(truth, predicted):
    """The share of pairs of a positive and a negative that are in the right order, ties counting half."""
    positive = [p for t, p in zip(truth, predicted, strict=True) if t]
    negative = [p for t, p in zip(truth, predicted, strict=True) if not t]
    if not positive or not negative:
        return math.nan
    wins = sum(Fraction(1) if a > b else Fraction(1, 2) if a == b else 0 for a, b in product(positive, negative))
    return float(wins / (len(positive) * len(negative)))


def average_precision(truth, predicted):
    """Sum of (R_n - R_n-1) P_n over the thresholds."""
    if not sum(truth):
        return math.nan
    total, before = 0.0, 0.0
    for threshold in sorted(set(predicted), reverse=True):
        taken = [t for t, p in zip(truth, predicted, strict=True) if p >= threshold]
        reached = sum(taken) / sum(truth)
        total, before = total + (reached - before) * sum(taken) / len(taken), reached
    return total


def brier(truth, predicted):
    return sum((t - p) ** 2 for t, p in zip(truth, predicted, strict=True)) / len(truth)


def log_loss(truth, predicted):
    return -sum(math.log(p if t else 1 - p) for t, p in zip(truth, predicted, strict=True)) / len(truth)


def rmse(truth, predicted):
    return math.sqrt(brier(truth, predicted))


def mae(truth, predicted):
    return sum(abs(t - p) for t, p in zip(truth, predicted, strict=True)) / len(truth)


def r2(truth, predicted):
    mean = sum(truth) / len(truth)
    return 1 - brier(truth, predicted) * len(truth) / sum((t - mean) ** 2 for t in truth)


def ranks(values):
    return [sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values]


def spearman(truth, predicted):
    a, b = ranks(truth), ranks(predicted)
    if len(set(a)) == 1 or len(set(b)) == 1:
        return math.nan
    mean = (len(a) + 1) / 2
    over = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    return over / math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))


@pytest.mark.parametrize("name", SCORERS)
def test_a_metric_equals_its_published_definition(name):
    dice = np.random.default_rng(7)
    scorer, expected = SCORERS[name], globals()[name]
    for _ in range(200):
        size = int(dice.integers(2, 12))
        if scorer.kind == "label":
            top = 2 if scorer.binary else 4
            truth, predicted = dice.integers(0, top, size), dice.integers(0, top, size)
        elif scorer.binary:
            truth, predicted = dice.integers(0, 2, size), dice.integers(1, 10, size) / 10  # with ties
        else:
            truth, predicted = dice.integers(-3, 4, size).astype(float), dice.normal(size=size).round(1)
            truth[0] = 9.0  # never constant
        brute = expected(truth.tolist(), predicted.tolist())
        assert scorer.score(truth, predicted) == pytest.approx(brute, abs=1e-12, nan_ok=True)


def test_labels_may_be_words():
    assert SCORERS["f1_macro"].score(["a", "b", "b"], ["a", "b", "a"]) == pytest.approx(2 / 3)


def test_a_score_leaves_with_four_digits_and_within_its_bounds():
    assert SCORERS["accuracy"].rounded(1 / 3) == 0.3333
    assert SCORERS["rmse"].rounded(1e300) == 1e4
    assert SCORERS["r2"].rounded(-1e9) == -1.0
    assert SCORERS["roc_auc"].rounded(math.nan) is None


def test_the_bits_of_a_score_count_its_possible_values():
    assert SCORERS["accuracy"].bits == pytest.approx(math.log2(10_001 + 1))


def test_an_interval_holds_the_score_and_narrows_with_more_rows():
    dice, widths = np.random.default_rng(1), []
    for size in (50, 2000):
        truth = dice.integers(0, 2, size)
        predicted = np.where(dice.random(size) < 0.8, truth, 1 - truth)
        low, high = SCORERS["accuracy"].interval(truth, predicted)
        assert low < SCORERS["accuracy"].score(truth, predicted) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_an_interval_of_a_metric_that_is_never_defined_is_empty():
    assert SCORERS["roc_auc"].interval(np.ones(5, int), np.arange(5.0)) == (None, None)
