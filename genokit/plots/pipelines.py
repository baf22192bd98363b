"""Figures of pipelines: which notebook needs which, and when each one ran."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from genokit.display import STATUS_COLOURS, seconds, sign
from genokit.plots.cohorts import label
from genokit.plots.paper import axes_on_clear_paper, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COLOURS = {
    "✕": STATUS_COLOURS["FAILED"],
    "!": STATUS_COLOURS["RUNNABLE"],
    "●": STATUS_COLOURS["RUNNING"],
    "○": STATUS_COLOURS["PENDING"],
    "✓": STATUS_COLOURS["SUCCEEDED"],
}  # the worst first
MOST = 6  # more notebooks of one group are drawn as one box
PER_ROW = 4
WIDE, NARROW = 1.75, 0.1  # inches: a box, and a place where a line passes a row
BESIDE, BELOW = 0.25, 0.35  # the gaps between boxes
NAMES, NOTES = 20, 27  # letters that a box has room for


@dataclass
class Box:
    """What the graph says of a notebook, or of all combinations of one."""

    states: list[str]
    words: str
    restored: bool
    needs: list[str]


def graph(notebooks: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """The notebooks of a pipeline from top to bottom, each below those it needs, with its state and duration.

    ``notebooks`` has a row for each notebook: notebook, group, file, needs (names), state, duration_s and restored;
    without a state, its file is shown. More than six notebooks of one group become one box with their counts; the box
    of a restored notebook is dashed.
    """
    if notebooks.empty:
        return blank(ax, "No notebooks")
    boxes = _boxes(notebooks)
    rows, lines = _arranged({name: box.needs for name, box in boxes.items()})
    high = 0.5 + 0.12 * max(box.words.count("\n") for box in boxes.values())
    places, widest = dict[str, tuple[float, float]](), 0.0
    for number, row in enumerate(rows):
        widths = [WIDE if name in boxes else NARROW for name in row]
        whole = sum(widths) + BESIDE * (len(row) - 1)
        left, widest = -whole / 2, max(widest, whole)
        for name, width in zip(row, widths, strict=True):
            places[name] = (left + width / 2, number * (high + BELOW))
            left += width + BESIDE
    height = len(rows) * (high + BELOW) - BELOW
    with axes_on_clear_paper(ax, widest + 0.5, height + 0.5) as ax:
        for line in lines:
            _draw_arrow(ax, [places[name] for name in line], high)
        for name, box in boxes.items():
            _draw_box(ax, *places[name], high, name, box)
        ax.set(xlim=(-widest / 2 - 0.25, widest / 2 + 0.25), ylim=(height - high / 2 + 0.05, -high / 2 - 0.05))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(label(title, 80), fontsize=10, loc="left")
        return ax


def timeline(notebooks: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """When each notebook waited for a kernel or a queue (pale), and when it ran, from the start of the first one.

    ``notebooks`` has a row for each notebook: notebook, state, restored, and the times ready, started and ended; one
    that never started has no bar.
    """
    import pandas as pd

    ran = notebooks.dropna(subset=["ready", "started", "ended"]).reset_index(drop=True)
    if ran.empty:
        return blank(ax, "No notebook has run")
    times = ran[["ready", "started", "ended"]].apply(pd.to_datetime, utc=True)
    times = (times - times.min().min()).apply(lambda one: one.dt.total_seconds())
    whole = max(times["ended"].max(), 0.01)
    unit, per = next((name, s) for name, s in (("h", 3600), ("min", 60), ("s", 1)) if whole >= 3 * s or s == 1)
    with axes_on_clear_paper(ax, 9, 1.1 + 0.27 * len(ran)) as ax:
        for row, (ready, started, ended) in enumerate((times / per).itertuples(index=False)):
            state, restored = ran["state"][row], ran["restored"][row]
            ax.barh(row, started - ready, left=ready, color=COLOURS["○"], alpha=0.4, height=0.3)
            ax.barh(row, ended - started, left=started, color=COLOURS[sign(state)], height=0.6)
            took = "restored" if restored else seconds((ended - started) * per)
            ax.text(ended, row, f"  {sign(state)} {took}", va="center", fontsize=8)
        ax.set_yticks(range(len(ran)), [label(name, 32) for name in ran["notebook"]], fontsize=8)
        ax.set(ylim=(len(ran) - 0.4, -0.6), xlim=(0, whole / per * 1.16), xlabel=f"time since the start ({unit})")
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", alpha=0.25)
        ax.set_title(label(title, 80), fontsize=10, loc="left")
        return ax


def _boxes(notebooks: DataFrame) -> dict[str, Box]:
    """The boxes to draw by name, in the order of the notebooks."""
    sizes = notebooks["group"].map(notebooks["group"].value_counts())
    names = notebooks["notebook"].where(sizes <= MOST, notebooks["group"] + sizes.map(" ({})".format))
    box_of = dict(zip(notebooks["notebook"], names, strict=True))
    boxes = {}
    for name, members in notebooks.groupby(names, sort=False):
        needed = dict.fromkeys(box_of[need] for needs in members["needs"] for need in needs if need in box_of)
        states, words = members["state"].dropna().tolist(), textwrap.fill(label(_words(members), 2 * NOTES), NOTES)
        boxes[str(name)] = Box(states, words, bool(members["restored"].all()), list(needed))
    return boxes


def _words(members: DataFrame) -> str:
    state, file, restored = members[["state", "file", "restored"]].iloc[0]
    if not state:
        return str(file)
    if len(members) > 1:
        return ", ".join(f"{n} {str(ended).lower()}" for ended, n in members["state"].value_counts().items())
    took = members["duration_s"].sum()
    return f"{sign(state)} {'restored' if restored else f'{state}, {seconds(took)}' if took else state}"


def _arranged(needs: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """The names in each row from left to right, each near those above that it is tied to; and the lines to draw.

    A line that passes rows has a place in each, whose name begins with a line break.
    """
    rows: list[list[str]] = []
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        names = [name for name in needs if name in ready]
        rows += [names[start : start + PER_ROW] for start in range(0, len(names), PER_ROW)]
    row_of = {name: number for number, names in enumerate(rows) for name in names}
    lines, above = [], dict[str, set[str]]()
    for name, others in needs.items():
        for other in others:
            passed = {number: f"\n{other}\n{number}" for number in range(row_of[other] + 1, row_of[name])}
            for number, place in passed.items():
                rows[number] += [] if place in rows[number] else [place]
            lines.append([other, *passed.values(), name])
            for upper, lower in pairwise(lines[-1]):
                above.setdefault(lower, set()).add(upper)
    for upper_row, row in pairwise(rows):
        at = {name: (number + 0.5) / len(upper_row) for number, name in enumerate(upper_row)}
        middle = {name: fmean(at[upper] for upper in above.get(name, ())) if name in above else 0.5 for name in row}
        row.sort(key=middle.__getitem__)
    return rows, lines


def _draw_arrow(ax: Axes, points: Sequence[tuple[float, float]], high: float) -> None:
    """An arrow from box to box, straight where it passes a row."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    way = [(points[0][0], points[0][1] + high / 2)]
    codes: list[Any] = [Path.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        way += [(x, middle), (to_x, middle), (to_x, to_y - high / 2), (to_x, to_y + high / 2)]
        codes += [Path.CURVE4] * 3 + [Path.LINETO]
    head = "-|>,head_length=3.5,head_width=1.8"
    ax.add_patch(FancyArrowPatch(path=Path(way[:-1], codes[:-1]), arrowstyle=head, color="#8b929a", lw=1.1, shrinkA=0))


def _draw_box(ax: Axes, x: float, y: float, high: float, name: str, box: Box) -> None:
    """A box with a strip in the colours of its states, the worst on top."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    signs = sorted(map(sign, box.states), key=list(COLOURS).index)
    edge, left, top = COLOURS[signs[0] if signs else "○"], x - WIDE / 2, y - high / 2
    look = "round,pad=0,rounding_size=0.06"
    line = "--" if box.restored else "-"
    ax.add_patch(FancyBboxPatch((left, top), WIDE, high, boxstyle=look, fc="none", ec=edge, ls=line))
    for number, one in enumerate(signs):
        share = (high - 0.1) / len(signs)
        ax.add_patch(Rectangle((left + 0.05, top + 0.05 + number * share), 0.07, share, color=COLOURS[one], lw=0))
    name = name if len(name) <= NAMES else f"{name[: NAMES - 1]}…"
    middle = y + 0.02 - 0.06 * box.words.count("\n")
    ax.text(left + 0.19, middle - 0.02, label(name, NAMES), va="bottom", fontsize=8.5, weight="bold")
    ax.text(left + 0.19, middle + 0.03, box.words, va="top", fontsize=7)
