"""A table one: who is in a cohort when they enter it, beside who is in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genokit.errors import InvalidParameters
from genokit.omop import disclosure, entry
from genokit.omop.cohort import least
from genokit.omop.entry import ages, people, read, sexes
from genokit.omop.spans import START, WHO

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from genokit.omop.cohort import Cohort

RATES = ["percent", "difference"]


@dataclass(frozen=True, eq=False)
class TableOne:
    """Characteristics of cohorts at entry: ``frame`` has the true numbers and is for you, the rest is suppressed."""

    names: tuple[str, ...]
    frame: DataFrame = field(repr=False)
    prior_days: int
    min_cell: int | None = None

    def table(self) -> DataFrame:
        """The numbers that may be told, a row a cohort and value; a difference goes with both that it is made of."""
        import pandas as pd

        whole = self.frame.assign(others=self.frame["total"] - self.frame["persons"])
        keys, parts = ["cohort", "characteristic"], []
        for adds_up, rows in whole.groupby(whole["characteristic"].isin(["age", "sex"])):
            if adds_up:
                shown = disclosure.suppress(
                    rows, ["persons"], by=["value"], within=keys, also=["percent"], min_cell=self.min_cell
                ).head(len(rows))
            else:
                shown = disclosure.suppress(rows, ["persons", "others"], also=["percent"], min_cell=self.min_cell)
            parts.append(shown)
        found = pd.concat(parts).loc[whole.index] if parts else whole
        hidden = found["persons"].isna().groupby([found["characteristic"], found["value"]]).transform("any")
        found["difference"] = found["difference"].mask(hidden)
        return found.drop(columns="others")

    def wide(self) -> DataFrame:
        """The same as texts, a column a cohort, for a paper."""
        shown = self.table()
        counts = disclosure.written(shown, ["persons"], by=["value"])["persons"]
        percent = [f" ({p:.1f} %)" if p == p else "" for p in shown["percent"].astype("float64")]
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
    firsts = {one.name: one.spans.sort_values([WHO, START]).drop_duplicates(WHO) for one in cohorts}
    if any(one.empty for one in firsts.values()):
        raise InvalidParameters("One of these cohorts is empty, so there is nothing to describe.")
    everybody = people(cohorts[0].cdm)
    persons = sorted({int(who) for one in firsts.values() for who in one[WHO]})
    records = cohorts[0].cdm.lookup(read("records"), {"persons": persons})
    parts = [_described(name, first, everybody, records, prior_days, age_groups) for name, first in firsts.items()]
    rows = _complete(pd.concat(parts, ignore_index=True), {name: len(first) for name, first in firsts.items()}, most)
    return TableOne(names, rows, prior_days, least(*cohorts))


def _described(
    name: str, first: DataFrame, everybody: DataFrame, records: DataFrame, prior_days: int,
    age_groups: Sequence[tuple[int, int]],
) -> DataFrame:  # fmt: skip
    import pandas as pd

    mine = everybody.reindex(first[WHO]).set_axis(first.index)
    before = records.merge(first[[WHO, START]], left_on="person_id", right_on=WHO)
    days = (before[START] - before["start_date"]).dt.days
    before = before[(days >= 1) & (days <= prior_days)].drop_duplicates(["person_id", "domain", "concept_name"])
    counts = [
        _counted("sex", sexes(mine["gender_concept_id"])),
        _counted("age", entry.age_groups(ages(mine, first[START]), age_groups).fillna("other")),
        *(_counted(str(domain), rows["concept_name"]) for domain, rows in before.groupby("domain")),
    ]
    return pd.concat(counts, ignore_index=True).assign(cohort=name)


def _counted(characteristic: str, values: Series[str]) -> DataFrame:
    found = values.value_counts().rename("persons").rename_axis("value").reset_index()
    return found.assign(characteristic=characteristic)


def _complete(found: DataFrame, totals: dict[str, int], most: int) -> DataFrame:
    """Each value for each cohort, the most frequent conditions and drugs, shares and their standardized difference."""
    import numpy as np
    import pandas as pd

    wide = found.pivot(index=["characteristic", "value"], columns="cohort", values="persons").fillna(0).astype("int64")
    wide = wide[list(totals)].assign(most=wide.max(axis=1)).reset_index()
    listed = [
        rows.sort_values("value") if name in ("sex", "age") else rows.nlargest(most, "most")
        for name in ("sex", "age", "condition", "drug")
        if not (rows := wide[wide["characteristic"] == name]).empty
    ]
    chosen = pd.concat(listed, ignore_index=True)
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
