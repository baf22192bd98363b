"""Figures of cohorts: attrition, rates over time, and Kaplan-Meier curves."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from genokit.plots.paper import INK, axes_on_clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

HIDDEN = "*"
# Distinguishable with any colour vision, and by their markers.
LINES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#8a6d00", "v"), ("#56b4e9", "P"))


def flow(attrition: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A CONSORT flow chart: the persons left after each step, and beside it those left out.

    ``attrition`` has a row for each step: step, persons, left_out, entries; hidden numbers are missing.
    """

    rows = list(attrition.itertuples(index=False))
    with axes_on_clear_paper(ax, 7.5, 0.5 + 0.95 * len(rows)) as ax:
        for y, row in enumerate(rows):
            last = y == len(rows) - 1
            words = textwrap.fill(label(row.step, 96), 48)
            text = f"{words}\n{_number(row.persons)} persons, {_number(row.entries)} entries"
            _box(ax, 0, y, text, "#0072b2" if last else INK)
            if y:
                _arrow(ax, (0, y - 0.68), (0, y - 0.34))
            if y and _number(row.left_out) != "0":
                _arrow(ax, (0, y - 0.5), (0.8, y - 0.5))
                _box(ax, 0.98, y - 0.5, f"left out: {_number(row.left_out)}", "#d55e00")
        ax.set(xlim=(-0.66, 1.32), ylim=(len(rows) - 0.55, -0.5))
        ax.axis("off")
        ax.set_title(label(title, 80), fontsize=10, loc="left")
        return ax


def rates(shown: DataFrame, *, unit: str, title: str = "", ax: Axes | None = None) -> Axes:
    """Rates over calendar intervals: a line for each group, a band for its confidence interval, gaps where hidden.

    A rate of 0 has no band: of few persons, its upper limit would lie far above all other rates. ``shown`` has a row
    for each interval and group: interval_start, interval_end, group, rate, low, high.
    """
    import pandas as pd

    with axes_on_clear_paper(ax, 8, 3.8) as ax:
        groups = sorted(shown["group"].unique(), key=lambda group: (group == "all", str(group)))
        for number, group in enumerate(groups):
            rows = shown[shown["group"] == group].sort_values("interval_start")
            colour, mark = (INK, ".") if group == "all" else LINES[number % len(LINES)]
            middle = rows["interval_start"] + (rows["interval_end"] - rows["interval_start"]) / 2
            rate, low, high = (pd.to_numeric(rows[name]).astype("float64") for name in ("rate", "low", "high"))
            seen = rate > 0
            ax.fill_between(middle, low.where(seen), high.where(seen), color=colour, alpha=0.13, linewidth=0)
            dashes = "--" if group == "all" else "-"
            ax.plot(middle, rate, dashes, color=colour, marker=mark, markersize=4, lw=1.4, label=str(group))
        highest = pd.to_numeric(shown["rate"]).max()
        ax.set_ylim(0, highest * 1.6 if highest > 0 else 1)  # the band of few persons may reach far beyond
        ax.yaxis.set_major_formatter("{x:,g}")
        ax.legend(fontsize=8, ncols=len(groups), loc="lower right", bbox_to_anchor=(1, 1))
        return _finished(ax, unit, label(title, 60))


def curves(shown: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """The share that has had an event, by days since entry: a line for each group, a band for its confidence interval.

    ``shown`` has a row for each group and point in time: group, day, at_risk, and free, low, high from 0 to 1.
    """

    with axes_on_clear_paper(ax, 8, 3.8) as ax:
        for number, (group, rows) in enumerate(shown.groupby("group", sort=True)):
            colour, mark = LINES[number % len(LINES)]
            ax.fill_between(rows["day"], 100 - 100 * rows["high"], 100 - 100 * rows["low"], step="post", color=colour,
                            alpha=0.13, linewidth=0)  # fmt: skip
            named = f"{label(group, 30)}: {rows['at_risk'].iloc[0]:,} persons"
            ax.plot(rows["day"], 100 - 100 * rows["free"], color=colour, drawstyle="steps-post", marker=mark,
                    markevery=max(1, len(rows) // 6), markersize=4, lw=1.4, label=named)  # fmt: skip
        ax.set(ylim=(0, None), xlim=(0, None), xlabel="days since entry")
        ax.xaxis.set_major_formatter("{x:,g}")
        if len(shown):
            ax.legend(fontsize=8, loc="upper left")
        return _finished(ax, "% with the event", label(title, 80))


def _finished(ax: Axes, unit: str, title: str) -> Axes:
    ax.set_ylabel(unit, fontsize=9)
    ax.set_title(title, fontsize=10, loc="left")
    ax.grid(axis="y", alpha=0.3)
    ax.tick_params(labelsize=8)
    return ax


def _box(ax: Axes, x: float, y: float, text: str, edge: str) -> None:
    box = {"boxstyle": "round,pad=0.6", "facecolor": "none", "edgecolor": edge}
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, bbox=box)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1, "shrinkA": 0, "shrinkB": 0})


def _number(count: object) -> str:
    """A count as text; "*" for a hidden one."""
    return f"{count:,}" if isinstance(count, int) or hasattr(count, "__index__") else HIDDEN


def label(words: object, most: int) -> str:
    """Any text as matplotlib can write it: shortened, without formulas and unprintable characters."""
    plain = "".join(sign if sign.isprintable() else " " for sign in str(words)).replace("$", r"\$")
    return textwrap.shorten(plain, most, placeholder=" …")
