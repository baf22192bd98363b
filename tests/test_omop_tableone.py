"""A table one: the same counts as SQL written by hand, and none from which a few persons could be told."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import date

import pytest
from small_cdm import small_cdm
from trino_query_parser import parse_statement

from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort_data import read
from genokit.omop.cohorts.table_one import LISTED
from genokit.omop.parameters import bind

CELECOXIB, DICLOFENAC = 1118084, 1124300
DAYS = {"since": date(2020, 1, 1), "until": date(2020, 2, 1)}


@pytest.fixture(scope="module")
def cohorts(cdm):
    return cdm.cohort(drug=CELECOXIB, first_only=True, name="<i>a"), cdm.cohort(drug=DICLOFENAC, name="b")


def test_a_table_one_equals_sql_written_by_hand(cohorts):
    frame = cohorts[0].table_one(cohorts[1], most=5).frame
    expected = cohorts[0].cdm.query(
        "with d as (select person_id, min(drug_exposure_start_date) as d from drug_exposure join observation_period"
        " using (person_id) where drug_concept_id = 1118084 and drug_exposure_start_date between"
        " observation_period_start_date and observation_period_end_date group by 1)"
        " select concept_name as value, count(distinct person_id) as persons from d join condition_occurrence"
        " using (person_id) join concept on concept_id = condition_concept_id"
        " where d - condition_start_date between 1 and 365 group by 1"
    )
    mine = frame[(frame["cohort"] == "<i>a") & (frame["characteristic"] == "condition")]
    assert len(mine) == 5
    known = dict(zip(expected["value"], expected["persons"], strict=True))
    assert dict(zip(mine["value"], mine["persons"], strict=True)) == {
        value: known.get(value, 0) for value in mine["value"]
    }
    sexes = frame[(frame["cohort"] == "<i>a") & (frame["characteristic"] == "sex")]
    assert dict(zip(sexes["value"], sexes["persons"], strict=True)) == {"female": 906, "male": 894}
    for name in ("sex", "age"):
        parts = frame[frame["characteristic"] == name].groupby("cohort")["persons"].sum()
        assert parts.tolist() == [cohorts[0].persons, cohorts[1].persons]


def test_a_table_one_reveals_no_small_count(cohorts):
    small = cohorts[0].table_one(cohorts[1], most=40)
    shown = small.table()
    assert len(shown) == len(small.frame)
    assert not shown["persons"].dropna().between(1, 4).any()
    assert shown["persons"].isna().sum() >= small.frame["persons"].between(1, 4).sum() > 0
    assert shown["percent"][shown["persons"].isna()].isna().all()
    hidden = shown[shown["persons"].isna()].set_index(["characteristic", "value"]).index
    assert shown.set_index(["characteristic", "value"]).loc[hidden]["difference"].isna().all()
    ET.fromstring(small._repr_html_())
    assert "<i>a" not in small._repr_html_()


def test_a_cohort_of_few_persons_shows_nothing(cohorts):
    few = replace(cohorts[0], spans=cohorts[0].spans.head(3), name="few")
    shown = few.table_one().table()
    assert shown["total"].isna().all()
    assert shown["persons"].dropna().eq(0).all()


def test_invalid_cohorts_are_refused(cohorts):
    with pytest.raises(InvalidParameters, match="have the same name"):
        cohorts[0].table_one(cohorts[0])
    with pytest.raises(InvalidParameters, match="is empty"):
        (cohorts[0] - cohorts[0]).table_one()


def test_a_cohort_of_which_nobody_has_a_prior_record_is_described_by_sex_and_age(tmp_path):
    cdm = small_cdm(
        tmp_path,
        person="select i as person_id, 8507 as gender_concept_id, if(i = 1, null, 1950) as year_of_birth"
        " from range(9) as t(i)",
        observation_period="select person_id, date '2020-01-01' as observation_period_start_date,"
        " date '2020-12-31' as observation_period_end_date from person",
    )
    found = cdm.cohort().table_one()
    assert set(found.frame["characteristic"]) == {"sex", "age"}
    assert found.frame.set_index("value")["persons"].to_dict() == {"male": 9, "65+": 8, "other": 1}
    ET.fromstring(found._repr_html_())


def test_beside_a_cohort_with_a_few_more_persons_no_difference_is_revealed(tmp_path):
    cdm = small_cdm(
        tmp_path,
        person="select i as person_id, 8507 + 25 * (i % 2) as gender_concept_id, 1950 as year_of_birth"
        " from range(60) as t(i)",
        observation_period="select person_id, date '2020-01-01' as observation_period_start_date,"
        " date '2020-12-31' as observation_period_end_date from person",
        condition_occurrence="select person_id, 7 as condition_concept_id, date '2020-06-01' as condition_start_date"
        " from person where person_id < 50 union all select person_id, 8, date '2020-06-01' from person"
        " where person_id between 48 and 52",
    )
    one, other = cdm.cohort(condition=7, name="a"), cdm.cohort(condition=8, name="b")
    shown = one.table_one(one | other).table().set_index(["cohort", "value"])
    assert shown[["persons", "total", "percent"]].isna().all(axis=None)  # the one of its own is 50, the other 53
    alone = (one | other).table_one().table()  # whose card is "*"
    assert alone[["persons", "total", "percent"]].isna().all(axis=None)
    assert (one | other).pathways(other).table().empty
    assert (one | other).time_to(other, by="sex").table().empty
    assert one.table_one().table()["total"].eq(50).all()


def test_its_query_is_as_long_for_a_million_persons_as_for_thousands(tmp_path):
    everyone = small_cdm(
        tmp_path,
        person="select i as person_id, 8507 as gender_concept_id, 1950 as year_of_birth from range(6000) as t(i)",
        observation_period="select person_id, date '2020-01-01' as observation_period_start_date,"
        " date '2020-12-31' as observation_period_end_date from person",
        condition_occurrence="select person_id, (1 + person_id % 3)::int as condition_concept_id,"
        " date '2019-12-01' as condition_start_date from person union all"
        " select person_id, 2, date '2019-12-02' from person union all select 1, 3, date '2018-01-01'",
        concept="select 2 as concept_id, 'two' as concept_name union all select 3, 'two'",
    ).cohort()
    assert everyone.persons > LISTED
    found = everyone.table_one().frame
    found = found[found["characteristic"] == "condition"].set_index("value")["persons"]
    assert found.to_dict() == {"two (2)": 6000, "concept 1": 2000, "two (3)": 2000}
    longest = {"persons": [2**62 + i for i in range(LISTED)], "everyone": False, **DAYS}
    assert len(bind(read("records"), longest, "athena")[0]) > 200_000  # and no refusal


def test_its_statement_is_trino_s_too():
    for some in ({"persons": [1, 2], "everyone": False}, {"persons": [], "everyone": True}):
        parse_statement(bind(read("records"), {**DAYS, **some}, "athena")[0])
