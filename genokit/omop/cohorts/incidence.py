"""How often something begins, and how many have it: incidence and prevalence by calendar interval, age and sex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from genokit import disclosure
from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop.cohorts import person_time
from genokit.omop.cohorts.cohort import least
from genokit.omop.cohorts.cohort_entry import bands, births, read, sexes
from genokit.omop.cohorts.cohort_periods import END, START, WHO, common, joined, without

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.omop.cohorts.cohort import Cohort

EVERY = {"year": "YS", "quarter": "QS", "month": "MS", "decade": "10YS"}
PER = 100_000
Z = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations
KEYS = ["interval", "age_group", "sex"]


@dataclass(frozen=True, eq=False)
class Rates:
    """Incidence or prevalence of a cohort: ``frame`` has the true numbers and is for you; all else is suppressed."""

    what: str
    name: str
    frame: DataFrame = field(repr=False)
    settings: Mapping[str, Any]
    min_cell: int | None = None
    cards: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # what those of the outcome and of ``of`` may tell

    def table(self) -> DataFrame:
        """The numbers that may be told: small counts are missing, what would give them back, and rates of them."""
        shown = _incidence_shown if self.what == "incidence" else _prevalence_shown
        return shown(self.frame, *self.cards, self.min_cell)

    def plot(self, *, by: str = "sex", ax: Axes | None = None) -> Axes:
        """The rate over the intervals, a line for each sex, or with ``by="age_group"`` for each age."""
        from genokit.plots import cohorts

        if by not in KEYS[1:]:
            raise InvalidParameters(f"There is no picture by '{by}'. {did_you_mean(by, KEYS[1:])}")
        other = "age_group" if by == "sex" else "sex"
        shown = self.table()
        shown = shown[(shown[other] == "all") & (shown["interval"] != "all")]
        return cohorts.rates(shown.rename(columns={by: "group"}), unit=self._unit, title=self._title, ax=ax)

    @property
    def _unit(self) -> str:
        return f"new per {PER:,} person-years" if self.what == "incidence" else "% of persons observed"

    @property
    def _title(self) -> str:
        return f"{self.what.capitalize()} of {self.name}"

    def __repr__(self) -> str:
        return f"<Rates {self.what} of {self.name}, {self.frame['interval'].nunique()} intervals>"

    def _repr_html_(self) -> str:
        from genokit import display

        counts = ["events" if self.what == "incidence" else "cases", "persons"]
        shown = self.table()
        shown = shown[(shown["age_group"] == "all") | (shown["interval"] == "all")].reset_index(drop=True)
        shown = shown.drop(columns=["interval_start", "interval_end"]).round(1)
        written = disclosure.written(shown, counts, by=KEYS)
        about = {
            "rate": f"{self._unit}, with a 95 % confidence interval",
            "shown": disclosure.note(KEYS, min_cell=self.min_cell),
            **self.settings,
        }
        return display.card(self._title, about, fold={"Numbers": display.table(written, most=200)})


def incidence(
    outcome: Cohort,
    *,
    of: Cohort | None,
    every: str,
    age_groups: Sequence[tuple[int, int]],
    between: tuple[object, object] | None,
    washout_days: int | None,
    prior_observation_days: int,
) -> Rates:
    """New entries per person-years at risk. Without ``washout_days`` who had one is never at risk again: nor is who
    had a record of which no entry was made."""
    import pandas as pd

    days, people = _observed(outcome, of, prior_observation_days)
    parts, ages = _parts(days, every, between), bands(age_groups)
    had = outcome.spans if outcome.prior is None else pd.concat([outcome.spans, outcome.prior], ignore_index=True)
    until = pd.Timestamp("9999-12-31") if washout_days is None else had[END] + pd.Timedelta(days=washout_days)
    not_at_risk = had.assign(**{START: had[START] + pd.Timedelta(days=1), END: until})
    not_at_risk = not_at_risk[not_at_risk[START] <= not_at_risk[END]].astype({END: "datetime64[us]"})
    found = person_time.incidence(without(days, not_at_risk), people, outcome.spans, parts, ages)
    found["person_years"] = found.pop("person_days") / 365.25
    found["rate"] = found["events"] / found["person_years"].where(found["person_years"] > 0) * PER
    low, high = _poisson(found["events"])
    found["low"], found["high"] = (bound / found["person_years"].where(found["person_years"] > 0) * PER
                                   for bound in (low, high))  # fmt: skip
    settings = {"at risk": of.name if of else "all who are observed", "each": every,
                "at risk again": "never" if washout_days is None else f"{washout_days} days after it ends",
                "observed before": f"{prior_observation_days} days"}  # fmt: skip
    return Rates("incidence", outcome.name, found, settings, least(outcome, of), (outcome.card, of.card if of else ()))


def prevalence(
    outcome: Cohort,
    *,
    of: Cohort | None,
    every: str,
    age_groups: Sequence[tuple[int, int]],
    between: tuple[object, object] | None,
    point: bool,
) -> Rates:
    """The share of the persons observed in an interval, or on its first day, who are in the cohort then."""
    days, people = _observed(outcome, of, 0)
    parts, ages = _parts(days, every, between), bands(age_groups)
    if point:
        parts = parts.assign(interval_end=parts["interval_start"])
    found = person_time.prevalence(days, people, common(days, outcome.spans), parts, ages)
    found["rate"] = found["cases"] / found["persons"].where(found["persons"] > 0) * 100
    found["low"], found["high"] = _wilson(found["cases"], found["persons"])
    settings = {"of": of.name if of else "all who are observed",
                "each": f"first day of each {every}" if point else every}  # fmt: skip
    return Rates("prevalence", outcome.name, found, settings, least(outcome, of), (outcome.card, of.card if of else ()))


def _observed(outcome: Cohort, of: Cohort | None, prior_days: int) -> tuple[DataFrame, DataFrame]:
    """The days on which persons may be counted, and the sex and day of birth of these persons."""
    import pandas as pd

    rows = outcome.cdm.lookup(read("persons"), {})
    rows = rows[rows["year_of_birth"].notna()]  # who has no age is in no group
    people = pd.DataFrame({WHO: rows["person_id"], "sex": sexes(rows["gender_concept_id"]), "birth": births(rows)})
    begun = rows["observation_period_start_date"].astype("datetime64[us]") + pd.Timedelta(days=prior_days)
    days = pd.DataFrame(
        {WHO: rows["person_id"], START: begun, END: rows["observation_period_end_date"].astype("datetime64[us]")}
    )
    days = days[days[START] <= days[END]]
    days = joined(days) if of is None else common(days, of.spans)
    return days, people[people[WHO].isin(days[WHO])].drop_duplicates(WHO)


def _parts(days: DataFrame, every: str, between: tuple[object, object] | None) -> DataFrame:
    """The calendar intervals from the first day to the last; the outer ones are cut where the study is."""
    import pandas as pd

    if every not in EVERY:
        raise InvalidParameters(f"There is no interval '{every}'. {did_you_mean(every, EVERY)}")
    low, high = between or (None, None)
    first = days[START].min() if low is None else pd.Timestamp(str(low))
    last = days[END].max() if high is None else pd.Timestamp(str(high))
    if days.empty or first > last:
        raise InvalidParameters(
            "There are no days to count in: nobody is observed, or 'between' ends before it begins."
        )
    year = first.year - first.year % 10 if every == "decade" else first.year
    begins = pd.date_range(pd.Timestamp(year, 1, 1), last, freq=EVERY[every], unit="us")
    ends = [*(begins[1:] - pd.Timedelta(days=1)), last]
    parts = pd.DataFrame({"interval_start": begins, "interval_end": pd.Series(ends, dtype="datetime64[us]")})
    parts = parts[parts["interval_end"] >= first]
    return parts.assign(
        interval_start=parts["interval_start"].where(parts["interval_start"] >= first, first)
    ).reset_index(drop=True)


def _incidence_shown(frame: DataFrame, card: Sequence[int], of: Sequence[int], min_cell: int | None) -> DataFrame:
    """Events and person-time add up over all three, and persons as far as they don't grow older or live on; persons go
    with their time, and events with both."""
    rates = ["rate", "low", "high"]
    persons = frame["persons"].to_numpy().reshape([frame[key].nunique() for key in KEYS])
    sums = persons.copy()
    sums[:-1, 0] = sums[:-1, 1:].sum(axis=1)
    sums[-1] = sums[:-1].sum(axis=0)
    whole = frame.assign(days=(frame["person_years"] * 365.25).round(), sums=sums.ravel())
    hide = disclosure.near(persons, *_totals(persons, 3), *of, min_cell=min_cell).ravel()
    time = disclosure.suppress(whole, ["days", "sums"], by=KEYS, total="all", hide=hide, min_cell=min_cell)
    gone = time["sums"].isna().to_numpy()[: len(frame)]
    hide = gone | disclosure.near(frame["events"], frame["persons"], *card, min_cell=min_cell)
    shown = disclosure.suppress(frame, ["events"], by=KEYS, also=rates, total="all", hide=hide, min_cell=min_cell)
    told = {"persons": frame["persons"].astype("Int64").mask(gone), "person_years": frame["person_years"].mask(gone)}
    return shown.head(len(frame)).assign(**told)


def _prevalence_shown(frame: DataFrame, card: Sequence[int], of: Sequence[int], min_cell: int | None) -> DataFrame:
    """Persons add up over age and sex, cases and the others too."""
    whole = frame.assign(others=frame["persons"] - frame["cases"])
    persons = frame["persons"].to_numpy().reshape([frame[key].nunique() for key in KEYS])
    hide = disclosure.near(persons, *_totals(persons, 2), *of, min_cell=min_cell).ravel()
    shown = disclosure.suppress(
        whole, ["persons", "cases", "others"], by=["age_group", "sex"], within=["interval"],
        also=["rate", "low", "high"], total="all", min_cell=min_cell,
        hide=hide | disclosure.near(frame["cases"], *card, min_cell=min_cell),
    )  # fmt: skip
    return shown.drop(columns="others").head(len(frame))


def _totals(persons: Any, axes: int) -> Iterator[Any]:
    """The numbers of which each is a part, over the last of the columns: all of a sex, of an age, in all intervals."""
    for over in product([False, True], repeat=axes):
        part = persons
        for axis in (axis for axis, on in zip(range(3 - axes, 3), over, strict=True) if on):
            part = part.take([-1 if axis == 0 else 0], axis)
        yield part


def _poisson(events: Any) -> tuple[Any, Any]:
    """Byar's bounds of a count, near the exact ones.

    >>> import pandas as pd
    >>> [bound.round(1).tolist() for bound in _poisson(pd.Series([0, 10, 100]))]
    [[0.0, 4.8, 81.4], [3.7, 18.4, 121.6]]
    """
    n = events.astype("float64")
    low = n * (1 - 1 / (9 * n.where(n > 0)) - Z / (3 * n.where(n > 0) ** 0.5)) ** 3
    high = (n + 1) * (1 - 1 / (9 * (n + 1)) + Z / (3 * (n + 1) ** 0.5)) ** 3
    return low.fillna(0.0), high


def _wilson(cases: Any, persons: Any) -> tuple[Any, Any]:
    """Wilson's bounds of a share, in percent."""
    n = persons.astype("float64").where(persons > 0)
    share = cases / n
    middle = share + Z**2 / (2 * n)
    half = Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    return tuple(((middle + sign * half) / (1 + Z**2 / n) * 100).clip(0, 100) for sign in (-1, 1))
