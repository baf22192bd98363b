"""Figures of cohorts: how persons came to be in one, and what became of them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from genokit.plots.paper import INK, clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

HIDDEN = "*"
# Told apart by all eyes, and by their marks.
LINES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#8a6d00", "v"), ("#56b4e9", "P"))


def flow(attrition: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A flow of boxes, as CONSORT draws it: who was left after each step, and beside it who left.

    ``attrition`` has a row a step: step, persons, left_out, entries; a missing number is one not told.
    """
    from matplotlib import pyplot as plt

    rows = list(attrition.itertuples(index=False))
    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(7.5, 0.5 + 0.95 * len(rows)), layout="constrained")
        for y, row in enumerate(rows):
            last = y == len(rows) - 1
            words = textwrap.fill(label(row.step, 96), 48)
            text = f"{words}\n{_number(row.persons)} persons, {_number(row.entries)} entries"
            _box(ax, 0, y, text, "#0072b22e" if last else "#8080801f", "#0072b2" if last else INK)
            if y:
                _arrow(ax, (0, y - 0.68), (0, y - 0.34))
            if y and _number(row.left_out) != "0":
                _arrow(ax, (0, y - 0.5), (0.66, y - 0.5))
                _box(ax, 0.98, y - 0.5, f"left out: {_number(row.left_out)}", "none", "#d55e00", wide=0.32)
        ax.set_xlim(-0.66, 1.32)
        ax.set_ylim(len(rows) - 0.55, -0.5)
        ax.axis("off")
        if title:
            ax.set_title(label(title, 80), fontsize=10, loc="left")
        return ax


def rates(shown: DataFrame, *, unit: str, title: str = "", ax: Axes | None = None) -> Axes:
    """Rates over calendar intervals: a line a group, a band for its confidence interval; what is not told is a gap.

    A rate of 0 has no band: where few persons are, its bound lies far above all others, and the band would hide them.
    ``shown`` has a row an interval and group: interval_start, interval_end, group, rate, low, high.
    """
    import pandas as pd
    from matplotlib import pyplot as plt

    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
        groups = sorted(shown["group"].unique(), key=lambda group: (group == "all", str(group)))
        for number, group in enumerate(groups):
            rows = shown[shown["group"] == group].sort_values("interval_start")
            colour, mark = (INK, ".") if group == "all" else LINES[number % len(LINES)]
            middle = rows["interval_start"] + (rows["interval_end"] - rows["interval_start"]) / 2
            rate, low, high = (pd.to_numeric(rows[name]).astype("float64") for name in ("rate", "low", "high"))
            seen = rate > 0  # of none the bound is far away where persons are few
            ax.fill_between(middle, low.where(seen), high.where(seen), color=colour, alpha=0.13, linewidth=0)
            dashes = "--" if group == "all" else "-"
            ax.plot(middle, rate, dashes, color=colour, marker=mark, markersize=4, lw=1.4, label=str(group))
        highest = pd.to_numeric(shown["rate"]).max()
        ax.set_ylim(0, highest * 1.6 if highest > 0 else 1)  # a band of few persons may reach far beyond
        ax.yaxis.set_major_formatter("{x:,g}")
        ax.set_ylabel(unit, fontsize=9)
        ax.grid(axis="y", alpha=0.3)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, ncols=len(groups), loc="lower right", bbox_to_anchor=(1, 1))
        if title:
            ax.set_title(label(title, 60), fontsize=10, loc="left")
        return ax


def curves(shown: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """The share that has had an event, by days since entry: a line a group, a band for its confidence interval.

    ``shown`` has a row a group and point in time: group, day, at_risk, free, low, high, from 0 to 1.
    """
    from matplotlib import pyplot as plt

    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
        for number, (group, rows) in enumerate(shown.groupby("group", sort=True)):
            colour, mark = LINES[number % len(LINES)]
            ax.fill_between(rows["day"], 100 - 100 * rows["high"], 100 - 100 * rows["low"], step="post", color=colour,
                            alpha=0.13, linewidth=0)  # fmt: skip
            named = f"{label(group, 30)}: {rows['at_risk'].iloc[0]:,} persons"
            ax.plot(rows["day"], 100 - 100 * rows["free"], color=colour, drawstyle="steps-post", marker=mark,
                    markevery=max(1, len(rows) // 6), markersize=4, lw=1.4, label=named)  # fmt: skip
        ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
        ax.set_xlabel("days since entry", fontsize=9)
        ax.set_ylabel("% with the event", fontsize=9)
        ax.xaxis.set_major_formatter("{x:,g}")
        ax.grid(axis="y", alpha=0.3)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        if len(shown):
            ax.legend(frameon=False, fontsize=8, loc="upper left")
        if title:
            ax.set_title(label(title, 80), fontsize=10, loc="left")
        return ax


def _box(ax: Axes, x: float, y: float, text: str, fill: str, edge: str, *, wide: float = 0.64) -> None:
    from matplotlib.patches import FancyBboxPatch

    high = 0.32 if wide > 0.5 else 0.14
    style = "round,pad=0,rounding_size=0.03"
    ax.add_patch(FancyBboxPatch((x - wide, y - high), 2 * wide, 2 * high, style, facecolor=fill, edgecolor=edge, lw=1))
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1, "shrinkA": 0, "shrinkB": 0})


def _number(count: object) -> str:
    """A count as text, and a sign for one that is not told."""
    return f"{count:,}" if isinstance(count, int) or hasattr(count, "__index__") else HIDDEN


def label(words: object, most: int) -> str:
    """Any text as matplotlib can write it: not too long, no formulas, no signs that no font has."""
    plain = "".join(sign if sign.isprintable() else " " for sign in str(words)).replace("$", r"\$")
    return textwrap.shorten(plain, most, placeholder=" …")
