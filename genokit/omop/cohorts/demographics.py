"""Sex, age and age group of persons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from pandas import DataFrame, Series

from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort_data import read
from genokit.omop.cohorts.cohort_periods import START, SUBJECT
from genokit.omop.connection import CdmConnection

AGES = ((0, 17), (18, 39), (40, 64), (65, 150))
SEXES = {"male": 8507, "female": 8532}
AgeGroups = Sequence[tuple[int, int]]
Band = tuple[int, int, str]  # completed years, from and to, and the name of the group


def people(cdm: CdmConnection) -> DataFrame:
    """Sex and birth of every person, by person_id."""
    return cdm.lookup(read("persons"), {}).drop_duplicates("person_id").set_index("person_id")


def at_entry(persons: DataFrame, entries: DataFrame, groups: AgeGroups) -> DataFrame:
    """The sex and the age_group of the person of each entry, on the day of entry; "other" where unknown."""
    mine = persons.reindex(entries[SUBJECT]).set_axis(entries.index)
    years = ages(mine, entries[START])
    group = pd.Series("other", index=entries.index, dtype="object")
    for low, high, label in bands(groups):
        group = group.mask(((years >= low) & (years <= high)).fillna(False).astype(bool), label)
    return pd.DataFrame({"sex": sexes(mine["gender_concept_id"]), "age_group": group})


def sexes(gender_concept_ids: Series[Any]) -> Series[Any]:
    """ "male", "female" or "other"."""
    return gender_concept_ids.map({number: name for name, number in SEXES.items()}).fillna("other")


def ages(persons: DataFrame, day: Series[Any]) -> Series[Any]:
    """Completed years on a day; a missing month or day of birth counts as the first."""
    month, date = persons["month_of_birth"].fillna(1), persons["day_of_birth"].fillna(1)
    early = (day.dt.month < month) | ((day.dt.month == month) & (day.dt.day < date))
    years: Series[Any] = day.dt.year - persons["year_of_birth"] - early.astype("Int64")
    return years


def births(persons: DataFrame) -> Series[Any]:
    """Dates of birth; a day that its month lacks runs over into the next month: 29 February 2001 is 1 March."""
    month = persons["month_of_birth"].where(persons["month_of_birth"].between(1, 12)).fillna(1)
    date = persons["day_of_birth"].where(persons["day_of_birth"].between(1, 31)).fillna(1)
    months = ((persons["year_of_birth"] - 1970) * 12 + month - 1).to_numpy("int64").astype("datetime64[M]")
    days = months.astype("datetime64[us]") + (date - 1).to_numpy("int64").astype("timedelta64[D]")
    return pd.Series(days, index=persons.index)


def bands(groups: AgeGroups) -> list[Band]:
    """Age groups in order, each with its name. Raises InvalidParameters.

    >>> bands(((65, 150), (0, 64)))
    [(0, 64, '0-64'), (65, 150, '65+')]
    """
    ordered = sorted(groups)
    if not ordered or any(low < 0 or low > high for low, high in ordered):
        raise InvalidParameters(f"These are not age groups: {groups!r}. Give them as ((0, 17), (18, 150)).")
    if any(low <= high for (_, high), (low, _) in pairwise(ordered)):
        raise InvalidParameters("Two age groups overlap. Let each begin after the one before it ends.")
    return [(low, high, f"{low}+" if high >= 120 else f"{low}-{high}") for low, high in ordered]
