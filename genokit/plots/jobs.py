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

MOST = 30  # attempts of the timeline at most


def picture(
    attempts: DataFrame,
    jobs: Mapping[str, int],
    used: Mapping[str, tuple[float, float | None]],
    *,
    now: Timestamp,
    title: str = "",
) -> Figure:
    """Jobs by status, what they use, and a timeline, in a figure that pyplot does not manage.

    So a notebook shows it only once, as a result. ``attempts`` has one row per attempt: name, attempt, status, started,
    stopped (NaT while it runs), in UTC; ``used`` by label what is in use and in total (None: unknown).
    """
    from matplotlib.figure import Figure

    with clear_paper():
        tall = 1.0 + 0.24 * min(MOST, max(2, len(attempts)))
        figure = Figure(figsize=(9, tall + 2.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=[2.4, tall])
        _counts(figure.add_subplot(grid[0, 0]), jobs)
        _usage(figure.add_subplot(grid[0, 1]), used)
        _timeline(figure.add_subplot(grid[1, :]), attempts, now)
        if title:
            figure.suptitle(title.replace("$", r"\$"), fontsize=11)
        return figure


def _counts(ax: Axes, jobs: Mapping[str, int]) -> None:
    """The number of jobs in each status, in the order of a job's life."""
    from matplotlib.ticker import MaxNLocator

    numbers = [jobs.get(status, 0) for status in STATUS_COLOURS]
    bars = ax.barh(list(STATUS_COLOURS), numbers, color=list(STATUS_COLOURS.values()), height=0.72)
    ax.bar_label(bars, [f"{number:,}" for number in numbers], padding=3, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="jobs", xlim=(0, max([1, *numbers]) * 1.15))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    _dress(ax, f"{sum(numbers):,} job{'' if sum(numbers) == 1 else 's'}")


def _usage(ax: Axes, used: Mapping[str, tuple[float, float | None]]) -> None:
    """How much of the environments is allocated to jobs."""
    for y, (part, whole) in enumerate(used.values()):
        ax.barh(y, 100, color="#80808026", height=0.6)
        if whole:
            ax.barh(y, min(100 * part / whole, 100), color=STATUS_COLOURS["RUNNING"], height=0.6, alpha=0.55)
        words = f"{part:,.4g} of {whole:,.4g}" if whole else f"{part:,.4g}, of an unknown size"
        ax.text(2, y, words, va="center", fontsize=8)
    ax.set_yticks(range(len(used)), list(used))
    ax.set(xlabel="in use (%)", xlim=(0, 100), ylim=(len(used) - 0.5, -0.5))
    _dress(ax, "Given to jobs at work")


def _timeline(ax: Axes, attempts: DataFrame, now: Timestamp) -> None:
    """One bar per attempt, the newest at most, from its start to its end or to now, the earliest on top."""
    from matplotlib import dates

    rows = attempts.sort_values("started", kind="stable").tail(MOST)
    left, right = (_days(rows[end].fillna(now)) for end in ("started", "stopped"))
    span = max(right.max() - left.min() if len(rows) else 0.0, 1 / 86400)
    first = left.min() if len(rows) else now.timestamp() / 86400 - span
    fills = [STATUS_COLOURS.get(status, INK) for status in rows["status"]]
    ax.barh(range(len(rows)), (right - left).clip(span / 500), left=left, color=fills, height=0.72)
    for y, status in enumerate(rows["status"]):
        if status == "FAILED":  # a symbol in addition to the colour
            ax.annotate("✕", (right[y], y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), [_label(row) for _, row in rows.iterrows()])
    ax.set(xlabel="time (UTC)", xlim=(first - 0.02 * span, first + 1.05 * span), ylim=(max(len(rows), 1) - 0.5, -0.5))
    ax.xaxis_date("UTC")
    clock = dates.ConciseDateFormatter(ax.xaxis.get_major_locator(), tz="UTC")  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_formatter(clock)
    ax.grid(axis="x", alpha=0.3)
    _dress(ax, "Attempts" if len(attempts) <= MOST else f"The newest {MOST} of {len(attempts):,} attempts")


def _days(moments: Series[Any]) -> Any:
    """Days since 1970, matplotlib's unit of time."""
    return moments.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 86_400e9


def _dress(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=10, loc="left")
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _label(row: Series[Any]) -> str:
    """A bar's name, shortened, with dollar signs escaped so that it is not read as a formula."""
    name = " ".join(str(row["name"]).split()).replace("$", r"\$")
    name = name if len(name) <= 32 else f"{name[:31]}…"
    return name if row["attempt"] == 1 else f"{name} (attempt {row['attempt']})"
