"""Incidence and prevalence of a cohort, by calendar interval, age group and sex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame

from genokit import disclosure, display
from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop.cohorts import person_time
from genokit.omop.cohorts.cohort_data import CohortData, read, strictest
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT, Dates, difference, intersection, merged
from genokit.omop.cohorts.demographics import AgeGroups, bands, births, sexes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EVERY = {"year": "YS", "quarter": "QS", "month": "MS", "decade": "10YS"}
PER = 100_000  # person-years
Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations
KEYS = ["interval", "age_group", "sex"]


@dataclass(frozen=True, eq=False)
class Rates:
    """Incidence or prevalence of a cohort. Everything shown is suppressed, except ``frame``.

    Parameters
    ----------
    measure
        "incidence" or "prevalence".
    name
        The name of the cohort.
    frame
        The true numbers, for you only: a row for each interval, age group and sex, and "all" of each.
    settings
        What was counted.
    min_cell
        The smallest count of persons to show.
    outcome_counts, population_counts
        The counts on the cards of the cohort and of its population, from which no number may differ by few.
    """

    measure: str
    name: str
    frame: DataFrame = field(repr=False)
    settings: Mapping[str, Any]
    min_cell: int | None = None
    outcome_counts: tuple[int, ...] = ()
    population_counts: tuple[int, ...] = ()

    def table(self) -> DataFrame:
        """The numbers that may be shown: small counts, counts that would reveal them, and their rates are missing."""
        shown = _incidence_shown if self.measure == "incidence" else _prevalence_shown
        return shown(self.frame, self.outcome_counts, self.population_counts, self.min_cell)

    def plot(self, *, by: str = "sex", ax: Axes | None = None) -> Axes:
        """Draw the rate over the intervals.

        Parameters
        ----------
        by
            A line for each "sex" or each "age_group".
        ax
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        InvalidParameters
            If ``by`` is neither.
        """
        from genokit.plots import cohorts

        if by not in KEYS[1:]:
            raise InvalidParameters(f"There is no picture by '{by}'. {did_you_mean(by, KEYS[1:])}")
        other = "age_group" if by == "sex" else "sex"
        shown = self.table()
        shown = shown[(shown[other] == "all") & (shown["interval"] != "all")]
        return cohorts.rates(shown.rename(columns={by: "group"}), unit=self._unit, title=self._title, ax=ax)

    @property
    def _unit(self) -> str:
        return f"new per {PER:,} person-years" if self.measure == "incidence" else "% of persons observed"

    @property
    def _title(self) -> str:
        return f"{self.measure.capitalize()} of {self.name}"

    def __repr__(self) -> str:
        return f"<Rates {self.measure} of {self.name}, {self.frame['interval'].nunique()} intervals>"

    def _repr_html_(self) -> str:
        counts = ["events" if self.measure == "incidence" else "cases", "persons"]
        shown = self.table()
        shown = shown[(shown["age_group"] == "all") | (shown["interval"] == "all")].reset_index(drop=True)
        shown = shown.drop(columns=["interval_start", "interval_end"]).round(1)
        about = {
            "rate": f"{self._unit}, with a 95 % confidence interval",
            "small counts": disclosure.note(KEYS, min_cell=self.min_cell),
            **self.settings,
        }
        numbers = display.table(disclosure.formatted(shown, counts, by=KEYS), most=200)
        return display.card(self._title, about, fold={"Numbers": numbers})


def incidence(
    outcome: CohortData, of: CohortData | None, every: str, age_groups: AgeGroups, between: Dates | None,
    washout_days: int | None, prior_observation_days: int,
) -> Rates:  # fmt: skip
    """New entries per person-years at risk. Without ``washout_days`` a person is no longer at risk after an entry, or
    after a record of which no entry was made."""
    days, people = _observed(outcome, of, prior_observation_days)
    intervals, ages = _intervals(days, every, between), bands(age_groups)
    had = outcome.spans
    if outcome.prior_records is not None:
        had = pd.concat([had, outcome.prior_records], ignore_index=True)
    until = pd.Timestamp("9999-12-31") if washout_days is None else had[END] + pd.Timedelta(days=washout_days)
    not_at_risk = had.assign(**{START: had[START] + pd.Timedelta(days=1), END: until})
    not_at_risk = not_at_risk[not_at_risk[START] <= not_at_risk[END]].astype({END: "datetime64[us]"})
    frame = person_time.incidence(difference(days, not_at_risk), people, outcome.spans, intervals, ages)
    frame["person_years"] = frame.pop("person_days") / 365.25
    years = frame["person_years"].where(frame["person_years"] > 0)
    low, high = _poisson(frame["events"])
    frame = frame.assign(rate=frame["events"] / years * PER, low=low / years * PER, high=high / years * PER)
    settings = {"at risk": of.name if of else "everyone observed", "each": every,
                "at risk again": "never" if washout_days is None else f"{washout_days} days after it ends",
                "observed before": f"{prior_observation_days} days"}  # fmt: skip
    return _rates("incidence", outcome, of, frame, settings)


def prevalence(
    outcome: CohortData, of: CohortData | None, every: str, age_groups: AgeGroups, between: Dates | None, point: bool
) -> Rates:
    """The share of the persons observed in an interval, or on its first day, who are in the cohort then."""
    days, people = _observed(outcome, of, 0)
    intervals, ages = _intervals(days, every, between), bands(age_groups)
    if point:
        intervals = intervals.assign(interval_end=intervals["interval_start"])
    frame = person_time.prevalence(days, people, intersection(days, outcome.spans), intervals, ages)
    frame["rate"] = frame["cases"] / frame["persons"].where(frame["persons"] > 0) * 100
    frame["low"], frame["high"] = _wilson(frame["cases"], frame["persons"])
    settings = {"of": of.name if of else "everyone observed", "each": f"first day of each {every}" if point else every}
    return _rates("prevalence", outcome, of, frame, settings)


def _rates(
    measure: str, outcome: CohortData, of: CohortData | None, frame: DataFrame, settings: Mapping[str, Any]
) -> Rates:
    population = of.shown_counts if of else ()
    return Rates(measure, outcome.name, frame, settings, strictest(outcome, of), outcome.shown_counts, population)


def _observed(outcome: CohortData, of: CohortData | None, prior_days: int) -> tuple[DataFrame, DataFrame]:
    """The days on which persons count, and the sex and date of birth of these persons."""
    rows = outcome.cdm.lookup(read("persons"), {})
    rows = rows[rows["year_of_birth"].notna()]  # without it a person is in no age group
    people = pd.DataFrame({SUBJECT: rows["person_id"], "sex": sexes(rows["gender_concept_id"]), "birth": births(rows)})
    begun = rows["observation_period_start_date"].astype("datetime64[us]") + pd.Timedelta(days=prior_days)
    days = pd.DataFrame(
        {SUBJECT: rows["person_id"], START: begun, END: rows["observation_period_end_date"].astype("datetime64[us]")}
    )
    days = days[days[START] <= days[END]]
    days = merged(days) if of is None else intersection(days, of.spans)
    return days, people[people[SUBJECT].isin(days[SUBJECT])].drop_duplicates(SUBJECT)


def _intervals(days: DataFrame, every: str, between: Dates | None) -> DataFrame:
    """The calendar intervals from the first day to the last; the outer ones are cut to the study's dates."""
    if every not in EVERY:
        raise InvalidParameters(f"There is no interval '{every}'. {did_you_mean(every, EVERY)}")
    low, high = between or (None, None)
    first = days[START].min() if low is None else pd.Timestamp(str(low))
    last = days[END].max() if high is None else pd.Timestamp(str(high))
    if days.empty or first > last:
        raise InvalidParameters(
            "Nobody is observed in the study period. Check the dates in 'between' and the cohort 'of'."
        )
    year = first.year - first.year % 10 if every == "decade" else first.year
    begins = pd.date_range(pd.Timestamp(year, 1, 1), last, freq=EVERY[every], unit="us")
    ends = [*(begins[1:] - pd.Timedelta(days=1)), last]
    intervals = pd.DataFrame({"interval_start": begins, "interval_end": pd.Series(ends, dtype="datetime64[us]")})
    intervals = intervals[intervals["interval_end"] >= first].reset_index(drop=True)
    starts = intervals["interval_start"]
    return intervals.assign(interval_start=starts.where(starts >= first, first))


