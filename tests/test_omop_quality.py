"""The checks of a CDM: each type on a CDM that is sound and on one that breaks it; nothing of a person comes out."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from functools import cache
from types import SimpleNamespace

import duckdb
import pytest
import sqlglot
from portable_sql import problems
from test_omop_sql import OWN, PORTABLE, calls
from transformed import run

from genokit import Cdm
from genokit.errors import InvalidSource, NotFound
from genokit.omop import synthetic
from genokit.omop.etl.macros import expand
from genokit.omop.fields import fields, tables
from genokit.omop.quality.check_counts import SHIFTED, reads, statements
from genokit.omop.quality.checks import all_columns, checks, fits, kinds
from genokit.omop.quality.quality import Quality, quality, results

DAY = datetime.date(2020, 5, 1)
NAME = "Zacharias Quux"  # stands for what nobody may read in a report

# A person with a visit, and enough vocabulary to ask. What is required and not written here is filled in.
SOUND = {
    "person": [
        {"person_id": 4711, "gender_concept_id": 8507, "year_of_birth": 1960, "month_of_birth": 2, "day_of_birth": 30,
         "person_source_value": NAME, "gender_source_value": "M"},
    ],
    "observation_period": [{"person_id": 4711, "observation_period_start_date": "2020-01-01"}],
    "visit_occurrence": [{"person_id": 4711, "visit_concept_id": 9201, "visit_source_value": "in"}],
    "condition_occurrence": [
        {"person_id": 4711, "condition_concept_id": 200962, "visit_occurrence_id": 1,
         "condition_end_date": "2020-05-03", "condition_source_value": "C61"},
    ],
    "condition_era": [{"person_id": 4711, "condition_concept_id": 200962, "condition_occurrence_count": 1}],
    "drug_exposure": [{"person_id": 4711, "drug_concept_id": 1, "quantity": 1.5, "drug_source_value": "d"}],
    "drug_era": [{"person_id": 4711, "drug_concept_id": 1}],
    "procedure_occurrence": [{"person_id": 4711, "procedure_concept_id": 4250917}],
    "measurement": [
        {"person_id": 4711, "measurement_concept_id": concept, "value_as_number": value, "unit_concept_id": unit,
         "unit_source_value": "u", "visit_occurrence_id": 1, "measurement_source_value": NAME}
        for concept, value, unit in ((3006504, 1.0, 8554), (37393449, 90.0, 8840))
    ],
    "observation": [
        {"person_id": 4711, "observation_concept_id": 37393449, "value_as_number": 90.0, "unit_concept_id": 8840,
         "unit_source_value": "u"},
    ],
    "death": [{"person_id": 4711, "death_date": "2020-05-20", "death_type_concept_id": 5}],
    "concept": [
        {"concept_id": number, "domain_id": domain, "concept_class_id": "Ingredient", "standard_concept": "S"}
        for number, domain in ((0, "Metadata"), (1, "Drug"), (5, "Type Concept"), (6, "Observation"), (8507, "Gender"),
                               (9201, "Visit"), (8554, "Unit"), (8840, "Unit"), (200962, "Condition"),
                               (4250917, "Procedure"), (3006504, "Measurement"), (37393449, "Measurement"))
    ],
    "concept_ancestor": [{"ancestor_concept_id": 4250917, "descendant_concept_id": 4250917}],
}  # fmt: skip
KINDS = {
    "bigint": {"BIGINT", "INTEGER", "DOUBLE"}, "intege": {"BIGINT", "INTEGER", "DOUBLE"}, "string": {"VARCHAR"},
    "date": {"DATE"}, "timest": {"TIMESTAMP"}, "varcha": {"VARCHAR"},
}  # fmt: skip
FILLED = {"INTEGER": 0, "BIGINT": 1, "DOUBLE": 0.0, "DATE": DAY, "TIMESTAMP": DAY, "VARCHAR": "x"}


def cdm(path: str = ":memory:", schema: str = "cdm") -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(path)
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    for table in tables():
        known = {field.name: field for field in fields(table)}
        columns = ", ".join(f'"{name}" {one.type}' for name, one in known.items())
        con.execute(f"CREATE TABLE {schema}.{table} ({columns})")
        for number, row in enumerate(SOUND.get(table, []), 1):
            filled = {name: FILLED[one.type] for name, one in known.items() if one.required}
            kinds = {name: 5 for name in filled if name.endswith("_type_concept_id")}
            keys = {name: number for name, one in known.items() if one.key}
            whole = filled | kinds | keys | row
            assert whole.keys() <= known.keys()
            names = ", ".join(whole)
            values = ", ".join("?" * len(whole))
            con.execute(f"INSERT INTO {schema}.{table} ({names}) VALUES ({values})", list(whole.values()))
    return con


@cache
def asked() -> dict[str, str]:
    return statements(dialect="duckdb")


def of(con: duckdb.DuckDBPyConnection, *names: str) -> Quality:
    """What is said of a few tables of a CDM that is whole."""
    wanted = [f"report.quality_{name}" for name in ("concept", "persons", "genders", "units", *names)]
    return results({name: con.execute(asked()[name]).df() for name in wanted})


def row(found: Quality, check: str, table: str, field: str | None = None, concept: str | None = None):
    """One row of the results."""
    rows = found.table[(found.table["check_name"] == check) & (found.table["cdm_table_name"] == table)]
    for name, value in (("cdm_field_name", field), ("concept_id", concept)):
        rows = rows[rows[name].isna() if value is None else rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.fixture(scope="module")
def whole() -> duckdb.DuckDBPyConnection:
    return cdm()


@pytest.fixture
def con(whole):
    """A CDM that is whole; what a test changes is taken back."""
    whole.execute("BEGIN")
    yield whole
    whole.execute("ROLLBACK")


@pytest.fixture(scope="module")
def sound(whole) -> Quality:
    return quality(whole, progress=False)


def test_a_sound_cdm_fails_nothing(sound):
    said = sound.failed[["check_name", "cdm_table_name", "cdm_field_name", "num_violated_rows"]]
    assert said.to_dict("records") == []
    assert (sound.table[["passed", "failed", "not_applicable"]].sum(axis=1) == 1).all()
    assert repr(sound).endswith("checks passed, 0 fatal>")
    reasons = set(sound.table["not_applicable_reason"].dropna())
    assert not [reason for reason in reasons if "was not counted" in reason or "another type" in reason]


# What breaks a CDM, the check that must say so, and what it says: how many rows are wrong, of how many.
BREAKS = [
    ("DROP TABLE cdm.note", "cdmTable", "note", None, None, 1, 1),
    ("ALTER TABLE cdm.person DROP COLUMN race_concept_id", "cdmField", "person", "race_concept_id", None, 1, 1),
    ("ALTER TABLE cdm.death ALTER person_id TYPE VARCHAR", "cdmDatatype", "death", "person_id", None, 1, 1),
    ("UPDATE cdm.person SET year_of_birth = NULL", "isRequired", "person", "year_of_birth", None, 1, 1),
    ("UPDATE cdm.measurement SET measurement_id = 9", "isPrimaryKey", "measurement", "measurement_id", None, 2, 2),
    ("UPDATE cdm.measurement SET visit_occurrence_id = measurement_id", "isForeignKey", "measurement",
     "visit_occurrence_id", None, 1, 2),
    ("UPDATE cdm.death SET cause_concept_id = 77", "isForeignKey", "death", "cause_concept_id", None, 1, 1),
    ("UPDATE cdm.person SET gender_concept_id = 9201", "fkDomain", "person", "gender_concept_id", None, 1, 1),
    ("UPDATE cdm.concept SET concept_class_id = 'Drug'", "fkClass", "drug_era", "drug_concept_id", None, 1, 1),
    ("UPDATE cdm.concept SET standard_concept = NULL", "isStandardValidConcept", "visit_occurrence",
     "visit_concept_id", None, 1, 1),
    ("UPDATE cdm.concept SET invalid_reason = 'D'", "isStandardValidConcept", "visit_occurrence", "visit_concept_id",
     None, 1, 1),
    ("UPDATE cdm.person SET year_of_birth = NULL", "measureValueCompleteness", "person", "year_of_birth", None, 1, 1),
    ("UPDATE cdm.drug_exposure SET drug_concept_id = 0", "standardConceptRecordCompleteness", "drug_exposure",
     "drug_concept_id", None, 1, 1),
    ("UPDATE cdm.drug_exposure SET drug_source_concept_id = 0", "sourceConceptRecordCompleteness", "drug_exposure",
     "drug_source_concept_id", None, 1, 1),
    ("UPDATE cdm.visit_occurrence SET visit_concept_id = 0", "sourceValueCompleteness", "visit_occurrence",
     "visit_source_value", None, 1, 1),
    ("UPDATE cdm.drug_exposure SET quantity = 0", "plausibleValueLow", "drug_exposure", "quantity", None, 1, 1),
    ("UPDATE cdm.visit_occurrence SET visit_end_date = '1949-12-31'", "plausibleValueLow", "visit_occurrence",
     "visit_end_date", None, 1, 1),
    ("UPDATE cdm.person SET month_of_birth = 13", "plausibleValueHigh", "person", "month_of_birth", None, 1, 1),
    ("UPDATE cdm.death SET death_datetime = TODAY() + 2", "plausibleValueHigh", "death", "death_datetime", None, 1, 1),
    ("UPDATE cdm.condition_occurrence SET condition_end_date = '2020-04-30'", "plausibleStartBeforeEnd",
     "condition_occurrence", "condition_start_date", None, 1, 1),
    ("UPDATE cdm.condition_occurrence SET condition_end_date = '2020-04-30'", "plausibleTemporalAfter",
     "condition_occurrence", "condition_end_date", None, 1, 1),
    ("UPDATE cdm.person SET birth_datetime = '2020-05-02 00:00:00'", "plausibleTemporalAfter", "measurement",
     "measurement_date", None, 2, 2),
    ("UPDATE cdm.person SET year_of_birth = 2020, month_of_birth = 5, day_of_birth = 2", "plausibleAfterBirth",
     "measurement", "measurement_date", None, 2, 2),
    ("UPDATE cdm.death SET death_date = '2020-03-01'", "plausibleBeforeDeath", "measurement", "measurement_date",
     None, 2, 2),
    ("UPDATE cdm.death SET death_date = '2020-03-01'", "plausibleDuringLife", "visit_occurrence", "visit_start_date",
     None, 1, 1),
    ("UPDATE cdm.visit_occurrence SET visit_end_date = '2020-04-23', visit_start_date = '2020-04-23'",
     "withinVisitDates", "measurement", "measurement_date", None, 2, 2),
    ("DELETE FROM cdm.observation_period", "measurePersonCompleteness", "observation_period", None, None, 1, 1),
    ("DELETE FROM cdm.condition_era", "measureConditionEraCompleteness", "condition_era", None, None, 1, 1),
    ("INSERT INTO cdm.observation_period SELECT 2, person_id, '2020-05-02', '2020-05-09', 5 FROM cdm.person",
     "measureObservationPeriodOverlap", "observation_period", None, None, 1, 1),
    ("UPDATE cdm.person SET gender_concept_id = 8532", "plausibleGender", "condition_occurrence",
     "condition_concept_id", "200962", 1, 1),
    ("UPDATE cdm.person SET gender_concept_id = 8532", "plausibleGenderUseDescendants", "procedure_occurrence",
     "procedure_concept_id", "4250917,4077750,4043199,4040577", 1, 1),
    ("UPDATE cdm.measurement SET unit_concept_id = 8840", "plausibleUnitConceptIds", "measurement",
     "measurement_concept_id", "3006504", 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "check", "table", "field", "concept", "wrong", "among"), BREAKS)
def test_each_check_passes_a_sound_cdm_and_fails_one_that_breaks_it(
    sound, sql, check, table, field, concept, wrong, among, con
):
    before = sound.table[(sound.table["check_name"] == check) & (sound.table["cdm_table_name"] == table)]
    assert (before["failed"] == 0).all()
    con.execute(sql)
    catalogue = sql.startswith(("DROP", "ALTER"))
    said = row(quality(con, progress=False) if catalogue else of(con, table), check, table, field, concept)
    assert (said["failed"], said["passed"], said["not_applicable"]) == (1, 0, 0)
    assert (said["num_violated_rows"], said["num_denominator_rows"]) == (wrong, among)
    assert said["pct_violated_rows"] == wrong / among


# What a CDM may have, and the numbers that the dashboard 2.8.4's own SQL, run in DuckDB, gives for it.
NUMBERS = [
    ("DELETE FROM cdm.condition_era; INSERT INTO cdm.condition_occurrence SELECT c.* REPLACE (i AS person_id,"
     " IF(i = 1, 0, 1) AS condition_concept_id) FROM cdm.condition_occurrence c, RANGE(1, 4) t(i)",
     "measureConditionEraCompleteness", "condition_era", None, None, 3, 3),
    ("INSERT INTO cdm.measurement SELECT m.* REPLACE (u AS unit_concept_id, NULL AS value_as_number, NULL AS"
     " unit_source_value) FROM cdm.measurement m, UNNEST([0, 0, NULL, 8840]) t(u) WHERE measurement_id = 1",
     "plausibleUnitConceptIds", "measurement", "measurement_concept_id", "3006504", 1, 3),
    ("INSERT INTO cdm.condition_occurrence SELECT * REPLACE (NULL AS condition_end_date) FROM cdm.condition_occurrence",
     "plausibleStartBeforeEnd", "condition_occurrence", "condition_start_date", None, 0, 1),
    ("INSERT INTO cdm.person SELECT * REPLACE (NULL AS gender_concept_id) FROM cdm.person",
     "isStandardValidConcept", "person", "gender_concept_id", None, 0, 1),
    ("UPDATE cdm.concept SET invalid_reason = ''", "isStandardValidConcept", "person", "gender_concept_id", None, 1, 1),
    ("INSERT INTO cdm.person SELECT * REPLACE (NULL AS gender_concept_id) FROM cdm.person",
     "standardConceptRecordCompleteness", "person", "gender_concept_id", None, 0, 1),
    ("UPDATE cdm.measurement SET unit_concept_id = NULL WHERE measurement_id = 1; INSERT INTO cdm.measurement SELECT *"
     " REPLACE (NULL AS unit_concept_id, NULL AS unit_source_value) FROM cdm.measurement",
     "standardConceptRecordCompleteness", "measurement", "unit_concept_id", None, 1, 2),
    ("UPDATE cdm.death SET cause_source_concept_id = NULL, cause_source_value = 'C61'; INSERT INTO cdm.death SELECT *"
     " REPLACE (5 AS cause_source_concept_id) FROM cdm.death", "sourceConceptRecordCompleteness", "death",
     "cause_source_concept_id", None, 1, 2),
    ("UPDATE cdm.visit_occurrence SET visit_concept_id = 0; INSERT INTO cdm.visit_occurrence SELECT v.* REPLACE (s AS"
     " visit_source_value) FROM cdm.visit_occurrence v, UNNEST(['', NULL, NULL]) t(s)", "sourceValueCompleteness",
     "visit_occurrence", "visit_source_value", None, 3, 3),
    ("UPDATE cdm.measurement SET measurement_id = NULL", "isPrimaryKey", "measurement", "measurement_id", None, 0, 2),
    ("UPDATE cdm.person SET year_of_birth = 2020, month_of_birth = 1, day_of_birth = 1", "plausibleTemporalAfter",
     "measurement", "measurement_date", None, 2, 2),
    ("UPDATE cdm.person SET birth_datetime = '2020-05-01 18:00:00'", "plausibleTemporalAfter", "measurement",
     "measurement_date", None, 0, 2),
    ("UPDATE cdm.visit_occurrence SET visit_start_datetime = '2020-05-01 18:00:00', visit_end_datetime = '2020-05-01'",
     "plausibleTemporalAfter", "visit_occurrence", "visit_end_datetime", None, 0, 1),
    ("UPDATE cdm.death SET death_datetime = TODAY() + 1 + INTERVAL 18 HOUR", "plausibleValueHigh", "death",
     "death_datetime", None, 0, 1),
    ("UPDATE cdm.death SET death_date = NULL", "plausibleBeforeDeath", "measurement", "measurement_date", None, 0, 2),
    ("UPDATE cdm.condition_occurrence SET person_id = 1", "plausibleGender", "condition_occurrence",
     "condition_concept_id", "200962", 0, 1),
    ("UPDATE cdm.person SET gender_concept_id = 8532; INSERT INTO cdm.concept_ancestor BY NAME SELECT 4077750 AS"
     " ancestor_concept_id, 4250917 AS descendant_concept_id", "plausibleGenderUseDescendants", "procedure_occurrence",
     "procedure_concept_id", "4250917,4077750,4043199,4040577", 2, 2),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "check", "table", "field", "concept", "wrong", "among"), NUMBERS)
def test_what_is_wrong_and_of_how_many_is_what_the_dashboard_counts(
    sql, check, table, field, concept, wrong, among, con
):
    con.execute(sql)
    said = row(of(con, table), check, table, field, concept)
    assert (said["num_violated_rows"], said["num_denominator_rows"]) == (wrong, among)


@pytest.mark.parametrize(("value", "check"), [(49.0, "plausibleValueLow"), (501.0, "plausibleValueHigh")])
def test_values_out_of_what_is_plausible_for_a_concept_in_a_unit_are_counted(value, check, con):
    con.execute("UPDATE cdm.observation SET value_as_number = ?", [value])
    table = of(con).table
    said = table[
        (table["check_name"] == check) & (table["unit_concept_id"] == 8840) & (table["concept_id"] == "37393449")
    ]
    assert said[["num_violated_rows", "num_denominator_rows", "failed"]].values.tolist() == [[1, 1, 1]]


def test_every_check_type_is_broken_above():
    assert {check for _, check, *_ in BREAKS} == set(kinds())


def test_statements_are_portable_and_every_engine_has_what_they_call():
    assert len(statements()) == len(tables()) + 3
    assert [name for name, sql in statements().items() if problems(sql)] == []
    for engine in ("duckdb", "spark", "athena"):
        for name in ("measurement", "note_nlp", "observation_period", "persons", "genders", "units"):
            text = statements(dialect=engine)[f"report.quality_{name}"]
            sqlglot.parse_one(text, read=engine, error_level=sqlglot.ErrorLevel.RAISE)
            called = {token.text.upper() for token, _ in calls(text, engine)}
            assert called - PORTABLE - OWN[engine] == set(), name


@pytest.mark.parametrize("engine", ["duckdb", "athena"])
def test_an_engines_own_text_is_the_portable_one_translated(engine):
    def spaced_alike(text: str) -> str:
        return re.sub(r"(?<=\() | (?=\))", "", " ".join(text.split()))

    own = statements(until=SHIFTED, dialect=engine)
    for name, sql in statements(until=SHIFTED).items():
        whole = expand(sql, engine)
        assert spaced_alike(own[name]) == spaced_alike(whole), name
        if engine == "duckdb":
            tables_read = sqlglot.parse_one(whole, read=engine).find_all(sqlglot.exp.Table)
            assert reads(own[name]) == {f"cdm.{table.name}" for table in tables_read if table.db}


def test_only_what_is_held_against_a_day_changes_with_it():
    here, later = statements(until=SHIFTED), statements()
    changed = {name.removeprefix("report.quality_") for name, sql in here.items() if sql != later[name]}
    assert {"person", "measurement", "visit_occurrence"} <= changed
    assert not changed & {"persons", "genders", "units", "care_site", "concept"}


def test_there_are_as_many_checks_as_are_published():
    counts = Counter(check.kind.name for check in checks() if check.kind.level == "field")
    assert counts == {
        "cdmField": 432, "cdmDatatype": 432, "measureValueCompleteness": 432, "isRequired": 180, "isForeignKey": 176,
        "isPrimaryKey": 28, "isStandardValidConcept": 64, "fkDomain": 43, "fkClass": 3,
        "standardConceptRecordCompleteness": 48, "sourceConceptRecordCompleteness": 13, "sourceValueCompleteness": 32,
        "plausibleValueLow": 68, "plausibleValueHigh": 60, "plausibleTemporalAfter": 53, "plausibleDuringLife": 34,
        "plausibleStartBeforeEnd": 24, "plausibleAfterBirth": 49, "plausibleBeforeDeath": 47, "withinVisitDates": 9,
    }  # fmt: skip
    concepts = Counter(check.kind.name for check in checks() if check.kind.level == "concept")
    assert concepts == {"plausibleGender": 287, "plausibleGenderUseDescendants": 4, "plausibleUnitConceptIds": 181,
                        "plausibleValueLow": 9, "plausibleValueHigh": 9}  # fmt: skip
    assert Counter(kind.severity for kind in kinds().values()) == {"fatal": 7, "convention": 8, "characterization": 12}


def test_every_check_is_about_a_field_that_the_cdm_has():
    for check in checks():
        if check.field:
            assert check.field in all_columns()[check.table]
        if check.kind.name in ("plausibleStartBeforeEnd", "sourceValueCompleteness"):
            assert check.bound in all_columns()[check.table]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("BIGINT", "person_id"), ("INTEGER", "person_id"), ("string", "person_source_value"), ("date", None),
     ("TIMESTAMP_NS", "birth_datetime"), ("timestamp(3)", "birth_datetime"), ("varchar(50)", "person_source_value")],
)  # fmt: skip
def test_types_fit_however_a_catalogue_spells_them(kind, wanted):
    for field in all_columns()["person"]:
        alike = fits("person", field, {"person": {field: kind}})
        assert alike == (all_columns()["person"][field] in KINDS[kind.lower()[:6]])
    assert wanted is None or fits("person", wanted, {"person": {wanted: kind}})


def test_a_required_field_that_holds_nothing_is_fatal_and_others_have_nothing_to_look_at(con):
    con.execute("UPDATE cdm.visit_occurrence SET visit_concept_id = NULL")
    said = of(con, "visit_occurrence")
    assert row(said, "isRequired", "visit_occurrence", "visit_concept_id")["failed"] == 1
    assert list(said.fatal["check_name"]) == ["isRequired"]
    domain = row(said, "fkDomain", "visit_occurrence", "visit_concept_id")
    assert (domain["not_applicable"], domain["not_applicable_reason"]) == (1, "visit_concept_id has no values")


def test_without_a_vocabulary_nobody_is_asked_about_concepts(con):
    con.execute("DELETE FROM cdm.concept")
    said = of(con, "person")
    for check in ("isForeignKey", "fkDomain", "isStandardValidConcept"):
        told = row(said, check, "person", "gender_concept_id")
        assert told["not_applicable_reason"] == "there is no vocabulary: concept is empty"
    assert len(said.fatal) == 0


def test_a_table_that_is_missing_empty_or_not_counted_is_told_apart(sound, con):
    con.execute("DROP TABLE cdm.note; ALTER TABLE cdm.death DROP COLUMN death_date; DROP TABLE cdm.concept_ancestor")
    said = quality(con, progress=False)
    assert row(said, "isRequired", "note", "note_id")["not_applicable_reason"] == "note is missing"
    assert row(said, "isRequired", "death", "death_date")["not_applicable_reason"] == "death_date is missing"
    assert set(said.fatal["check_name"]) == {"cdmTable", "cdmField"}
    held = row(said, "plausibleBeforeDeath", "measurement", "measurement_date")["not_applicable_reason"]
    assert held == "a field that it needs is missing, or of another type"
    assert row(sound, "isRequired", "note", "note_id")["not_applicable_reason"] == "note is empty"
    assert row(of(cdm()), "isRequired", "person", "person_id")["not_applicable_reason"] == "person was not counted"


def test_a_threshold_is_a_percentage_that_may_be_wrong(con):
    con.execute("UPDATE cdm.person SET person_id = 1")
    con.execute("INSERT INTO cdm.person SELECT p.* REPLACE (i AS person_id) FROM cdm.person p, range(2, 101) t(i)")
    for wrong, failed in ((5, 0), (6, 1)):
        con.execute("UPDATE cdm.person SET gender_concept_id = CASE WHEN person_id <= ? THEN 0 ELSE 8507 END", [wrong])
        said = row(of(con, "person"), "standardConceptRecordCompleteness", "person", "gender_concept_id")
        assert (said["num_violated_rows"], said["threshold_value"], said["failed"]) == (wrong, 5, failed)


def test_duplicates_of_persons_and_visits_multiply_nothing(con):
    for table in ("person", "visit_occurrence", "death"):
        con.execute(f"INSERT INTO cdm.{table} SELECT * FROM cdm.{table}")
    said = of(con, "measurement", "person")
    assert row(said, "withinVisitDates", "measurement", "measurement_date")["num_denominator_rows"] == 2
    assert row(said, "isPrimaryKey", "person", "person_id")["num_violated_rows"] == 2


class SmallAthena:
    """What a Cdm on Athena is made of: Glue's names of types, tables without a schema, SQL as Trino has it."""

    dialect = "athena"

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._duckdb = con

    def columns(self) -> list[tuple[str, str, str]]:
        glue = {"VARCHAR": "STRING", "INTEGER": "INT"}
        return [
            (table, name, glue.get(kind, kind)) for table, held in all_columns().items() for name, kind in held.items()
        ]

    def query(self, sql: str):
        self._duckdb.execute("SET schema = 'cdm'")
        [text] = sqlglot.transpile(sql, read="athena", write="duckdb")
        return SimpleNamespace(table=self._duckdb.sql(text).to_arrow_table())


