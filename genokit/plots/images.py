"""Images with their labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from genokit.plots.paper import INK, axes_on_clear_paper

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

WRONG = "#D55E00"


def digits(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray | None = None,
    *,
    most: int = 40,
    ax: Axes | None = None,
) -> Axes:
    """A grid of digits with their labels; with ``predictions``, only those predicted wrongly.

    ``images`` uint8 (N, H, W), ``labels`` and ``predictions`` (N,). At most the first ``most`` are drawn; the title
    gives the total. Errors are labelled "truth → prediction".
    """
    import numpy as np

    labels, predictions = np.asarray(labels), None if predictions is None else np.asarray(predictions)
    chosen = np.arange(len(labels)) if predictions is None else np.flatnonzero(labels != predictions)
    shown = chosen[:most]
    columns = max(1, min(10, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    height, width = images.shape[1:]
    high, wide = height + 11, width + 2  # a digit with a line of text below it and a gap beside it
    sheet = np.zeros((rows * high, columns * wide), dtype=np.uint8)
    with axes_on_clear_paper(ax, max(3.6, 0.8 * columns), 0.5 + 0.9 * rows) as ax:
        for place, index in enumerate(shown):
            top, left = place // columns * high, place % columns * wide
            sheet[top : top + height, left : left + width] = images[index]
            text = str(labels[index]) if predictions is None else f"{labels[index]} → {predictions[index]}"
            ax.text(left + width / 2, top + height + 4.5, text, ha="center", va="center", fontsize=8,
                    color=INK if predictions is None else WRONG)  # fmt: skip
        ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
        ax.set_axis_off()
        part = f"{len(shown)} of " if len(shown) < len(chosen) else ""
        what = "digits" if predictions is None else f"mistakes in {len(labels):,} digits: truth → prediction"
        ax.set_title(f"{part}{len(chosen):,} {what}", fontsize=10)
        return ax
