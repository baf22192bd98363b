"""Definitions of ATLAS that are hostile, broken, or asked of a place where they cannot run."""

from __future__ import annotations

import copy
import json
import re
import sys
import xml.etree.ElementTree as ET
from typing import Any

import duckdb
import pandas as pd
import pytest
from atlas import SINUS, concepts, defined, end, group, near, rule

from genokit import Cdm
from genokit.databases import AthenaDatabase
from genokit.errors import InvalidParameters, InvalidSource, MissingDependency, NotFound, QueryError
from genokit.omop.cohorts.circe import script
from genokit.omop.cohorts.cohort_periods import START, SUBJECT
from genokit.omop.fields import fields

NAMED = ("Op", "Type", "StartDate")  # strings that Circe goes by
HOSTILE = [
    "'; drop table cdm.person; --", "' or 1 = 1 --", "%", "\\' or true --", '"', "$rules", "@cdm_database_schema",
    "{1 = 1}?{' or true --}:{}", "{DEFAULT @x = 1}", "genokit_text_0_", "/* */ ; select 1", "#Codesets", "Zoë 😀", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Cdm:
    """Four persons with values, texts and deaths, in a place whose names are hostile themselves."""
    con = duckdb.connect(tmp_path_factory.mktemp("place") / 'an "@other" $one; x.duckdb')
    con.execute('create schema "it\'s; x"; set schema = "it\'s; x"')
    for name in ("person", "observation_period", "measurement", "observation", "death", "concept", "concept_ancestor",
                 "condition_occurrence", "drug_exposure"):  # fmt: skip
        columns = ", ".join(f'"{one.name}" {one.type}' for one in fields(name))
        con.execute(f"create table {name} ({columns})")
    con.execute("insert into person by name select range as person_id, 8507 as gender_concept_id, 1950 as year_of_birth"
                " from range(1, 5)")  # fmt: skip
    con.execute("insert into observation_period by name select person_id, person_id as observation_period_id, date"
                " '2000-01-01' as observation_period_start_date, date '2010-12-31' as observation_period_end_date"
                " from person")  # fmt: skip
    con.execute("insert into concept by name select unnest([7, 8]) as concept_id")
    con.execute("insert into measurement by name select * from (values (1, 1, 7, date '2001-01-01', 6.5, 100, 6.0),"
                " (2, 2, 7, date '2001-02-01', 6.5, 200, 6.0), (3, 3, 7, date '2001-03-01', 5.5, 100, 6.0),"
                " (4, 4, 8, date '2001-04-01', 9.5, 100, 6.0)) as t(measurement_id, person_id, measurement_concept_id,"
                " measurement_date, value_as_number, unit_concept_id, range_high)")  # fmt: skip
    con.execute("insert into death by name select 3 as person_id, date '2002-01-01' as death_date")
    for i, text in enumerate(HOSTILE):
        con.execute("insert into observation by name select 1 + $i % 4 as person_id, $i as observation_id, 7 as"
                    " observation_concept_id, date '2001-01-01' + $i::int as observation_date, $text as"
                    " value_as_string", {"i": i, "text": text})  # fmt: skip
    # What Circe's own tables are called is also a table of this place.
    con.execute("create table codesets as select 7 as codeset_id, 7 as concept_id; create table genokit_cohort (x int);"
                " create table qualified_events as select 1 as event_id")  # fmt: skip
    return Cdm(database=con, schema="it's; x")


def texts(text: str, op: str = "eq") -> dict[str, Any]:
    """Who has an observation of this text."""
    sets = [concepts("any", 7), concepts("other", 8, number=1)]
    return defined({"Observation": {"CodesetId": 0, "ValueAsString": {"Text": text, "Op": op}}}, ConceptSets=sets)


def found(cdm: Cdm, definition: dict[str, Any]) -> list[tuple[int, str]]:
    spans = cdm.atlas_cohort(definition).spans
    return list(zip(spans[SUBJECT].tolist(), spans[START].astype(str).tolist(), strict=True))


@pytest.mark.parametrize("i", range(len(HOSTILE)), ids=[repr(text) for text in HOSTILE])
def test_a_text_to_search_for_never_becomes_sql(small, i):
    person, day = 1 + i % 4, str(pd.Timestamp("2001-01-01") + pd.Timedelta(days=i))[:10]
    text = HOSTILE[i]
    if not re.search(r"[%_\\]", text):  # what LIKE takes for any characters, and what Circe leaves out before a quote
        assert found(small, texts(text)) == [(person, day)]
    if "\\" not in text:
        assert (person, day) in found(small, {**texts(text), "EndStrategy": end(0)})
    assert found(small, {**texts("zzz", "!contains"), "EndStrategy": end(0)}) == sorted(
        found(small, {**texts("", "contains"), "EndStrategy": end(0)})
    )
    sql, values = script(texts(text, "contains"), "it", "cdm")
    assert values == {"genokit_text_0": f"%{text}%".replace("\\'", "'")}
    assert not text.strip("%") or text in ("genokit_text_0_", '"') or text not in sql


@pytest.mark.parametrize("text", HOSTILE[::4])
def test_no_other_string_of_a_definition_becomes_sql(small, text):
    definition = defined(
        {"Measurement": {"CodesetId": 0, "ValueAsNumber": {"Value": 6, "Op": "gt"}}},
        ConceptSets=[concepts("high", 7)],
        InclusionRules=[rule("alive", near({"Death": {}}, None, 0, least=0))],
        CensorWindow={"StartDate": "2001-01-15"},
    )
    expected, _ = script(definition, "it", "cdm")
    for path in strings(definition):
        wrong = copy.deepcopy(definition)
        node = wrong
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = text
        if path[-1] in NAMED:
            with pytest.raises(InvalidParameters, match="cannot be run as a cohort definition"):
                script(wrong, "it", "cdm")
        else:
            assert script(wrong, "it", "cdm") == (expected, {})
    named = copy.deepcopy(definition)
    named["InclusionRules"][0]["name"] = text
    assert small.atlas_cohort(named, name=text).spans.shape == (2, 3)
    ET.fromstring(small.atlas_cohort(named, name=text)._repr_html_())


def strings(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    own = [path] if isinstance(node, str) else []
    return own + [one for key, value in inner for one in strings(value, (*path, key))]


def test_values_units_and_deaths_are_asked_as_circe_does(small):
    high = {"Measurement": {"CodesetId": 0, "ValueAsNumber": {"Value": 6, "Op": "gt"}}}
    sets = [concepts("height", 7)]
    assert [who for who, _ in found(small, defined(high, ConceptSets=sets))] == [1, 2]
    high["Measurement"]["Unit"] = [{"CONCEPT_ID": 100}]
    assert found(small, defined(high, ConceptSets=sets)) == [(1, "2001-01-01")]
    above = {"Measurement": {"RangeHighRatio": {"Value": 1.5, "Op": "gt"}}}
    assert found(small, defined(above)) == [(4, "2001-04-01")]
    assert found(small, defined({"Death": {}})) == [(3, "2002-01-01")]
    dead = rule("dead", near({"Death": {}}, 0, 700))
    period = {"ObservationPeriod": {"UserDefinedPeriod": {"StartDate": "2001-06-01"}}}
    assert found(small, defined(period, InclusionRules=[dead])) == [(3, "2001-06-01")]
    assert found(small, defined({"ConditionOccurrence": {}})) == []


def test_the_place_is_only_read_and_nothing_is_left(small):
    con = small.database.con
    before = con.execute("select database_name, schema_name, table_name, estimated_size from duckdb_tables").fetchall()
    small.atlas_cohort(defined({"Measurement": {}}, InclusionRules=[rule("any", near({"Death": {}}, 0, 9))]))
    with pytest.raises(QueryError, match="LOCATION"):
        small.atlas_cohort(defined({"LocationRegion": {}}))
    after = con.execute("select database_name, schema_name, table_name, estimated_size from duckdb_tables").fetchall()
    assert after == before
    with pytest.raises(QueryError, match="read-only"):
        small.database.script('insert into "it\'s; x".codesets values (1, 1)', {})


def test_every_form_that_atlas_gives_is_read(small, tmp_path):
    plain = defined({"Death": {}})
    file = tmp_path / "the dead.json"
    file.write_text(json.dumps(plain), encoding="utf-8-sig")
    wrapped = {"id": 7, "name": "deaths", "expressionType": "SIMPLE_EXPRESSION", "expression": json.dumps(plain)}
    titled = {**plain, "Title": "titled"}
    forms = {"the dead": file, "ATLAS cohort": json.dumps(plain), "deaths": wrapped, "titled": titled}
    for name, form in forms.items():
        cohort = small.atlas_cohort(form)
        assert (cohort.name, cohort.persons) == (name, 1)
        assert cohort.settings["atlas"]["PrimaryCriteria"] == plain["PrimaryCriteria"]
    assert small.atlas_cohort(str(file), name="mine").name == "mine"
    assert small.atlas_cohort(plain)._id() == small.atlas_cohort(file)._id()
    with pytest.raises(NotFound, match="nowhere"):
        small.atlas_cohort("nowhere.json")


AGE = {"Value": 4, "Op": "bt"}
WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "is not JSON"),
    "a list": ("[1]", "no 'PrimaryCriteria'"),
    "a file's name within": ({"expression": "/etc/hostname"}, "no 'PrimaryCriteria'"),
    "fewer days than none": (defined(SINUS, CollapseSettings={"EraPad": -3}), "CollapseSettings.EraPad is -3"),
    "a concept set": (concepts("a", 1), "no 'PrimaryCriteria'"),
    "no such criterion": (defined({"Condition": {}}), "CirceError"),
    "no such set": (defined(SINUS, ConceptSets=[]), "ConditionOccurrence.CodesetId is the concept set 2"),
    "no such set to end by": (defined(SINUS, EndStrategy={"CustomEra": {"DrugCodesetId": 9}}), "DrugCodesetId is"),
    "no number": (defined(SINUS, prior="many"), "CirceError"),
    "no bound": (defined(SINUS, InclusionRules=[rule("a", near({"Death": {"Age": AGE}}, 0, 1))]),
                 "NullPointerException"),
    "no operator": (defined({"Death": {"Age": {"Value": 4, "Op": "about"}}}), "Unknown operator type"),
    "no date": (defined(SINUS, CensorWindow={"StartDate": "yesterday"}), "CirceError"),
    "no group": (defined(SINUS, InclusionRules=[rule("a", kind="AL")]), "Type is 'AL', but must be one of ALL"),
    "no limit": (defined(SINUS, ExpressionLimit={"Type": "Frist"}), "ExpressionLimit.Type is 'Frist', but must be one"),
    "no occurrence": (defined(SINUS, InclusionRules=[rule("a", {"Criteria": SINUS})]), "NullPointerException"),
    "no concept": (defined(SINUS, ConceptSets=[{"id": 2, "expression": {"items": [{}]}}]),
                   "CirceError"),
    "no id": (defined(SINUS, ConceptSets=[{"id": 2, "expression": {"items": [{"concept": {}}]}}]),
              "items[0].concept has no CONCEPT_ID"),
    "nothing to enter by": (defined(), "invalid SQL"),
    "not finite": (defined({"Measurement": {"ValueAsNumber": {"Value": float("nan"), "Op": "gt"}}}),
                   "ValueAsNumber.Value is nan"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_faulty_definition_is_refused_with_what_is_wrong(small, name):
    definition, says = WRONG[name]
    with pytest.raises(InvalidParameters, match=re.escape(says)):
        small.atlas_cohort(definition)


def test_nesting_that_would_fill_the_memory_is_refused(small):
    nest = group()
    for _ in range(20):
        nest = group(near({"Death": {"CorrelatedCriteria": nest}}, 0, 1))
    with pytest.raises(InvalidParameters, match="is nested too deep"):
        small.atlas_cohort(defined(SINUS, AdditionalCriteria=nest))


def test_where_it_cannot_run_it_says_what_to_do(small, monkeypatch):
    with pytest.raises(InvalidSource, match=r"describe the cohort with cdm.cohort"):
        Cdm(database=AthenaDatabase(None, "omop")).atlas_cohort(defined(SINUS))
    monkeypatch.setitem(sys.modules, "duckcdm.circe", None)
    with pytest.raises(MissingDependency, match=re.escape("pip install 'genokit[atlas]'")):
        small.atlas_cohort(defined(SINUS))
