"""The ETL's SQL: readable by every engine alike, checked on its syntax tree, and expanded for each."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import duckdb
import pytest
import sqlglot
from portable_sql import EVENTS, problems
from sqlglot import exp

import genokit.omop
from genokit.omop import fields
from genokit.omop.etl import transform
from genokit.omop.etl.macros import expand, macros, parse

PACKAGE = Path(genokit.omop.__file__).parent
# What makes synthetic data runs in DuckDB only and may use all of it.
# Questions about concepts and cohorts are asked of DuckDB and Athena as they stand: their own tests hold them to both.
# What characterizes a CDM is DuckDB's: test_omop_characterize.py holds it to Achilles' own counts.
FILES = sorted(
    file
    for room in ("etl", "quality")
    for file in (PACKAGE / room / "sql").rglob("*.sql")
    if "synthetic" not in file.parts and file.name != "macros.sql"
)
MIMIC3 = json.loads((PACKAGE / "etl" / "mimic3.json").read_text(encoding="utf-8"))

ENGINES = ("duckdb", "spark", "athena")

# What each engine has under these names; the portable functions keep theirs in all of them.
PORTABLE = {"COALESCE", "NULLIF", "CAST", "EXTRACT", "UPPER", "LOWER", "TRIM", "SUBSTRING", "REPLACE", "LENGTH",
            "COUNT", "MIN", "MAX", "SUM", "ROW_NUMBER", "LAG", "MD5", "TRY_CAST"}  # fmt: skip
OWN = {
    "duckdb": {"STRFTIME", "DATE_DIFF", "REGEXP_MATCHES"},
    "spark": {"DATE_FORMAT", "DATEDIFF", "CONV"},
    "athena": {
        "DATE_FORMAT",
        "DATE_DIFF",
        "DATE_TRUNC",
        "FROM_BASE",
        "TO_HEX",
        "TO_UTF8",
        "REGEXP_LIKE",
        "REGEXP_REPLACE",
        "SUBSTR",
        "CONCAT",
    },
}


def macros_in(tree: exp.Expr) -> set[str]:
    """The names of all functions in a tree that the parser does not know: macros, or mistakes."""
    return {call.name.lower() for call in tree.find_all(exp.Anonymous)}


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_file_keeps_to_the_subset_and_says_why_it_is_as_it_is(file):
    text = file.read_text(encoding="utf-8")
    assert problems(text) == []
    assert text.startswith("-- ")
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) <= 250, "too long to read in one sitting"


@pytest.mark.parametrize("engine", ENGINES)
def test_every_file_parses_in_each_engine_with_functions_that_the_engine_has(engine):
    for file in FILES:
        text = expand(file.read_text(encoding="utf-8"), engine)
        tree = sqlglot.parse_one(text, read=engine, error_level=sqlglot.ErrorLevel.RAISE)
        assert not macros_in(tree) & {"concept", *macros()}, file
        written = {token.text.upper() for token, following in calls(text, engine)}
        assert written <= PORTABLE | OWN[engine], f"{file.name}: {written - PORTABLE - OWN[engine]}"


def calls(text, engine):
    """The names before an opening parenthesis: what the engine will look up as a function."""
    tokens = sqlglot.tokenize(text, read=engine)
    words = {"AS", "IN", "AND", "OR", "NOT", "ON", "WHEN", "THEN", "ELSE", "OVER", "FROM", "BY", "SELECT", "CASE",
             "WITH", "WHERE", "JOIN", "DECIMAL", "ALL", "BETWEEN", "EXISTS", "VARCHAR"}  # fmt: skip
    for token, following in itertools.pairwise(tokens):
        is_word = token.text[:1].isalpha() and token.token_type is not sqlglot.TokenType.STRING
        if following.text == "(" and is_word and token.text.upper() not in words:
            yield token, following


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT * FROM mimic3.admissions", "* hides the columns"),
        ("SELECT a / b AS c FROM mimic3.admissions", "syntax Div"),
        ("SELECT CAST(a AS INTEGER) AS b FROM mimic3.admissions", "type INT is not one of"),
        ("SELECT CAST(2.5 AS BIGINT) AS b FROM mimic3.admissions", "a fraction is cast to a whole number"),
        ("SELECT a FROM mimic3.admissions QUALIFY ROW_NUMBER() OVER (ORDER BY a) = 1", "QUALIFY"),
        ("SELECT a FROM mimic3.admissions LIMIT 3", "LIMIT"),
        ("SELECT a FROM mimic3.admissions UNION SELECT b FROM mimic3.admissions", "UNION without ALL"),
        ("SELECT DISTINCT ON (a) a, b FROM mimic3.admissions", "DISTINCT ON"),
        ("SELECT DATE_DIFF('day', a, b) AS c FROM mimic3.admissions", "function DateDiff"),
        ("SELECT HASH(a) AS c FROM mimic3.admissions", "function HASH is neither known nor a macro"),
        ("SELECT DAYOFWEEK(a) AS c FROM mimic3.admissions", "function DayOfWeek"),
        ("SELECT QUANTILE_CONT(a, 0.5) AS c FROM mimic3.admissions", "is not on the list"),
        ("SELECT a FROM admissions", "table admissions has no schema"),
        ("SELECT a FROM secret.admissions", "schema secret is none of"),
        ("DROP TABLE mimic3.admissions", "it is no SELECT"),
        ("SELECT a FROM", "it cannot be parsed"),
    ],
)
def test_what_engines_understand_differently_is_refused(sql, problem):
    assert any(problem in found for found in problems(sql)), problems(sql)


@pytest.mark.parametrize("table", sorted(EVENTS))
def test_no_event_is_numbered_not_even_through_a_named_part(table):
    schema = "mimic3" if table in MIMIC3 else "stage" if f"stage.{table}" in transform.statements() else "cdm"
    assert schema == "mimic3" or f"{schema}.{table}" in transform.statements()
    direct = f"SELECT ROW_NUMBER() OVER (ORDER BY a) AS id FROM {schema}.{table}"
    named = f"WITH e AS (SELECT a FROM {schema}.{table}) SELECT ROW_NUMBER() OVER (ORDER BY e.a) AS id FROM e"
    for sql in (direct, named):
        assert problems(sql) == [f"ROW_NUMBER over {table}: ids come from row_id, and nothing else may count events"]


def test_every_macro_has_a_use_and_says_what_it_gives():
    used = set().union(*(macros_in(parse(file.read_text(encoding="utf-8"))) for file in FILES))
    used |= set().union(*(macros_in(text) for _, text in macros().values()))
    assert {name for name in macros() if not name.endswith(ENGINES)} <= used
    file = transform.FOLDER.parent / "macros.sql"
    for block in file.read_text(encoding="utf-8").split("\n\n"):
        assert block.startswith("-- ")


def test_macros_mean_in_duckdb_what_they_say():
    sql = """SELECT
        hash_id('abc') AS hash, event_id(400000000, 3) AS event, part_id(1, 2, 3) AS part,
        days_between(a, b) AS days, clock_time(b) AS clock, decimal_text(rate) AS decimals,
        number_of(' 1.50 ') AS n1, number_of('1e5') AS n2, number_of('nan') AS n3, number_of('-.5') AS n4,
        bound_of('<0.1') AS b1, bound_of('>= 60') AS b2, bound_of('LESS THAN 5') AS b3, bound_of('5') AS b4,
        operator_of('<0.1') AS o1, operator_of('>=60') AS o2, operator_of('Greater than 3') AS o3,
        operator_of('x') AS o4
    FROM mimic3.moments"""
    con = duckdb.connect()
    con.execute("CREATE SCHEMA mimic3")
    con.execute("CREATE TABLE mimic3.moments AS SELECT TIMESTAMP '2150-01-01 23:50:00' AS a,"
                " TIMESTAMP '2150-01-02 15:10:00' AS b, 2.5::DOUBLE AS rate")  # fmt: skip
    assert con.execute(expand(sql, "duckdb")).fetchone() == (
        int("900150983cd24fb0d6963f7d28e17f72"[:15], 16), 6_400_000_003, 18 + 3 * 2**40,
        1, "15:10:00", "2.5000", 1.5, None, None, -0.5, 0.1, 60.0, 5.0, None, 4171756, 4171755, 4172704, None,
    )  # fmt: skip


def test_a_macro_keeps_the_order_of_operations():
    sql = expand("SELECT event_id(a + b, 1) * 2 AS x FROM mimic3.t", "duckdb")
    assert sql == "SELECT (CAST(a + b AS BIGINT) * 16 + 1) * 2 AS x FROM mimic3.t"
    assert "(a - b) * " not in expand("SELECT event_id(c, a - b) AS x FROM mimic3.t", "duckdb")


def test_a_wrong_macro_or_concept_is_an_error():
    with pytest.raises(KeyError, match="EHR bill"):
        expand("SELECT concept('EHR bill') AS c", "duckdb")
    with pytest.raises(ValueError, match="zip"):
        expand("SELECT event_id(a) AS c", "duckdb")


def test_sources_exist_and_every_target_is_a_table_of_the_cdm():
    for table in transform.statements():
        schema, _, target = table.partition(".")
        assert schema == "stage" or target in fields.tables()
        for source in transform.reads(table):
            place, _, word = source.partition(".")
            known = {"mimic3": (*MIMIC3, "source"), "vocab": None, "stage": None, "cdm": fields.tables()}[place]
            assert known is None or word in known, f"{table} reads {source}"
            assert place != "stage" or source in transform.statements()


def test_the_order_is_that_of_the_sources_and_always_the_same():
    done: set[str] = set()
    for table in transform.order():
        assert transform.reads(table) & transform.statements().keys() <= done
        done.add(table)
    assert done == set(transform.statements())
    transform.order.cache_clear()
    assert transform.order() == transform.order()


def test_every_table_that_is_promised_has_its_file():
    promised = """person observation_period visit_occurrence visit_detail care_site provider death condition_occurrence
        procedure_occurrence drug_exposure device_exposure measurement observation specimen note fact_relationship
        condition_era drug_era cdm_source source_to_concept_map"""
    assert {f"cdm.{word}" for word in promised.split()} == {t for t in transform.statements() if t.startswith("cdm.")}


def test_each_source_column_of_the_patients_events_is_read():
    """Tables of MIMIC-III that nothing reads, so that nothing is lost by oversight."""
    read = {source.removeprefix("mimic3.") for table in transform.statements() for source in transform.reads(table)}
    unread = set(MIMIC3) - read
    # Dictionaries of codes that the vocabulary knows; and readiness to leave intensive care, which has no place.
    assert unread == {"callout", "d_cpt", "d_icd_diagnoses", "d_icd_procedures"}


def test_all_columns_are_qualified_where_tables_are_joined():
    for file in FILES:
        for select in parse(file.read_text(encoding="utf-8")).find_all(exp.Select):
            if select.args.get("joins"):
                own = [column for column in select.find_all(exp.Column) if column.parent_select is select]
                bare = {column.name for column in own if not column.table}
                assert not bare, f"{file.name}: {bare}"
