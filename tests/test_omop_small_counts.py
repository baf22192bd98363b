"""No small count leaves: of random CDMs, nothing that is shown is small, nor a difference of two numbers of persons.

A difference tells of persons where the ones counted are part of the others: a step of those before, a sex of both, the
persons with an event of those at risk, any output of the cohort on its card. What adds up is held to sums, too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from itertools import combinations, product
from xml.etree import ElementTree as ET

import duckdb
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from seeds import seeds
from small_cdm import empty_cdm

from genokit import Cdm, Settings
from genokit.backends import clients
from genokit.errors import InvalidParameters
from genokit.omop.characterize.achilles import having_of
from genokit.omop.cohorts.cohort import Cohort

KEYS = ["interval", "age_group", "sex"]
COUNTS = {"persons", "entries", "left out", "events", "cases", "rows", "records", "count_value", "at_risk"}
DAY = pd.Timestamp("2010-03-01")


def put(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, object]]) -> None:
    if rows:
        frame = pd.DataFrame(rows)  # noqa: F841  (DuckDB reads it by its name)
        con.execute(f"insert into {table} by name select * from frame")


def random_cdm(seed: int) -> Cdm:
    """Persons of whom a few differ from the rest, in all ways in which a few can: sex, age, time, what they have."""
    dice = random.Random(seed)
    n = dice.choice([12, 30, 50, 60, 100])
    few = [0, 1, 2, 3, 4, 5, 6, 9]
    one_day, span = dice.random() < 0.3, dice.choice([40, 400, 1500])

    def some() -> list[int]:
        """Few persons, all but few, or many."""
        k = dice.choice(few)
        k = dice.choice([k, max(n - k, 0), n // 2 + k])
        return dice.sample(range(1, n + 1), min(k, n))

    other, young, late = set(some()[: dice.choice(few)]), set(some()[: dice.choice(few)]), set(some())
    con = empty_cdm()
    put(con, "person", [
        {"person_id": i, "gender_concept_id": 0 if i in other else dice.choice([8507, 8532]), "race_concept_id": 0,
         "ethnicity_concept_id": 0, "year_of_birth": dice.choice([2000, 1999] if i in young else [1950, 1980]),
         "month_of_birth": dice.choice([None, 2]), "day_of_birth": dice.choice([None, 29])}
        for i in range(1, n + 1)
    ])  # fmt: skip
    put(con, "observation_period", [
        {"observation_period_id": i, "person_id": i, "period_type_concept_id": 0,
         "observation_period_start_date": DAY + pd.Timedelta(days=dice.choice([1, 30, 370]) if i in late else 0),
         "observation_period_end_date": DAY + pd.Timedelta(days=span + dice.choice([0, 0, 0, 30]))}
        for i in range(1, n + 1 - dice.choice([0, 0, 3]))
    ])  # fmt: skip
    rows: list[dict[str, object]] = []
    for concept in range(1, 6):
        rows += [{"person_id": i, "condition_concept_id": concept,
                  "condition_start_date": DAY + pd.Timedelta(days=0 if one_day else dice.randrange(span)),
                  "condition_type_concept_id": dice.choice([1, 1, 1, 2])}
                 for i in some() for _ in range(2 if dice.random() < 0.05 else 1)]  # fmt: skip
    put(con, "condition_occurrence", [{"condition_occurrence_id": i, **row} for i, row in enumerate(rows)])
    put(con, "drug_exposure", [
        {"drug_exposure_id": i, "person_id": i, "drug_concept_id": 9, "drug_type_concept_id": 0,
         "drug_exposure_start_date": DAY, "drug_exposure_end_date": DAY + pd.Timedelta(days=dice.randrange(90))}
        for i in some()
    ])  # fmt: skip
    put(con, "death", [
        {"person_id": i, "death_date": DAY + pd.Timedelta(days=span), "cause_concept_id": dice.choice([7, 7, 8])}
        for i in some()
    ])  # fmt: skip
    return Cdm(database=con)


class Reader:
    """Who has one output, and the cards of its cohorts, and looks for few persons in it."""

    def __init__(self, what: str, least: int) -> None:
        self.what, self.least = what, least

    def is_small(self, n: float) -> bool:
        return 0 < abs(n) < self.least

    def sees(self, numbers: Iterable[float], where: object = "") -> None:
        """Numbers none of which, and no difference of two of which, may be small."""
        told = {0, *(int(n) for n in numbers if n is not None and not pd.isna(n))}
        wrong = [(a, b) for a, b in combinations(sorted(told), 2) if self.is_small(b - a)]
        assert not wrong, (self.what, where, wrong)

    def sums(self, whole: float, parts: Iterable[float], where: object) -> None:
        """All of which the parts are known but for one or more hidden ones: what is left is not small."""
        parts = list(parts)
        if not pd.isna(whole) and any(map(pd.isna, parts)):
            left = whole - sum(n for n in parts if not pd.isna(n))
            assert not self.is_small(left), (self.what, where, whole, parts)


def card(cohort: Cohort) -> list[int]:
    """What the card of a cohort tells."""
    frame = cohort.attrition()
    [told] = re.findall(r"([\d,]+|[<*]\d*) persons>", repr(cohort))
    return [
        *frame["persons"].dropna(),
        *frame["entries"].dropna(),
        *([int(told.replace(",", ""))] if told.isdigit() else []),
    ]


@lru_cache
def last(cohort: Cohort) -> list[int]:
    """The number of its persons, as its card tells it."""
    [told] = re.findall(r"([\d,]+|[<*]\d*) persons>", repr(cohort))
    return [int(told)] if told.isdigit() else []


def of_html(shown: str) -> Iterator[tuple[str, int]]:
    """The numbers in columns of counts, and the counts beside their names, of a card."""
    for table in ET.fromstring(str(shown)).iter("table"):
        head = ["".join(one.itertext()) for one in table.iter("th")]
        for line in table.iter("tr"):
            for name, cell in zip(head, line.findall("td"), strict=False):
                text = "".join(cell.itertext()).replace(",", "")
                if name in COUNTS - ({"rows"} if "analysis_id" in head else set()) and text.isdigit():
                    yield name, int(text)


def read_html(reader: Reader, output: object) -> None:
    for name, n in of_html(output._repr_html_()):
        assert not reader.is_small(n), (reader.what, name, n)


def read_drawn(reader: Reader, ax: plt.Axes) -> None:
    """Counts in the texts of a figure: "57 persons", "left out: 3"."""
    for text in ax.figure.findobj(plt.Text):
        for n in re.findall(r"([\d,]+)\s(?:persons|entries)|left out: (\d+)", text.get_text()):
            assert not reader.is_small(int("".join(n).replace(",", ""))), (reader.what, text.get_text())
    plt.close(ax.figure)


def read_rates(reader: Reader, rates, outcome: Cohort, of: Cohort | None) -> None:
    shown = rates.table()
    cases = "events" if rates.measure == "incidence" else "cases"
    persons = dict(zip(shown[KEYS].itertuples(index=False, name=None), shown["persons"], strict=True))
    for key, n, having in zip(persons, shown["persons"], shown[cases], strict=True):
        for whole in product(*({one, "all"} for one in key)):
            reader.sees([n, persons.get(whole)], key)
            reader.sees([having, persons.get(whole)], key)
        reader.sees([n, *(last(of) if of else [])], key)
        reader.sees([having, *last(outcome)], key)
    assert shown.loc[shown[cases].isna(), ["rate", "low", "high"]].isna().all(axis=None)
    if rates.measure == "incidence":
        assert shown.loc[shown["persons"].isna(), "person_years"].isna().all()
    for over in KEYS:
        rest = [key for key in KEYS if key != over]
        for key, rows in shown.groupby(rest, dropna=False):
            whole, parts = rows[rows[over] == "all"], rows[rows[over] != "all"]
            if len(whole):
                reader.sums(whole[cases].item(), parts[cases], (key, over))
            if len(whole) and (over == "sex" or (over == "age_group" and rates.measure == "prevalence")):
                reader.sums(whole["persons"].item(), parts["persons"], (key, over))
            if len(whole) and "person_years" in rows:
                days = rows["person_years"].astype("float64") * 365.25
                left = days[whole.index].item() - days[parts.index].sum()
                if days[parts.index].isna().any() and not pd.isna(left):
                    assert not 0.5 < left < reader.least - 0.5, (reader.what, key, over)
    read_html(reader, rates)
    read_drawn(reader, rates.plot())


def read_curve(reader: Reader, found, target: Cohort, outcome: Cohort) -> None:
    shown = found.table()
    for group, rows in shown.groupby("group"):
        reader.sees(rows["at_risk"], group)
        reader.sees(rows["events"], group)
        start = rows["at_risk"].iloc[0] if rows["day"].iloc[0] == 0 else None
        for at, had in zip(rows["at_risk"], rows["events"], strict=True):
            reader.sees([had, *last(outcome)], group)
            if group == "all":
                reader.sees([at, *last(target)], group)
                reader.sees([had, *last(target)], group)
            if start is not None:
                assert not reader.is_small(start - at - had), (reader.what, group, "censored")
    first = shown[shown["day"] == 0]
    [left_out] = re.findall(r"^(\S+) persons", found.settings["left out"])
    if left_out.isdigit():
        reader.sees([int(left_out), *last(target)])
    if len(first) < found.frame["group"].nunique() and last(target) and left_out == "0":
        reader.sums(last(target)[0], [*first["at_risk"], float("nan")], "groups")
    read_html(reader, found)
    read_drawn(reader, found.plot())


def read_table_one(reader: Reader, found, *cohorts: Cohort) -> None:
    shown = found.table()
    for (name, kind, value), rows in shown.groupby(["cohort", "characteristic", "value"]):
        row = rows.iloc[0]
        reader.sees([row["persons"], row["total"]], (name, kind, value))
        if pd.isna(row["persons"]):
            assert pd.isna(row["percent"])
            assert pd.isna(row["difference"])
    for (name, kind), rows in shown.groupby(["cohort", "characteristic"]):
        if kind in ("sex", "age"):
            reader.sums(rows["total"].iloc[0], rows["persons"], (name, kind))
    for one, other in combinations(cohorts, 2):
        if set(one.spans["subject_id"]) <= set(other.spans["subject_id"]):
            pair = [shown[shown["cohort"] == of.name] for of in (one, other)]
            for a, b in zip(*(rows[["persons", "total"]].to_numpy() for rows in pair), strict=True):
                reader.sees([a[0], b[0]], (one.name, other.name))
                reader.sees([a[1], b[1]], (one.name, other.name))
    read_html(reader, found)


def read_paths(reader: Reader, found, target: Cohort) -> None:
    shown = found.table()
    for n in shown["persons"].dropna():
        reader.sees([n, *last(target)])
    read_html(reader, found)
    read_drawn(reader, found.plot())


def read_characterization(reader: Reader, found) -> None:
    everyone = found.counts(1)["count_value"].tolist()
    for frame in (found._results, found._distributions):
        for analysis_id, rows in frame.groupby("analysis_id"):
            having = having_of(analysis_id)
            whole = {} if having is None else found._of(having, found._results)
            known = {} if having is None else dict(zip(whole.iloc[:, 0], whole["count_value"], strict=True))
            for row in rows.itertuples():
                reader.sees([row.count_value, *everyone], analysis_id)
                reader.sees([row.count_value, *([known[row.stratum_1]] if row.stratum_1 in known else [])], analysis_id)
            if having is not None and analysis_id - having == 91:
                for concept, chain in rows.groupby("stratum_1"):
                    reader.sees(chain["count_value"], (analysis_id, concept))
            if having is not None and analysis_id - having in (4, 6):
                for concept, parts in rows.groupby("stratum_1"):
                    if analysis_id - having == 6 and concept in known:
                        reader.sees([parts["count_value"].sum(), known[concept]], (analysis_id, concept))
    if everyone:
        for analysis_id in (2, 3, 4, 5, 10, 12):
            reader.sees([found.counts(analysis_id)["count_value"].sum(), *everyone], analysis_id)
    for n in found.scans["rows"]:
        reader.sees([n, *everyone], "scans")
    for name in ("population", "observed", "condition_prevalence"):
        for column in {"persons", "records", "begin"} & set(found.table(name)):
            assert not any(map(reader.is_small, found.table(name)[column].dropna())), name
    read_html(reader, found)
    for table, concept_id in [("condition_occurrence", one) for one in range(1, 6)]:
        if str(concept_id) in found.counts(400)["condition_concept_id"].tolist():
            assert not any(map(reader.is_small, found.concept(concept_id, table).table()["count_value"]))


def unless(said: str, study):
    """A study; None where it is refused as there is nobody to count."""
    try:
        return study()
    except InvalidParameters as error:
        if said not in str(error):
            raise
        return None


def read_everything(seed: int) -> None:
    """All that is shown of a random CDM."""
    dice = random.Random(-seed)
    least = dice.choice([5, 5, 10])
    cdm = random_cdm(seed)
    if least > 5:
        cdm = Cdm(database=cdm._given, clients=clients(Settings(min_cell=least)))
    everyone = cdm.cohort(name="everyone")
    a, b, c = (cdm.cohort(condition=i, first_only=dice.random() < 0.5, name="abc"[i - 1]) for i in (1, 2, 3))
    drug = cdm.cohort(drug=9, end="record", name="drug")
    made = {a: (), b: (), c: (), drug: (), everyone: (), a & b: (a, b), a | b: (a, b), a - b: (a,),
            a.within((0, 30), of=b): (a, b), a.outside(None, of=b): (a,), (a | b) & c: (a, b, c)}  # fmt: skip
    for cohort, of in made.items():
        reader = Reader(f"{seed}: {cohort.name}", least)
        reader.sees(card(cohort))
        for parent in of:
            reader.sees([*last(cohort), *last(parent)], parent.name)
        read_html(reader, cohort)
        read_drawn(reader, cohort.plot())
    union = a | b
    if last(a) and last(b) and last(union):
        Reader(f"{seed}: in both", least).sees([last(a)[0] + last(b)[0] - last(union)[0]])
    day = (DAY, DAY) if dice.random() < 0.5 else None
    for of, every in ((None, "year"), (b, "quarter")):
        for make in (a.incidence, a.prevalence):
            if len(everyone.spans) and (of is None or len(of.spans)):
                reader = Reader(f"{seed}: {make.__name__} of {of}", least)
                rates = unless("Nobody is observed", partial(make, of=of, every=every, between=day))
                if rates is None:
                    continue
                read_rates(reader, rates, a, of)
                if day and rates.measure == "incidence":
                    whole = rates.table().set_index(KEYS)["persons"]
                    for interval in whole.index.levels[0]:
                        parts = whole[interval].drop("all", level=0)[:, "all"]
                        reader.sums(whole[interval, "all", "all"], parts, "age groups of a day")
    for by in (None, "sex", "age_group"):
        if len(b.spans):
            found = unless("is free of", partial(b.time_to, a, by=by, most_days=200))
            if found is not None:
                read_curve(Reader(f"{seed}: time_to by {by}", least), found, b, a)
    for cohorts in ((a,), (a, union), (a, b), (a & b, a)):
        if all(len(one.spans) for one in cohorts):
            read_table_one(Reader(f"{seed}: table one", least), cohorts[0].table_one(*cohorts[1:]), *cohorts)
    if len(everyone.spans):
        read_paths(Reader(f"{seed}: pathways", least), everyone.pathways(a, b, drug), everyone)
    read_characterization(Reader(f"{seed}: characterization", least), cdm.characterize(progress=False))


@pytest.mark.parametrize("seed", range(3))
def test_no_number_and_no_difference_of_numbers_reveals_a_small_count(seed):
    read_everything(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_nor_does_any_of_two_hundred_more(seed):
    """Twenty of them a commit, and all of them with CI_ALL=1: see seeds."""
    read_everything(seed)
