"""Figures: pure functions from data to matplotlib Axes; matplotlib is imported with the first figure."""

from genokit.plots.costs import cost_bars
from genokit.plots.images import digits
from genokit.plots.learning import confusion_matrix, learning_curve, reliability_diagram
from genokit.plots.sweeps import learning_curves, parallel_coordinates

__all__ = [
    "confusion_matrix",
    "cost_bars",
    "digits",
    "learning_curve",
    "learning_curves",
    "parallel_coordinates",
    "reliability_diagram",
]
