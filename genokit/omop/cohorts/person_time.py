"""Person-time: how many persons, days and events fall into each calendar interval, age group and sex.

The work does not grow with the number of intervals: a period adds one at the day, or interval, in which it begins and
subtracts one after its end, and running sums give who is present. Days are numbers, counted from 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT, Ints, day_numbers, period_at_start
from genokit.omop.cohorts.demographics import Band


class _Periods:
    """Merged periods with the sex and birth of their persons, sorted by person and day; and the calendar intervals."""

    def __init__(self, periods: DataFrame, people: DataFrame, intervals: DataFrame) -> None:
        self.frame = periods.merge(people, on=SUBJECT)
        self.person = self.frame[SUBJECT].to_numpy(dtype="int64")
        self.first, self.last = day_numbers(self.frame[START]), day_numbers(self.frame[END])
        self.sexes = sorted(people["sex"].unique())
        self.sex = self.frame["sex"].map(self.sexes.index).to_numpy(dtype="int64")  # position in sexes
        self.birth = self.frame["birth"].to_numpy(dtype="datetime64[D]")
        self.begins, self.ends = (day_numbers(intervals[name]) for name in ("interval_start", "interval_end"))

    def aged(self, band: Sequence[Any]) -> tuple[Ints, Ints]:
        """For each period, the first and the last day on which its person is in an age group."""
        month = self.birth.astype("datetime64[M]")
        day = (self.birth - month).astype("int64")  # born on 29 February: a year older on 1 March
        low, high = (
            (month + np.timedelta64(12 * years, "M")).astype("datetime64[D]").astype("int64")
            for years in (band[0], band[1] + 1)
        )
        return low + day, high + day - 1

    def intervals(self, rows: Ints, first: Ints, last: Ints) -> tuple[Ints, Ints]:
        """The first and the last interval of each part of a period, without intervals in which the same person's part
        before it is: each person counts once in an interval."""
        low = np.searchsorted(self.ends, first)
        high = np.searchsorted(self.begins, last, side="right") - 1
        again = np.flatnonzero(np.diff(self.person[rows]) == 0) + 1
        low[again] = np.maximum(low[again], high[again - 1] + 1)
        return low, high

    def present(self, rows: Ints, low: Ints, high: Ints, size: int) -> Ints:
        """How many rows are present at each of ``size`` positions, being present from low to high: (size, sexes)."""
        some = low <= high
        sex, cells = self.sex[rows[some]], (size + 1) * len(self.sexes)
        come, gone = (np.bincount(at[some] * len(self.sexes) + sex, minlength=cells) for at in (low, high + 1))
        counts: Ints = (come - gone).reshape(size + 1, -1).cumsum(axis=0)[:-1]
        return counts


def incidence(
    at_risk: DataFrame, people: DataFrame, events: DataFrame, intervals: DataFrame, ages: Sequence[Band]
) -> DataFrame:
    """Persons, person_days and events by interval, age_group and sex, and all totals.

    ``at_risk`` are merged periods, ``people`` the sex and birth of each person; an event counts if it happens at risk.
    ``intervals`` are calendar intervals without gaps.
    """
    periods = _Periods(at_risk, people, intervals)
    begin, end = periods.begins[0], periods.ends[-1]
    happened, at = day_numbers(events[START]), period_at_start(periods.frame, events)
    happened, at = happened[at >= 0], at[at >= 0]
    shape = (len(intervals) + 1, len(ages) + 1, len(periods.sexes) + 1)
    counts = {name: np.zeros(shape, dtype="int64") for name in ("persons", "person_days", "events")}
    groups: list[Sequence[Sequence[Any]]] = [_together(ages), *([band] for band in ages)]
    for a, bands in enumerate(groups):
        parts = []
        for low_day, high_day in map(periods.aged, bands):
            first = np.maximum(np.maximum(periods.first, low_day), begin)
            last = np.minimum(np.minimum(periods.last, high_day), end)
            rows = np.flatnonzero(first <= last)
            parts.append(np.stack([rows, first[rows], last[rows]]))
            now = (happened >= first[at]) & (happened <= last[at])
            interval = np.searchsorted(periods.begins, happened[now], side="right") - 1
            np.add.at(counts["events"], (interval, a, periods.sex[at[now]] + 1), 1)
        whole = np.concatenate(parts, axis=1)
        rows, first, last = whole[:, np.argsort(whole[0], kind="stable")]
        counts["persons"][:-1, a, 1:] = periods.present(rows, *periods.intervals(rows, first, last), len(intervals))
        once = rows[np.append(True, np.diff(periods.person[rows]) != 0)[: len(rows)]]
        counts["persons"][-1, a, 1:] = np.bincount(periods.sex[once], minlength=len(periods.sexes))
        until = periods.present(rows, first - begin, last - begin, int(end - begin) + 1).cumsum(axis=0)
        counts["person_days"][:-1, a, 1:] = np.diff(until[periods.ends - begin], axis=0, prepend=0)
    for name in ("person_days", "events"):
        counts[name][-1] = counts[name].sum(axis=0)
    return _frame(counts, intervals, ages, periods.sexes)


def prevalence(
    observed: DataFrame, people: DataFrame, cases: DataFrame, intervals: DataFrame, ages: Sequence[Band]
) -> DataFrame:
    """Persons and cases by interval, age_group on the person's first day in it, and sex, and all totals over both.

    ``observed`` are merged periods, ``people`` the sex and birth of each person, ``cases`` periods within ``observed``.
    """
    periods = _Periods(observed, people, intervals)
    every = np.arange(len(periods.person))
    low, high = periods.intervals(every, periods.first, periods.last)
    day = np.maximum(periods.first, periods.begins[np.minimum(low, len(intervals) - 1)])  # the first in interval low
    at = period_at_start(periods.frame, cases)
    begin, end = periods.intervals(at, day_numbers(cases[START]), day_numbers(cases[END]))
    ill = pd.DataFrame({"person": periods.person[at], "begin": begin, "end": end})
    pairs = ill.merge(pd.DataFrame({"person": periods.person, "row": every}), on="person")
    rows, begin, end = (pairs[name].to_numpy() for name in ("row", "begin", "end"))
    shape = (len(intervals), len(ages) + 1, len(periods.sexes) + 1)
    counts = {name: np.zeros(shape, dtype="int64") for name in ("persons", "cases")}
    for a, (low_day, high_day) in enumerate(map(periods.aged, ages), 1):
        since = np.where(day >= low_day, low, np.maximum(low + 1, np.searchsorted(periods.begins, low_day)))
        until = np.searchsorted(periods.begins, high_day, side="right") - 1
        until = np.where(day <= high_day, np.minimum(high, np.maximum(low, until)), low - 1)
        counts["persons"][:, a, 1:] = periods.present(every, since, until, len(intervals))
        both = np.maximum(since[rows], begin), np.minimum(until[rows], end)
        counts["cases"][:, a, 1:] = periods.present(rows, *both, len(intervals))
    for count in counts.values():
        count[:, 0] = count[:, 1:].sum(axis=1)
    return _frame(counts, intervals, ages, periods.sexes)


def _frame(counts: Mapping[str, Ints], intervals: DataFrame, ages: Sequence[Band], sexes: Sequence[str]) -> DataFrame:
    """Counts by interval, age and sex as rows, with the sums over the sexes first."""
    for count in counts.values():
        count[..., 0] = count[..., 1:].sum(axis=-1)
    starts = [*intervals["interval_start"], pd.NaT][: max(map(len, counts.values()))]
    groups = ["all", *(name for *_, name in ages)]
    grid = pd.MultiIndex.from_product([starts, groups, ["all", *sexes]], names=["interval_start", "age_group", "sex"])
    rows = grid.to_frame(index=False).assign(**{name: count.ravel() for name, count in counts.items()})
    rows.insert(1, "interval_end", rows["interval_start"].map(intervals.set_index("interval_start")["interval_end"]))
    rows.insert(0, "interval", rows["interval_start"].dt.strftime("%Y-%m-%d").fillna("all"))
    return rows


def _together(ages: Sequence[Band]) -> list[tuple[int, int]]:
    """The ages of all groups, adjacent groups as one.

    >>> _together([(0, 17, "0-17"), (18, 39, "18-39"), (65, 150, "65+")])
    [(0, 39), (65, 150)]
    """
    starts = [0, *(i for i, (one, other) in enumerate(pairwise(ages), 1) if one[1] + 1 < other[0]), len(ages)]
    return [(ages[i][0], ages[j - 1][1]) for i, j in pairwise(starts)]
