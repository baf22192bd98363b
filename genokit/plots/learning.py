"""How a classifier learned, what it confuses, and whether it is right as often as it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genokit.errors import InvalidParameters
from genokit.plots.paper import INK, axes_on_clear_paper, blank, clear_paper

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from pandas import DataFrame

# Two of Okabe and Ito's colours, distinguishable by colour-blind readers, and in grey by their markers.
TRAINING = "#0072B2"
VALIDATION = "#D55E00"


def learning_curve(
    table: DataFrame, batches: DataFrame | None = None, *, note: str = "", axes: Sequence[Axes] | None = None
) -> tuple[Axes, Axes]:
    """Loss and accuracy over the epochs of a training, in two Axes.

    ``table`` has one row per epoch (epoch from 0, loss, accuracy, validation_loss, validation_accuracy), ``batches``
    one row per group of batches (epoch, batch, loss, accuracy), drawn as a thin line: see ``train.History``. ``note``
    follows the title. The x axis counts completed epochs, so that a point lies where its epoch ends.
    """
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with clear_paper():
        if axes is None:
            figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
            figure.suptitle("Learning curve" + (f" ({note})" if note else ""), fontsize=11)
        ended = table["epoch"] + 1
        for ax, column, label in zip(axes, ("loss", "accuracy"), ("cross-entropy (nats)", "accuracy (%)"), strict=True):
            if batches is not None:
                steps = batches.groupby("epoch")["batch"].transform("max") + 1
                at = batches["epoch"] + (batches["batch"] + 1) / steps
                ax.plot(at, batches[column], color=TRAINING, alpha=0.45, lw=1, label="training, groups of batches")
            ax.plot(ended, table[column], color=TRAINING, marker="o", label="training, whole epoch")
            ax.plot(ended, table[f"validation_{column}"], color=VALIDATION, marker="s", label="validation")
            ax.set(xlabel="completed epochs", ylabel=label, xlim=(0, max([1, *ended]) * 1.03))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(alpha=0.3)
        axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes[0].legend(fontsize=8)
        return axes[0], axes[1]


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """The confusion matrix: rows are the true classes, columns the predictions, cells the counts.

    ``truth`` and ``predicted`` are integers (N,). The colour is the fraction of the row; correct predictions are left
    pale, so that errors stand out.
    """
    import numpy as np

    classes = int(max(np.max(truth), np.max(predicted))) + 1
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (truth, predicted), 1)
    right = np.trace(counts)
    rates = np.where(np.eye(classes, dtype=bool), 0, counts) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    most = max(rates.max(), 1e-9)
    with axes_on_clear_paper(ax, 5.6, 5) as ax:
        ax.imshow(rates, cmap="Oranges", vmin=0, vmax=most)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ax.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8,
                        color="white" if rates[row, column] > 0.6 * most else "black",
                        weight="bold" if row == column else "normal")  # fmt: skip
        ax.set(xlabel="predicted", ylabel="truth", xticks=range(classes), yticks=range(classes))
        ax.set_title(f"{counts.sum() - right:,} wrong of {counts.sum():,} ({right / counts.sum():.2%} right)")
        return ax


def reliability_diagram(
    truth: np.ndarray, probabilities: np.ndarray, bins: int = 15, *, ax: Axes | None = None
) -> Axes:
    """Draw the accuracy of predictions against their confidence, and below it how many predictions each bin has.

    The confidence of a prediction is the largest of its probabilities. Bins have equal widths. The title gives the
    expected calibration error: the mean of |accuracy - mean confidence| over the bins, weighted by their predictions.
    After C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017,
    https://arxiv.org/abs/1706.04599, and M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated
    probabilities using Bayesian binning", AAAI 2015.

    Parameters
    ----------
    truth : ndarray
        The true classes: integers (N,).
    probabilities : ndarray
        The probability of each class: (N, classes). A row that is not finite is left out, and the title counts it.
    bins : int
        The number of bins between 0 and 1. Default: 15.
    ax : Axes, optional
        Where to draw. Default: a new figure.

    Returns
    -------
    Axes
        The axes with the accuracies; those with the counts lie below it.

    Raises
    ------
    InvalidParameters
        There is not one true class per row of probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> reliability_diagram(np.array([0, 1]), np.array([[0.9, 0.1], [0.7, 0.3]])).get_title().splitlines()
    ['expected calibration error 40.00 %', '2 predictions in 15 bins']
    """
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    truth, probabilities = np.asarray(truth), np.asarray(probabilities, float)
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        got = f"got {truth.shape} and {probabilities.shape}"
        raise InvalidParameters(f"Expected true classes (N,) and probabilities (N, classes), {got}.")
    known = np.isfinite(probabilities).all(axis=1)
    if not known.any():
        return blank(ax, "No predictions with finite probabilities.")
    confidence = probabilities[known].max(axis=1)
    right = probabilities[known].argmax(axis=1) == truth[known]
    inner = np.linspace(0, 1, bins + 1)[1:-1]  # a bin has its upper edge: (0, 1/15], ..., (14/15, 1]
    filled, inside = np.unique(np.searchsorted(inner, confidence), return_inverse=True)
    counts = np.bincount(inside)
    accuracy, mean = np.bincount(inside, right) / counts, np.bincount(inside, confidence) / counts
    error = np.average(np.abs(accuracy - mean), weights=counts)
    left_out = "" if known.all() else f", {(~known).sum():,} without probabilities left out"
    with axes_on_clear_paper(ax, 5, 5.6) as ax:
        at: dict[str, Any] = {"x": filled / bins, "width": 0.92 / bins, "align": "edge"}
        ax.bar(height=accuracy, color=TRAINING, label="accuracy", **at)
        ax.bar(height=mean - accuracy, bottom=accuracy, label="gap to the mean confidence", hatch="////",
               edgecolor=VALIDATION, facecolor=(VALIDATION, 0.35), **at)  # fmt: skip
        ax.plot([0, 1], [0, 1], color=INK, ls="--", lw=1.2, label="perfect calibration")
        ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy (%)")
        ax.legend(fontsize=8, loc="upper left")
        title = f"expected calibration error {100 * error:.2f} %\n{len(right):,} predictions in {bins} bins{left_out}"
        ax.set_title(title, fontsize=10)
        below = ax.inset_axes((0, -0.4, 1, 0.27), sharex=ax)
        below.bar(height=counts, color=INK, **at)
        below.set(xlabel="confidence (%)", ylabel="predictions", yscale="log", ylim=(0.7, None))
        below.yaxis.set_major_formatter("{x:,.0f}")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        return ax
