"""A table one: who is in a cohort when they enter it, beside who is in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

from genokit import disclosure
from genokit.backends import database
from genokit.databases import DuckDatabase
from genokit.errors import InvalidParameters
from genokit.omop import concepts
from genokit.omop.cohorts import cohort_entry, cohort_periods
from genokit.omop.cohorts.cohort import least
from genokit.omop.cohorts.cohort_entry import SEXES, ages, people, read, sexes
from genokit.omop.cohorts.cohort_periods import START, WHO
from genokit.omop.parameters import bind

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from genokit.omop.cdm import Cdm
    from genokit.omop.cohorts.cohort import Cohort

ORDER = ["sex", "age", "condition", "drug"]
LISTED = 5_000  # persons at most who are asked for one by one: Athena takes 256 kB of SQL, and they stand in it twice


@dataclass(frozen=True, eq=False)
class TableOne:
    """Characteristics of cohorts at entry: ``frame`` has the true numbers and is for you, the rest is suppressed."""

    names: tuple[str, ...]
    frame: DataFrame = field(repr=False)
    prior_days: int
    min_cell: int | None = None
    parts: tuple[tuple[str, str], ...] = ()  # names of two cohorts, the one being persons of the other
    hidden: tuple[str, ...] = ()  # names of cohorts whose cards do not tell how many persons they have

    def table(self) -> DataFrame:
        """The numbers that may be told, a row a cohort and value; a difference goes with both that it is made of."""
        import pandas as pd

        whole, few = self.frame.assign(others=self.frame["total"] - self.frame["persons"]), self.min_cell
        whole["hide"] = whole["gone"] = whole["cohort"].isin(self.hidden)
        keys, parts = ["cohort", "characteristic"], []
        for part, of in self.parts:  # who is in the one and not in the other must not be few
            mine, others = (whole["cohort"] == name for name in (part, of))
            for name, mark in (("persons", "hide"), ("total", "gone")):
                whole.loc[mine, mark] |= disclosure.near(whole.loc[mine, name], whole.loc[others, name], min_cell=few)
        for adds_up, rows in whole.groupby(whole["characteristic"].isin(["age", "sex"])):
            if adds_up:
                shown = disclosure.suppress(
                    rows, ["persons"], by=["value"], within=keys, also=["percent"], hide=rows["hide"], min_cell=few
                ).head(len(rows))
            else:
                shown = disclosure.suppress(
                    rows, ["persons", "others"], also=["percent"], hide=rows["hide"], min_cell=few
                )
            parts.append(shown)
        found = pd.concat(parts).loc[whole.index] if parts else whole
        for name in ("persons", "total", "percent"):
            found[name] = found[name].astype("Float64" if name == "percent" else "Int64").mask(found["gone"])
        hidden = found["persons"].isna().groupby([found["characteristic"], found["value"]]).transform("any")
        found["difference"] = found["difference"].mask(hidden)
        return found.drop(columns=["others", "hide", "gone"])

    def wide(self) -> DataFrame:
        """The same as texts, a column a cohort, for a paper."""
        shown = self.table()
        counts = disclosure.written(shown, ["persons"], by=["value"])["persons"]
        percent = [f"\u00a0({p:.1f}\u00a0%)" if p == p else "" for p in shown["percent"].astype("float64")]
        texts = shown.assign(text=counts + percent)
        keys = ["characteristic", "value"]
        found = texts.pivot(index=keys, columns="cohort", values="text")[list(self.names)]
        order = texts[keys].drop_duplicates().apply(tuple, axis=1)
        found = found.reindex(order)
        if len(self.names) == 2:
            found["difference"] = shown.drop_duplicates(keys).set_index(keys)["difference"].reindex(order).round(3)
        return found.reset_index()

    def __repr__(self) -> str:
        return f"<TableOne of {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        from genokit import display

        about = {
            "before": f"conditions and drugs are those recorded in the {self.prior_days:,} days before entry",
            "difference": "standardized, of the two shares" if len(self.names) == 2 else None,
            "shown": disclosure.note(["value"], min_cell=self.min_cell),
        }
        rows = {name: value for name, value in about.items() if value is not None}
        return display.stack(display.card("At entry", rows), display.table(self.wide(), most=200))


def table_one(
    cohorts: Sequence[Cohort], *, prior_days: int, most: int, age_groups: Sequence[tuple[int, int]]
) -> TableOne:
    """Each person at their first entry: sex, age, and what was most often recorded before it."""
    import pandas as pd

    names = tuple(one.name for one in cohorts)
    if len(set(names)) < len(names):
        raise InvalidParameters("Two of these cohorts have one name. Call one otherwise: cohort.named(name).")
    firsts = {one.name: cohort_periods.firsts(one.spans) for one in cohorts}
    if empty := [name for name, first in firsts.items() if first.empty]:
        raise InvalidParameters(f"The cohort '{empty[0]}' is empty, so there is nothing to describe.")
    everybody = people(cohorts[0].cdm)
    counts = [_demographics(name, first, everybody, age_groups) for name, first in firsts.items()]
    counts.append(_recorded(cohorts[0].cdm, firsts, prior_days, most))
    totals = {name: len(first) for name, first in firsts.items()}
    rows = _complete(
        pd.concat(counts, ignore_index=True), totals, [label for *_, label in cohort_entry.bands(age_groups)]
    )
    who = {name: set(first[WHO]) for name, first in firsts.items()}
    parts = tuple((one, of) for one, of in permutations(names, 2) if who[one] <= who[of])
    hidden = tuple(one.name for one in cohorts if one.hidden)
    return TableOne(names, rows, prior_days, least(*cohorts), parts, hidden)


def _demographics(
    name: str, first: DataFrame, everybody: DataFrame, age_groups: Sequence[tuple[int, int]]
) -> DataFrame:
    import pandas as pd

    mine = everybody.reindex(first[WHO]).set_axis(first.index)
    age = cohort_entry.age_groups(ages(mine, first[START]), age_groups).fillna("other")
    counts = [_counted("sex", sexes(mine["gender_concept_id"])), _counted("age", age)]
    return pd.concat(counts, ignore_index=True).assign(cohort=name)


def _recorded(cdm: Cdm, firsts: Mapping[str, DataFrame], prior_days: int, most: int) -> DataFrame:
    """The conditions and drugs that were most often recorded before, in any of the cohorts.

    A short list of persons is asked for by name; of more, everyone's records of these days are, so that the question
    never is longer than Athena takes.
    """
    import pandas as pd

    first = pd.concat([one.assign(cohort=name) for name, one in firsts.items()])
    persons = first[WHO].unique()
    day = pd.Timedelta(days=1)
    asked = {
        "since": (first[START].min() - prior_days * day).date(),
        "until": (first[START].max() - day).date(),
        "everyone": len(persons) > LISTED,
        "persons": persons if len(persons) <= LISTED else [],
    }
    sql, values = bind(read("records"), asked, cdm.database.dialect)
    here = database(":memory:")
    assert isinstance(here, DuckDatabase)
    here.con.register("record", cdm.database.query(sql, values).table)
    here.con.register("first", first.rename(columns={WHO: "person_id", START: "day"})[["cohort", "person_id", "day"]])
    found: DataFrame = here.con.execute(read("before"), {"days": prior_days}).df()
    here.con.close()
    keys = ["characteristic", "concept_id"]
    often = found.groupby(keys)["persons"].max().reset_index().sort_values("persons", ascending=False, kind="stable")
    chosen = often.groupby("characteristic").head(most)[keys]
    called = chosen["concept_id"].map(concepts.names(cdm, chosen["concept_id"].unique().tolist())).astype("object")
    twice = chosen.assign(value=called).duplicated(["characteristic", "value"], keep=False)
    value = called.mask(twice, called + " (" + chosen["concept_id"].astype(str) + ")")
    return chosen.assign(value=value).merge(found, on=keys).drop(columns="concept_id")


def _counted(characteristic: str, values: Series[str]) -> DataFrame:
    found = values.value_counts().rename("persons").rename_axis("value").reset_index()
    return found.assign(characteristic=characteristic)


def _complete(found: DataFrame, totals: dict[str, int], ages: Sequence[str]) -> DataFrame:
    """Each value for each cohort, in the order of a table, with shares and their standardized difference."""
    import numpy as np

    keys = ["characteristic", "value"]
    wide = found.pivot(index=keys, columns="cohort", values="persons").reindex(columns=list(totals)).fillna(0)
    wide = wide.astype("int64").reset_index()
    places = {name: i for i, name in enumerate([*ORDER, *sorted(SEXES), *ages, "other"])}
    wide["place"] = (
        wide["value"].map(places).where(wide["characteristic"].isin(ORDER[:2]), -wide[list(totals)].max(axis=1))
    )
    wide["kind"] = wide["characteristic"].map(places)
    chosen = wide.sort_values(["kind", "place"], kind="stable", ignore_index=True)
    shares = [chosen[name] / total for name, total in totals.items()]
    chosen["difference"] = np.nan
    if len(shares) == 2:
        one, other = shares
        spread = ((one * (1 - one) + other * (1 - other)) / 2) ** 0.5
        chosen["difference"] = (one - other) / spread.where(spread > 0)
    long = chosen.melt(["characteristic", "value", "difference"], list(totals), "cohort", "persons")
    long["total"] = long["cohort"].map(totals)
    return long.assign(percent=100 * long["persons"] / long["total"])[
        ["cohort", "characteristic", "value", "persons", "total", "percent", "difference"]
    ]
