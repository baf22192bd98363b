"""Figures of treatment pathways: a ring or a column for each step; a treatment has the same colour in both.

Both take a row for each path: step_1, step_2, ... (missing after its end) and persons; and the treatments of each step,
because a combination has several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genokit.plots.cohorts import label
from genokit.plots.paper import axes_on_clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

NONE, OTHER = "(none)", "(other)"
PALE = {NONE: ("#ececec", "none of these"), OTHER: ("#b8b8b8", "others, pooled")}
# Okabe and Ito's, distinguishable with any colour vision; then the same with hatches. Every treatment has a number.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
MARKS = ("", "////", "....", "xxxx")
ROWS = 24  # of a column of the legend
THIN = 0.005  # smaller shares of all persons are drawn pooled with others
Treatments = Mapping[str, Sequence[str]]


def sunburst(shown: DataFrame, *, treatments: Treatments, title: str = "", ax: Axes | None = None) -> Axes:
    """Paths as rings, the first step innermost; the length of an arc is its share of the persons.

    A combination has a band for each of its treatments. Beyond the last step of a path there is nothing.
    """
    from matplotlib.patches import Wedge

    shown, styles = _drawn(shown), _styles(treatments)
    with axes_on_clear_paper(ax, 8, 4.8) as ax:
        arcs = list(_arcs(shown, list(styles)))
        for depth, step, start, share in arcs:
            parts, inner = treatments.get(step, (step,)), 0.8 + depth
            ends = 90 - 360 * (start + share), 90 - 360 * start
            width = 1 / len(parts)
            for i, part in enumerate(parts):
                outer = inner + (i + 1) * width
                lines = 0.8 if share > 0.004 else 0  # lines around a thin arc would hide it
                ax.add_patch(Wedge((0, 0), outer, *ends, width=width, linewidth=lines, **styles[part]))
            key, middle = _key(parts, list(styles)), math.radians(sum(ends) / 2)
            if 2 * math.pi * share * (inner + 0.5) > 0.15 + 0.1 * len(key):
                words = key if depth or share < 0.06 else f"{key}\n{100 * share:.0f} %".strip()
                _number(ax, (inner + 0.5) * math.cos(middle), (inner + 0.5) * math.sin(middle), words)
        ax.text(0, 0, f"{shown['persons'].sum():,.0f}\npersons", ha="center", va="center", fontsize=8.5)
        reach = 1.85 + max((depth for depth, *_ in arcs), default=0)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        return _finished(ax, styles, {step for _, step, _, _ in arcs}, treatments, title)


def sankey(shown: DataFrame, *, treatments: Treatments, title: str = "", ax: Axes | None = None) -> Axes:
    """Paths as streams from step to step; the height of a bar is its share of the persons."""

    shown, styles = _drawn(shown), _styles(treatments)
    order = {step: i for i, step in enumerate([*treatments, OTHER, NONE])}
    steps = [name for name in shown.columns if name.startswith("step_") and shown[name].notna().any()]
    total = float(shown["persons"].sum())
    with axes_on_clear_paper(ax, 8, 4.8) as ax:
        leaves: Any = {}  # where the next stream leaves each bar of the previous step
        for x, step in enumerate(steps):
            sums = shown.groupby(step)["persons"].sum() / total
            sums = sums.reindex(sorted(sums.index, key=lambda one: order[one]))
            between = min(0.015, 0.1 / len(sums))
            tops = (sums + between).cumsum().shift(fill_value=0.0)
            _bars(ax, x, tops, sums, treatments, styles)
            if x:
                pairs = shown.groupby([steps[x - 1], step])["persons"].sum() / total
                _streams(ax, x, pairs, leaves, tops.to_dict(), order, treatments, styles)
            leaves = tops.to_dict()
        ax.set(xlim=(-0.35, len(steps) - 0.55), ylim=(1.1, -0.02))
        ax.set_xticks(range(len(steps)), [f"step {x + 1}" for x in range(len(steps))], fontsize=9)
        ax.xaxis.tick_top()
        seen = {one for step in steps for one in shown[step].dropna()}
        return _finished(ax, styles, seen, treatments, title)


def _drawn(shown: DataFrame) -> DataFrame:
    """The paths, with those that are too thin to see pooled with others that begin alike."""
    steps = [name for name in shown.columns if name.startswith("step_")]
    rows = shown[[*steps, "persons"]].fillna(dict.fromkeys(steps, "")).astype({"persons": "float64"})
    rows = rows[rows["persons"] > 0]  # none, where all counts are hidden
    for i, step in enumerate(steps):
        thin = rows.groupby(steps[: i + 1])["persons"].transform("sum") < THIN * rows["persons"].sum()
        thin &= (rows[steps[:i]] != OTHER).all(axis=1)  # pooled others have no parts
        rows.loc[thin, step] = OTHER
        rows.loc[thin, steps[i + 1 :]] = ""
    return rows.groupby(steps)["persons"].sum().reset_index().replace({"": None})


def _bars(ax: Axes, x: int, tops: Any, sums: Any, treatments: Treatments, styles: Mapping[str, Any]) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for step, share in sums.items():
        parts = treatments.get(step, (step,))
        width = 0.2 / len(parts)
        for i, part in enumerate(parts):
            lines = 0.8 if share > 0.01 else 0
            at = x - 0.1 + i * width, tops[step]
            ax.add_patch(Rectangle(at, width, share, linewidth=lines, zorder=2, **styles[part]))
        if share > 0.03:
            middle = tops[step] + share / 2
            _number(ax, x, middle, _key(parts, list(styles)))
            halo = [withStroke(linewidth=2, foreground="white")]
            ax.text(x - 0.12, middle, f"{100 * share:.0f} %", ha="right", va="center", fontsize=7.5, zorder=4,
                    path_effects=halo)  # fmt: skip


def _streams(
    ax: Axes, x: int, pairs: Any, leaves: Any, comes: Any, order: Mapping[str, int],
    treatments: Treatments, styles: Mapping[str, Any],
) -> None:  # fmt: skip
    """Streams from the bars of one step to those of the next, ordered so that few cross."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    left, right, half = x - 0.9, x - 0.1, x - 0.5
    for (before, after), share in sorted(pairs.items(), key=lambda one: [order[step] for step in one[0]]):
        high, low = leaves[before], comes[after]
        leaves[before] += share
        comes[after] += share
        corners = [(left, high), (half, high), (half, low), (right, low), (right, low + share), (half, low + share),
                   (half, high + share), (left, high + share), (left, high)]  # fmt: skip
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
        colour = styles[treatments.get(before, (before,))[0]]["facecolor"]
        ax.add_patch(PathPatch(Path(corners, codes), facecolor=colour, alpha=0.35, linewidth=0, zorder=1))


