"""Learning curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genokit.plots.paper import axes_on_clear_paper, clear_paper

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
