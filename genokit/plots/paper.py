"""The paper that every figure is drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INK = "#7f7f7f"  # as legible on white as on JupyterLab's dark ground
# JupyterLab puts a slab of its own under a transparent figure whose tick labels are all light, or all dark; above half
# is light. So the labels of one axis are just below, and those of the other just above.
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


@contextmanager
def clear_paper() -> Iterator[None]:
    """Transparent paper, and ink that is legible in a light and in a dark notebook."""
    from matplotlib import pyplot as plt

    # A fresh kernel takes up its backend with the first figure, and the backend then sets rcParams, such as
    # interactive=True, without which a notebook shows no figure. Inside the context they would be undone with it,
    # and only the first figure were shown. This call takes up the backend, and draws nothing yet.
    plt.draw_if_interactive()  # type: ignore[no-untyped-call]
    with plt.style.context(["default", dict.fromkeys(DRAWN, INK) | dict.fromkeys(EMPTY, "none") | LABELS]):
        yield
