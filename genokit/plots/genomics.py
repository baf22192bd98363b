"""Figures of a cohort's reads and variants, and of the reads at one place."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from genokit.plots.omop import COLOURS
from genokit.plots.paper import INK, axes_on_clear_paper, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

LABELS = {
    "coverage": ("depth (reads over a base)", "positions (%)"),
    "insert_size": ("insert size (bases, in steps of 10)", "pairs (%)"),
    "base_quality": ("cycle", "mean base quality (Phred)"),
    "gc": ("GC of a read (%)", "reads (%)"),
    "variants": ("variants of a sample", ""),
    "consequences": ("variants of a sample", ""),
}
NAMED = 7  # samples that have a colour
# Okabe and Ito's, distinguishable with any colour vision; each base is also written.
BASES = {"A": "#009e73", "C": "#0072b2", "G": "#b07800", "T": "#d55e00", "N": "#7f7f7f"}
STRANDS, INSERTION = ("#56b4e9", "#e69f00"), "#8a3a7c"  # forward and reverse


def cohort(data: DataFrame, name: str, *, marked: Collection[str] = (), ax: Axes | None = None) -> Axes:
    """One picture of a cohort's quality: a line for each sample, or for categories a row with a mark for each sample.

    Up to seven samples have a colour each; of more, the first seven that are marked.

    Parameters
    ----------
    data : DataFrame
        The columns sample, x and y.
    name : str
        A name in ``LABELS``.
    marked : collection of str, optional
        The samples that stand out.
    ax : Axes, optional
        The axes to draw on (default: those of a new figure).
    """
    samples = list(dict.fromkeys(data["sample"]))
    if not samples:
        return blank(ax, f"{name}: no results")
    named = samples if len(samples) <= NAMED else [one for one in samples if one in marked][:NAMED]
    colours = dict(zip(named, COLOURS, strict=False))
    categories = isinstance(data["x"].iloc[0], str)
    rows = list(data.groupby("x")["y"].sum().sort_values().index) if categories else []
    with axes_on_clear_paper(ax, 7, 1.2 + 0.34 * len(rows) if categories else 3.4) as ax:
        for sample in sorted(samples, key=lambda one: one in colours):  # those with a colour on top
            own = data[data["sample"] == sample].sort_values("x")
            style = {"color": colours.get(sample, INK), "alpha": 0.9 if sample in colours else 0.35}
            label = sample if sample in colours else None
            if categories:
                # Samples with a colour are drawn side by side, so that none hides another.
                aside = 0.1 * (named.index(sample) - (len(named) - 1) / 2) if sample in named else 0
                ax.plot(own["y"], [rows.index(x) - aside for x in own["x"]], "o", markersize=6, label=label, **style)
            else:
                ax.plot(own["x"], own["y"], linewidth=1.3, label=label, **style)
        ax.set(xlabel=LABELS[name][0], ylabel=LABELS[name][1])
        if categories:
            ax.set_yticks(range(len(rows)), rows)
            ax.set_ylim(-0.5, len(rows) - 0.5)
            if data["y"].max() > 100 * max(1, data["y"].min()):
                ax.set_xscale("symlog", linthresh=10)
            else:
                ax.locator_params(axis="x", integer=True)
            ax.set_xlim(0)
            ax.grid(axis="y", alpha=0.25)
            ax.xaxis.set_major_formatter("{x:,.0f}")
        else:
            ax.set_ylim(0)
        others = len(samples) - len(named)
        if named:
            note = f"grey: {others:,} other samples" if others else None
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, title=note, title_fontsize=8)
        return ax


def pileup(cells: DataFrame, reference: str, start: int, pos: int, *, title: str, ax: Axes | None = None) -> Axes:
    """The reads over a stretch of the reference, a row each: what differs from it is coloured and lettered.

    Parameters
    ----------
    cells : DataFrame
        One row for each base of the reference that a read covers: ``row``, from 0; ``pos``, from 1; ``base`` of the
        read, "-" where it is deleted; ``inserted``, how many bases the read has before the next one; ``reverse``.
    reference : str
        The bases of the stretch.
    start : int
        The position of its first base, from 1.
    pos : int
        The position that is pointed at.
    title : str
        What is shown, and how many of the reads.
    ax : Axes, optional
        The axes to draw on (default: those of a new figure).
    """
    rows, width = int(cells["row"].max()) + 1 if len(cells) else 0, len(reference)
    with axes_on_clear_paper(ax, 1 + 0.115 * width, 1.1 + 0.16 * rows) as ax:
        letters: Any = {"ha": "center", "va": "center", "fontsize": 7, "family": "monospace"}
        ax.axvspan(pos - 0.5, pos + 0.5, color=INK, alpha=0.25, linewidth=0)
        for n, base in enumerate(reference):
            ax.text(start + n, -1, base, **letters)
        deleted = cells["base"] == "-"
        is_new = (cells["row"].diff() != 0) | (cells["pos"].diff() != 1) | (deleted != deleted.shift())
        for _, run in cells.groupby(is_new.cumsum()):  # neighbouring bases of a read, all deleted or none
            row, low, high = run["row"].iloc[0], run["pos"].iloc[0] - 0.5, run["pos"].iloc[-1] + 0.5
            if run["base"].iloc[0] == "-":
                ax.plot([low, high], [row, row], color=INK, linewidth=1.5)
            else:
                colour = STRANDS[int(run["reverse"].iloc[0])]
                ax.barh(row, high - low, left=low, height=0.76, color=colour, alpha=0.4, linewidth=0)
        for row, at, base, inserted, _ in cells.itertuples(index=False):
            if base not in ("-", reference[at - start]):
                ax.barh(row, 1, left=at - 0.5, height=0.86, color=BASES.get(base, INK), linewidth=0)
                ax.text(at, row, base, color="white", weight="bold", **letters)
            if inserted:
                box = {"boxstyle": "square,pad=0.12", "facecolor": INSERTION, "linewidth": 0}
                ax.text(at + 0.5, row, f"{inserted}", color="white", bbox=box, **letters | {"fontsize": 6})
        ax.set(xlim=(start - 0.5, start + width - 0.5), ylim=(rows, -2), yticks=[])
        ax.spines["left"].set_visible(False)
        ax.ticklabel_format(axis="x", style="plain", useOffset=False)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel("blue: forward, orange: reverse; lines: deletions; purple: number of inserted bases", fontsize=8)
        return ax
