"""Spans of days: who is in a cohort from when to when, and what spans have in common. Pure functions over frames.

A frame of spans has the columns of the CDM's table ``cohort``: subject_id, cohort_start_date and cohort_end_date, the
last day being one of the span's. Joined, no two spans of one person share a day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame, Series

WHO, START, END = "subject_id", "cohort_start_date", "cohort_end_date"
COLUMNS = [WHO, START, END]


def joined(spans: DataFrame) -> DataFrame:
    """The same days as spans of which no two overlap, by person and day.

    >>> import pandas as pd
    >>> days = pd.to_datetime(["2020-01-01", "2020-01-05", "2020-01-09"])
    >>> spans = pd.DataFrame({WHO: [7, 7, 7], START: days, END: days + pd.to_timedelta([4, 1, 0], "D")})
    >>> joined(spans)[[START, END]].astype(str).values.tolist()
    [['2020-01-01', '2020-01-06'], ['2020-01-09', '2020-01-09']]
    """
    ordered = spans[COLUMNS].sort_values([WHO, START, END], ignore_index=True)
    ended = ordered.groupby(WHO)[END].cummax().groupby(ordered[WHO]).shift()
    begins = ended.isna() | (ordered[START] > ended)
    parts = ordered.groupby(begins.cumsum())
    return parts.agg({WHO: "first", START: "first", END: "max"}).reset_index(drop=True)


def firsts(spans: DataFrame) -> DataFrame:
    """The first span of each person."""
    return spans.sort_values([WHO, START]).drop_duplicates(WHO)


def common(left: DataFrame, right: DataFrame) -> DataFrame:
    """The days that lie in both."""
    pairs = left[COLUMNS].merge(right[COLUMNS], on=WHO, suffixes=("", "_other"))
    starts = pairs[[START, f"{START}_other"]].max(axis=1)
    ends = pairs[[END, f"{END}_other"]].min(axis=1)
    pairs = pairs.assign(**{START: starts, END: ends})
    return joined(pairs[pairs[START] <= pairs[END]])


def without(left: DataFrame, right: DataFrame) -> DataFrame:
    """The days of ``left`` that do not lie in ``right``."""
    import pandas as pd

    day = pd.Timedelta(days=1)
    others = joined(right[right[WHO].isin(left[WHO])])
    first, last = left[START].min(), left[END].max()
    before = others.groupby(WHO)[END].shift() + day
    gaps = others.assign(**{START: before.fillna(first), END: others[START] - day})
    tails = others.groupby(WHO, as_index=False)[END].max()
    tails = tails.assign(**{START: tails[END] + day, END: last})
    free = pd.concat([gaps, tails])
    touched = left[WHO].isin(others[WHO])
    rest = common(left[touched], free[free[START] <= free[END]])
    return joined(pd.concat([left[~touched][COLUMNS], rest]))


def near(spans: DataFrame, others: DataFrame, low: float | None, high: float | None) -> Series[bool]:
    """Of each span, whether it begins ``low`` to ``high`` days after one of ``others`` does; None is any time."""
    numbered = spans.reset_index(drop=True).reset_index(names="row")
    pairs = numbered.merge(others[[WHO, START]], on=WHO, suffixes=("", "_other"))
    days = (pairs[START] - pairs[f"{START}_other"]).dt.days
    fits = days.notna()
    if low is not None:
        fits &= days >= low
    if high is not None:
        fits &= days <= high
    return numbered["row"].isin(pairs["row"][fits]).set_axis(spans.index)