@pytest.mark.parametrize("form", ["folder", "parts", "etl", "file", "file with cdm", "connection", "Cdm", "Athena"])
def test_a_cdm_is_checked_wherever_it_is_kept_and_not_written_to(tmp_path, sound, form):
    file = tmp_path / "it's a cdm.duckdb"
    schema = "main" if form in ("file", "connection") else "cdm"
    con = cdm(str(file), schema)
    con.execute("CREATE SCHEMA other; CREATE TABLE other.person (person_id INTEGER)")
    where = tmp_path / "to" / "cdm" if form == "etl" else tmp_path / "to"
    kept = {"folder": where, "parts": where, "etl": tmp_path / "to", "connection": con, "Cdm": Cdm(database=con),
            "Athena": SimpleNamespace(database=SmallAthena(con))}.get(form, file)  # fmt: skip
    if form in ("folder", "parts", "etl"):
        where.mkdir(parents=True)
        for table in tables():
            (where / table).mkdir() if form != "folder" else None
            at = where / (f"{table}.parquet" if form == "folder" else f"{table}/part-0.parquet")
            con.execute(f"COPY cdm.{table} TO '{at}' (FORMAT parquet)")
    if form.startswith("file"):
        con.close()
    before = file.read_bytes()
    said = quality(kept, progress=False)
    assert said.table.equals(sound.table)
    assert file.read_bytes() == before


