"""Incidence and prevalence: the same numbers as counting day by day, and as SQL written by hand."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cdm import small_cdm

from genokit import Cdm
from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort import Cohort
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT, merged

BLEEDING, CELECOXIB, SINUSITIS = 192671, 1118084, 40481087
DAY = pd.Timedelta(days=1)
BEGIN = pd.Timestamp("2001-12-20")


def test_first_bleedings_per_year_equal_sql_written_by_hand(cdm):
    rates = cdm.cohort(condition=BLEEDING, first_only=True).incidence(between=("1980-01-01", "1999-12-31"))
    expected = cdm.query(
        "with e as (select person_id, min(condition_start_date) as day from condition_occurrence"
        " where condition_concept_id = 192671 group by 1),"
        " y as (select unnest(range(1980, 2000)) as year),"
        " t as (select year, o.person_id, day, greatest(observation_period_start_date, make_date(year, 1, 1)) as a,"
        " least(observation_period_end_date, make_date(year, 12, 31), coalesce(day, '9999-12-31')) as b"
        " from y, person as p join observation_period as o using (person_id) left join e using (person_id))"
        " select year, count(*) as persons, sum(b - a + 1) as days, count(*) filter (day = b) as events"
        " from t where a <= b group by 1 order by 1"
    )
    found = rates.frame[(rates.frame["age_group"] == "all") & (rates.frame["sex"] == "all")].iloc[:-1]
    assert found["interval_start"].dt.year.tolist() == expected["year"].tolist()
    assert found["persons"].tolist() == expected["persons"].tolist()
    assert found["events"].tolist() == expected["events"].tolist()
    assert (found["person_years"] * 365.25).round().tolist() == expected["days"].tolist()
    assert found["rate"].iloc[0] == pytest.approx(
        100_000 * expected["events"].iloc[0] / (expected["days"].iloc[0] / 365.25)
    )


def test_prevalence_equals_sql_written_by_hand(cdm):
    rates = cdm.cohort(condition=BLEEDING).prevalence(between=("2000-01-01", "2009-12-31"), age_groups=((0, 150),))
    expected = cdm.query(
        "with e as (select person_id, min(condition_start_date) as day from condition_occurrence"
        " where condition_concept_id = 192671 group by 1), y as (select unnest(range(2000, 2010)) as year)"
        " select year, gender_concept_id as sex, count(*) as persons, count(*) filter (day <= make_date(year, 12, 31))"
        " as cases from y, person as p join observation_period as o using (person_id) left join e using (person_id)"
        " where observation_period_start_date <= make_date(year, 12, 31)"
        " and observation_period_end_date >= make_date(year, 1, 1) group by all order by 1, 2 desc"
    )
    found = rates.frame[(rates.frame["age_group"] == "all") & (rates.frame["sex"] != "all")]
    assert found["persons"].tolist() == expected["persons"].tolist()
    assert found["cases"].tolist() == expected["cases"].tolist()


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> Cdm:
    """Five persons, two of them with a gap in what is observed."""
    return small_cdm(
        tmp_path_factory.mktemp("five"),
        person="select i as person_id, 8507 + 25 * (i % 2) as gender_concept_id, 1984 - i as year_of_birth,"
        " 1 as month_of_birth, 3 as day_of_birth from range(1, 6) as t(i)",
        observation_period="select i as person_id, date '2001-12-20' + i::int as observation_period_start_date,"
        " date '2001-12-20' + 20 + i::int as observation_period_end_date from range(1, 6) as t(i) union all"
        " select i, date '2001-12-20' + 30, date '2001-12-20' + 40 from range(1, 3) as t(i)",
    )


def observed() -> dict[int, set[int]]:
    days = {who: set(range(who, who + 21)) for who in range(1, 6)}
    return {who: found | (set(range(30, 41)) if who < 3 else set()) for who, found in days.items()}


events = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40), st.integers(0, 4)), max_size=8)


def spans(found: list[tuple[int, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(found, columns=[SUBJECT, "start", "length"]).astype("int64")
    begin = BEGIN + pd.to_timedelta(frame["start"], unit="D")
    end = begin + pd.to_timedelta(frame["length"], unit="D")
    return merged(pd.DataFrame({SUBJECT: frame[SUBJECT].astype("Int64"), START: begin, END: end}))


@settings(max_examples=25, deadline=None)
@given(events, st.sampled_from([None, 0, 3]))
def test_incidence_is_what_counting_day_by_day_gives(five, found, washout):
    outcome = Cohort("outcome", spans(found), (), {}, five)
    rates = outcome.incidence(washout_days=washout, age_groups=((0, 18), (19, 30)))
    days, begun = 0, 0
    for who, seen in observed().items():
        mine = outcome.spans[outcome.spans[SUBJECT] == who]
        blocked: set[int] = set()
        starts = set()
        for _, start, end in mine.itertuples(index=False):
            first = (start - BEGIN).days
            last = 10_000 if washout is None else (end - BEGIN).days + washout
            if first not in blocked:
                starts.add(first)
            blocked |= set(range(first + 1, last + 1))
        days += len(seen - blocked)
        begun += len((starts - blocked) & seen)
    whole = rates.frame[(rates.frame[["interval", "age_group", "sex"]] == "all").all(axis=1)]
    assert round(whole["person_years"].item() * 365.25) == days
    assert whole["events"].item() == begun
    parts = rates.frame[(rates.frame[["interval", "age_group", "sex"]] != "all").all(axis=1)]
    assert round(parts["person_years"].sum() * 365.25) == days
    assert parts["events"].sum() == begun
    assert rates.table()["events"].dropna().between(1, 4).sum() == 0


@settings(max_examples=25)
@given(events, st.booleans())
def test_prevalence_is_what_counting_person_by_person_gives(five, found, point):
    cases = Cohort("cases", spans(found), (), {}, five)
    frame = cases.prevalence(every="month", point=point, age_groups=((0, 18), (19, 20), (22, 30))).frame
    having = {
        (who, (start - BEGIN).days + i)
        for who, start, end in cases.spans.itertuples(index=False)
        for i in range((end - start).days + 1)
    }
    counted: dict[tuple[str, str, str], list[int]] = {}
    for interval, start, end in frame[["interval", "interval_start", "interval_end"]].drop_duplicates().to_numpy():
        part = set(range((start - BEGIN).days, (end - BEGIN).days + 1))
        for who, seen in observed().items():
            if not seen & part:
                continue
            birthday = pd.Timestamp("2002-01-03")  # each year's, and the only one in this study
            age = 2002 - (1984 - who) - (BEGIN + min(seen & part) * DAY < birthday)
            group = "0-18" if age <= 18 else "19-20" if age <= 20 else "22-30" if age >= 22 else None
            for key in {
                (interval, g, s) for g in ("all", group) for s in ("all", ("male", "female")[who % 2]) if group
            }:
                one = counted.setdefault(key, [0, 0])
                one[0] += 1
                one[1] += any((who, day) in having for day in seen & part)
    for row in frame.itertuples():
        assert [row.persons, row.cases] == counted.get((row.interval, row.age_group, row.sex), [0, 0])


def test_a_rate_may_be_that_of_another_cohort(cdm):
    users = cdm.cohort(drug=CELECOXIB, first_only=True, name="celecoxib")
    bleeding = cdm.cohort(condition=BLEEDING, first_only=True, name="bleeding")
    rates = bleeding.incidence(of=users, every="decade")
    whole = rates.frame[(rates.frame[["interval", "age_group", "sex"]] == "all").all(axis=1)]
    assert whole["events"].item() == bleeding.within((0, None), of=users).persons
    assert rates.settings["at risk"] == "celecoxib"
    assert whole["low"].item() < whole["rate"].item() < whole["high"].item()


def test_rates_reveal_no_small_count(cdm):
    bleeding = cdm.cohort(condition=BLEEDING, first_only=True, name="<b>bleeding</b> $x$")
    for rates in (bleeding.incidence(every="decade"), bleeding.prevalence(every="decade")):
        shown = rates.table()
        small = [name for name in ("persons", "events", "cases") if name in shown]
        assert len(shown) == len(rates.frame)
        for name in small:
            assert not shown[name].dropna().between(1, 4).any()
            assert shown[name].isna().sum() >= rates.frame[name].between(1, 4).sum() > 0
        assert shown["rate"][shown[small[-1]].isna()].isna().all()
        ET.fromstring(rates._repr_html_())
        assert "<b>bleeding" not in rates._repr_html_()
        for by in ("sex", "age_group"):
            rates.plot(by=by).figure.canvas.draw()
        assert re.fullmatch(r"<Rates \w+ of .*, \d+ intervals>", repr(rates))


def test_points_are_days(cdm):
    bleeding = cdm.cohort(condition=BLEEDING)
    point = bleeding.prevalence(between=("2000-01-01", "2004-12-31"), point=True).frame
    assert (point["interval_start"] == point["interval_end"]).all()
    sql = (
        "select count(distinct person_id) as n from observation_period semi join person using (person_id)"
        " where date '2002-01-01' between observation_period_start_date and observation_period_end_date"
    )
    whole = point[(point["age_group"] == "all") & (point["sex"] == "all") & (point["interval"] == "2002-01-01")]
    assert whole["persons"].item() == cdm.query(sql)["n"].item()


def test_a_prior_event_ends_the_risk_though_the_cohort_has_no_entry_of_it(tmp_path):
    cdm = small_cdm(
        tmp_path,
        person="select i as person_id, 8507 as gender_concept_id, 1950 as year_of_birth from range(1, 4) as t(i)",
        observation_period="select person_id, date '2010-01-01' as observation_period_start_date,"
        " date '2012-12-30' as observation_period_end_date from person",
        condition_occurrence="select person_id, 7 as condition_concept_id, date '2009-05-01' as condition_start_date"
        " from person where person_id = 1 union all select 2, 7, date '2010-03-01' union all"
        " select 2, 7, date '2012-03-01' union all select 3, 7, date '2012-06-01'",
    )
    whole = cdm.cohort(condition=7, prior_observation_days=365).incidence().frame.set_index(["interval", "sex"])
    whole = whole[whole["age_group"] == "all"].loc[("all", "all")]
    # The first had it before; the second has days until the one that was left out, the third until the one that counts.
    days = (pd.Timestamp("2010-03-01") - pd.Timestamp("2010-01-01")).days + 1
    days += (pd.Timestamp("2012-06-01") - pd.Timestamp("2010-01-01")).days + 1
    assert (whole["persons"], whole["events"]) == (2, 1)
    assert whole["person_years"] == pytest.approx(days / 365.25)
    again = cdm.cohort(condition=7, end="record").incidence(washout_days=30).frame
    assert again[(again[["interval", "age_group", "sex"]] == "all").all(axis=1)]["events"].item() == 3
    both = cdm.cohort(condition=7, prior_observation_days=365) | cdm.cohort(condition=8)
    assert both.incidence().frame["persons"].max() == 2


def test_impossible_and_missing_days_of_birth_have_a_place_or_none(tmp_path):
    cdm = small_cdm(
        tmp_path,
        person="from (values (1, 8507, 2001, 2, 29), (2, 0, 1990, 13, 45), (3, 8532, null, 1, 1),"
        " (4, 8532, 1702, 4, 31), (5, null, 1950, null, null))"
        " as t(person_id, gender_concept_id, year_of_birth, month_of_birth, day_of_birth)",
        observation_period="select person_id, date '2019-03-01' as observation_period_start_date,"
        " date '2019-03-01' as observation_period_end_date from person",
        condition_occurrence="select 1 as person_id, 7 as condition_concept_id,"
        " date '2019-03-01' as condition_start_date",
    )
    ages = ((0, 17), (18, 18), (19, 150), (151, 400))
    for rates in (
        cdm.cohort(condition=7).incidence(age_groups=ages),
        cdm.cohort(condition=7).prevalence(age_groups=ages),
    ):
        found = rates.frame[(rates.frame["sex"] == "all") & (rates.frame["interval"] != "all")].set_index("age_group")
        assert found["persons"].to_dict() == {"all": 4, "0-17": 0, "18-18": 1, "19+": 2, "151+": 1}  # born 1 March 2001


def test_of_a_single_day_no_sum_reveals_an_age_group_or_its_person_years(tmp_path):
    cdm = small_cdm(
        tmp_path,
        person="select i as person_id, 8507 + 25 * (i % 2) as gender_concept_id, case when i <= 3 then 2005"
        " when i <= 60 then 1980 else 1960 end as year_of_birth from range(1, 101) as t(i)",
        observation_period="select person_id, date '2010-06-01' as observation_period_start_date,"
        " date '2012-06-01' as observation_period_end_date from person",
        condition_occurrence="select person_id, 7 as condition_concept_id, date '2011-06-01' as condition_start_date"
        " from person where person_id > 30 union all select person_id, 8, date '2011-06-01' from person"
        " where person_id <= 50 union all select person_id, 9, date '2011-06-01' from person where person_id <= 48"
        " union all select person_id, 10, date '2010-01-01' from person where person_id <= 3",
    )
    rare, a, b = (cdm.cohort(condition=i, name=str(i)) for i in (7, 8, 9))
    told = rare.incidence(between=("2010-06-01", "2010-06-01")).table()
    told = told[(told["sex"] == "all") & (told["interval"] == "all")].set_index("age_group")["persons"]
    assert pd.isna(told["0-17"])
    assert told.isna().sum() >= 2
    years = rare.incidence().table()
    assert years[years["persons"].isna()]["person_years"].isna().all()
    assert years[(years["age_group"] == "0-17") & (years["sex"] == "all")]["person_years"].isna().all()
    for found, of in ((b.prevalence(of=a), a), (b.incidence(of=a), a)):  # 48 of 50
        cases = "cases" if found.measure == "prevalence" else "events"
        shown = found.table()
        assert not shown[cases].isin([46, 47, 48, 49]).any()
        assert found.frame[cases].max() == 48
        assert of.persons == 50
    # Of the 50, 3 had it before: 47 are at risk, beside a card of 50.
    ten = cdm.cohort(condition=10, name="ten")
    found = ten.incidence(of=a)
    assert found.frame["persons"].max() == 47
    assert not found.table()["persons"].isin([47, 48, 49]).any()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"every": "yeer"}, "Did you mean 'year'"),
        ({"age_groups": ((0, 20), (20, 30))}, "overlap"),
        ({"age_groups": ()}, "not age groups"),
        ({"between": ("2000-01-01", "1999-01-01")}, "Nobody is observed"),
    ],
)
def test_an_invalid_option_is_refused(cdm, asked, says):
    with pytest.raises(InvalidParameters, match=re.escape(says)):
        cdm.cohort(condition=BLEEDING).incidence(**asked)
