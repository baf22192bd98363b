"""Figures of pipelines: which notebook needs which, and when each one ran."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
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
MOST = 6  # more notebooks of one group that stand side by side are drawn as one box
PER_BAND = 5  # columns; further ones continue below, as a text does
WIDE, APART = 1.75, 0.45  # inches: a box and the gap after it
HIGH, BELOW = 0.5, 0.14
NAMES, NOTES = 20, 27  # letters that a box has room for
Order = list[list[str]]


def graph(notebooks: DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """The notebooks of a pipeline from left to right, each after those it needs, with its state and duration.

    ``notebooks`` has a row for each notebook: notebook, group, file, needs (names), state, duration_s and restored;
    without a state, its file is shown. More than six notebooks of one group side by side become one box with their
    counts; the box of a restored notebook is dashed.
    """
    boxes = _folded(notebooks)
    if not boxes:
        return blank(ax, "No notebooks")
    order, ways = _ordered({name: box["needs"] for name, box in boxes.items()})
    high = HIGH + 0.12 * max(box["words"].count("\n") for box in boxes.values())
    bands = [order[start : start + PER_BAND] for start in range(0, len(order), PER_BAND)]
    heights = [max(map(len, band)) * (high + BELOW) for band in bands]
    places, gutters, top = dict[str, tuple[float, float]](), list[float](), 0.0
    for band, height in zip(bands, heights, strict=True):
        for column, names in enumerate(band):
            middle = top + height / 2 - (len(names) - 1) / 2 * (high + BELOW)
            places |= {name: (column * (WIDE + APART), middle + row * (high + BELOW)) for row, name in enumerate(names)}
        top += height + 0.35
        gutters.append(top - 0.175)
    width, height = min(len(order), PER_BAND) * (WIDE + APART) - APART, top - 0.35
    with axes_on_clear_paper(ax, width + 0.5, height + 0.5) as ax:
        for way in ways:
            _arrow(ax, [places[name] for name in way], gutters)
        for name, box in boxes.items():
            _box(ax, *places[name], high, name, box)
        ax.set(xlim=(-0.25, width + 0.25), ylim=(height, -0.05), xticks=[], yticks=[])
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


def _folded(notebooks: DataFrame) -> dict[str, dict[str, Any]]:
    """The boxes to draw, by name, each with its needs, its words, its states and whether it was restored."""
    rows: dict[str, Any] = {str(row.notebook): row for row in notebooks.itertuples(index=False)}
    needs = {name: [one for one in row.needs if one in rows] for name, row in rows.items()}
    depths = _depths(needs)
    alike: dict[tuple[int, str], list[str]] = {}
    for name, row in rows.items():
        alike.setdefault((depths[name], str(row.group)), []).append(name)
    home, boxes = dict[str, str](), dict[str, dict[str, Any]]()
    for (depth, group), names in alike.items():
        for members in [names] if len(names) > MOST else [[name] for name in names]:
            states = [rows[name].state for name in members if rows[name].state]
            words, title = _words(rows[members[0]]), members[0]
            if len(members) > 1:
                counts = ", ".join(f"{n} {state.lower()}" for state, n in Counter(states).most_common())
                words, title = counts or words, f"{group} ({len(members)})"
                title += f" in column {depth + 1}" if title in boxes else ""
            restored = all(rows[name].restored for name in members)
            words = "\n".join(textwrap.wrap(label(words, 2 * NOTES), NOTES))
            boxes[title] = {"states": states, "words": words, "restored": restored, "members": members}
            home |= dict.fromkeys(members, title)
    for box in boxes.values():
        box["needs"] = list(dict.fromkeys(home[need] for name in box["members"] for need in needs[name]))
    return boxes


def _depths(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The column of each notebook: the length of the longest way to it."""
    depths: dict[str, int] = {}
    for name in TopologicalSorter(needs).static_order():
        depths[name] = 1 + max((depths[need] for need in needs[name]), default=-1)
    return depths