def _incidence_shown(
    frame: DataFrame, outcome: Sequence[int], population: Sequence[int], min_cell: int | None
) -> DataFrame:
    """Hide persons with their person-time first, then events. Events and person-time add up over interval, age and
    sex; persons add up only as far as they do not reach another interval or age group."""
    persons = _by_keys(frame)
    sums = persons.copy()
    sums[:-1, 0] = sums[:-1, 1:].sum(axis=1)
    sums[-1] = sums[:-1].sum(axis=0)
    whole = frame.assign(days=(frame["person_years"] * 365.25).round(), sums=sums.ravel())
    hide = disclosure.differs_by_few(persons, *_totals(persons, 3), *population, min_cell=min_cell).ravel()
    time = disclosure.suppress(whole, ["days", "sums"], by=KEYS, total="all", hide=hide, min_cell=min_cell)
    gone = time["sums"].isna().to_numpy()[: len(frame)]
    hide = gone | disclosure.differs_by_few(frame["events"], frame["persons"], *outcome, min_cell=min_cell)
    shown = disclosure.suppress(
        frame, ["events"], by=KEYS, also=["rate", "low", "high"], total="all", hide=hide, min_cell=min_cell
    )
    at_risk = {"persons": frame["persons"].astype("Int64").mask(gone), "person_years": frame["person_years"].mask(gone)}
    return shown.head(len(frame)).assign(**at_risk)


