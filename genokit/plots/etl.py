"""Figures of an ETL: what is mapped, and which table is made of which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genokit.plots.paper import clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

HERE, ORIGINAL = "#0072b2", "#d55e00"  # told apart by all eyes, and by their shapes
GROUPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")


def mapped(shares: DataFrame, *, ax: Axes | None = None) -> Axes:
    """The share of rows with a standard concept: a bar a domain, and a mark for the original pipeline.

    ``shares`` has a row a domain: domain, rows, share and original, the last two from 0 to 1 or NA.
    """
    from matplotlib import pyplot as plt

    known = shares.dropna(subset="share").reset_index(drop=True)
    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(7.5, 1.2 + 0.34 * len(known)), layout="constrained")
        places, percent = range(len(known)), known["share"].astype(float) * 100
        ax.barh(places, percent, height=0.66, color=HERE, label="here")
        original = known["original"].astype(float) * 100
        ax.plot(
            original, places, "D", color=ORIGINAL, markersize=7, clip_on=False, label="the original pipeline", zorder=3
        )
        for y, (share, rows) in enumerate(zip(percent, known["rows"], strict=True)):
            ax.text(103, y, f"{share:.3g} % of {rows:,}", va="center", fontsize=8)
        ax.set_yticks(places, list(known["domain"]), fontsize=9)
        ax.set_xlim(0, 100)
        ax.set_ylim(len(known) - 0.4, -0.6)
        ax.set_xlabel("rows with a standard concept (%)")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0, pad=9)
        ax.figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
        return ax


def lineage(edges: Mapping[str, Sequence[str]], *, ax: Axes | None = None) -> Axes:
    """Which table is made of which: sources on the left, what stands between in the middle, the CDM on the right.

    ``edges`` maps each table, with its schema, to those it is made of. A line has the colour of where it ends.
    """
    from matplotlib import pyplot as plt
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    everything = dict.fromkeys([*(one for sources in edges.values() for one in sources), *edges])
    columns = [sorted(one for one in everything if _column(one) == number) for number in range(3)]
    columns[2] = [table for table in edges if _column(table) == 2]
    most = max(len(column) for column in columns)
    spots = {
        table: (x, (row + 0.5) * most / len(column))
        for x, column in enumerate(columns)
        for row, table in enumerate(column)
    }
    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(10, 1 + 0.3 * most), layout="constrained")
        for number, (table, sources) in enumerate(edges.items()):
            for source in sources:
                (x0, y0), (x1, y1) = spots[source], spots[table]
                if x0 == x1:  # from a table of the CDM to another: around its right side
                    right = x0 + 0.45
                    points = [(right, y0), (right + 0.12, y0), (right + 0.12, y1), (right, y1)]
                else:
                    start, end = x0 + 0.38, x1 - 0.02
                    points = [(start, y0), ((start + end) / 2, y0), ((start + end) / 2, y1), (end, y1)]
                curve = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
                colour = GROUPS[number % len(GROUPS)]
                ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=1, alpha=0.75))
        for table, (x, y) in spots.items():
            ax.text(x, y, table.partition(".")[2], va="center", fontsize=9, family="monospace", color="black",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        for x, title in enumerate(("MIMIC-III", "between", "OMOP CDM 5.4")):
            ax.text(x, -0.6, title, fontsize=11, weight="bold", va="center")
        ax.set_xlim(-0.05, 2.65)
        ax.set_ylim(most, -1.2)
        ax.axis("off")
        return ax


def _column(table: str) -> int:
    return ("mimic3", "stage", "cdm").index(table.partition(".")[0])
