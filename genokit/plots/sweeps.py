"""The trials of a sweep: their parameters and results, and how each of them learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from genokit.errors import InvalidParameters, did_you_mean
from genokit.plots.learning import TRAINING, VALIDATION
from genokit.plots.paper import INK, axes_on_clear_paper, blank

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

COLOURS = (TRAINING, "#A48BB5", VALIDATION)  # from poor to good, each legible on white and on black
DECADE = 10  # the largest value by the smallest above which an axis is logarithmic
TICKS = 6  # up to so many different numbers, each is a tick
WORDS = 12  # texts that an axis has room for


def parallel_coordinates(
    table: DataFrame, columns: Sequence[str], colour_by: str, *, unit: str = "", largest: bool = True,
    ax: Axes | None = None
) -> Axes:  # fmt: skip
    """Draw each trial of a sweep as a line across one axis per parameter, coloured by its result.

    Each numeric axis has a scale of its own, logarithmic if its values span more than a decade; any other axis has one
    place per value. The best trial is drawn strong, with stars. A trial without a finite result has failed: its line is
    grey and dashed.

    Parameters
    ----------
    table : DataFrame
        One row per trial; the index names it.
    columns : sequence of str
        The columns that get an axis, from left to right. Where a value is missing, the line has a gap.
    colour_by : str
        The column with the result, a number. The colours end where poor outliers begin (1.5 interquartile ranges).
    unit : str
        The unit of the result; "%" shows fractions as percentages. Default: none.
    largest : bool
        Whether the largest result is the best, as of an accuracy (default), or the smallest, as of a loss.
    ax : Axes, optional
        Where to draw. Default: a new figure.

    Returns
    -------
    Axes
        The axes with the lines; those of the parameters lie above it.

    Raises
    ------
    InvalidParameters
        The table lacks one of the columns.

    Examples
    --------
    >>> import pandas as pd
    >>> trials = pd.DataFrame({"rate": [0.01, 0.5], "engine": ["mxnet", "numpy"], "accuracy": [0.9, None]})
    >>> parallel_coordinates(trials, ["rate", "engine"], "accuracy", unit="%").get_title("left")
    '2 trials, 1 failed; best: trial 0, 90 %'
    """
    import numpy as np
    from matplotlib import cm, colors, ticker

    if unknown := [name for name in (*columns, colour_by) if name not in table]:
        known = did_you_mean(unknown[0], map(str, table.columns))
        raise InvalidParameters(f"The table of the trials has no column '{unknown[0]}'. {known}")
    if not len(table) or not columns:
        return blank(ax, "No trials.")
    table = table.replace([np.inf, -np.inf], np.nan)
    result = table[colour_by].to_numpy(float, na_value=np.nan)
    failed = np.isnan(result)
    order = np.argsort(result if largest else -result)[: (~failed).sum()]  # NaN come last; the best is drawn last
    with axes_on_clear_paper(ax, 1.9 * len(columns) + 2, 4) as ax:
        alpha = min(0.6, max(0.25, 25 / len(table)))
        heights = np.column_stack([_axis(ax, place, table[name]) for place, name in enumerate(columns)])
        ax.plot(heights[failed].T, color=INK, ls="--", lw=1, alpha=alpha)
        if len(order):
            worst, best = result[order[[0, -1]]]
            near, far = np.percentile(result[order], [25, 75] if largest else [75, 25])
            end = np.clip(near - 1.5 * (far - near), *sorted([worst, best]))  # beyond it are poor outliers
            shown = colors.LinearSegmentedColormap.from_list("", COLOURS if largest else COLOURS[::-1])
            shades = cm.ScalarMappable(colors.Normalize(*sorted([end, best])), shown)
            for trial in order:
                ax.plot(heights[trial], color=shades.to_rgba(result[trial]), alpha=alpha)
            ax.plot(heights[order[-1]], "-*", color=VALIDATION, lw=3, ms=13, clip_on=False)
            if worst != best:
                extend = "neither" if end == worst else "min" if largest else "max"
                label = colour_by.replace("_", " ") + (unit and f" ({unit})")
                ax.figure.colorbar(shades, ax=ax, extend=extend, pad=0.1, label=label,
                                   format=ticker.PercentFormatter(1.0, symbol="") if unit == "%" else None)  # fmt: skip
        ax.set(xlim=(0, max(1, len(columns) - 1)), ylim=(0, 1), yticks=[])
        ax.set_xticks(range(len(columns)), labels=columns)
        ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, pad=6)
        ax.spines[:].set_visible(False)
        ax.set_title(_title(table.index[order], result[order], len(table), unit), loc="left", fontsize=10)
        return ax


def learning_curves(tables: Mapping[str, DataFrame] | Sequence[DataFrame], *, ax: Axes | None = None) -> Axes:
    """Draw the validation accuracy of each trial of a sweep over its completed epochs: the best strong, others pale.

    The best trial is the one with the largest accuracy after its last epoch. A trial without any has failed.

    Parameters
    ----------
    tables : mapping of str to DataFrame, or sequence of DataFrame
        The table of each trial, as ``train.History.table``: epoch (from 0) and validation_accuracy (0 to 1; where it is
        missing, the line has a gap). A mapping names the trials; in a sequence they are numbered from 0.
    ax : Axes, optional
        Where to draw. Default: a new figure.

    Returns
    -------
    Axes
        The axes with one line per trial, the best one last.

    Examples
    --------
    >>> import pandas as pd
    >>> ended = [pd.DataFrame({"epoch": [0, 1], "validation_accuracy": [0.8, last]}) for last in (0.9, 0.95)]
    >>> learning_curves([*ended, ended[0][:0]]).get_title("left")
    '3 trials, 1 failed; best: trial 1, 95 %'
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    named = dict(tables) if isinstance(tables, Mapping) else dict(enumerate(tables))
    curves = {name: table.set_index(table["epoch"] + 1)["validation_accuracy"] for name, table in named.items()}
    last = {name: float(curve.dropna().iloc[-1]) for name, curve in curves.items() if curve.notna().any()}
    if not last:
        return blank(ax, "No trial has completed an epoch.")
    order = sorted(last, key=lambda name: last[name])
    with axes_on_clear_paper(ax, 7, 4) as ax:
        for name in order[:-1]:
            ax.plot(curves[name], color=TRAINING, lw=1, marker=".", alpha=min(0.6, max(0.2, 15 / len(last))))
        ax.plot(curves[order[-1]], color=VALIDATION, lw=2.5, marker="o")
        ax.set(xlabel="completed epochs", ylabel="validation accuracy (%)", xlim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        ax.grid(alpha=0.3)
        ax.set_title(_title(order, sorted(last.values()), len(named), "%"), loc="left", fontsize=10)
        return ax


def _axis(ax: Axes, place: int, values: Series) -> np.ndarray:
    """Draw the axis of a column at this place; returns where on it each value lies, from 0 to 1."""
    import numpy as np
    from matplotlib.ticker import LogLocator
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    axis = ax.twinx()
    axis.spines[:].set_visible(False)
    side: Literal["left", "right"] = "right" if place else "left"  # beside the first axis, where no line passes
    axis.spines[side].set(position=("data", place), visible=True)
    axis.yaxis.set_ticks_position(side)
    if is_numeric_dtype(values) and not is_bool_dtype(values):
        names, numbers = [], values.to_numpy(float, na_value=np.nan)
    else:
        names = sorted(values.dropna().map(str).unique())
        numbers = values.map(lambda value: names.index(str(value)), na_action="ignore").to_numpy(float)
    ticks = np.unique(numbers[~np.isnan(numbers)])
    if not names and len(ticks) and 0 < DECADE * ticks[0] < ticks[-1]:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.update_datalim([(place, tick) for tick in ticks])
    axis.set_ymargin(0.06)
    axis.autoscale_view(scalex=False)
    if names or len(ticks) <= TICKS:
        every = -(-len(ticks) // WORDS) or 1
        axis.set_yticks(ticks[::every], labels=(names or [f"{tick:.3g}" for tick in ticks])[::every], va="bottom")
    axis.minorticks_off()
    axis.tick_params(labelsize=8)
    points = np.column_stack([np.zeros(len(numbers)), numbers])
    return np.asarray((axis.transScale + axis.transLimits).transform(points)[:, 1])


def _title(names: Any, results: Any, trials: int, unit: str) -> str:
    """The trials that did not fail are given by name and result, the best one last."""
    failed = f", {trials - len(names):,} failed" if len(names) < trials else ""
    words = f"{trials:,} trial{'' if trials == 1 else 's'}{failed}"
    if not len(names):
        return words
    best = f"{100 * results[-1]:.4g} %" if unit == "%" else f"{results[-1]:.4g} {unit}".rstrip()
    return f"{words}; best: trial {names[-1]}, {best}"
