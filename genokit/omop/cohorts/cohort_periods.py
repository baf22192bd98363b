"""Cohort periods: who is in a cohort from when to when, and what two sets of periods have in common.

A frame of periods has the columns of the CDM's table ``cohort``: subject_id, cohort_start_date and cohort_end_date; the
last day belongs to the period. In merged periods no two of one person share a day. All functions here are pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame, Series

from genokit.errors import InvalidParameters

Ints = NDArray[np.int64]

Days = float | tuple[float | None, float | None] | None  # at most so many days, or from and to
Dates = tuple[object, object]  # the first and the last, None for any
SUBJECT, START, END = "subject_id", "cohort_start_date", "cohort_end_date"
COLUMNS = [SUBJECT, START, END]
DAYS, YEAR_1 = 2**22, -719_162  # more days than until the year 9999; 0001-01-01 as days since 1970


def merged(periods: DataFrame) -> DataFrame:
    """Overlapping periods of a person as one, sorted by person and day.

    >>> import pandas as pd
    >>> days = pd.to_datetime(["2020-01-01", "2020-01-05", "2020-01-09"])
    >>> periods = pd.DataFrame({SUBJECT: [7, 7, 7], START: days, END: days + pd.to_timedelta([4, 1, 0], "D")})
    >>> merged(periods)[[START, END]].astype(str).values.tolist()
    [['2020-01-01', '2020-01-06'], ['2020-01-09', '2020-01-09']]
    """
    [person] = _numbered(periods)
    begin, end = _keys(person, periods[START]), _keys(person, periods[END])
    order = np.argsort(begin, kind="stable")
    begin, furthest = begin[order], np.maximum.accumulate(end[order])
    first = np.flatnonzero(np.append(True, begin[1:] > furthest[:-1])[: len(begin)])
    ends = np.append(first[1:], len(begin))[: len(first)] - 1
    return _frame(periods[SUBJECT].iloc[order[first]], begin[first], furthest[ends])


def first_periods(periods: DataFrame) -> DataFrame:
    """The first period of each person."""
    return periods.sort_values([SUBJECT, START]).drop_duplicates(SUBJECT)


def intersection(left: DataFrame, right: DataFrame) -> DataFrame:
    """The days in both, as merged periods."""
    right = merged(right)
    mine, others = _numbered(left, right)
    begin, end = _keys(mine, left[START]), _keys(mine, left[END])
    other_begin, other_end = _keys(others, right[START]), _keys(others, right[END])
    low, high = np.searchsorted(other_end, begin), np.searchsorted(other_begin, end, side="right")
    each = high - low  # so many of the other's periods, from low on
    row = np.repeat(np.arange(len(left)), each)
    other = np.arange(len(row)) + np.repeat(low - np.cumsum(each) + each, each)
    starts, ends = np.maximum(begin[row], other_begin[other]), np.minimum(end[row], other_end[other])
    return merged(_frame(left[SUBJECT].iloc[row], starts, ends))


def difference(left: DataFrame, right: DataFrame) -> DataFrame:
    """The days of ``left`` that are not in ``right``, as merged periods."""
    day = pd.Timedelta(days=1)
    others = merged(right[right[SUBJECT].isin(left[SUBJECT])])
    first, last = left[START].min(), left[END].max()
    before = others.groupby(SUBJECT)[END].shift() + day
    gaps = others.assign(**{START: before.fillna(first), END: others[START] - day})
    tails = others.groupby(SUBJECT, as_index=False)[END].max()
    tails = tails.assign(**{START: tails[END] + day, END: last})
    free = pd.concat([gaps, tails])
    touched = left[SUBJECT].isin(others[SUBJECT])
    rest = intersection(left[touched], free[free[START] <= free[END]])
    return merged(pd.concat([left[~touched][COLUMNS], rest]))


def starts_near(periods: DataFrame, others: DataFrame, low: float | None, high: float | None) -> Series[bool]:
    """Whether each period begins ``low`` to ``high`` days after one of ``others``; a bound of None is unlimited."""
    mine, theirs = _numbered(periods, others)
    starts = np.append(np.sort(_keys(theirs, others[START])), np.iinfo("int64").max)
    day = _keys(mine, periods[START]) % DAYS
    since = 0 if high is None else np.clip(day - np.floor(high), 0, DAYS - 1).astype("int64")
    until = DAYS - 1 if low is None else np.clip(day - np.ceil(low), -1, DAYS - 1).astype("int64")
    found = starts[np.searchsorted(starts, mine * DAYS + since)]
    return pd.Series(found <= mine * DAYS + until, index=periods.index)


def censored(periods: DataFrame, by: DataFrame) -> DataFrame:
    """The periods, ended on the day on which one of ``by`` next begins."""
    mine, others = _numbered(periods, by)
    starts = np.append(np.sort(_keys(others, by[START])), np.iinfo("int64").max)
    begin = _keys(mine, periods[START])
    return _frame(
        periods[SUBJECT], begin, np.minimum(_keys(mine, periods[END]), starts[np.searchsorted(starts, begin)])
    )


def period_at_start(periods: DataFrame, others: DataFrame) -> Ints:
    """The position of the merged period that contains the first day of each row of ``others``; -1 if none does."""
    mine, theirs = _numbered(periods, others)
    begin = _keys(theirs, others[START])
    place = np.searchsorted(_keys(mine, periods[START]), begin, side="right") - 1
    ends = np.append(_keys(mine, periods[END]), -1)  # for position -1: no period
    return np.where(begin <= ends[place], place, -1)


def day_numbers(times: Series[Any]) -> Ints:
    """Days since 1970-01-01."""
    return times.to_numpy(dtype="datetime64[D]").astype("int64")


def bounds(days: Days) -> tuple[float | None, float | None]:
    """The first and the last day; a single number is as many days before as after.

    >>> bounds(30), bounds((0, None)), bounds(None)
    ((-30, 30), (0, None), (None, None))
    """
    low, high = days if isinstance(days, tuple) and len(days) == 2 else (days, days)
    for one in (low, high):
        if one is not None and (isinstance(one, bool) or not isinstance(one, (int, float))):
            raise InvalidParameters(f"'days' is {days!r}. Give a number of days, or two bounds, as in (0, 30).")
    if not isinstance(days, tuple):
        if low is not None and low < 0:
            raise InvalidParameters(f"'days' is {days!r}. For the days before, give both bounds, as in (-30, -1).")
        low = None if low is None else -low
    return low, high


def in_words(days: Days) -> str:
    """As in "0 to 30 days after".

    >>> in_words((0, 30)), in_words((-30, -1)), in_words(7)
    ('0 to 30 days after', '1 to 30 days before', '7 days of')
    """
    if days is None:
        return "any time of"
    if not isinstance(days, tuple):
        return f"{days:g} days of"
    low, high = days
    if low is not None and high is not None and high < 0:
        return f"{-high:g} to {-low:g} days before"
    words = [" any time" if one is None else f"{one:g}" for one in (low, high)]
    return f"{words[0]} to {words[1]} days after".strip()


def _numbered(*frames: DataFrame) -> list[Ints]:
    """The persons of several frames, numbered alike in all of them, in the order of their ids."""
    everyone = np.concatenate([frame[SUBJECT].to_numpy(dtype="int64") for frame in frames])
    _, numbers = np.unique(everyone, return_inverse=True)
    return np.split(numbers, np.cumsum([len(frame) for frame in frames])[:-1])


def _keys(person: Ints, times: Series[Any]) -> Ints:
    """Person and day as one number, which sorts by person, then day."""
    return person * DAYS + day_numbers(times) - YEAR_1


def _frame(who: Series[Any], begin: Ints, end: Ints) -> DataFrame:
    """Periods from the keys of their first and last days."""
    first, last = ((key % DAYS + YEAR_1).astype("datetime64[D]").astype("datetime64[us]") for key in (begin, end))
    return pd.DataFrame({SUBJECT: who.array, START: first, END: last}).astype({SUBJECT: "Int64"})
