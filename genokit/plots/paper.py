"""The style of every figure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#7f7f7f"  # equally legible on white and on JupyterLab's dark background
# JupyterLab puts a background under a transparent figure whose tick labels are all light, or all dark. So the labels of
# one axis are just below the threshold, and those of the other just above.
LABELS = {"xtick.labelcolor": "#7f7f7f", "ytick.labelcolor": "#808080"}
DRAWN = (
    "text.color",
    "axes.labelcolor",
    "axes.edgecolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
    "patch.edgecolor",
)
EMPTY = ("figure.facecolor", "axes.facecolor", "legend.facecolor")
LEAN = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


@contextmanager
def clear_paper() -> Iterator[None]:
    """A transparent background, and colours that are legible in light and dark notebooks."""
    from matplotlib import pyplot as plt

    # A new kernel loads its backend with the first figure, and the backend then sets rcParams such as
    # interactive=True, without which a notebook shows no figure. Inside the context they would be reset at its end,
    # and only the first figure would be shown. This call loads the backend and draws nothing.
    plt.draw_if_interactive()  # type: ignore[no-untyped-call]
    with plt.style.context(["default", dict.fromkeys(DRAWN, INK) | dict.fromkeys(EMPTY, "none") | LABELS | LEAN]):
        yield


@contextmanager
def axes_on_clear_paper(ax: Axes | None, width: float, height: float) -> Iterator[Axes]:
    """The axes to draw on: those given, or those of a new figure of this size in inches."""
    from matplotlib import pyplot as plt

    with clear_paper():
        yield plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def blank(ax: Axes | None, words: str) -> Axes:
    """Empty axes with these words in the middle, in place of a figure without data."""
    with axes_on_clear_paper(ax, 7, 3) as ax:
        ax.set_axis_off()
        ax.set(xticks=[], yticks=[])  # JupyterLab would put a background under a figure whose labels are all dark
        ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes)
        return ax
