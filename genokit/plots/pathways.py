"""The figure of treatment pathways: a sunburst with a ring for each step."""

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
PAPER = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}  # under a number
Treatments = Mapping[str, Sequence[str]]


def sunburst(shown: DataFrame, *, treatments: Treatments, title: str = "", ax: Axes | None = None) -> Axes:
    """Paths as rings, the first step innermost; the length of an arc is its share of the persons.

    A combination has a band for each of its treatments. Beyond the last step of a path there is nothing.
    """
    from matplotlib.patches import Patch, Wedge

    styles, steps = _styles(treatments), [name for name in shown.columns if name.startswith("step_")]
    arcs = list(_arcs(shown[shown["persons"] > 0], steps))  # hidden counts are missing
    with axes_on_clear_paper(ax, 8, 4.8) as ax:
        for depth, step, start, share in arcs:
            parts, inner = treatments.get(step, (step,)), 0.8 + depth
            ends = 90 - 360 * (start + share), 90 - 360 * start
            width = 1 / len(parts)
            for i, part in enumerate(parts):
                outer = inner + (i + 1) * width
                lines = 0.8 if share > 0.004 else 0  # lines around a thin arc would hide it
                ax.add_patch(Wedge((0, 0), outer, *ends, width=width, linewidth=lines, **styles[part]))
            key, middle = _key(parts, list(styles)), math.radians(sum(ends) / 2)
            if key and 2 * math.pi * share * (inner + 0.5) > 0.15 + 0.1 * len(key):
                words = key if depth or share < 0.06 else f"{key}\n{100 * share:.0f} %"
                at = (inner + 0.5) * math.cos(middle), (inner + 0.5) * math.sin(middle)
                ax.text(*at, words, color="black", ha="center", va="center", fontsize=7.5, bbox=PAPER)
        ax.text(0, 0, f"{shown['persons'].sum():,.0f}\npersons", ha="center", va="center", fontsize=8.5)
        reach = 1.85 + max((depth for depth, *_ in arcs), default=0)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(label(title, 70), fontsize=10, loc="left")
        seen = {part for _, step, _, _ in arcs for part in treatments.get(step, (step,))}
        patches = [Patch(label=_words(name, list(styles)), **styles[name]) for name in styles if name in seen]
        if patches:
            ax.legend(handles=patches, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8,
                      ncols=1 + (len(patches) - 1) // ROWS, handleheight=1.1)  # fmt: skip
        return ax


def _arcs(
    rows: DataFrame, steps: Sequence[str], depth: int = 0, start: float = 0.0, whole: float = 0.0
) -> Iterator[tuple[int, str, float, float]]:
    """Each arc: its ring, its step, its start and its length as shares of the circle; the most frequent first."""
    whole = whole or float(rows["persons"].sum())
    if depth < len(steps):
        sums = rows.groupby(steps[depth])["persons"].sum()
        for step in sorted(sums.index, key=lambda one: (one == NONE, one == OTHER, -sums[one])):
            share = float(sums[step]) / whole
            yield depth, step, start, share
            yield from _arcs(rows[rows[steps[depth]] == step], steps, depth + 1, start, whole)
            start += share


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


def _words(name: str, names: Sequence[str]) -> str:
    return PALE[name][1] if name in PALE else f"{_key([name], names)}  {label(name, 44)}"
