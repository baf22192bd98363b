"""How cohorts are made: records of concepts, then one criterion after another, each counted.

The order is always: records; the first ever, or none in the days before; observed then, and long enough before; age,
sex and time; then the end of each entry, and overlapping entries merged into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from pandas import DataFrame, Series

from genokit.errors import InvalidParameters, NotFound, did_you_mean
from genokit.omop.cohorts.cohort import Cohort
from genokit.omop.cohorts.cohort_data import AttritionStep, check_whole, read
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT, censored, merged
from genokit.omop.cohorts.demographics import SEXES, ages
from genokit.omop.concepts import Concept, ConceptSet, names
from genokit.omop.connection import CdmConnection

Concepts = ConceptSet | Concept | int | Sequence[int]
Window = tuple[float | None, float | None]


@dataclass(frozen=True)
class Entry:
    """The criteria of a cohort; ``Cdm.cohort`` describes each."""

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
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), at_least=0)
        for name in ("age_at_entry", "value", "entered"):
            window = getattr(self, name)
            if window is not None and not (isinstance(window, (tuple, list)) and len(window) == 2):
                raise InvalidParameters(f"'{name}' is {window!r}. Give a lower and an upper bound, as in (40, None).")
        if self.end not in ("observation", "record") and (isinstance(self.end, bool) or not isinstance(self.end, int)):
            raise InvalidParameters(
                f'A cohort cannot end at \'{self.end}\'. Give "observation", "record" or a number of days.'
            )
        if self.value is not None and "measurement" not in self.concepts:
            raise InvalidParameters("'value' bounds a measurement. Name one: measurement=...")
        _ = self.gender

    @property
    def gender(self) -> int | None:
        """The concept_id of the sex."""
        if self.sex is None or (isinstance(self.sex, int) and not isinstance(self.sex, bool)):
            return self.sex
        known = {**SEXES, **{name[0]: number for name, number in SEXES.items()}}
        if str(self.sex).lower() not in known:
            raise InvalidParameters(f"There is no sex '{self.sex}'. {did_you_mean(str(self.sex), SEXES)}")
        return known[str(self.sex).lower()]

    def settings(self, titles: Mapping[str, str]) -> dict[str, Any]:
        """The criteria in plain words and numbers, concepts by their titles and ids."""
        settings: dict[str, Any] = {
            name: one if one is True else {"name": titles[name], "concept_ids": ids(one)}
            for name, one in self.concepts.items()
        }
        rest = {name: value for name, value in vars(self).items() if name != "concepts"}
        return settings | {
            name: list(map(_plain, value)) if isinstance(value, (tuple, list)) else value
            for name, value in rest.items()
            if value is not None and value is not False
        }

    def records(self, cdm: CdmConnection) -> DataFrame:
        """The days on which persons have a record of the concepts; see entries.sql."""
        parts = [read(name).rstrip() for name in self.concepts] or [read("observed").rstrip()]
        values: dict[str, object] = {name: [] if one is True else ids(one) for name, one in self.concepts.items()}
        if "death" in self.concepts:
            values["any_cause"] = self.concepts["death"] is True
        if "measurement" in self.concepts:
            values["least"], values["most"] = self.value or (None, None)
        return cdm.lookup(read("entries").replace("{records}", "\nunion all\n".join(parts)), values)

    def criteria(self, rows: DataFrame) -> Iterator[tuple[str, Series[Any]]]:
        """Each criterion in words, and the rows that meet it."""
        day, begun = rows["start_date"], rows["observation_period_start_date"]
        if self.first_only:
            yield "the first ever", day == rows["first_date"]
        if self.washout_days is not None:
            since = (day - rows["ended_before"]).dt.days
            yield f"none in the {self.washout_days:,} days before", since.isna() | (since > self.washout_days)
        yield "observed on that day", begun.notna()
        if self.prior_observation_days:
            observed = (day - begun).dt.days
            yield f"observed for {self.prior_observation_days:,} days before", observed >= self.prior_observation_days
        if self.age_at_entry is not None:
            yield f"aged {_window(self.age_at_entry)}", _inside(ages(rows, day), self.age_at_entry)
        if self.gender is not None:
            yield str(self.sex).lower(), rows["gender_concept_id"] == self.gender
        if self.entered is not None:
            window = [None if one is None else pd.Timestamp(one) for one in self.entered]
            yield f"entered {_window([_plain(one) for one in window])}", _inside(day, window)

    def last_day(self, rows: DataFrame) -> Series[Any]:
        """The last day of each entry: the end of the observation, or earlier."""
        last = rows["observation_period_end_date"]
        if self.end == "observation":
            return last
        end = rows["end_date"] if self.end == "record" else rows["start_date"] + pd.Timedelta(days=int(self.end))
        return pd.concat([end, last], axis=1).min(axis=1)


def cohort(
    cdm: CdmConnection, entry: Entry, *, name: str | None, censor: Cohort | None, min_cell: int | None
) -> Cohort:
    """The cohort that an entry describes, from a CDM's records."""
    if censor is not None and not isinstance(censor, Cohort):
        raise InvalidParameters(f"'censor' is {type(censor).__name__}. Give a cohort; this one ends where it begins.")
    titles = {
        domain: "death" if domain == "death" and one is True else title(cdm, one)
        for domain, one in entry.concepts.items()
    }
    rows = entry.records(cdm)
    records = _periods(rows, rows["end_date"])
    steps = [AttritionStep.of(_what(titles, entry.value), rows, "person_id")]
    for reason, keep in entry.criteria(rows):
        rows = rows[keep.reindex(rows.index).astype(bool)]
        steps.append(AttritionStep.of(reason, rows, "person_id"))
    periods = _periods(rows, entry.last_day(rows))
    if censor is not None:
        periods = censored(periods, censor.spans)
    whole = merged(periods)
    if len(whole) < len(periods):
        steps.append(AttritionStep.of("overlapping entries merged", whole))
    settings = entry.settings(titles) | ({} if censor is None else {"censor": censor.about()})
    name = name or steps[0].reason.removeprefix("records of ")
    return Cohort(name, whole, tuple(steps), settings, cdm, min_cell, records)