def _prevalence_shown(
    frame: DataFrame, outcome: Sequence[int], population: Sequence[int], min_cell: int | None
) -> DataFrame:
    """Persons, cases and persons without it add up over age and sex."""
    persons = _by_keys(frame)
    hide = disclosure.differs_by_few(persons, *_totals(persons, 2), *population, min_cell=min_cell).ravel()
    hide |= disclosure.differs_by_few(frame["cases"], *outcome, min_cell=min_cell)
    shown = disclosure.suppress(
        frame.assign(others=frame["persons"] - frame["cases"]), ["persons", "cases", "others"], by=KEYS[1:],
        within=["interval"], also=["rate", "low", "high"], total="all", hide=hide, min_cell=min_cell,
    )  # fmt: skip
    return shown.drop(columns="others").head(len(frame))


def _by_keys(frame: DataFrame) -> Any:
    """The persons of each interval, age group and sex as an array of three axes."""
    return frame["persons"].to_numpy().reshape([frame[key].nunique() for key in KEYS])


def _totals(persons: Any, axes: int) -> Iterator[Any]:
    """The totals that each number is a part of, over the last axes: of a sex, an age group, all intervals."""
    for over in product([False, True], repeat=axes):
        total = persons
        for axis in (axis for axis, on in zip(range(3 - axes, 3), over, strict=True) if on):
            total = total.take([-1 if axis == 0 else 0], axis)
        yield total


def _poisson(events: Any) -> tuple[Any, Any]:
    """Byar's confidence limits of a count, which are near the exact ones.

    >>> import pandas as pd
    >>> [bound.round(1).tolist() for bound in _poisson(pd.Series([0, 10, 100]))]
    [[0.0, 4.8, 81.4], [3.7, 18.4, 121.6]]
    """
    n = events.astype("float64")
    low = n * (1 - 1 / (9 * n.where(n > 0)) - Z / (3 * n.where(n > 0) ** 0.5)) ** 3
    high = (n + 1) * (1 - 1 / (9 * (n + 1)) + Z / (3 * (n + 1) ** 0.5)) ** 3
    return low.fillna(0.0), high


def _wilson(cases: Any, persons: Any) -> tuple[Any, Any]:
    """Wilson's confidence limits of a share, in percent."""
    n = persons.astype("float64").where(persons > 0)
    share = cases / n
    middle = share + Z**2 / (2 * n)
    half = Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    return tuple(((middle + sign * half) / (1 + Z**2 / n) * 100).clip(0, 100) for sign in (-1, 1))
