"""Figures: pure functions, data in, matplotlib Axes out; matplotlib itself loads at the first figure."""

from genokit.plots.images import digits
from genokit.plots.learning import confusion_matrix, learning_curve

__all__ = ["confusion_matrix", "digits", "learning_curve"]
