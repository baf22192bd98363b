"""Cohort definitions of ATLAS: the same persons and days as SQL written by hand, and as the kit's own cohorts."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from atlas import ASPIRIN, BLEEDING, CELECOXIB, NAMES, SINUS, SINUSITIS, defined, end, group, near, of, rule

from genokit import Cdm


def joined(own: str, days: int = 0) -> str:
    """Rows of person_id, s and e, those of a person as one that overlap or are no more than so many days apart."""
    return (
        f"with own as ({own}), marked as (select *, coalesce(s > max(e) over (partition by person_id order by s, e"
        f" rows between unbounded preceding and 1 preceding) + {days}, true) as new from own),"
        " numbered as (select *, sum(new::int) over (partition by person_id order by s, e) as n from marked)"
        " select person_id, min(s), max(e) from numbered group by person_id, n"
    )


OBSERVED = (
    "join observation_period as o on o.person_id = c.person_id"
    " and {} between observation_period_start_date and observation_period_end_date"
)
OF_CONDITION = f"condition_occurrence as c {OBSERVED.format('condition_start_date')}"
OF_DRUG = f"drug_exposure as c {OBSERVED.format('drug_exposure_start_date')}"
SICK = f"from {OF_CONDITION} where condition_concept_id = {SINUSITIS}"
TAKING = f"from {OF_DRUG} where drug_concept_id = {ASPIRIN}"

BY_HAND = {
    "the first ever of women of 40 to 65, observed for a year": (
        defined(
            of("DrugExposure", "celecoxib", First=True, Age={"Value": 40, "Extent": 65, "Op": "bt"},
               Gender=[{"CONCEPT_ID": 8532}]), prior=365,
        ),
        "with first as (select person_id, min(drug_exposure_start_date) as day from drug_exposure"
        f" where drug_concept_id = {CELECOXIB} group by 1)"
        " select c.person_id, day, observation_period_end_date from first as c join person as p using (person_id) "
        + OBSERVED.format("day")
        + " where gender_concept_id = 8532 and day >= observation_period_start_date + 365"
        " and year(day) - year_of_birth between 40 and 65",
    ),
    "thirty days from each, and what overlaps as one": (
        defined(SINUS, EndStrategy=end(30)),
        joined("select c.person_id, condition_start_date as s,"
               f" least(s + 30, observation_period_end_date) as e {SICK}"),
    ),
    "as long as the record, and what is at most a year apart as one": (
        defined(SINUS, EndStrategy=end(0, "EndDate"), CollapseSettings={"CollapseType": "ERA", "EraPad": 365}),
        joined("select c.person_id, condition_start_date as s, least(coalesce(condition_end_date, s + 1),"
               f" observation_period_end_date) as e {SICK}", 365),
    ),
    "while a drug is taken, with gaps of thirty days, and a week more": (
        defined(
            of("DrugExposure", "aspirin", First=True),
            EndStrategy={"CustomEra": {"DrugCodesetId": NAMES.index("aspirin"), "GapDays": 30, "Offset": 7}},
        ),
        "with era(person_id, s, e) as ("
        + joined("select person_id, drug_exposure_start_date as s, coalesce(drug_exposure_end_date,"
                 f" s + days_supply::int, s + 1) + 7 as e from drug_exposure where drug_concept_id = {ASPIRIN}", 30)
        + ") select c.person_id, drug_exposure_start_date, least(e, observation_period_end_date)"
        f" from {OF_DRUG} join era as r on r.person_id = c.person_id and drug_exposure_start_date between s and e"
        f" where drug_concept_id = {ASPIRIN} and not exists (from drug_exposure as b where"
        f" b.drug_concept_id = {ASPIRIN} and b.person_id = c.person_id"
        " and b.drug_exposure_start_date < c.drug_exposure_start_date)",
    ),
    "the last, when two or more in the five years before": (
        defined(SINUS, InclusionRules=[rule("two", near(SINUS, -1826, -1, least=2))], ExpressionLimit={"Type": "Last"}),
        f"select c.person_id, max(condition_start_date), any_value(observation_period_end_date) {SICK} and 2 <= (select"
        f" count(*) from condition_occurrence as b where b.condition_concept_id = {SINUSITIS} and b.person_id ="
        " c.person_id and b.condition_start_date between c.condition_start_date - 1826 and c.condition_start_date - 1"
        " and b.condition_start_date >= observation_period_start_date) group by 1",
    ),
    "men, or with two of three things, any of which in five years": (
        defined(
            of("DrugExposure", "celecoxib"),
            InclusionRules=[rule(
                "any",
                kind="ANY",
                DemographicCriteriaList=[{"Gender": [{"CONCEPT_ID": 8507}]}],
                Groups=[group(
                    near(SINUS, -1826, 0), near(of("ConditionOccurrence", "bleeding"), 0, 1826),
                    near(of("DrugExposure", "aspirin"), -1826, 0), kind="AT_LEAST", Count=2,
                )],
            )],
        ),
        "with c as (select c.person_id, drug_exposure_start_date as day, o.* exclude (person_id), gender_concept_id,"
        " exists (from condition_occurrence as b where b.person_id = c.person_id and"
        f" condition_concept_id = {SINUSITIS} and condition_start_date between"
        " greatest(day - 1826, observation_period_start_date) and day)::int"
        " + exists (from condition_occurrence as b where b.person_id = c.person_id and"
        f" condition_concept_id = {BLEEDING} and condition_start_date between"
        " day and least(day + 1826, observation_period_end_date))::int"
        f" + exists (from drug_exposure as b where b.person_id = c.person_id and b.drug_concept_id = {ASPIRIN} and"
        " b.drug_exposure_start_date between greatest(day - 1826, observation_period_start_date) and day)::int"
        f" as things from {OF_DRUG} join person as p on p.person_id = c.person_id"
        f" where c.drug_concept_id = {CELECOXIB})"
        " select person_id, min(day), any_value(observation_period_end_date) from c"
        " where gender_concept_id = 8507 or things >= 2 group by 1",
    ),
    "eras of a condition and of a drug, in the eighties": (
        defined(
            of("ConditionEra", "sinusitis", EraLength={"Value": 20, "Op": "gt"},
               EraStartDate={"Value": "1980-01-01", "Extent": "1989-12-31", "Op": "bt"}),
            of("DrugEra", "celecoxib", EraStartDate={"Value": "1990-01-01", "Op": "lt"}),
            EndStrategy=end(0, "EndDate"),
        ),
        joined("select c.person_id, c.s, least(c.e, observation_period_end_date) as e from (select person_id,"
               " condition_era_start_date as s, condition_era_end_date as e from condition_era where"
               f" condition_concept_id = {SINUSITIS} and e - s > 20 and year(s) between 1980 and 1989 union all"
               " select person_id, drug_era_start_date, drug_era_end_date from drug_era where drug_concept_id ="
               f" {CELECOXIB} and year(drug_era_start_date) < 1990) as c " + OBSERVED.format("s")),
    ),
    "what is recorded in a visit, or in the month from its end": (
        defined(
            {"VisitOccurrence": {"VisitLength": {"Value": 1, "Op": "gte"}}},
            InclusionRules=[
                rule("in it", near({"ConditionOccurrence": {}}, None, None, RestrictVisit=True)),
                rule("none after", near({"DrugExposure": {}}, 1, 30, least=0, window={"UseIndexEnd": True})),
            ],
            EndStrategy=end(0, "EndDate"),
        ),
        joined(
            "select c.person_id, visit_start_date as s, least(visit_end_date, observation_period_end_date) as e"
            f" from visit_occurrence as c {OBSERVED.format('visit_start_date')} where visit_end_date > visit_start_date"
            " and exists (from condition_occurrence as b where b.visit_occurrence_id = c.visit_occurrence_id and"
            " b.person_id = c.person_id and condition_start_date between observation_period_start_date and"
            " observation_period_end_date) and not exists (from drug_exposure as b where b.person_id = c.person_id and"
            " drug_exposure_start_date between visit_end_date + 1 and visit_end_date + 30 and drug_exposure_start_date"
            " between observation_period_start_date and observation_period_end_date)"
        ),
    ),
    "with further criteria at first, and between two days": (
        defined(
            SINUS,
            AdditionalCriteria=group(near(of("DrugExposure", "aspirin"), 0, 365)),
            QualifiedLimit={"Type": "First"},
            CensorWindow={"StartDate": "1975-01-01", "EndDate": "1994-12-31"},
        ),
        "select person_id, greatest(day, date '1975-01-01'), least(last, date '1994-12-31') from (select c.person_id,"
        f" min(condition_start_date) as day, any_value(observation_period_end_date) as last {SICK} and exists (from"
        f" drug_exposure as b where b.person_id = c.person_id and drug_concept_id = {ASPIRIN} and"
        " drug_exposure_start_date between condition_start_date and least(condition_start_date + 365,"
        " observation_period_end_date)) group by 1) where day <= date '1994-12-31' and last >= date '1975-01-01'",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    return Cdm()


def rows(frame: pd.DataFrame) -> list[tuple]:
    dates = [frame[name].astype("datetime64[us]").dt.strftime("%Y-%m-%d") for name in frame.columns[1:]]
    return sorted(zip(frame.iloc[:, 0].tolist(), *map(list, dates), strict=True))


@pytest.mark.parametrize("name", BY_HAND)
def test_a_definition_equals_sql_written_by_hand(cdm, name):
    definition, sql = BY_HAND[name]
    expected = cdm.query(sql)
    assert len(expected) > 20
    assert rows(cdm.atlas_cohort(definition).spans) == rows(expected)


def test_it_equals_the_kit_s_own_cohorts(cdm):
    users = cdm.cohort(drug=CELECOXIB, first_only=True)
    bleeding = cdm.cohort(condition=BLEEDING)
    first, sick = of("DrugExposure", "celecoxib", First=True), of("ConditionOccurrence", "bleeding")
    nsaids = cdm.concept_set("NSAIDs").include(1112807, CELECOXIB).exclude(CELECOXIB)
    sets = [{"id": 9, "name": "NSAIDs", "expression": json.loads(nsaids.to_json())}]
    same = [
        (defined(first), users),
        (defined(sick), bleeding),
        (defined(first, InclusionRules=[rule("soon", near(sick, 0, 365))]), users.within((-365, 0), of=bleeding)),
        (defined(first, InclusionRules=[rule("never before", near(sick, None, -1, least=0))]),
         users.outside((1, None), of=bleeding)),
        (defined(first, CensoringCriteria=[sick]), cdm.cohort(drug=CELECOXIB, first_only=True, censor=bleeding)),
        (defined({"DrugExposure": {"CodesetId": 9}}, ConceptSets=sets, EndStrategy=end(14)),
         cdm.cohort(drug=nsaids, end=14)),
    ]  # fmt: skip
    for definition, expected in same:
        assert expected.persons > 100
        found = cdm.atlas_cohort(definition)
        assert rows(found.spans) == rows(expected.spans)
        assert found.spans.dtypes.astype(str).tolist() == expected.spans.dtypes.astype(str).tolist()


RULES = [
    rule("again in ten years", near(SINUS, 1, 3650)),
    rule("never bled", near(of("ConditionOccurrence", "bleeding"), None, 0, least=0)),
    rule("men", DemographicCriteriaList=[{"Gender": [{"CONCEPT_ID": 8507}]}]),
]


def test_the_attrition_has_a_step_for_each_rule_and_atlas_s_counts(cdm):
    definition = defined(SINUS, of("DrugExposure", "aspirin"), InclusionRules=RULES, ExpressionLimit={"Type": "First"})
    found = cdm.atlas_cohort(definition, name="sick")
    reasons = ["entry events", *(one["name"] for one in RULES), "entries of the cohort"]
    assert found.attrition()["step"].tolist() == reasons
    for mode, counted in ((1, "persons"), (0, "entries")):
        assert [getattr(step, counted) for step in found.steps[:-1]] == counted_by_atlas(cdm, definition, mode)
    assert (found.steps[-1].persons, found.steps[-1].entries) == (found.persons, found.persons)
    assert found.steps[0].entries > found.steps[0].persons > found.steps[1].persons > found.steps[-1].persons > 20
    assert repr(found) == f"<Cohort sick, {found.persons:,} persons>"
    assert found.settings == {"atlas": definition}


def counted_by_atlas(cdm: Cdm, definition: dict[str, Any], mode: int) -> list[int]:
    """Of Circe's own statistics of inclusion rules: how many meet none or more, the first, the first two, ..."""
    from duckcdm.circe import build_cohort_query
    from duckcdm.sqlrender import render, translate

    with cdm.database.con.cursor() as con:
        con.execute(
            "create temp table cohort (cohort_definition_id bigint, subject_id bigint, cohort_start_date date,"
            " cohort_end_date date);"
            " create temp table cohort_censor_stats (cohort_definition_id bigint, lost_count bigint);"
            " create temp table cohort_inclusion_result (cohort_definition_id bigint, inclusion_rule_mask bigint,"
            " person_count bigint, mode_id int);"
            " create temp table cohort_inclusion_stats (cohort_definition_id bigint, rule_sequence int, person_count"
            " bigint, gain_count bigint, person_total bigint, mode_id int);"
            " create temp table cohort_summary_stats (cohort_definition_id bigint, base_count bigint, final_count"
            " bigint, mode_id int)"
        )
        built = build_cohort_query(
            definition, cdm_schema="cdm", target_table="temp.cohort", result_schema="temp", cohort_id=1,
            generate_stats=True,
        )  # fmt: skip
        con.execute(translate(render(built), "duckdb"))
        masks = con.execute(
            "select inclusion_rule_mask, person_count from cohort_inclusion_result where mode_id = ?", [mode]
        ).fetchall()
    wanted = [(1 << k) - 1 for k in range(len(definition["InclusionRules"]) + 1)]
    return [sum(count for mask, count in masks if mask & bits == bits) for bits in wanted]


def test_nothing_shown_reveals_a_small_count(cdm):
    few = rule("few", near(of("ConditionOccurrence", "bleeding"), 0, 300), near(SINUS, -30, 0))
    found = cdm.atlas_cohort(defined(of("DrugExposure", "celecoxib"), InclusionRules=[few]))
    assert 0 < found.persons < 5
    assert "<5 persons" in repr(found)
    assert found.attrition()["persons"].isna().any()
    assert cdm.atlas_cohort(defined(SINUS), min_cell=5000).attrition()["persons"].isna().all()
