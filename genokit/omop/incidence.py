"""How often something begins, and how many have it: incidence and prevalence by calendar interval, age and sex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit.backends import database
from genokit.databases import Duck
from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop import disclosure
from genokit.omop.cohort import least
from genokit.omop.entry import bands, read, sexes
from genokit.omop.spans import END, START, WHO, common

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.omop.cohort import Cohort

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

    def table(self) -> DataFrame:
        """The numbers that may be told: small counts are missing, what would give them back, and rates of them."""
        if self.what == "incidence":
            return _incidence_shown(self.frame, self.min_cell)
        return _prevalence_shown(self.frame, self.min_cell)

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
    """New entries per person-years at risk. Without ``washout_days`` who had one is never at risk again."""
    import pandas as pd

    days = _observed(outcome, of, prior_observation_days)
    parts = _parts(days, every, between)
    begun = outcome.spans.rename(columns={WHO: "person_id", START: "day"})
    forever = pd.Timestamp("9999-12-31")
    again = forever if washout_days is None else begun[END] + pd.Timedelta(days=washout_days + 1)
    tables = {"observed": days, "part": parts, "age": _ages(age_groups),
              "event": begun.assign(again=again)[["person_id", "day", "again"]]}  # fmt: skip
    found = _complete(_asked("incidence", tables, ("day", "again")), parts, age_groups, days)
    found["person_years"] = found.pop("person_days") / 365.25
    found["rate"] = found["events"] / found["person_years"].where(found["person_years"] > 0) * PER
    low, high = _poisson(found["events"])
    found["low"], found["high"] = (bound / found["person_years"].where(found["person_years"] > 0) * PER
                                   for bound in (low, high))  # fmt: skip
    settings = {"at risk": of.name if of else "all who are observed", "each": every,
                "at risk again": "never" if washout_days is None else f"{washout_days} days after it ends",
                "observed before": f"{prior_observation_days} days"}  # fmt: skip
    return Rates("incidence", outcome.name, found, settings, least(outcome, of))


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
    days = _observed(outcome, of, 0)
    parts = _parts(days, every, between)
    if point:
        parts = parts.assign(interval_end=parts["interval_start"])
    spans = outcome.spans.rename(columns={WHO: "person_id", START: "first_day", END: "last_day"})
    tables = {"observed": days, "part": parts, "age": _ages(age_groups), "case_span": spans}
    found = _complete(_asked("prevalence", tables, ()), parts, age_groups, days)
    found = found[found["interval"] != "all"].reset_index(drop=True)
    found["rate"] = found["cases"] / found["persons"].where(found["persons"] > 0) * 100
    found["low"], found["high"] = _wilson(found["cases"], found["persons"])
    settings = {"of": of.name if of else "all who are observed",
                "each": f"first day of each {every}" if point else every}  # fmt: skip
    return Rates("prevalence", outcome.name, found, settings, least(outcome, of))


def _observed(outcome: Cohort, of: Cohort | None, prior_days: int) -> DataFrame:
    """The days on which persons may be counted, with their sex and day of birth."""
    import pandas as pd

    rows = outcome.cdm.lookup(read("persons"), {})
    born = {"year": rows["year_of_birth"], "month": rows["month_of_birth"].fillna(1),
            "day": rows["day_of_birth"].fillna(1)}  # fmt: skip
    people = pd.DataFrame(
        {
            WHO: rows["person_id"],
            "sex": sexes(rows["gender_concept_id"]),
            "birth": pd.to_datetime(pd.DataFrame(born).astype("int64")).astype("datetime64[us]"),
        }
    )
    begun = rows["observation_period_start_date"].astype("datetime64[us]") + pd.Timedelta(days=prior_days)
    days = pd.DataFrame(
        {WHO: rows["person_id"], START: begun, END: rows["observation_period_end_date"].astype("datetime64[us]")}
    )
    days = days[days[START] <= days[END]]
    if of is not None:
        days = common(days, of.spans)
    found = days.merge(people.drop_duplicates(WHO), on=WHO)
    return found.rename(columns={WHO: "person_id", START: "first_day", END: "last_day"})


def _parts(days: DataFrame, every: str, between: tuple[object, object] | None) -> DataFrame:
    """The calendar intervals from the first day to the last; the outer ones are cut where the study is."""
    import pandas as pd

    if every not in EVERY:
        raise InvalidParameters(f"There is no interval '{every}'. {did_you_mean(every, EVERY)}")
    low, high = between or (None, None)
    first = days["first_day"].min() if low is None else pd.Timestamp(str(low))
    last = days["last_day"].max() if high is None else pd.Timestamp(str(high))
    if pd.isna(first) or pd.isna(last) or first > last:
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


def _ages(groups: Sequence[tuple[int, int]]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame(bands(groups), columns=["low", "high", "age_group"])


def _asked(name: str, tables: Mapping[str, DataFrame], days: Sequence[str]) -> DataFrame:
    """A query over frames, in a DuckDB of its own; times are days."""
    duck = database(":memory:")
    assert isinstance(duck, Duck)
    for table, frame in tables.items():
        dates = [name for name, kind in frame.dtypes.items() if getattr(kind, "kind", "") == "M" or name in days]
        casts = ", ".join(f'cast("{name}" as date) as "{name}"' for name in dates)
        duck.con.register(f"{table}_given", frame)
        duck.con.execute(f"create table {table} as select * replace ({casts}) from {table}_given" if casts else
                         f"create table {table} as select * from {table}_given")  # fmt: skip
    found: DataFrame = duck.con.execute(read(name)).df()
    duck.con.close()
    return found


def _complete(found: DataFrame, parts: DataFrame, groups: Sequence[tuple[int, int]], days: DataFrame) -> DataFrame:
    """A row for each interval, age group and sex, and for all of each, with zeros where there was nobody."""
    import pandas as pd

    starts = [*parts["interval_start"], pd.NaT]
    ages = ["all", *_ages(groups)["age_group"]]
    sexes = ["all", *sorted(days["sex"].unique())]
    grid = pd.MultiIndex.from_product([starts, ages, sexes], names=["interval_start", "age_group", "sex"])
    counts = [name for name in found.columns if name not in grid.names]
    found = found.astype({"interval_start": "datetime64[us]"})
    whole = grid.to_frame(index=False).merge(found, on=list(grid.names), how="left")
    whole[counts] = whole[counts].fillna(0).astype("int64")
    ends = parts.set_index("interval_start")["interval_end"]
    whole.insert(1, "interval_end", whole["interval_start"].map(ends))
    label = whole["interval_start"].dt.strftime("%Y-%m-%d").fillna("all")
    whole.insert(0, "interval", label)
    return whole


def _incidence_shown(frame: DataFrame, min_cell: int | None) -> DataFrame:
    """Events add up over all three; persons over sexes only, as they grow older and live through intervals."""
    rates = ["rate", "low", "high"]
    events = disclosure.suppress(frame, ["events"], by=KEYS, also=rates, total="all", min_cell=min_cell)
    events = events.head(len(frame))
    persons = disclosure.suppress(
        frame, ["persons"], by=["sex"], within=["interval", "age_group"], total="all", min_cell=min_cell
    ).head(len(frame))
    gone = events["events"].isna() | persons["persons"].isna()
    shown = frame.assign(events=events["events"], persons=persons["persons"])
    for name in ("events", *rates):
        shown[name] = shown[name].mask(gone)
    shown["person_years"] = shown["person_years"].mask(persons["persons"].isna())
    return shown


def _prevalence_shown(frame: DataFrame, min_cell: int | None) -> DataFrame:
    """Persons add up over age and sex, cases and the others too."""
    whole = frame.assign(others=frame["persons"] - frame["cases"])
    shown = disclosure.suppress(
        whole, ["persons", "cases", "others"], by=["age_group", "sex"], within=["interval"],
        also=["rate", "low", "high"], total="all", min_cell=min_cell,
    )  # fmt: skip
    return shown.drop(columns="others")


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
