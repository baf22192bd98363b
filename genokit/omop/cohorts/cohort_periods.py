"""Spans of days: who is in a cohort from when to when, and what spans have in common. Pure functions over frames.

A frame of spans has the columns of the CDM's table ``cohort``: subject_id, cohort_start_date and cohort_end_date, the
last day being one of the span's. Joined, no two spans of one person share a day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

    Ints = NDArray[np.int64]

WHO, START, END = "subject_id", "cohort_start_date", "cohort_end_date"
COLUMNS = [WHO, START, END]
DAYS, YEAR_1 = 2**22, -719_162  # more days than there are until 9999, and its first, from 1970


def joined(spans: DataFrame) -> DataFrame:
    """The same days as spans of which no two overlap, by person and day.

    >>> import pandas as pd
    >>> days = pd.to_datetime(["2020-01-01", "2020-01-05", "2020-01-09"])
    >>> spans = pd.DataFrame({WHO: [7, 7, 7], START: days, END: days + pd.to_timedelta([4, 1, 0], "D")})
    >>> joined(spans)[[START, END]].astype(str).values.tolist()
    [['2020-01-01', '2020-01-06'], ['2020-01-09', '2020-01-09']]
    """
    import numpy as np

    [person] = _numbered(spans)
    begin, end = _keys(person, spans[START]), _keys(person, spans[END])
    order = np.argsort(begin, kind="stable")
    begin, furthest = begin[order], np.maximum.accumulate(end[order])
    first = np.flatnonzero(np.append(True, begin[1:] > furthest[:-1])[: len(begin)])
    ends = np.append(first[1:], len(begin))[: len(first)] - 1
    return _frame(spans[WHO].iloc[order[first]], begin[first], furthest[ends])


def firsts(spans: DataFrame) -> DataFrame:
    """The first span of each person."""
    return spans.sort_values([WHO, START]).drop_duplicates(WHO)


def common(left: DataFrame, right: DataFrame) -> DataFrame:
    """The days that lie in both."""
    import numpy as np

    right = joined(right)
    mine, others = _numbered(left, right)
    begin, end = _keys(mine, left[START]), _keys(mine, left[END])
    other_begin, other_end = _keys(others, right[START]), _keys(others, right[END])
    low, high = np.searchsorted(other_end, begin), np.searchsorted(other_begin, end, side="right")
    each = high - low  # of the other's spans, those from low on
    row = np.repeat(np.arange(len(left)), each)
    other = np.arange(len(row)) + np.repeat(low - np.cumsum(each) + each, each)
    starts, ends = np.maximum(begin[row], other_begin[other]), np.minimum(end[row], other_end[other])
    return joined(_frame(left[WHO].iloc[row], starts, ends))


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
    import numpy as np
    import pandas as pd

    mine, theirs = _numbered(spans, others)
    starts = np.append(np.sort(_keys(theirs, others[START])), np.iinfo("int64").max)
    day = _keys(mine, spans[START]) % DAYS
    since = 0 if high is None else np.clip(day - np.floor(high), 0, DAYS - 1).astype("int64")
    until = DAYS - 1 if low is None else np.clip(day - np.ceil(low), -1, DAYS - 1).astype("int64")
    found = starts[np.searchsorted(starts, mine * DAYS + since)]
    return pd.Series(found <= mine * DAYS + until, index=spans.index)


def censored(spans: DataFrame, by: DataFrame) -> DataFrame:
    """Spans that end on the day when ``by`` next begins, if it does."""
    import numpy as np

    mine, others = _numbered(spans, by)
    starts = np.append(np.sort(_keys(others, by[START])), np.iinfo("int64").max)
    begin = _keys(mine, spans[START])
    return _frame(spans[WHO], begin, np.minimum(_keys(mine, spans[END]), starts[np.searchsorted(starts, begin)]))


def holding(spans: DataFrame, others: DataFrame) -> Ints:
    """For each of ``others``, the place of the span in which it begins, -1 where it does in none; these are joined."""
    import numpy as np

    mine, theirs = _numbered(spans, others)
    begin = _keys(theirs, others[START])
    place = np.searchsorted(_keys(mine, spans[START]), begin, side="right") - 1
    ends = np.append(_keys(mine, spans[END]), -1)  # which is what stands at -1
    return np.where(begin <= ends[place], place, -1)


def days(times: Series[Any]) -> Ints:
    """Days as numbers, from 1970."""
    return times.to_numpy(dtype="datetime64[D]").astype("int64")


def _numbered(*frames: DataFrame) -> list[Ints]:
    """The persons of frames as numbers, the same in all, in the order of their ids."""
    import numpy as np

    everyone = np.concatenate([frame[WHO].to_numpy(dtype="int64") for frame in frames])
    _, numbers = np.unique(everyone, return_inverse=True)
    return np.split(numbers, np.cumsum([len(frame) for frame in frames])[:-1])


def _keys(person: Ints, times: Series[Any]) -> Ints:
    """Person and day as one number, which is in the order of both."""
    return person * DAYS + days(times) - YEAR_1


def _frame(who: Series[Any], begin: Ints, end: Ints) -> DataFrame:
    """Spans from the keys of their first and last days."""
    import pandas as pd

    first, last = ((key % DAYS + YEAR_1).astype("datetime64[D]").astype("datetime64[us]") for key in (begin, end))
    return pd.DataFrame({WHO: who.array, START: first, END: last}).astype({WHO: "Int64"})
