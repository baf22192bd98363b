"""How persons enter a cohort: records of concepts, then one condition after another, each counted as it is met.

The order is always this: records; the first ever, or none in the days before; observed then, and long enough before;
age, sex and time; then the end, and overlapping entries as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop.cohorts.cohort_periods import END, START, WHO, censored, joined
from genokit.omop.concepts import Concept, ConceptSet

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from genokit.omop.cdm import Cdm

QUERIES = Path(__file__).parent / "sql"
AGES = ((0, 17), (18, 39), (40, 64), (65, 150))
SEXES = {"male": 8507, "female": 8532}
Concepts = ConceptSet | Concept | int | Sequence[int]
Window = tuple[float | None, float | None]


@dataclass(frozen=True)
class Step:
    """What was asked of persons, and how many of them and of their entries met it; not for the eyes of others."""

    reason: str
    persons: int
    entries: int
    whole: bool = False  # it is the last one of a cohort that is shown by itself, too
    beside: tuple[
        int, ...
    ] = ()  # persons of other cohorts that are shown, of which these are some, or which are of these


@dataclass(frozen=True)
class Entry:
    """What a cohort asks for; ``Cdm.cohort`` says what each part means."""

    concepts: Mapping[str, Concepts | Literal[True]]  # by domain; True is a death of any cause
    value: Window | None = None
    first_only: bool = False
    washout_days: int | None = None
    prior_observation_days: int = 0
    age_at_entry: Window | None = None
    sex: str | int | None = None
    entered: tuple[Any, Any] | None = None
    end: str | int = "observation"

    def __post_init__(self) -> None:
        for name in ("washout_days", "prior_observation_days"):
            days = getattr(self, name)
            if days is not None and (isinstance(days, bool) or not isinstance(days, int) or days < 0):
                raise InvalidParameters(f"'{name}' is {days!r}. Give a whole number of days, 0 or more.")
        for name in ("age_at_entry", "value", "entered"):
            window = getattr(self, name)
            if window is not None and not (isinstance(window, (tuple, list)) and len(window) == 2):
                raise InvalidParameters(f"'{name}' is {window!r}. Give the least and the most, as in (40, None).")
        if self.end not in ("observation", "record") and (isinstance(self.end, bool) or not isinstance(self.end, int)):
            raise InvalidParameters(
                f'A cohort cannot end at \'{self.end}\'. Give "observation", "record" or a number of days.'
            )
        if self.value is not None and "measurement" not in self.concepts:
            raise InvalidParameters("'value' is of a measurement. Say which: measurement=...")
        _ = self.gender

    @property
    def gender(self) -> int | None:
        """The concept of the sex that is asked for."""
        if self.sex is None or (isinstance(self.sex, int) and not isinstance(self.sex, bool)):
            return self.sex
        known = {**SEXES, **{name[0]: number for name, number in SEXES.items()}}
        if str(self.sex).lower() not in known:
            raise InvalidParameters(f"There is no sex '{self.sex}'. {did_you_mean(str(self.sex), SEXES)}")
        return known[str(self.sex).lower()]

    def settings(self) -> dict[str, Any]:
        """What was asked, in plain words and numbers: concepts by their ids."""
        told: dict[str, Any] = {
            name: one if one is True else {"name": title(one), "concept_ids": ids(one)}
            for name, one in self.concepts.items()
        }
        rest = {name: value for name, value in vars(self).items() if name != "concepts"}
        told |= {name: list(map(_plain, value)) if isinstance(value, (tuple, list)) else value
                 for name, value in rest.items() if value is not None and value is not False}  # fmt: skip
        return told

    def found(self, cdm: Cdm, censor: DataFrame | None = None) -> tuple[DataFrame, tuple[Step, ...], DataFrame]:
        """The entries as spans, the steps that led to them, and all records that they were chosen from."""
        rows = self._records(cdm)
        prior = _spans(rows, rows["end_date"])
        steps = [Step(self._what, rows["person_id"].nunique(), len(rows))]
        for reason, keep in self._conditions(rows):
            rows = rows[keep.reindex(rows.index).astype(bool)]
            steps.append(Step(reason, rows["person_id"].nunique(), len(rows)))
        spans = self._ended(rows)
        if censor is not None:
            spans = censored(spans, censor)
        whole = joined(spans)
        if len(whole) < len(spans):
            steps.append(Step("overlapping entries as one", whole[WHO].nunique(), len(whole)))
        return whole, tuple(steps), prior

    @property
    def _what(self) -> str:
        if not self.concepts:
            return "observed"
        found = "records of " + " or ".join(
            title(one) if name != "death" else "death" if one is True else f"death by {title(one)}"
            for name, one in self.concepts.items()
        )
        return found if self.value is None else f"{found}, {_window(self.value)}"

    def _records(self, cdm: Cdm) -> DataFrame:
        parts = [read(name).rstrip() for name in self.concepts] or [read("observed").rstrip()]
        values: dict[str, object] = {name: [] if one is True else ids(one) for name, one in self.concepts.items()}
        if "death" in self.concepts:
            values["any_cause"] = self.concepts["death"] is True
        if "measurement" in self.concepts:
            least, most = self.value or (None, None)
            values |= {"least": least, "most": most}
        return cdm.lookup(read("entries").replace("{records}", "\nunion all\n".join(parts)), values)

    def _conditions(self, rows: DataFrame) -> Iterator[tuple[str, Series[Any]]]:
        """Each thing that is asked, in words, and of which rows it is true."""
        import pandas as pd

        day = rows["start_date"]
        if self.first_only:
            yield "the first ever", day == rows["first_date"]
        if self.washout_days is not None:
            since = (day - rows["ended_before"]).dt.days
            yield f"none in the {self.washout_days:,} days before", since.isna() | (since > self.washout_days)
        begun = rows["observation_period_start_date"]
        yield "observed on that day", begun.notna()
        if self.prior_observation_days:
            yield (
                f"observed for {self.prior_observation_days:,} days before",
                (day - begun).dt.days >= self.prior_observation_days,
            )
        if self.age_at_entry is not None:
            yield f"aged {_window(self.age_at_entry)}", _inside(ages(rows, day), self.age_at_entry)
        if self.gender is not None:
            yield str(self.sex).lower(), rows["gender_concept_id"] == self.gender
        if self.entered is not None:
            window = [None if one is None else pd.Timestamp(one) for one in self.entered]
            yield f"entered {_window([_plain(one) for one in window])}", _inside(day, window)

    def _ended(self, rows: DataFrame) -> DataFrame:
        import pandas as pd

        last = rows["observation_period_end_date"]
        if self.end == "record":
            last = rows[["end_date", "observation_period_end_date"]].min(axis=1)
        elif self.end != "observation":
            last = pd.concat([rows["start_date"] + pd.Timedelta(days=int(self.end)), last], axis=1).min(axis=1)
        return _spans(rows, last)


def _spans(rows: DataFrame, last: Series[Any]) -> DataFrame:
    import pandas as pd

    days = {START: rows["start_date"].astype("datetime64[us]"), END: last.astype("datetime64[us]")}
    return pd.DataFrame({WHO: rows["person_id"].astype("Int64"), **days})


def ages(persons: DataFrame, day: Series[Any]) -> Series[Any]:
    """Completed years on a day; who has no month or day of birth was born on the first."""
    month, date = persons["month_of_birth"].fillna(1), persons["day_of_birth"].fillna(1)
    early = (day.dt.month < month) | ((day.dt.month == month) & (day.dt.day < date))
    years: Series[Any] = day.dt.year - persons["year_of_birth"] - early.astype("Int64")
    return years


def births(persons: DataFrame) -> Series[Any]:
    """Days of birth; a day that its month lacks is so many days after its first, as 29 February 2001 is 1 March."""
    import pandas as pd

    month = persons["month_of_birth"].where(persons["month_of_birth"].between(1, 12)).fillna(1)
    date = persons["day_of_birth"].where(persons["day_of_birth"].between(1, 31)).fillna(1)
    months = ((persons["year_of_birth"] - 1970) * 12 + month - 1).to_numpy("int64").astype("datetime64[M]")
    days = months.astype("datetime64[us]") + (date - 1).to_numpy("int64").astype("timedelta64[D]")
    return pd.Series(days, index=persons.index)


def bands(groups: Sequence[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Age groups in order, each with its name. Raises InvalidParameters.

    >>> bands(((65, 150), (0, 64)))
    [(0, 64, '0-64'), (65, 150, '65+')]
    """
    ordered = sorted(groups)
    if not ordered or any(low < 0 or low > high for low, high in ordered):
        raise InvalidParameters(f"These are no age groups: {groups!r}. Give some as ((0, 17), (18, 150)).")
    if any(low <= high for (_, high), (low, _) in pairwise(ordered)):
        raise InvalidParameters("Two age groups have a year in common. Let each begin after the one before ends.")
    return [(low, high, f"{low}+" if high >= 120 else f"{low}-{high}") for low, high in ordered]


