"""Table 1: the persons of a cohort at entry, beside those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from genokit import disclosure, display
from genokit.backends import database
from genokit.databases import DuckDatabase
from genokit.errors import InvalidParameters
from genokit.omop import concepts
from genokit.omop.cohorts.cohort_data import CohortData, read, strictest
from genokit.omop.cohorts.cohort_periods import START, SUBJECT, first_periods
from genokit.omop.cohorts.demographics import SEXES, AgeGroups, at_entry, bands, people
from genokit.omop.connection import CdmConnection
from genokit.omop.parameters import bind

ORDER = ["sex", "age", "condition", "drug"]
KEYS = ["characteristic", "value"]
LISTED = 5_000  # persons that a query may list: Athena takes 256 kB of SQL, and each person is in it twice


@dataclass(frozen=True, eq=False)
class TableOne:
    """Characteristics of cohorts at entry. Everything shown is suppressed, except ``frame``.

    Parameters
    ----------
    names
        The names of the cohorts.
    frame
        The true numbers, for you only. A row for each cohort and value: cohort, characteristic, value, persons, total,
        percent and, of two cohorts, difference (standardized).
    prior_days
        Days before entry in which conditions and drugs count.
    min_cell
        The smallest count of persons to show.
    parts
        Pairs of names; the persons of the first cohort are part of the second.
    hidden
        Names of the cohorts whose cards hide how many persons they have.
    """

    names: tuple[str, ...]
    frame: DataFrame = field(repr=False)
    prior_days: int
    min_cell: int | None = None
    parts: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()

    def table(self) -> DataFrame:
        """The numbers that may be shown, a row for each cohort and value.

        A standardized difference is shown only beside both of the shares that it was calculated from.
        """
        whole, few = self.frame.assign(others=self.frame["total"] - self.frame["persons"]), self.min_cell
        whole["hide"] = whole["gone"] = whole["cohort"].isin(self.hidden)
        for part, of in self.parts:  # persons in the second cohort but not in the first must not be few
            mine, others = (whole["cohort"] == name for name in (part, of))
            for name, mark in (("persons", "hide"), ("total", "gone")):
                few_apart = disclosure.differs_by_few(whole.loc[mine, name], whole.loc[others, name], min_cell=few)
                whole.loc[mine, mark] |= few_apart
        shown = []
        for adds_up, rows in whole.groupby(whole["characteristic"].isin(["age", "sex"])):
            counts, by, within = (
                (["persons"], ["value"], ["cohort", "characteristic"]) if adds_up else (["persons", "others"], [], [])
            )
            shown.append(disclosure.suppress(
                rows, counts, by, within=within, also=["percent"], hide=rows["hide"], min_cell=few
            ))  # fmt: skip
        table = pd.concat(shown).loc[whole.index]
        for name in ("persons", "total", "percent"):
            table[name] = table[name].astype("Float64" if name == "percent" else "Int64").mask(table["gone"])
        hidden = table["persons"].isna().groupby([table[key] for key in KEYS]).transform("any")
        table["difference"] = table["difference"].mask(hidden)
        return table.drop(columns=["others", "hide", "gone"])

    def wide(self) -> DataFrame:
        """The same as text, with a column for each cohort, for a paper."""
        shown = self.table()
        counts = disclosure.formatted(shown, ["persons"], by=["value"])["persons"]
        percent = [f"\u00a0({p:.1f}\u00a0%)" if p == p else "" for p in shown["percent"].astype("float64")]
        order = shown.drop_duplicates(KEYS).set_index(KEYS)["difference"]
        texts = shown.assign(text=counts + percent).pivot(index=KEYS, columns="cohort", values="text")
        wide = texts[list(self.names)].reindex(order.index)
        if len(self.names) == 2:
            wide["difference"] = order.round(3)
        return wide.reset_index()

    def __repr__(self) -> str:
        return f"<TableOne of {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        about = {"before entry": f"conditions and drugs recorded in the {self.prior_days:,} days before"}
        if len(self.names) == 2:
            about["difference"] = "standardized difference of the two shares"
        about["small counts"] = disclosure.note(["value"], min_cell=self.min_cell)
        return display.stack(display.card("At entry", about), display.table(self.wide(), most=200))


def table_one(cohorts: Sequence[CohortData], prior_days: int, most: int, age_groups: AgeGroups) -> TableOne:
    """Each person at the first entry: sex, age, and what was most often recorded before."""
    names = tuple(one.name for one in cohorts)
    if len(set(names)) < len(names):
        raise InvalidParameters("Two of these cohorts have the same name. Rename one: cohort.named(name).")
    firsts = {one.name: first_periods(one.spans) for one in cohorts}
    if empty := [name for name, first in firsts.items() if first.empty]:
        raise InvalidParameters(f"The cohort '{empty[0]}' is empty. attrition() shows the criterion that excludes all.")
    everyone = people(cohorts[0].cdm)
    counts = [_recorded(cohorts[0].cdm, firsts, prior_days, most)]
    for name, first in firsts.items():
        traits = at_entry(everyone, first, age_groups)
        counts += [_counted(name, "sex", traits["sex"]), _counted(name, "age", traits["age_group"])]
    totals = {name: len(first) for name, first in firsts.items()}
    rows = _complete(pd.concat(counts, ignore_index=True), totals, [label for *_, label in bands(age_groups)])
    persons = {name: set(first[SUBJECT]) for name, first in firsts.items()}
    parts = tuple((one, of) for one, of in permutations(names, 2) if persons[one] <= persons[of])
    hidden = tuple(one.name for one in cohorts if one.hides_persons)
    return TableOne(names, rows, prior_days, strictest(*cohorts), parts, hidden)


def _counted(cohort: str, characteristic: str, values: Series[Any]) -> DataFrame:
    counts = values.value_counts().rename("persons").rename_axis("value").reset_index()
    return counts.assign(cohort=cohort, characteristic=characteristic)


def _recorded(cdm: CdmConnection, firsts: Mapping[str, DataFrame], prior_days: int, most: int) -> DataFrame:
    """The conditions and drugs recorded most often before entry, in any of the cohorts.

    If there are few persons the query lists them; otherwise it reads everyone's records of these days, so that it never
    gets longer than Athena allows.
    """
    first = pd.concat([one.assign(cohort=name) for name, one in firsts.items()])
    persons = first[SUBJECT].unique()
    day = pd.Timedelta(days=1)
    parameters = {
        "since": (first[START].min() - prior_days * day).date(),
        "until": (first[START].max() - day).date(),
        "everyone": len(persons) > LISTED,
        "persons": persons if len(persons) <= LISTED else [],
    }
    sql, values = bind(read("records"), parameters, cdm.database.dialect)
    here = database(":memory:")
    assert isinstance(here, DuckDatabase)
    here.con.register("record", cdm.database.query(sql, values).table)
    here.con.register(
        "first", first.rename(columns={SUBJECT: "person_id", START: "day"})[["cohort", "person_id", "day"]]
    )
    counts: DataFrame = here.con.execute(read("before"), {"days": prior_days}).df()
    here.con.close()
    keys = ["characteristic", "concept_id"]
    often = counts.groupby(keys)["persons"].max().reset_index().sort_values("persons", ascending=False, kind="stable")
    chosen = often.groupby("characteristic").head(most)[keys]
    names = chosen["concept_id"].map(concepts.names(cdm, chosen["concept_id"].unique().tolist())).astype("object")
    twice = chosen.assign(value=names).duplicated(KEYS, keep=False)
    value = names.mask(twice, names + " (" + chosen["concept_id"].astype(str) + ")")
    return chosen.assign(value=value).merge(counts, on=keys).drop(columns="concept_id")


def _complete(counts: DataFrame, totals: dict[str, int], ages: Sequence[str]) -> DataFrame:
    """Each value for each cohort, in the order of the table, with shares and their standardized difference."""
    wide = counts.pivot(index=KEYS, columns="cohort", values="persons").reindex(columns=list(totals)).fillna(0)
    wide = wide.astype("int64").reset_index()
    places = {name: i for i, name in enumerate([*ORDER, *sorted(SEXES), *ages, "other"])}
    frequent = -wide[list(totals)].max(axis=1)
    wide["place"] = wide["value"].map(places).where(wide["characteristic"].isin(ORDER[:2]), frequent)
    wide["kind"] = wide["characteristic"].map(places)
    chosen = wide.sort_values(["kind", "place"], kind="stable", ignore_index=True)
    chosen["difference"] = np.nan
    if len(totals) == 2:
        one, other = (chosen[name] / total for name, total in totals.items())
        spread = ((one * (1 - one) + other * (1 - other)) / 2) ** 0.5
        chosen["difference"] = (one - other) / spread.where(spread > 0)
    long = chosen.melt([*KEYS, "difference"], list(totals), "cohort", "persons")
    long["total"] = long["cohort"].map(totals)
    long["percent"] = 100 * long["persons"] / long["total"]
    return long[["cohort", *KEYS, "persons", "total", "percent", "difference"]]
