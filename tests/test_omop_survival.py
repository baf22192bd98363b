"""Curves of time to an event: Kaplan and Meier's, person by person, and no step from which a few could be told."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort import Cohort
from genokit.omop.cohorts.cohort_data import AttritionStep
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT
from genokit.omop.cohorts.survival import _curve

CELECOXIB, BLEEDING = 1118084, 192671


@pytest.fixture(scope="module")
def cohorts(cdm):
    return cdm.cohort(drug=CELECOXIB, first_only=True, name="<i>users</i>"), cdm.cohort(condition=BLEEDING, name="$b")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=30))
def test_a_curve_is_kaplan_and_meier_s(found):
    frame = _curve(pd.DataFrame(found, columns=["days", "happened"]), 60).set_index("day")
    share = Fraction(1)
    for day in range(61):
        at_risk = sum(one >= day for one, _ in found)
        now = sum(one == day and happened for one, happened in found)
        share *= 1 if not now else 1 - Fraction(now, at_risk)
        assert frame.loc[day, "free"] == pytest.approx(float(share))
        assert frame.loc[day, "at_risk"] == at_risk
        assert frame.loc[day, "events"] == sum(happened and one <= day for one, happened in found)
        assert frame.loc[day, "low"] <= frame.loc[day, "free"] + 1e-9
        assert frame.loc[day, "free"] <= frame.loc[day, "high"] + 1e-9


def test_times_are_those_of_sql_written_by_hand(cdm, cohorts):
    users, bleeding = cohorts
    found = users.time_to(bleeding, most_days=60)
    expected = cdm.query(
        "with d as (select person_id, min(drug_exposure_start_date) as d from drug_exposure"
        " where drug_concept_id = 1118084 group by 1),"
        " c as (select person_id, min(condition_start_date) as c from condition_occurrence"
        " where condition_concept_id = 192671 group by 1)"
        " select count(*) as n, count(*) filter (c - d <= 60) as events, count(*) filter (c - d <= 30) as early"
        " from d join observation_period as o on o.person_id = d.person_id"
        " and d between observation_period_start_date and observation_period_end_date"
        " left join c on c.person_id = d.person_id where c is null or c >= d"
    )
    rows = found.frame.set_index("day")
    assert rows.loc[0, "at_risk"] == expected["n"].item()
    assert rows.loc[30, "events"] == expected["early"].item()
    assert rows.loc[60, "events"] == expected["events"].item()
    assert rows.loc[60, "free"] == pytest.approx(1 - expected["events"].item() / expected["n"].item(), abs=0.01)


def test_a_curve_reveals_no_small_count(cohorts):
    users, bleeding = cohorts
    for by in (None, "sex", "age_group"):
        found = users.time_to(bleeding, by=by)
        for _, rows in found.table().groupby("group"):
            for steps in (rows["events"].diff(), -rows["at_risk"].diff()):
                assert not steps.dropna().between(1, 4).any()
        assert len(found.table()) < len(found.frame)
        ET.fromstring(found._repr_html_())
        assert "<i>users" not in found._repr_html_()
        found.plot().figure.canvas.draw()


def test_persons_left_out_of_a_curve_do_not_reveal_a_small_difference_from_the_cohort(cdm):
    day = pd.Timestamp("2020-01-01")
    rows = pd.DataFrame({SUBJECT: range(1, 41), START: day, END: day + pd.Timedelta(days=99)}).astype(
        {SUBJECT: "Int64"}
    )
    target = Cohort("target", rows, (AttritionStep("all", 40, 40),), {}, cdm)
    before = rows.head(3).assign(**{START: day - pd.Timedelta(days=9)})
    found = target.time_to(Cohort("before", before, (AttritionStep("all", 3, 3),), {}, cdm), most_days=90)
    assert (found.frame["at_risk"].iloc[0], found.settings["left out"]) == (37, "* persons who had it before")
    assert 37 not in found.table()["at_risk"].tolist()


def starting(name: str, persons: int, day: str, cdm, first: int = 1) -> Cohort:
    start = pd.Timestamp(day)
    rows = pd.DataFrame({SUBJECT: range(first, first + persons), START: start, END: start + pd.Timedelta(days=99)})
    return Cohort(name, rows.astype({SUBJECT: "Int64"}), (AttritionStep(name, persons, persons),), {}, cdm)


def test_few_events_few_persons_without_and_few_censored_are_hidden(cdm):
    everyone = starting("everyone", 100, "2020-01-01", cdm)
    few = everyone.time_to(starting("few", 3, "2020-01-01", cdm), most_days=90)
    assert few.frame["events"].max() == 3
    assert not few.table()["events"].isin([3]).any()
    most = starting("some", 50, "2020-01-01", cdm).time_to(starting("most", 48, "2020-01-05", cdm), most_days=90)
    assert most.frame["events"].max() == 48
    assert not most.table()["events"].isin([46, 47, 48, 49]).any()
    assert "48" not in ["".join(cell.itertext()) for cell in ET.fromstring(most._repr_html_()).iter("td")]
    before = starting("some", 50, "2020-01-01", cdm).time_to(starting("had", 48, "2019-01-01", cdm), most_days=90)
    assert before.settings["left out"].startswith("* persons")  # 50 on the card, less 48, are 2
    assert before.table().empty
    before.plot().figure.canvas.draw()


def test_an_invalid_option_is_refused(cohorts):
    users, bleeding = cohorts
    with pytest.raises(InvalidParameters, match="Did you mean 'sex'"):
        users.time_to(bleeding, by="sax")
    with pytest.raises(InvalidParameters, match="whole number, 1 or more"):
        users.time_to(bleeding, most_days=0)
