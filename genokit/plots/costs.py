"""Bar charts of what jobs used and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genokit.plots.paper import axes_on_clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COST = "#0072B2"
UNITS = {
    "usd": "US dollars",
    "vcpu_hours": "vCPU-hours",
    "gib_hours": "GiB-hours of memory",
    "gpu_hours": "GPU-hours",
}


def cost_bars(table: DataFrame, unit: str = "usd", *, by: str = "run", most: int = 20, ax: Axes | None = None) -> Axes:
    """One bar per group of a costs table, the largest on top; the upper end of a range in dollars is pale.

    ``table`` has the form of ``costs.grouped``. A group of unknown cost has no bar and is labelled "unknown".
    """
    low, high = ("usd_low", "usd_high") if unit == "usd" else (unit, unit)
    shown = table.sort_values(high, ascending=False, na_position="last").head(most)
    with axes_on_clear_paper(ax, 7, 1.1 + 0.32 * max(1, len(shown))) as ax:
        names = [str(name) if len(str(name)) <= 32 else f"{str(name)[:31]}…" for name in shown[by]]
        rows = range(len(shown))
        lows, highs = (shown[column].astype("Float64").fillna(0).astype(float).tolist() for column in (low, high))
        widest = max([*highs, 0.0])
        ax.barh(rows, lows, color=COST, height=0.6)
        ax.barh(rows, [b - a for a, b in zip(lows, highs, strict=True)], left=lows, color=COST, alpha=0.35, height=0.6)
        for row, unpriced in enumerate(shown["unpriced"]):
            words = _words(lows[row], highs[row])
            if unit == "usd" and unpriced:
                words = "unknown" if shown[high].isna().iloc[row] else f"{words}, and {unpriced:,} unknown"
            ax.text(highs[row] + widest * 0.01, row, f" {words}", va="center", fontsize=8)
        ax.set_yticks(rows, labels=names)
        ax.invert_yaxis()
        ax.set(xlabel=UNITS[unit], xlim=(0, widest * 1.35 or 1))
        part = f", the {len(shown)} largest of {len(table):,}" if len(shown) < len(table) else ""
        ax.set_title(f"{UNITS[unit]} by {by}{part}", fontsize=10, loc="left")
        return ax


def _words(low: float, high: float) -> str:
    """A number or a range, short.

    >>> _words(0.5, 0.5), _words(1, 2.25)
    ('0.5', '1 to 2.25')
    """
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
