"""Treatment pathways: person by person, day by day, and what is told of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from itertools import groupby, pairwise

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.patches import Wedge

from genokit import Cdm
from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort import Cohort
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT
from genokit.omop.cohorts.pathways import NONE, OTHER, Pathways

FIRST = pd.Timestamp("2020-01-01")
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def cohort(name, spans, min_cell=None):
    """A cohort of (person, first day, last day), days being counted."""
    rows = pd.DataFrame(spans, columns=["subject_id", "cohort_start_date", "cohort_end_date"], dtype="int64")
    for column in rows.columns[1:]:
        rows[column] = (FIRST + pd.to_timedelta(rows[column], "D")).astype("datetime64[us]")
    return Cohort(name, rows.astype({"subject_id": "Int64"}), (), {}, Cdm(), min_cell)


def paths(frame):
    """How many persons took each path; a path is a tuple of steps."""
    rows = frame.astype(object).where(frame.notna(), None).filter(regex="step_|persons")
    return {tuple(step for step in row[:-1] if step): row[-1] for row in rows.itertuples(index=False, name=None)}


def path_of(target=(0, 1000), /, *, gap_days=30, combination_days=30, most_steps=5, first_only=False, **events):
    """The path of one person, whose entries of each event cohort are given."""
    found = cohort("target", [(1, *target)]).pathways(
        *(cohort(name, [(1, *days) for days in spans]) for name, spans in events.items()),
        gap_days=gap_days, combination_days=combination_days, most_steps=most_steps, first_only=first_only,
    )  # fmt: skip
    (path,) = paths(found.frame)
    return " > ".join(path)


def test_events_follow_one_another_and_a_repetition_is_one_step():
    assert path_of(a=[(0, 9)], b=[(20, 29)], c=[(12, 15)]) == "a > c > b"
    assert path_of(a=[(0, 9), (100, 109)], b=[(50, 59)]) == "a > b > a"
    assert path_of(a=[(0, 9), (100, 109)], b=[(50, 59)], first_only=True) == "a > b"
    assert path_of(a=[(0, 9), (100, 109)], b=[(200, 209)]) == "a > b"
    assert path_of(a=[(0, 9), (100, 109)], b=[(50, 59)], most_steps=2) == "a > b"
    assert path_of(b=[], a=[]) == NONE


def test_only_what_begins_while_in_the_target_counts_from_its_first_day_to_its_last():
    assert path_of((10, 40), a=[(9, 20)], b=[(10, 12)], c=[(40, 90)], d=[(41, 50)]) == "b > c"
    found = cohort("t", [(1, 0, 10), (1, 100, 110)]).pathways(cohort("a", [(1, 105, 106)]))
    assert paths(found.frame) == {(NONE,): 1}, "of the first entry only"


def test_an_overlap_of_enough_days_or_of_all_that_one_lasts_is_a_combination():
    assert path_of(a=[(0, 99)], b=[(60, 199)]) == "a > a + b > b"
    assert path_of(a=[(0, 99)], b=[(80, 199)]) == "a > b", "20 days are a switch"
    assert path_of(a=[(0, 99)], b=[(80, 199)], combination_days=20) == "a > a + b > b"
    assert path_of(a=[(0, 99)], b=[(80, 199)], combination_days=21) == "a > b"
    assert path_of(a=[(0, 99)], b=[(40, 44)]) == "a > a + b > a"
    assert path_of(b=[(7, 7)], a=[(7, 7)]) == "b + a", "ties on a day, in the order given"
    assert path_of(a=[(0, 99)], b=[(3, 103)]) == "a + b", "three days alone before and after are none"
    assert path_of(a=[(0, 99)], b=[(0, 99)], c=[(0, 99)]) == "a + b + c"


def test_eras_with_a_gap_that_is_small_enough_are_one():
    assert path_of(a=[(0, 9), (39, 50)], b=[(20, 22)], gap_days=30) == "a + b > a", "of an era its longest part counts"
    assert path_of(a=[(0, 9), (40, 50)], b=[(20, 22)], gap_days=30) == "a > b > a"
    assert path_of(a=[(0, 9), (40, 50)], b=[(20, 22)], gap_days=31) == "a + b > a"


entries = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=3)


@settings(QUICK, max_examples=25)
@given(
    st.lists(st.lists(entries, min_size=4, max_size=4), min_size=1, max_size=12),
    st.integers(0, 12), st.integers(0, 12), st.integers(20, 90), st.booleans(), st.integers(1, 4),
)  # fmt: skip
def test_paths_are_those_found_day_by_day(persons, gap, combination, last, first_only, most):
    expected = Counter()
    for person in persons:
        spans = {name: [(day, day + n) for day, n in one] for name, one in zip("abcd", person, strict=True)}
        steps = day_by_day(spans, gap, combination, last)
        steps = list(dict.fromkeys(steps)) if first_only else steps
        expected[tuple(steps[:most]) or (NONE,)] += 1
    events = [
        cohort(name, [(who, day, day + n) for who, person in enumerate(persons) for day, n in person[i]])
        for i, name in enumerate("abcd")
    ]
    found = cohort("target", [(who, 0, last) for who in range(len(persons))]).pathways(
        *events, gap_days=gap, combination_days=combination, most_steps=most, first_only=first_only
    )
    assert paths(found.frame) == expected


def day_by_day(events, gap, combination, last):
    """The path of a person in the target from day 0 to ``last``, with loops."""
    eras = []
    for name, spans in events.items():
        mine = []
        for start, end in sorted((start, min(end, last)) for start, end in spans if start <= last):
            if mine and start - mine[-1][1] <= gap:
                mine[-1][1] = max(end, mine[-1][1])
            else:
                mine.append([start, end])
        eras += [(name, *era) for era in mine]
    whole = []
    for name, start, end in eras:
        later = [s for _, s, e in eras if start < s <= end < e and end - s + 1 < combination]
        whole.append((name, start, min([end, *(s - 1 for s in later)])))
    cuts = sorted({day for _, start, end in whole for day in (start, end + 1)})
    parts = {
        (start, after): frozenset(era for era in whole if era[1] <= start and after - 1 <= era[2])
        for start, after in pairwise(cuts)
    }
    longest = set()
    for era in whole:
        mine = [part for part in parts if era in parts[part]]
        longest.add(max(mine, key=lambda part: (part[1] - part[0], -part[0])))
    steps = [
        " + ".join(name for name in events if name in {era[0] for era in eras_then})
        for part, eras_then in sorted(parts.items())
        if eras_then and (part[1] - part[0] >= combination or part in longest)
    ]
    return [step for step, _ in groupby(steps)]


def test_first_steps_are_those_of_sql_written_by_hand(cdm):
    target = cdm.cohort(condition=372328, first_only=True, end=365, name="otitis media")
    drugs = {"aspirin": 19059056, "penicillin": 19133873, "doxycycline": 46233988}
    events = [cdm.cohort(drug=drug, end="record", name=name) for name, drug in drugs.items()]
    found = target.pathways(*events, combination_days=0)
    expected = cdm.query(
        "with t as (select person_id, min(condition_start_date) as d from condition_occurrence"
        " where condition_concept_id = 372328 group by 1),"
        " e as (select t.person_id, drug_concept_id as drug, min(drug_exposure_start_date) as first from t"
        " join observation_period as o on o.person_id = t.person_id"
        " and d between observation_period_start_date and observation_period_end_date"
        " left join drug_exposure as x on x.person_id = t.person_id and drug_concept_id in $drugs"
        " and drug_exposure_start_date between d and least(d + 365, observation_period_end_date)"
        " and not exists (from drug_exposure as y where y.person_id = x.person_id"
        " and y.drug_concept_id = x.drug_concept_id and y.drug_exposure_start_date < x.drug_exposure_start_date"
        " and y.drug_exposure_end_date >= x.drug_exposure_start_date) group by 1, 2),"
        " f as (select person_id, list(drug order by drug) as drugs from e"
        " where first is not distinct from (select min(first) from e as o where o.person_id = e.person_id) group by 1)"
        " select drugs, count(*) as persons from f group by 1",
        drugs=list(drugs.values()),
    )
    names = {number: name for name, number in drugs.items()}
    by_hand = Counter()
    for row in expected.itertuples():
        known = {int(drug) for drug in row.drugs if drug == drug and drug is not None}
        by_hand[" + ".join(name for number, name in names.items() if number in known) or NONE] += row.persons
    assert found.frame.groupby("step_1")["persons"].sum().to_dict() == dict(by_hand)
    assert by_hand["aspirin + doxycycline"] > 100
    assert found.frame["persons"].sum() == target.persons
    assert found.frame.equals(target.pathways(*events, combination_days=0).frame), "in the same order too"


def made(counts, min_cell=None):
    """Pathways with these numbers of persons, by path."""
    names = sorted({step for path in counts for step in path} - {NONE})
    rows = [[*path, *[None] * (3 - len(path)), count] for path, count in counts.items()]
    frame = pd.DataFrame(rows, columns=["step_1", "step_2", "step_3", "persons"])
    return Pathways("<i>t", frame, {name: (name,) for name in names}, {}, min_cell)


some_paths = st.dictionaries(
    st.one_of(st.just((NONE,)), st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)),
    st.one_of(st.integers(1, 8), st.integers(1, 60)), min_size=1, max_size=14,
)  # fmt: skip


@QUICK
@example({("b",): 1, ("b", "a"): 1}, None)
@given(some_paths, st.sampled_from([None, 9]))
def test_a_reader_of_the_paths_recovers_no_small_count(counts, min_cell):
    smallest = min_cell or 5
    told = paths(made(counts, min_cell).table())
    total = sum(counts.values())
    if total < smallest:
        assert list(told) == [(OTHER,)]
        assert pd.isna(told[OTHER,]) or told[OTHER,] is None
        return
    assert sum(told.values()) == total
    assert all(count >= smallest for count in told.values())
    whole = {path: count for path, count in told.items() if path[-1] == OTHER}
    assert {path: count for path, count in counts.items() if told.get(path) == count} == {
        path: count for path, count in told.items() if path not in whole
    }
    # Each of the other rows is of two paths or more: to a reader, any of them may be all of it, or none.
    assert can_be(whole, {path: count for path, count in counts.items() if path not in told})


def can_be(whole, counts, members=None):
    """Whether these paths, each in a row that begins as it does, give these rows: two or more to a row."""
    members = members or dict.fromkeys(whole, 0)
    if not counts:
        return not any(whole.values()) and all(number >= 2 for number in members.values())
    (path, count), *rest = counts.items()
    return any(
        can_be(whole | {row: left - count}, dict(rest), members | {row: members[row] + 1})
        for row, left in whole.items()
        if row[:-1] == path[: len(row) - 1] and left >= count
    )


def test_rare_paths_are_pooled_from_the_step_at_which_they_part():
    counts = {("a",): 100, ("a", "b"): 50, ("a", "b", "c"): 3, ("a", "c"): 4, ("b",): 30, (NONE,): 20}
    assert paths(made(counts).table()) == {
        ("a",): 100, ("a", "b"): 50, ("a", OTHER): 7, ("b",): 30, (NONE,): 20,
    }  # fmt: skip
    alone = paths(made(counts | {("a", "c"): 10}).table())
    assert alone == {("a",): 100, ("a", "b"): 50, ("a", OTHER): 13, ("b",): 30, (NONE,): 20}, "the rarest other joins"
    assert paths(made({("a",): 3, ("b",): 2}).table()) == {(OTHER,): 5}, "which is how many there are"


def test_the_picture_shows_every_person_and_numbers_each_treatment(cdm):
    target = cdm.cohort(condition=372328, first_only=True, end=365, name="otitis $media$ <b>")
    drugs = {"aspirin": 19059056, "a name " * 20: 19133873, "$x_y": 46233988}
    found = target.pathways(*(cdm.cohort(drug=drug, end="record", name=name) for name, drug in drugs.items()))
    ax = found.plot()
    inner = [patch for patch in ax.patches if isinstance(patch, Wedge) and patch.r <= 1.8]
    bands = {(patch.theta1, patch.theta2) for patch in inner}
    assert sum(end - start for start, end in bands) == pytest.approx(360)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words[0] == "1  aspirin"
    ax.figure.canvas.draw()
    ET.fromstring(found._repr_html_())
    assert "<b>" not in found._repr_html_()


def test_pictures_of_many_treatments_and_of_nothing_can_be_drawn():
    many = {(f"treatment {i}", f"treatment {i % 7}"): 5 + i for i in range(30)}
    for counts in (many, {("a",): 2}, {(NONE,): 50}):
        ET.fromstring(made(counts)._repr_html_())


def test_an_observation_that_is_open_ended_until_9999_is_followed():
    rows = pd.DataFrame(
        {SUBJECT: range(9), START: pd.Timestamp("2020-01-01"), END: pd.Timestamp("9999-12-31").as_unit("us")}
    )
    target = Cohort("target", rows.astype({SUBJECT: "Int64"}), (), {}, Cdm())
    assert target.pathways(target.named("other")).table()["persons"].tolist() == [9]


def test_as_many_as_sixty_cohorts_may_be_a_combination():
    names = [f"c{i}" for i in range(60)]
    assert path_of(**{name: [(0, 9)] for name in names}) == " + ".join(names)


def test_paths_that_cannot_be_followed_are_refused_with_the_next_step():
    target, a = cohort("t", [(1, 0, 9), (2, 0, 9)]), cohort("a", [(1, 0, 9)])
    for events, wanted in (
        ([], "1 to 60"), (["a"], "1 to 60"), ([a, a], "need distinct names"), ([a.named(OTHER)], "need distinct names"),
        ([a, a.named("b"), cohort("a + b", [(2, 0, 9)])], "Rename it"),
    ):  # fmt: skip
        with pytest.raises(InvalidParameters, match=wanted):
            target.pathways(*events)
    with pytest.raises(InvalidParameters, match="most_steps"):
        target.pathways(a, most_steps=0)
    with pytest.raises(InvalidParameters, match="gap_days"):
        target.pathways(a, gap_days=-1)
    with pytest.raises(InvalidParameters, match="empty"):
        cohort("t", []).pathways(a)
