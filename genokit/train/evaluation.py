"""How well a model predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genokit.display import card
from genokit.plots import confusion_matrix, reliability_diagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """A model's predictions beside the truth.

    Attributes
    ----------
    labels : ndarray
        The digit on each image, (N,).
    probabilities : ndarray
        The predicted probability of each digit, (N, 10).

    Examples
    --------
    >>> sure = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> Evaluation(np.array([0, 1, 1, 1]), sure)
    <Evaluation of 4 images, accuracy 0.7500>
    """

    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable digit of each image, (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def accuracy(self) -> float:
        """The fraction of images whose digit is predicted correctly, 0 to 1."""
        return float((self.predicted == self.labels).mean())

    @property
    def loss(self) -> float:
        """The mean cross-entropy, in nats."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())

    def confusion(self) -> Axes:
        """The confusion matrix as a figure: which digits are taken for which."""
        return confusion_matrix(self.labels, self.predicted)

    def calibration(self) -> Axes:
        """The reliability diagram: whether predictions made with 90 % confidence are right in 90 of 100 cases."""
        return reliability_diagram(self.labels, self.probabilities)

    def __repr__(self) -> str:
        return f"<Evaluation of {len(self.labels):,} images, accuracy {self.accuracy:.4f}>"

    def _repr_html_(self) -> str:
        wrong = int((self.predicted != self.labels).sum())
        rows = {"images": f"{len(self.labels):,}", "accuracy": f"{self.accuracy:.4f}", "wrong": f"{wrong:,}",
                "cross-entropy": f"{self.loss:.4f} nats"}  # fmt: skip
        return card("Evaluation", rows)