def age_groups(years: Series[Any], groups: Sequence[tuple[int, int]]) -> Series[Any]:
    """The name of the age group that each age is in; "other" outside of all, missing where the age is."""
    found: Series[Any] = years.astype("object").where(years.isna(), "other")
    for low, high, label in bands(groups):
        found = found.mask(((years >= low) & (years <= high)).fillna(False).astype(bool), label)
    return found


def sexes(gender_concept_ids: Series[Any]) -> Series[Any]:
    """ "male", "female" or "other"."""
    return gender_concept_ids.map({number: name for name, number in SEXES.items()}).fillna("other")


def people(cdm: Cdm) -> DataFrame:
    """The sex and birth of every person, by person_id."""
    return cdm.lookup(read("persons"), {}).drop_duplicates("person_id").set_index("person_id")


def ids(concepts: Concepts) -> list[int]:
    """The ids of a concept, of a set, or of a list. Raises InvalidParameters."""
    many = [concepts] if isinstance(concepts, (int, Concept)) else list(concepts)
    found = [one.concept_id if isinstance(one, Concept) else one for one in many]
    if any(isinstance(one, bool) or not hasattr(one, "__index__") for one in found):
        raise InvalidParameters(f"These are no concepts: {concepts!r}. Give an id, ids, a Concept or a ConceptSet.")
    return [int(one) for one in found]


def title(concepts: Concepts) -> str:
    """What to call concepts."""
    if isinstance(concepts, ConceptSet):
        return concepts.name
    if isinstance(concepts, Concept):
        return concepts.concept_name
    many = ids(concepts)
    return f"concept {many[0]}" if len(many) == 1 else f"{len(many)} concepts"


def _inside(values: Series[Any], window: Sequence[Any]) -> Series[Any]:
    low, high = window
    fits = values.notna()
    if low is not None:
        fits &= values >= low
    if high is not None:
        fits &= values <= high
    return fits


def _window(window: Sequence[Any]) -> str:
    """Two bounds in words.

    >>> _window((40, 65)), _window((18, None)), _window((None, 5))
    ('40 to 65', '18 or more', 'up to 5')
    """
    low, high = window
    if low is None:
        return "ever" if high is None else f"up to {high}"
    return f"{low} or more" if high is None else f"{low} to {high}"


def _plain(value: Any) -> Any:
    return value.strftime("%Y-%m-%d") if hasattr(value, "strftime") else value


@cache
def read(name: str) -> str:
    """A query of this room."""
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