def _arcs(shown: DataFrame, order: Sequence[str]) -> Iterator[tuple[int, str, float, float]]:
    """Each arc: its ring, its step, its start and its length as shares of the circle; the most frequent first."""
    steps = [name for name in shown.columns if name.startswith("step_")]
    total = float(shown["persons"].sum())

    def below(rows: DataFrame, depth: int, start: float) -> Iterator[tuple[int, str, float, float]]:
        if depth == len(steps):
            return
        sums = rows.groupby(steps[depth])["persons"].sum()
        for step in sorted(sums.index, key=lambda one: (one == NONE, one == OTHER, -sums[one])):
            share = float(sums[step]) / total
            yield depth, step, start, share
            yield from below(rows[rows[steps[depth]] == step], depth + 1, start)
            start += share

    yield from below(shown, 0, 0.0)


def _styles(treatments: Treatments) -> dict[str, dict[str, Any]]:
    """The style of each treatment, in the order given; a combination is drawn as its parts."""
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(name for name, parts in treatments.items() if len(parts) == 1):
        marks = MARKS[i // len(COLOURS) % len(MARKS)]
        styles[name] = {"facecolor": COLOURS[i % len(COLOURS)], "edgecolor": "white", "hatch": marks}
    return styles | {name: {"facecolor": colour, "edgecolor": "white"} for name, (colour, _) in PALE.items()}


def _key(parts: Sequence[str], names: Sequence[str]) -> str:
    """The numbers of treatments, as 2+3; empty for pooled ones.

    >>> _key(["b", "c"], ["a", "b", "c"]), _key([OTHER], [])
    ('2+3', '')
    """
    return "+".join(str(names.index(part) + 1) for part in parts if part not in PALE)


def _number(ax: Axes, x: float, y: float, key: str) -> None:
    if key:
        paper = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        ax.text(x, y, key, color="black", ha="center", va="center", fontsize=7.5, zorder=3, bbox=paper)


def _finished(ax: Axes, styles: Mapping[str, Any], steps: set[str], treatments: Treatments, title: str) -> Axes:
    """The figure with a legend and without axes."""
    from matplotlib.patches import Patch

    seen = {part for step in steps for part in treatments.get(step, (step,))}
    names = [name for name in styles if name in seen]
    words = [PALE[name][1] if name in PALE else f"{_key([name], list(styles))}  {label(name, 44)}" for name in names]
    patches = [Patch(label=text, **styles[name]) for name, text in zip(names, words, strict=True)]
    if patches:
        ax.legend(handles=patches, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8,
                  ncols=1 + (len(patches) - 1) // ROWS, handleheight=1.1)  # fmt: skip
    ax.spines[:].set_visible(False)
    ax.set_yticks([])
    ax.tick_params(length=0)
    if ax.get_aspect() == 1:
        ax.set_xticks([])
    if title:
        ax.set_title(label(title, 70), fontsize=10, loc="left")
    return ax
