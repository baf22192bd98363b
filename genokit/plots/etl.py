"""The figure of an ETL: the share of rows that is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genokit.plots.paper import axes_on_clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

HERE, ORIGINAL = "#0072b2", "#d55e00"  # told apart by all eyes, and by their shapes


def mapped(shares: DataFrame, *, ax: Axes | None = None) -> Axes:
    """The share of rows with a standard concept: a bar for each domain, and a mark for the original pipeline.

    ``shares`` has a row for each domain: domain, rows, share and original, the last two from 0 to 1 or NA.
    """
    known = shares.dropna(subset="share").reset_index(drop=True)
    with axes_on_clear_paper(ax, 7.5, 1.2 + 0.34 * len(known)) as ax:
        places, percent = range(len(known)), known["share"].astype(float) * 100
        ax.barh(places, percent, height=0.66, color=HERE, label="here")
        original = known["original"].astype(float) * 100
        ax.plot(
            original, places, "D", color=ORIGINAL, markersize=7, clip_on=False, label="the original pipeline", zorder=3
        )
        for y, (share, rows) in enumerate(zip(percent, known["rows"], strict=True)):
            ax.text(103, y, f"{share:.3g} % of {rows:,}", va="center", fontsize=8)
        ax.set_yticks(places, list(known["domain"]), fontsize=9)
        ax.set(xlim=(0, 100), ylim=(len(known) - 0.4, -0.6), xlabel="rows with a standard concept (%)")
        ax.tick_params(axis="y", length=0, pad=9)
        ax.figure.legend(loc="outside upper center", ncols=2, fontsize=9)
        return ax
