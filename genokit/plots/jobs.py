"""Jobs over time: when each ran, how many are in each status, and how full their environments are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genokit.display import STATUS_COLOURS
from genokit.plots.paper import INK, clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series, Timestamp

NAMED = 30  # with more bars there is no room for names


def timeline(attempts: DataFrame, *, now: Timestamp | None = None, ax: Axes | None = None) -> Axes:
    """One bar per attempt, from its start to its end or to ``now``, the earliest on top.

    ``attempts`` has one row per attempt: name, attempt, status, started, stopped (NaT while it runs). Up to 30 bars
    have names; with more, the axis label gives their number. Times are UTC.
    """
    import pandas as pd
    from matplotlib import dates
    from matplotlib import pyplot as plt
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Patch, Rectangle

    now = now or pd.Timestamp.now("UTC")
    rows = attempts.sort_values("started", kind="stable", ignore_index=True)
    named = len(rows) <= NAMED
    with clear_paper():
        if ax is None:
            height = 1.4 + 0.24 * len(rows) if named else 5.0
            _, ax = plt.subplots(figsize=(9, height), layout="constrained")
        left, right = _days(rows["started"]), _days(rows["stopped"].fillna(now))
        span = max(float(right.max() - left.min()) if len(rows) else 0.0, 1 / 86400)
        bars = [
            Rectangle((x, y + 0.14 if named else y), max(end - x, span / 500), 0.72 if named else 1)
            for y, (x, end) in enumerate(zip(left, right, strict=True))
        ]
        fills = [STATUS_COLOURS.get(status, INK) for status in rows["status"]]
        ax.add_collection(PatchCollection(bars, facecolor=fills, edgecolor="none"))
        for y, status in enumerate(rows["status"] if named else ()):
            if status == "FAILED":  # a symbol in addition to the colour
                ax.annotate("✕", (float(right[y]), y + 0.5), xytext=(3, 0), textcoords="offset points", va="center",
                            fontsize=8)  # fmt: skip
        first = float(left.min()) if len(rows) else now.timestamp() / 86400 - span
        ax.set_xlim(first - 0.02 * span, first + 1.05 * span)
        ax.set_ylim(max(len(rows), 1), 0)
        ax.xaxis_date("UTC")
        clock = "%H:%M:%S" if span < 1 / 288 else "%H:%M" if span < 1 else "%b %d %H:%M"
        ax.xaxis.set_major_formatter(dates.DateFormatter(clock))  # type: ignore[no-untyped-call]
        ax.set_xlabel(f"time (UTC), {now:%Y-%m-%d}" if span < 1 else "time (UTC)")
        if named:
            ax.set_yticks([y + 0.5 for y in range(len(rows))], [_label(row) for _, row in rows.iterrows()], fontsize=8)
            ax.tick_params(axis="y", length=0)
        else:
            ax.set_ylabel(f"{len(rows):,} attempts, by start")
        shown = [status for status in STATUS_COLOURS if status in set(rows["status"])]
        if shown:
            ax.legend(
                handles=[Patch(color=STATUS_COLOURS[status], label=status) for status in shown],
                frameon=False, fontsize=8, ncols=len(shown), loc="lower right", bbox_to_anchor=(1, 1),
            )  # fmt: skip
        ax.set_title("Attempts", fontsize=10, loc="left")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right", "left"]].set_visible(False)
        return ax


def counts(jobs: Mapping[str, int], *, ax: Axes | None = None) -> Axes:
    """The number of jobs in each status, in the order of a job's life, with labelled bars."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
        numbers = [jobs.get(status, 0) for status in STATUS_COLOURS]
        bars = ax.barh(list(STATUS_COLOURS), numbers, color=list(STATUS_COLOURS.values()), height=0.72)
        ax.bar_label(bars, [f"{number:,}" for number in numbers], padding=3, fontsize=8)
        ax.invert_yaxis()
        ax.set_xlim(0, max([1, *numbers]) * 1.15)
        ax.set(xlabel="jobs")
        ax.set_title(f"{sum(numbers):,} job{'' if sum(numbers) == 1 else 's'}", fontsize=10, loc="left")
        ax.tick_params(axis="y", length=0, labelsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        ax.spines[["top", "right", "left"]].set_visible(False)
        return ax


def usage(used: Mapping[str, tuple[float, float | None]], *, ax: Axes | None = None) -> Axes:
    """How much of the environments is allocated to jobs: by label, in use and in total (None: unknown).

    >>> ax = usage({"vCPU": (2, 8), "memory (GiB)": (3.5, None)})
    >>> [text.get_text() for text in ax.texts]
    ['2 of 8', '3.5, of an unknown size']
    """
    from matplotlib import pyplot as plt

    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(5, 0.7 + 0.4 * len(used)), layout="constrained")
        for y, (part, whole) in enumerate(used.values()):
            ax.barh(y, 100, color="#80808026", height=0.6)
            if whole:
                ax.barh(y, min(100 * part / whole, 100), color=STATUS_COLOURS["RUNNING"], height=0.6, alpha=0.55)
            words = f"{part:,.4g} of {whole:,.4g}" if whole else f"{part:,.4g}, of an unknown size"
            ax.text(2, y, words, va="center", fontsize=8)
        ax.set_yticks(range(len(used)), list(used), fontsize=8)
        ax.set(xlabel="in use (%)", xlim=(0, 100), ylim=(len(used) - 0.5, -0.5))
        ax.set_title("Given to jobs at work", fontsize=10, loc="left")
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        return ax


def picture(
    attempts: DataFrame,
    jobs: Mapping[str, int],
    used: Mapping[str, tuple[float, float | None]],
    *,
    now: Timestamp | None = None,
    title: str = "",
) -> Figure:
    """All three in one figure that pyplot does not manage, so that a notebook shows it only once, as a result."""
    from matplotlib.figure import Figure

    with clear_paper():
        tall = 1.0 + 0.24 * max(2, len(attempts)) if len(attempts) <= NAMED else 4.2
        figure = Figure(figsize=(9, tall + 2.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=[2.4, tall])
        counts(jobs, ax=figure.add_subplot(grid[0, 0]))
        usage(used, ax=figure.add_subplot(grid[0, 1]))
        timeline(attempts, now=now, ax=figure.add_subplot(grid[1, :]))
        if title:
            figure.suptitle(title.replace("$", r"\$"), fontsize=11)
        return figure


def _days(moments: Series[Any]) -> Any:
    """Days since 1970, matplotlib's unit of time."""
    import pandas as pd

    return ((moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy()


def _label(row: Series[Any]) -> str:
    """A bar's name, shortened, with dollar signs escaped so that it is not read as a formula."""
    name = " ".join(str(row["name"]).split()).replace("$", r"\$")
    name = name if len(name) <= 32 else f"{name[:31]}…"
    return name if row["attempt"] == 1 else f"{name} (attempt {row['attempt']})"
