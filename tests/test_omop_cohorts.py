"""Cohorts: the same persons and days as SQL written by hand, and nothing shown from which a few could be told."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from small_cdm import small_cdm
from trino_query_parser import parse_statement

from genokit import Cdm, Settings
from genokit.backends import clients
from genokit.errors import InvalidParameters, NotFound
from genokit.omop.cohorts import cohort as cohorts
from genokit.omop.cohorts import cohort_periods
from genokit.omop.cohorts.cohort_data import QUERIES, AttritionStep
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT
from genokit.omop.parameters import bind

CELECOXIB, BLEEDING, SINUSITIS, ASPIRIN, TEMPERATURE = 1118084, 192671, 40481087, 19059056, 3006322
BEGIN = pd.Timestamp("2020-01-01")


def rows(frame: pd.DataFrame) -> list[tuple]:
    days = [frame[name].astype("datetime64[us]").dt.strftime("%Y-%m-%d") for name in frame.columns[1:]]
    return sorted(zip(frame.iloc[:, 0].tolist(), *map(list, days), strict=True))


BY_HAND = {
    "all records until the observation ends": (
        {"condition": BLEEDING},
        "select c.person_id, min(condition_start_date), any_value(observation_period_end_date)"
        " from condition_occurrence as c join observation_period as o on o.person_id = c.person_id"
        " and condition_start_date between observation_period_start_date and observation_period_end_date"
        " where condition_concept_id = 192671 group by 1",
    ),
    "new users, women of 40 to 65, observed for a year": (
        {"drug": CELECOXIB, "first_only": True, "prior_observation_days": 365, "age_at_entry": (40, 65),
         "sex": "female"},
        "with first as (select person_id, min(drug_exposure_start_date) as day from drug_exposure"
        " where drug_concept_id = 1118084 group by 1)"
        " select f.person_id, day, observation_period_end_date from first as f join person as p using (person_id)"
        " join observation_period as o on o.person_id = f.person_id"
        " and day between observation_period_start_date + 365 and observation_period_end_date"
        " where gender_concept_id = 8532"
        " and date_sub('year', make_date(year_of_birth, month_of_birth, day_of_birth), day) between 40 and 65",
    ),
    "those without one in the 60 days before, as long as the record": (
        {"condition": SINUSITIS, "washout_days": 60, "end": "record"},
        "with own as (select person_id, condition_start_date as s, max(coalesce(condition_end_date, s)) as e"
        " from condition_occurrence where condition_concept_id = 40481087 group by 1, 2)"
        " select o.person_id, o.s, least(o.e, p.observation_period_end_date) from own as o"
        " join observation_period as p on p.person_id = o.person_id"
        " and o.s between observation_period_start_date and observation_period_end_date"
        " where not exists (from own as b where b.person_id = o.person_id and b.s < o.s and b.e >= o.s - 60)",
    ),
    "a drug or a condition, for thirty days, in ten years": (
        {"condition": BLEEDING, "drug": CELECOXIB, "end": 30, "entered": ("1990-01-01", "1999-12-31"),
         "washout_days": 31},
        "with own as (select person_id, condition_start_date as s from condition_occurrence"
        " where condition_concept_id = 192671 union select person_id, drug_exposure_start_date from drug_exposure"
        " where drug_concept_id = 1118084),"
        " ended as (select person_id, drug_exposure_start_date as s, drug_exposure_end_date as e from drug_exposure"
        " where drug_concept_id = 1118084 union all select person_id, condition_start_date,"
        " coalesce(condition_end_date, condition_start_date) from condition_occurrence"
        " where condition_concept_id = 192671)"
        " select o.person_id, s, least(s + 30, observation_period_end_date) from own as o"
        " join observation_period as p on p.person_id = o.person_id"
        " and s between observation_period_start_date and observation_period_end_date"
        " where s between '1990-01-01' and '1999-12-31' and not exists"
        " (from ended as b where b.person_id = o.person_id and b.s < o.s and b.e >= o.s - 31)",
    ),
    "everyone": (
        {},
        "select person_id, observation_period_start_date, observation_period_end_date"
        " from observation_period semi join person using (person_id)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_cohort_equals_sql_written_by_hand(cdm, name):
    asked, sql = BY_HAND[name]
    expected = cdm.query(sql)
    assert len(expected) > 20
    assert rows(cdm.cohort(**asked).spans) == rows(expected)


def test_within_and_outside_equal_sql_written_by_hand(cdm):
    users = cdm.cohort(drug=CELECOXIB, first_only=True)
    bleeding = cdm.cohort(condition=BLEEDING, first_only=True)
    both = (
        "with c as (select person_id, min(condition_start_date) as c from condition_occurrence"
        " where condition_concept_id = 192671 group by 1),"
        " d as (select person_id, min(drug_exposure_start_date) as d from drug_exposure"
        " where drug_concept_id = 1118084 group by 1)"
        " select count(*) as n from c left join d on d.person_id = c.person_id and exists (from observation_period as o"
        " where o.person_id = d.person_id and d between observation_period_start_date and observation_period_end_date)"
    )

    def count(condition: str) -> int:
        return int(cdm.query(f"{both} where {condition}")["n"].item())

    assert bleeding.within((0, 365), of=users).persons == count("c - d between 0 and 365")
    assert bleeding.within(1000, of=users).persons == count("abs(c - d) <= 1000")
    assert bleeding.within((-400, -1), of=users).persons == count("c - d between -400 and -1")
    assert bleeding.within((None, 0), of=users).persons == count("c <= d")
    assert bleeding.outside(None, of=users).persons == count("d is null")
    assert bleeding.within(None, of=users).persons + bleeding.outside(None, of=users).persons == bleeding.persons


def test_a_measurement_s_value_is_bounded(tmp_path):
    small = small_cdm(
        tmp_path,
        person="from (values (1, 8507, 1950), (2, 8532, 1960)) as t(person_id, gender_concept_id, year_of_birth)",
        observation_period="select person_id, date '2000-01-01' as observation_period_start_date,"
        " date '2010-12-31' as observation_period_end_date from person",
        measurement="from (values (1, 7, date '2001-01-01', 6.4), (1, 7, date '2002-01-01', 6.5),"
        " (2, 7, date '2003-01-01', null))"
        " as t(person_id, measurement_concept_id, measurement_date, value_as_number)",
    )
    assert rows(small.cohort(measurement=7, value=(6.5, None)).spans) == [(1, "2002-01-01", "2010-12-31")]
    assert small.cohort(measurement=7).persons == 2
    assert small.cohort(measurement=7, value=(None, 6.45)).spans[START].astype(str).tolist() == ["2001-01-01"]
    # Who has no day of birth was born on the first of January.
    assert small.cohort(measurement=7, age_at_entry=(51, 51)).persons == 1


def test_a_death_is_an_outcome_and_an_end(tmp_path):
    day = "date '2000-01-01' + ({})::int".format
    small = small_cdm(
        tmp_path,
        person="select i as person_id, 8507 as gender_concept_id, 1950 as year_of_birth from range(1, 21) as t(i)",
        observation_period=f"select person_id, {day(0)} as observation_period_start_date,"
        f" {day('500')} as observation_period_end_date from person",
        condition_occurrence=f"select person_id, 7 as condition_concept_id, {day('person_id')} as condition_start_date"
        " from person",
        death=f"select person_id, {day('person_id * 60')} as death_date, 100 + person_id % 2 as cause_concept_id"
        " from person where person_id <= 10",
    )
    deaths = small.cohort(death=True)
    assert rows(deaths.spans)[:2] == [(1, "2000-03-01", "2001-05-15"), (2, "2000-04-30", "2001-05-15")]
    assert deaths.persons == 8, "who died when nobody looked is not in it"
    assert (deaths.name, deaths.settings["death"]) == ("death", True)
    assert deaths.attrition()["step"].tolist() == ["records of death", "observed on that day"]
    by_cause = small.cohort(death=101)
    assert by_cause.spans[SUBJECT].tolist() == [1, 3, 5, 7]
    assert by_cause.name == "death by concept 101"
    ill = small.cohort(condition=7, censor=deaths)
    assert ill.spans[END].dt.strftime("%Y-%m-%d").tolist()[:2] == ["2000-03-01", "2000-04-30"]
    assert ill.time_to(deaths, most_days=500).frame["events"].iloc[-1] == 8
    assert deaths.incidence(every="decade").frame["events"].iloc[0] == 8
    assert small.cohort(death=False).persons == 20


def test_a_cohort_ends_where_another_begins(cdm):
    users = cdm.cohort(drug=CELECOXIB, first_only=True)
    bleeding = cdm.cohort(condition=BLEEDING, first_only=True)
    cut = cdm.cohort(drug=CELECOXIB, first_only=True, censor=bleeding).spans.merge(bleeding.spans, on=SUBJECT)
    after = cut[cut[f"{START}_y"] >= cut[f"{START}_x"]]
    assert (after[f"{END}_x"] == after[f"{START}_y"]).all()
    assert (users - bleeding).persons == users.persons  # entered before, so some days are left
    assert (users - bleeding).spans[END].max() <= users.spans[END].max()


def span_frames() -> st.SearchStrategy[pd.DataFrame]:
    one = st.tuples(st.integers(1, 3), st.integers(0, 20), st.integers(0, 6))
    return st.lists(one, max_size=6).map(frame_of)


def frame_of(found: list[tuple[int, int, int]]) -> pd.DataFrame:
    who, start, length = (pd.Series([row[i] for row in found], dtype="int64") for i in range(3))
    begin = BEGIN + pd.to_timedelta(start, unit="D")
    return cohort_periods.merged(
        pd.DataFrame({SUBJECT: who.astype("Int64"), START: begin, END: begin + pd.to_timedelta(length, unit="D")})
    )


def days(frame: pd.DataFrame) -> set[tuple[int, int]]:
    found = [
        (who, day)
        for who, start, end in frame.itertuples(index=False)
        for day in range((start - BEGIN).days, (end - BEGIN).days + 1)
    ]
    assert len(found) == len(set(found)), "two spans of one person share a day"
    return set(found)


@settings(max_examples=30)
@given(span_frames(), span_frames())
def test_the_algebra_of_cohorts_is_that_of_sets_of_days(left, right):
    a, b = (cohorts.Cohort(name, one, (), {}, Cdm()) for name, one in (("a", left), ("b", right)))
    assert days((a & b).spans) == days(left) & days(right)
    assert days((a | b).spans) == days(left) | days(right)
    assert days((a - b).spans) == days(left) - days(right)


def test_each_step_is_counted_and_shown(cdm):
    found = cdm.cohort(drug=CELECOXIB, first_only=True, age_at_entry=(40, 65), sex="female", name="users")
    frame = found.attrition()
    assert frame["step"].tolist() == [
        "records of celecoxib", "the first ever", "observed on that day", "aged 40 to 65", "female",
    ]  # fmt: skip
    assert frame["persons"].tolist() == [1844, 1844, 1800, 645, 342]
    assert frame["left_out"].tolist()[1:] == [0, 44, 1155, 303]
    assert found.settings["age_at_entry"] == [40, 65]
    assert found.settings["drug"] == {"name": "celecoxib", "concept_ids": [CELECOXIB]}
    bleeding = cdm.cohort(condition=BLEEDING, name="bleeding").within((0, 365), of=found)
    assert bleeding.attrition()["step"].iloc[-1] == "within 0 to 365 days after users"
    assert bleeding.settings["within"][1]["sex"] == "female"


def test_nothing_shown_reveals_a_small_count(cdm):
    everyone = cdm.cohort()
    few = everyone.spans.head(3)
    steps = (AttritionStep("all", 60, 60), AttritionStep("most", 58, 58), AttritionStep("few", 3, 3))
    small = cohorts.Cohort("few", few, steps, {}, cdm)
    assert repr(small) == "<Cohort few, <5 persons>"
    assert not small.attrition()["persons"].isin([3, 58]).any()
    shown = ["".join(cell.itertext()) for cell in ET.fromstring(small._repr_html_()).iter("td")]
    assert "60" in shown
    assert not {"58", "57", "55", "3"} & set(shown)
    drawn = " ".join(text.get_text() for text in small.plot().texts)
    assert not re.search(r"\b(58|57|55|3)\b", drawn)
    large = cohorts.Cohort("more", everyone.spans.head(12), (AttritionStep("all", 12, 12),), {}, cdm, min_cell=20)
    assert repr(large) == "<Cohort more, <20 persons>"
    assert (large & everyone).min_cell == 20


persons_of = st.sets(st.integers(1, 16), min_size=8)


def of_persons(name: str, persons: set[int], cdm: Cdm) -> cohorts.Cohort:
    found = frame_of([(who, 0, 0) for who in sorted(persons)])
    return cohorts.Cohort(
        name, found, (AttritionStep("all", 24, 24), AttritionStep(name, len(found), len(found))), {}, cdm
    )


@settings(max_examples=12, deadline=None)
@given(persons_of, persons_of, persons_of)
def test_cards_of_cohorts_made_of_one_another_do_not_reveal_a_small_difference(one, two, three):
    cdm = Cdm()
    a, b, c = (of_persons(name, who, cdm) for name, who in (("a", one), ("b", two), ("c", three)))
    made = {  # each with those that it is made of, of which it has some of the persons, or all and more
        a: (), b: (), c: (),
        a & b: (a, b), a - b: (a,), a | b: (a, b), (a & b) & c: (a, b, c), a & (b & c): (a, b, c), (a - b) & c: (a, c),
        a.within(0, of=b): (a, b), a.outside(None, of=b): (a,), (a & b).within(None, of=c): (a, b, c),
        (b | c) | a: (a, b, c),
    }  # fmt: skip
    told = {}
    for cohort, parents in made.items():
        [number] = re.findall(r"([\d<*]+) persons>", repr(cohort))
        shown = cohort.attrition()["persons"]
        assert number == str(shown.iloc[-1]) if number.isdigit() else pd.isna(shown.iloc[-1])
        assert not shown.diff().abs().between(1, 4).any()
        told[cohort] = int(number) if number.isdigit() else None
        for parent in parents:
            if None not in (told[cohort], told[parent]):
                assert not 0 < abs(told[cohort] - told[parent]) < 5, "these few are in the one and not in the other"


def test_neither_entries_nor_sums_reveal_a_small_difference_of_cohorts(cdm):
    a, b = (of_persons(name, set(who), cdm) for name, who in (("a", range(50)), ("b", range(47, 97))))
    three = replace_spans(a, [(who, 200 * time, 0) for who in range(50) for time in range(2 if who < 3 else 1)])
    assert three.attrition()["entries"].tolist() == [24, pd.NA]  # 53 entries of 50 persons
    c = of_persons("c", set(range(3, 53)), cdm)
    for made, of in ((a | c, "53"), (a & c, "47"), (a.within(0, of=c), "47")):
        assert made.persons == int(of)
        assert made.attrition().iloc[-1][["persons", "entries"]].isna().all()
        assert of not in re.findall(r"\d+", repr(made) + made._repr_html_())
    assert (a | b).persons == 97  # 50 and 50: so 3 would be in both
    assert repr(a | b) == "<Cohort a or b, * persons>"


def replace_spans(cohort: cohorts.Cohort, rows: list[tuple[int, int, int]]) -> cohorts.Cohort:
    found = frame_of(rows)
    steps = (cohort.steps[0], AttritionStep(cohort.name, found[SUBJECT].nunique(), len(found)))
    return cohorts.Cohort(cohort.name, found, steps, {}, cohort.cdm)


def test_the_settings_of_its_own_clients_say_what_is_small_of_a_cdm(tmp_path):
    own = Cdm(small_ten(tmp_path), clients=clients(Settings(min_cell=50)))
    everyone = own.cohort(name="all")
    assert repr(everyone) == "<Cohort all, <50 persons>"
    assert everyone.attrition()["persons"].isna().all()
    assert everyone.incidence().table()["persons"].isna().any()
    assert own.characterize(progress=False).results.num_rows == 0
    assert "&lt;50" in own._repr_html_()
    assert "&lt;50" in own.table("person")._repr_html_()
    assert repr(Cdm(tmp_path).cohort(name="all")) == "<Cohort all, 10 persons>"


def small_ten(folder):
    small_cdm(
        folder,
        person="select i as person_id, 8507 as gender_concept_id, 1950 as year_of_birth from range(10) as t(i)",
        observation_period="select person_id, date '2020-01-01' as observation_period_start_date,"
        " date '2020-12-31' as observation_period_end_date from person",
    )
    return folder


def test_a_cohort_is_stored_as_the_cdm_stores_it_and_read_again(cdm, tmp_path):
    folder = tmp_path / "cdm"
    folder.mkdir()
    parquet.write_table(cdm.query("from person", as_arrow=True), folder / "person.parquet")
    users = cdm.cohort(drug=CELECOXIB, first_only=True, name="users")
    number = users.to_parquet(folder)
    assert users.to_parquet(folder) == number, "the same cohort has the same id"
    assert cdm.cohort(drug=CELECOXIB).to_parquet(folder) != number
    there = Cdm(folder)
    back = there.stored_cohort(number)
    assert rows(back.spans) == rows(users.spans)
    named = there.query("from cohort_definition where cohort_definition_id = $i", i=number)
    assert named["cohort_definition_name"].item() == "users"
    with pytest.raises(NotFound, match="has no cohort 5"):
        there.stored_cohort(5)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"sex": "femal"}, "Did you mean 'female'"),
        ({"washout_days": -1}, "whole number, 0 or more"),
        ({"age_at_entry": 40}, "a lower and an upper bound"),
        ({"end": "never"}, "cannot end at 'never'"),
        ({"value": (1, 2)}, "measurement="),
        ({"condition": ["a"]}, "not concepts"),
        ({"condition": True}, "not concepts"),
        ({"censor": 5}, "Give a cohort"),
    ],
)
def test_an_invalid_option_is_refused(cdm, asked, says):
    with pytest.raises(InvalidParameters, match=re.escape(says)):
        cdm.cohort(**asked)


def test_days_must_be_bounds(cdm):
    users = cdm.cohort(drug=CELECOXIB)
    for wrong in (-3, "30", (1, 2, 3), True):
        with pytest.raises(InvalidParameters):
            users.within(wrong, of=users)


def test_names_are_shown_as_they_are(cdm):
    hostile = "<script>alert('$x$')</script> & \x00"
    users = cdm.cohort(drug=CELECOXIB, name=hostile)
    assert "<script>" not in users._repr_html_()
    ET.fromstring(users._repr_html_())
    (users & users).plot().figure.canvas.draw()


def test_a_stay_in_intensive_care_is_found_as_a_part_of_a_visit(tmp_path):
    cdm = small_cdm(
        tmp_path,
        person="select range + 1 as person_id, 8507 as gender_concept_id, 1950 as year_of_birth from range(3)",
        observation_period="select person_id, date '2020-01-01' as observation_period_start_date,"
        " date '2021-01-01' as observation_period_end_date from person",
        visit_occurrence="select person_id as visit_occurrence_id, person_id, 9201 as visit_concept_id,"
        " date '2020-02-01' as visit_start_date, date '2020-02-20' as visit_end_date from person",
        visit_detail="select * from (values (1, 1, 1, 32037, date '2020-02-05', date '2020-02-08'),"
        " (2, 2, 2, 9201, date '2020-02-03', date '2020-02-04'), (3, 3, null, 32037, date '2020-05-01', null))"
        " as t(visit_detail_id, person_id, visit_occurrence_id, visit_detail_concept_id, visit_detail_start_date,"
        " visit_detail_end_date)",
    )
    intensive = cdm.cohort(visit=32037, end="record", min_cell=0)
    assert rows(intensive.spans[[SUBJECT, START, END]]) == [
        (1, "2020-02-05", "2020-02-08"),
        (3, "2020-05-01", "2020-05-01"),
    ]
    inpatient = cdm.cohort(visit=9201, entered=("2020-02-02", None), min_cell=0)
    assert inpatient.persons == 0, "a ward of an inpatient visit is no entry of its own"
    (tmp_path / "visit_detail.parquet").unlink()
    assert Cdm(tmp_path).cohort(visit=9201).persons == 3, "without visit_detail"


def test_every_statement_is_trino_s_too():
    parts = {name: (QUERIES / f"{name}.sql").read_text() for name in
             ("condition", "drug", "measurement", "procedure", "observation", "device", "visit", "death")}  # fmt: skip
    whole = (QUERIES / "entries.sql").read_text().replace("{records}", "\nunion all\n".join(parts.values()))
    ids = {name: [1, 2] for name in parts}
    for least, most, any_cause in ((None, None, True), (1.5, None, False)):
        sql, _ = bind(whole, {**ids, "least": least, "most": most, "any_cause": any_cause}, "athena")
        parse_statement(sql)
        sqlglot.parse_one(sql, read="athena")
    for name in ("persons", "observed"):
        parse_statement((QUERIES / f"{name}.sql").read_text())