def stored(cdm: CdmConnection, cohort_definition_id: int, *, name: str | None, min_cell: int | None) -> Cohort:
    """A cohort from the CDM's own table ``cohort``. Raises NotFound."""
    rows = cdm.lookup(
        "select subject_id, cohort_start_date, cohort_end_date from cohort where cohort_definition_id = $id",
        {"id": cohort_definition_id},
    )
    if rows.empty:
        raise NotFound(f"The table 'cohort' of this CDM has no cohort {cohort_definition_id}.")
    periods = merged(rows)
    steps = (AttritionStep.of("in the table cohort", periods),)
    settings = {"cohort_definition_id": cohort_definition_id}
    return Cohort(name or f"cohort {cohort_definition_id}", periods, steps, settings, cdm, min_cell)


def _what(titles: Mapping[str, str], value: Window | None) -> str:
    """The records that entries are chosen from, in words."""
    words = [f"death by {one}" if domain == "death" != one else one for domain, one in titles.items()]
    what = f"records of {' or '.join(words)}" if words else "observed"
    return what if value is None else f"{what}, {_window(value)}"


def ids(concepts: Concepts | Literal[True]) -> list[int]:
    """The ids of a concept, of a set, or of a list. Raises InvalidParameters."""
    many = [concepts] if isinstance(concepts, (int, Concept)) else list(concepts)
    found = [one.concept_id if isinstance(one, Concept) else one for one in many]
    if any(isinstance(one, bool) or not hasattr(one, "__index__") for one in found):
        raise InvalidParameters(f"These are not concepts: {concepts!r}. Give an id, ids, a Concept or a ConceptSet.")
    return [int(one) for one in found]


def title(cdm: CdmConnection, concepts: Concepts | Literal[True]) -> str:
    """What to call concepts."""
    if isinstance(concepts, ConceptSet):
        return concepts.name
    if isinstance(concepts, Concept):
        return concepts.concept_name
    many = ids(concepts)
    return names(cdm, many)[many[0]] if len(many) == 1 else f"{len(many)} concepts"


def _periods(rows: DataFrame, last: Series[Any]) -> DataFrame:
    days = {START: rows["start_date"].astype("datetime64[us]"), END: last.astype("datetime64[us]")}
    return pd.DataFrame({SUBJECT: rows["person_id"].astype("Int64"), **days})


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