def test_what_is_no_cdm_says_so(tmp_path):
    with pytest.raises(NotFound, match="There is no"):
        quality(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no table 'person' in Parquet, so it is not an OMOP CDM"):
        quality(tmp_path / "empty")
    (tmp_path / "a.duckdb").write_text("no database")
    with pytest.raises(InvalidSource, match="cannot be read as a CDM"):
        quality(tmp_path / "a.duckdb")


@pytest.mark.parametrize("second", ["cdm", "main", "yours"])
def test_of_two_schemas_with_a_person_the_checks_take_the_one_that_cdm_takes(tmp_path, second):
    """``cdm`` before ``main``, whichever has more tables; two others are refused alike, and both are named."""
    file = tmp_path / "two.duckdb"
    con = cdm(str(file), "mine")
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {second}; CREATE TABLE {second}.person AS FROM mine.person LIMIT 0")
    con.close()
    if second == "yours":
        for opened in (lambda: Cdm(file).tables(), lambda: quality(file, progress=False)):
            with pytest.raises(InvalidSource, match=r"'person' in several schemas: mine, yours\. Name one"):
                opened()
    else:
        assert Cdm(file).table("person").count() == 0
        empty = row(quality(file, progress=False), "isRequired", "person", "person_id")
        assert empty["not_applicable_reason"] == "person is empty"


def test_nothing_of_a_person_is_in_the_results_or_the_card(con):
    for table, name in (("measurement", "value_source_value"), ("person", "gender_source_value")):
        con.execute(f"UPDATE cdm.{table} SET {name} = '{NAME}'")
    con.execute("UPDATE cdm.visit_occurrence SET person_id = 471147114711")
    said = quality(con, progress=False)
    shown = repr(said) + said._repr_html_() + said.table.to_csv()
    assert "Quux" not in shown
    assert "4711" not in shown
    assert row(said, "isForeignKey", "visit_occurrence", "person_id")["failed"] == 1


def test_the_kits_own_synthetic_cdm_has_no_fatal_failure_and_no_date_too_late(tmp_path):
    con = duckdb.connect()
    synthetic(tmp_path / "mimic", persons=30, density=0.05, chartevents_per_stay=20, progress=False).load(
        con, progress=False
    )
    run(con)
    said = quality(con, progress=False)
    assert said.fatal.empty, said.fatal["checkid"].tolist()
    late = said.table[said.table["check_name"] == "plausibleValueHigh"]
    assert (late["failed"] == 0).all()
    assert set(said.counts("category")["category"]) == {"conformance", "completeness", "plausibility"}


def test_the_card_leads_with_what_is_grave_and_the_heat_map_has_every_count(sound, con):
    con.execute("UPDATE cdm.person SET year_of_birth = NULL, gender_concept_id = 0")
    said = of(con, "person")
    assert said.failed["severity"].iloc[0] == "fatal"
    assert "isRequired of person.year_of_birth" in said._repr_html_()
    assert "nan" not in said._repr_html_()
    ax = said.plot()
    counts = said.counts(["cdm_table_name", "category"])
    person = counts[(counts["cdm_table_name"] == "person") & (counts["category"] == "conformance")].iloc[0]
    words = [text.get_text() for text in ax.texts]
    assert f"{person['passed']} of {person['passed'] + person['failed']}" in words
    assert [label.get_text() for label in ax.get_xticklabels()] == ["conformance", "completeness", "plausibility"]
    ax.figure.canvas.draw()
