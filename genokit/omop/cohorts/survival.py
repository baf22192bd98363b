"""Time from entering one cohort to entering another: Kaplan-Meier estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from genokit import disclosure, display
from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop.cohorts.cohort_data import CohortData, check_whole, strictest
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT, first_periods
from genokit.omop.cohorts.demographics import AgeGroups, at_entry, people
from genokit.omop.cohorts.incidence import Z

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 60  # of a curve: a step for each person would reveal each event


@dataclass(frozen=True, eq=False)
class TimeToEvent:
    """Kaplan-Meier curves. Everything shown is suppressed, except ``frame``.

    Parameters
    ----------
    target, outcome
        The names of the cohorts.
    frame
        The true numbers, for you only. A row for each group and point in time: group, persons, day, at_risk, events
        (until that day), free (the share without the event), low and high (its 95 % confidence limits).
    settings
        What was counted.
    min_cell
        The smallest count of persons to show.
    outcome_counts
        The counts on the outcome's card, from which no number may differ by few.
    hides_persons
        Whether the target's card hides how many persons it has; then nothing is shown.
    """

    target: str
    outcome: str
    frame: DataFrame = field(repr=False)
    settings: Mapping[str, Any]
    min_cell: int | None = None
    outcome_counts: tuple[int, ...] = ()
    hides_persons: bool = False

    def table(self) -> DataFrame:
        """The points that may be shown: none that, with the others, would reveal the outcome of a few persons."""
        first = self.frame.drop_duplicates("group")
        sizes = disclosure.suppress(first, ["persons", "at_risk"], by=["group"], min_cell=self.min_cell)
        parts = [self.frame.head(0)]
        for _, rows in self.frame.groupby("group", sort=False):
            at_risk, events = rows["at_risk"].tolist(), rows["events"].tolist()
            left = [at_risk[0] - at - had for at, had in zip(at_risk, events, strict=True)]
            # The persons of the group are shown elsewhere, so those left out must not be the rest of them.
            beside = [(rows["persons"].iloc[0], at_risk[0], *self.outcome_counts)] * len(rows)
            shown = disclosure.suppress_nested(at_risk, events, left, beside=beside, min_cell=self.min_cell)
            parts.append(rows[[n is not None for n in shown]])
        points = pd.concat(parts, ignore_index=True).drop(columns="persons")
        groups = sizes.loc[sizes["persons"].notna() & (not self.hides_persons), "group"]
        return points[points["group"].isin(groups)].reset_index(drop=True)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the share that has had the event, with 95 % confidence bands, on ``ax`` or in a new figure."""
        from genokit.plots import cohorts

        return cohorts.curves(self.table(), title=f"From {self.target} to {self.outcome}", ax=ax)

    def __repr__(self) -> str:
        return f"<TimeToEvent from {self.target} to {self.outcome}, {self.frame['group'].nunique()} groups>"

    def _repr_html_(self) -> str:
        about = {**self.settings, "small counts": disclosure.note(["day"], min_cell=self.min_cell)}
        fold = {"Numbers": display.table(self.table().round(3), most=200)}
        return display.card(f"From {self.target} to {self.outcome}", about, fold=fold)


def time_to(
    target: CohortData, outcome: CohortData, by: str | None, most_days: int, age_groups: AgeGroups
) -> TimeToEvent:
    """From each person's first entry to the first entry of the outcome; persons who had it before are left out."""
    check_whole("most_days", most_days, at_least=1)
    if by not in (None, "sex", "age_group"):
        raise InvalidParameters(f"There is no curve by '{by}'. {did_you_mean(str(by), ('sex', 'age_group'))}")
    min_cell = strictest(target, outcome)
    first = first_periods(target.spans)
    events = outcome.spans.groupby(SUBJECT)[START].min().rename("event").reset_index()
    rows = first.merge(events, on=SUBJECT, how="left")
    before = rows["event"] < rows[START]
    rows["group"] = "all" if by is None else at_entry(people(target.cdm), rows, age_groups)[by]
    persons = rows.groupby("group").size()
    rows = rows[~before]
    happened = rows["event"].notna() & (rows["event"] <= rows[END])
    ends = rows["event"].where(happened, rows[END])
    rows = rows.assign(days=(ends - rows[START]).dt.days, happened=happened)
    parts = [
        _curve(part, most_days).assign(group=group, persons=persons[group])
        for group, part in rows.groupby("group", sort=True)
    ]
    if not parts:
        raise InvalidParameters(f"Nobody in '{target.name}' is free of '{outcome.name}' at entry.")
    few = disclosure.differs_by_few(before.sum(), len(first), min_cell=min_cell)
    settings = {
        "from": f"the first entry of {target.name}",
        "to": f"the first entry of {outcome.name}",
        "left out": f"{disclosure.HIDDEN if few else f'{before.sum():,}'} persons who had it before",
    }
    names = ["group", "persons", "day", "at_risk", "events", "free", "low", "high"]
    frame = pd.concat(parts, ignore_index=True)[names]
    return TimeToEvent(target.name, outcome.name, frame, settings, min_cell, outcome.shown_counts, target.hides_persons)


def _curve(rows: DataFrame, most_days: int) -> DataFrame:
    """At points in time: how many are at risk, how many had the event until then, and the Kaplan-Meier estimate."""
    days, happened = rows["days"].to_numpy(dtype="int64"), rows["happened"].to_numpy(dtype=bool)
    times = np.unique(days[happened])  # (times,)
    ordered = np.sort(days)
    at_risk = len(days) - np.searchsorted(ordered, times, side="left")
    deaths = np.bincount(np.searchsorted(times, days[happened]), minlength=len(times))
    share = np.cumprod(1 - deaths / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(deaths / (at_risk * (at_risk - deaths)))
        half = Z * np.sqrt(greenwood) / np.abs(np.log(share))  # on the scale of log(-log), which stays within 0 and 1
        low, high = share ** np.exp(half), share ** np.exp(-half)
    points = np.unique(np.linspace(0, most_days, POINTS + 1).round().astype("int64"))
    at = np.searchsorted(times, points, side="right")  # events on the day of a point have happened
    free, low, high = (np.concatenate([[1.0], one])[at] for one in (share, low, high))
    left = len(days) - np.searchsorted(ordered, points, side="left")
    events = np.concatenate([[0], np.cumsum(deaths)])[at]
    columns = {"day": points, "at_risk": left, "events": events, "free": free, "low": low, "high": high}
    return pd.DataFrame(columns).fillna({"low": 0.0, "high": 0.0})
