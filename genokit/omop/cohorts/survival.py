"""How long it takes from one cohort to another: Kaplan and Meier's estimate of who is still free of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit import disclosure
from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop.cohorts import cohort_entry
from genokit.omop.cohorts.cohort import least
from genokit.omop.cohorts.cohort_entry import ages, people, sexes
from genokit.omop.cohorts.cohort_periods import END, START, WHO, firsts
from genokit.omop.cohorts.incidence import Z

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.omop.cohorts.cohort import Cohort

POINTS = 60  # of a curve: a step for each person would tell of each


@dataclass(frozen=True, eq=False)
class TimeToEvent:
    """Curves of the persons still free of an event: ``frame`` has the true numbers and is for you, the rest is
    suppressed."""

    target: str
    outcome: str
    frame: DataFrame = field(repr=False)
    settings: Mapping[str, Any]
    min_cell: int | None = None
    card: tuple[int, ...] = ()  # what that of the outcome may tell
    hidden: bool = False  # that of the target does not tell how many there are, so that groups of them would

    def table(self) -> DataFrame:
        """The points that may be told: none from which, with the others, a few persons' fate could be read."""
        import pandas as pd

        first = self.frame.drop_duplicates("group")
        told = disclosure.suppress(first, ["persons", "at_risk"], by=["group"], min_cell=self.min_cell)
        parts = [self.frame.head(0)]
        for _, rows in self.frame.groupby("group", sort=False):
            at_risk, events = rows["at_risk"].tolist(), rows["events"].tolist()
            left = [at_risk[0] - at - had for at, had in zip(at_risk, events, strict=True)]
            # The persons of the group are told elsewhere, so those left out must not be what is left of them.
            beside = [(rows["persons"].iloc[0], at_risk[0], *self.card)] * len(rows)
            shown = disclosure.steps(at_risk, events, left, beside=beside, min_cell=self.min_cell)
            parts.append(rows[[one is not None for one in shown]])
        found = pd.concat(parts, ignore_index=True).drop(columns="persons")
        groups = told.loc[told["persons"].notna() & (not self.hidden), "group"]
        return found[found["group"].isin(groups)].reset_index(drop=True)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """The share that has had the event, by days since entry, with 95 % confidence bands."""
        from genokit.plots import cohorts

        return cohorts.curves(self.table(), title=f"From {self.target} to {self.outcome}", ax=ax)

    def __repr__(self) -> str:
        return f"<TimeToEvent from {self.target} to {self.outcome}, {self.frame['group'].nunique()} groups>"

    def _repr_html_(self) -> str:
        from genokit import display

        about = {**self.settings, "shown": disclosure.note(["day"], min_cell=self.min_cell)}
        fold = {"Numbers": display.table(self.table().round(3), most=200)}
        return display.card(f"From {self.target} to {self.outcome}", about, fold=fold)


def time_to(
    target: Cohort, outcome: Cohort, *, by: str | None, most_days: int, age_groups: Sequence[tuple[int, int]]
) -> TimeToEvent:
    """From each person's first entry to the first entry of the outcome; who had it before is left out."""
    import pandas as pd

    if isinstance(most_days, bool) or not isinstance(most_days, int) or most_days < 1:
        raise InvalidParameters(f"'most_days' is {most_days!r}. Give a whole number of days, 1 or more.")
    if by not in (None, "sex", "age_group"):
        raise InvalidParameters(f"There is no curve by '{by}'. {did_you_mean(str(by), ('sex', 'age_group'))}")
    first = firsts(target.spans)
    events = outcome.spans.groupby(WHO)[START].min().rename("event").reset_index()
    rows = first.merge(events, on=WHO, how="left")
    before = rows["event"] < rows[START]
    rows = rows.assign(group=_groups(target, rows, by, age_groups))
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
        raise InvalidParameters(f"Nobody in '{target.name}' is free of '{outcome.name}' at first.")
    few = disclosure.near(before.sum(), len(first), min_cell=least(target, outcome))
    before_told = disclosure.HIDDEN if few else f"{before.sum():,}"
    settings = {
        "from": f"the first entry of {target.name}",
        "to": f"the first entry of {outcome.name}",
        "left out": f"{before_told} persons who had it before",
    }
    names = ["group", "persons", "day", "at_risk", "events", "free", "low", "high"]
    return TimeToEvent(
        target.name,
        outcome.name,
        pd.concat(parts, ignore_index=True)[names],
        settings,
        least(target, outcome),
        outcome.card,
        target.hidden,
    )


def _groups(target: Cohort, rows: DataFrame, by: str | None, age_groups: Sequence[tuple[int, int]]) -> Any:
    if by is None:
        return "all"
    mine = people(target.cdm).reindex(rows[WHO]).set_axis(rows.index)
    if by == "sex":
        return sexes(mine["gender_concept_id"])
    return cohort_entry.age_groups(ages(mine, rows[START]), age_groups).fillna("other")


def _curve(rows: DataFrame, most_days: int) -> DataFrame:
    """At points in time: who is still at risk, how many events there were until then, and Kaplan and Meier's share."""
    import numpy as np
    import pandas as pd

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
    at = np.searchsorted(times, points, side="right")  # events on a point's day have happened
    with_first = [np.concatenate([[1.0], one]) for one in (share, low, high)]
    return pd.DataFrame(
        {
            "day": points,
            "at_risk": len(days) - np.searchsorted(ordered, points, side="left"),
            "events": np.concatenate([[0], np.cumsum(deaths)])[at],
            "free": with_first[0][at],
            "low": np.nan_to_num(with_first[1][at], nan=0.0),
            "high": np.nan_to_num(with_first[2][at], nan=0.0),
        }
    )
