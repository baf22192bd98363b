"""Person-time: how many persons, days and events lie in each calendar interval, age group and sex.

Nothing here grows with the number of intervals: a span counts one from the day, or the interval, in which it begins
and one less after its end, and running sums tell who is there. Days are numbers, from 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from genokit.omop.cohorts.cohort_periods import END, START, WHO, days, holding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    Ints = NDArray[np.int64]

Band = tuple[int, int, str]  # completed years, from and to, and what they are called


@dataclass(frozen=True)
class _Study:
    """Spans by person and day, no two of one person with a day in common, and the intervals to count in."""

    spans: DataFrame
    person: Ints
    first: Ints
    last: Ints
    sex: Ints  # its place among the sexes
    birth: Any  # days
    sexes: list[str]
    begins: Ints
    ends: Ints

    def aged(self, band: Sequence[Any]) -> tuple[Ints, Ints]:
        """For each span, the first and the last day on which its person is of these ages."""
        import numpy as np

        month = self.birth.astype("datetime64[M]")
        day = (self.birth - month).astype("int64")  # who was born on 29 February is a year older on 1 March
        low, high = (
            (month + np.timedelta64(12 * years, "M")).astype("datetime64[D]").astype("int64")
            for years in (band[0], band[1] + 1)
        )
        return low + day, high + day - 1

    def intervals(self, rows: Ints, first: Ints, last: Ints) -> tuple[Ints, Ints]:
        """The first and the last interval that each part of a span is in; none in which the part before it is, of the
        same person: each person is in an interval once."""
        import numpy as np

        low = np.searchsorted(self.ends, first)
        high = np.searchsorted(self.begins, last, side="right") - 1
        again = np.flatnonzero(np.diff(self.person[rows]) == 0) + 1
        low[again] = np.maximum(low[again], high[again - 1] + 1)
        return low, high

    def there(self, rows: Ints, low: Ints, high: Ints, places: int) -> Ints:
        """How many are at each of so many places, if they are from ``low`` to ``high``: (places, sexes)."""
        import numpy as np

        some = low <= high
        sex, size = self.sex[rows[some]], (places + 1) * len(self.sexes)
        come, gone = (np.bincount(at[some] * len(self.sexes) + sex, minlength=size) for at in (low, high + 1))
        found: Ints = (come - gone).reshape(places + 1, -1).cumsum(axis=0)[:-1]
        return found


def incidence(
    spans: DataFrame, people: DataFrame, events: DataFrame, parts: DataFrame, ages: Sequence[Band]
) -> DataFrame:
    """Persons, person_days and events by interval, age_group and sex, and all of each together.

    ``spans`` are the days at risk, ``people`` the sex and birth of each person; an event counts on one of its person's
    days. ``parts`` are intervals without gaps.
    """
    import numpy as np

    study = _study(spans, people, parts)
    begin, end = study.begins[0], study.ends[-1]
    happened, at = days(events[START]), holding(study.spans, events)
    happened, at = happened[at >= 0], at[at >= 0]
    shape = (len(parts) + 1, len(ages) + 1, len(study.sexes) + 1)
    counts = {name: np.zeros(shape, dtype="int64") for name in ("persons", "person_days", "events")}
    groups: list[Sequence[Sequence[Any]]] = [_together(ages), *([band] for band in ages)]
    for a, bands in enumerate(groups):
        found = []
        for low_day, high_day in map(study.aged, bands):
            first = np.maximum(np.maximum(study.first, low_day), begin)
            last = np.minimum(np.minimum(study.last, high_day), end)
            rows = np.flatnonzero(first <= last)
            found.append(np.stack([rows, first[rows], last[rows]]))
            now = (happened >= first[at]) & (happened <= last[at])
            part = np.searchsorted(study.begins, happened[now], side="right") - 1
            np.add.at(counts["events"], (part, a, study.sex[at[now]] + 1), 1)
        whole = np.concatenate(found, axis=1)
        rows, first, last = whole[:, np.argsort(whole[0], kind="stable")]
        counts["persons"][:-1, a, 1:] = study.there(rows, *study.intervals(rows, first, last), len(parts))
        once = rows[np.append(True, np.diff(study.person[rows]) != 0)[: len(rows)]]
        counts["persons"][-1, a, 1:] = np.bincount(study.sex[once], minlength=len(study.sexes))
        until = study.there(rows, first - begin, last - begin, int(end - begin) + 1).cumsum(axis=0)
        counts["person_days"][:-1, a, 1:] = np.diff(until[study.ends - begin], axis=0, prepend=0)
    for name in ("person_days", "events"):
        counts[name][-1] = counts[name].sum(axis=0)
    return _frame(counts, parts, ages, study.sexes)


def prevalence(
    spans: DataFrame, people: DataFrame, cases: DataFrame, parts: DataFrame, ages: Sequence[Band]
) -> DataFrame:
    """Persons and cases by interval, age_group on the person's first day in it, and sex.

    ``spans`` are the days observed, ``people`` the sex and birth of each person, ``cases`` spans that lie in the days.
    """
    import numpy as np
    import pandas as pd

    study = _study(spans, people, parts)
    every = np.arange(len(study.person))
    low, high = study.intervals(every, study.first, study.last)
    day = np.maximum(study.first, study.begins[np.minimum(low, len(parts) - 1)])  # the first in the first interval
    at = holding(study.spans, cases)
    begin, end = study.intervals(at, days(cases[START]), days(cases[END]))
    ill = pd.DataFrame({"person": study.person[at], "begin": begin, "end": end})
    pairs = ill.merge(pd.DataFrame({"person": study.person, "row": every}), on="person")
    rows, begin, end = (pairs[name].to_numpy() for name in ("row", "begin", "end"))
    shape = (len(parts), len(ages) + 1, len(study.sexes) + 1)
    counts = {name: np.zeros(shape, dtype="int64") for name in ("persons", "cases")}
    for a, (low_day, high_day) in enumerate(map(study.aged, ages), 1):
        since = np.where(day >= low_day, low, np.maximum(low + 1, np.searchsorted(study.begins, low_day)))
        until = np.searchsorted(study.begins, high_day, side="right") - 1
        until = np.where(day <= high_day, np.minimum(high, np.maximum(low, until)), low - 1)
        counts["persons"][:, a, 1:] = study.there(every, since, until, len(parts))
        both = np.maximum(since[rows], begin), np.minimum(until[rows], end)
        counts["cases"][:, a, 1:] = study.there(rows, *both, len(parts))
    for found in counts.values():
        found[:, 0] = found[:, 1:].sum(axis=1)
    return _frame(counts, parts, ages, study.sexes)


def _study(spans: DataFrame, people: DataFrame, parts: DataFrame) -> _Study:
    sexes = sorted(people["sex"].unique())
    known = spans.merge(people, on=WHO)
    return _Study(
        known,
        known[WHO].to_numpy(dtype="int64"),
        days(known[START]),
        days(known[END]),
        known["sex"].map({name: i for i, name in enumerate(sexes)}).to_numpy(dtype="int64"),
        known["birth"].to_numpy(dtype="datetime64[D]"),
        sexes,
        days(parts["interval_start"]),
        days(parts["interval_end"]),
    )


def _frame(counts: Mapping[str, Ints], parts: DataFrame, ages: Sequence[Band], sexes: Sequence[str]) -> DataFrame:
    """Counts by interval, age and sex as rows; of the first sex, the sums of the others."""
    import pandas as pd

    for found in counts.values():
        found[..., 0] = found[..., 1:].sum(axis=-1)
    starts = [*parts["interval_start"], pd.NaT][: max(map(len, counts.values()))]
    groups = ["all", *(name for *_, name in ages)]
    grid = pd.MultiIndex.from_product([starts, groups, ["all", *sexes]], names=["interval_start", "age_group", "sex"])
    rows = grid.to_frame(index=False).assign(**{name: found.ravel() for name, found in counts.items()})
    rows.insert(1, "interval_end", rows["interval_start"].map(parts.set_index("interval_start")["interval_end"]))
    rows.insert(0, "interval", rows["interval_start"].dt.strftime("%Y-%m-%d").fillna("all"))
    return rows


def _together(ages: Sequence[Band]) -> list[tuple[int, int]]:
    """The ages of all groups.

    >>> _together([(0, 17, "0-17"), (18, 39, "18-39"), (65, 150, "65+")])
    [(0, 39), (65, 150)]
    """
    starts = [0, *(i for i, (one, other) in enumerate(pairwise(ages), 1) if one[1] + 1 < other[0]), len(ages)]
    return [(ages[i][0], ages[j - 1][1]) for i, j in pairwise(starts)]