def _ordered(needs: Mapping[str, Sequence[str]]) -> tuple[Order, list[list[str]]]:
    """The names in each column from top to bottom, with few crossings, and the ways of the arrows.

    An arrow that passes columns has a place in each, whose name begins with a line break.
    """
    depths = _depths(needs)
    order: Order = [[name for name in needs if depths[name] == depth] for depth in range(max(depths.values()) + 1)]
    ways = []
    for name, others in needs.items():
        for other in others:
            between = [f"\n{other}\n{name}\n{depth}" for depth in range(depths[other] + 1, depths[name])]
            for depth, place in enumerate(between, depths[other] + 1):
                order[depth].append(place)
            ways.append([other, *between, name])
    beside: dict[tuple[str, int], list[str]] = {}
    column = {name: depth for depth, names in enumerate(order) for name in names}
    for one, other in (pair for way in ways for pair in pairwise(way)):
        beside.setdefault((one, column[other]), []).append(other)
        beside.setdefault((other, column[one]), []).append(one)
    for turn in range(6):  # to the right, then to the left: each name near those that it is tied to
        step = 1 if turn % 2 == 0 else -1
        for depth in range(len(order))[::step]:
            near = order[depth - step] if 0 <= depth - step < len(order) else []
            at = {name: (row + 0.5) / len(near) for row, name in enumerate(near)}
            own = {name: (row + 0.5) / len(order[depth]) for row, name in enumerate(order[depth])}
            ties = {name: [at[one] for one in beside.get((name, depth - step), [])] or [own[name]] for name in own}
            order[depth].sort(key=lambda name, ties=ties: sum(ties[name]) / len(ties[name]))  # type: ignore[misc]
    return order, ways


def _arrow(ax: Axes, way: Sequence[tuple[float, float]], gutters: Sequence[float]) -> None:
    """An arrow from box to box; one to the next band goes through the gutter below its own."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points = [(way[0][0] + WIDE, way[0][1])]
    codes: list[Any] = [Path.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(way):
        start, gap = x + WIDE, APART / 2
        if to_x > x:
            points += [(start + gap, y), (start + gap, to_y), (to_x, to_y)]
            codes += [Path.CURVE4] * 3
        else:
            gutter = min(one for one in gutters if one > y)
            points += [
                (start + 0.12, y),
                (start + 0.12, gutter),
                (to_x - 0.2, gutter),
                (to_x - 0.2, to_y),
                (to_x, to_y),
            ]
            codes += [Path.LINETO] * 5
        points.append((to_x + WIDE, to_y))  # past a column
        codes.append(Path.LINETO)
    style: dict[str, Any] = {
        "arrowstyle": "-|>,head_length=3.5,head_width=1.8",
        "color": "#8b929a",
        "lw": 1.1,
        "shrinkA": 0,
    }
    ax.add_patch(FancyArrowPatch(path=Path(points[:-1], codes[:-1]), **style))


def _box(ax: Axes, x: float, y: float, high: float, name: str, box: Mapping[str, Any]) -> None:
    """A box with a strip in the colours of its states, the worst on top."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    signs = sorted(map(sign, box["states"]), key=list(COLOURS).index)
    edge, line = COLOURS[signs[0] if signs else "○"], "--" if box["restored"] else "-"
    look: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=0.06",
        "facecolor": "none",
        "edgecolor": edge,
        "linestyle": line,
    }
    ax.add_patch(FancyBboxPatch((x, y - high / 2), WIDE, high, **look))
    for number, one in enumerate(signs):
        share = (high - 0.1) / len(signs)
        ax.add_patch(Rectangle((x + 0.05, y - high / 2 + 0.05 + number * share), 0.07, share, color=COLOURS[one], lw=0))
    name = name if len(name) <= NAMES else f"{name[: NAMES - 1]}…"
    middle = y + 0.02 - 0.06 * box["words"].count("\n")
    ax.text(x + 0.19, middle - 0.02, label(name, NAMES), va="bottom", fontsize=8.5, weight="bold")
    ax.text(x + 0.19, middle + 0.03, box["words"], va="top", fontsize=7)


def _words(row: Any) -> str:
    if not row.state:
        return str(row.file)
    took = "restored" if row.restored else row.state
    known = row.duration_s == row.duration_s and row.duration_s is not None and not row.restored
    return f"{sign(row.state)} {took}{f', {seconds(row.duration_s)}' if known else ''}"
