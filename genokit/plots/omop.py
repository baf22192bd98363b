"""Figures of a CDM: how sound its tables are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genokit.plots.paper import white_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def quality(counts: DataFrame, *, ax: Axes | None = None) -> Axes:
    """A heat map of the share of checks passed: a row a table, a column a category, the numbers written in.

    ``counts`` has a row a table and category: cdm_table_name, category, passed, failed. Where nothing was applicable
    the cell is left empty, and so is a table without any.
    """
    from matplotlib import pyplot as plt

    asked = counts[counts["passed"] + counts["failed"] > 0]
    names = list(dict.fromkeys(asked["cdm_table_name"]))
    categories = list(dict.fromkeys(counts["category"]))
    rows = zip(asked["cdm_table_name"], asked["category"], asked["passed"], asked["failed"], strict=True)
    cells = {
        (names.index(name), categories.index(category)): (int(passed), int(failed))
        for name, category, passed, failed in rows
    }
    with white_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(7.2, 1.5 + 0.26 * len(names)), layout="constrained")
        shares = [
            [_share(*cells.get((y, x), (0, 0))) for x in range(len(categories))] for y in range(len(names))
        ]  # (tables, categories)
        if names:
            # What passed is pale, so that what failed stands out; light to dark reads without colours too.
            image = ax.imshow(shares, cmap="YlOrBr_r", vmin=50, vmax=100, aspect="auto")
            bar = ax.figure.colorbar(image, ax=ax, extend="min", fraction=0.05, aspect=30)
            bar.set_label("checks passed (%)", fontsize=8)
            bar.ax.tick_params(labelsize=8)
        for (y, x), (passed, failed) in cells.items():
            share = _share(passed, failed)
            ink = "white" if share < 75 else "black"
            ax.text(x, y, f"{passed:,} of {passed + failed:,}", ha="center", va="center", fontsize=8, color=ink)
        ax.set_xticks(range(len(categories)), categories, fontsize=9)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xticks([x + 0.5 for x in range(len(categories) - 1)], minor=True)
        ax.set_yticks([y + 0.5 for y in range(len(names) - 1)], minor=True)
        ax.grid(which="minor", color="white", linewidth=2)
        ax.tick_params(which="minor", length=0)
        return ax


def _share(passed: int, failed: int) -> float:
    return 100 * passed / (passed + failed) if passed + failed else float("nan")
