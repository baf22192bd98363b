"""Athena as an engine: statements that Trino takes, tables over folders, and results that DuckDB makes, too.

Run against a small Athena (small_athena.py) over moto's S3 and Glue. Not proven here, for want of a real one: Trino's
own functions and limits, what its Parquet files look like, the rights of a role, prices.
"""

from __future__ import annotations

import logging

import duckdb
import pytest
import sqlglot
from botocore.exceptions import ClientError
from pandas.testing import assert_frame_equal
from pyathena.error import DatabaseError
from small_athena import BUCKET, REGION, WORKGROUP, put, small_athena
from sqlglot import exp
from trino_kinds import annotated, kind, mixed
from trino_query_parser import TrinoSyntaxError, parse_statement

from genokit import Settings, backends, storage
from genokit.backends import Clients
from genokit.errors import AccessDenied, ConfigError, InvalidRequest, NotFound, TransformFailed
from genokit.omop import fields, synthetic
from genokit.omop.etl import transform
from genokit.omop.etl.engines import glue
from genokit.omop.etl.engines.athena import Athena, create_table_as, table_name
from genokit.omop.etl.etl import etl
from genokit.omop.etl.macros import expand
from genokit.omop.etl.mimic3 import mimic3
from genokit.omop.etl.plan import TableStep, plan
from genokit.omop.etl.result_store import MadeTable, ResultStore
from genokit.omop.quality import check_counts
from genokit.refusals import translated_queries

ROOT = f"s3://{BUCKET}/omop"


@pytest.fixture
def athena(tmp_path):
    with small_athena(tmp_path) as athena:
        yield athena


def step(table="cdm.death", sql="SELECT p.subject_id AS person_id FROM mimic3.patients AS p", key="ab" * 32):
    return TableStep(table, key, sql, ("mimic3.patients",))


def patients(athena):
    """An input with one row, that of subject 7."""
    folder = f"{ROOT}/mimic3.patients-00"
    typed = ", ".join(f"NULL::{column.type} AS {name}" for name, column in mimic3()["patients"].columns.items())
    put(athena, duckdb.connect(), f"SELECT * REPLACE (7::INTEGER AS subject_id) FROM (SELECT {typed})", folder)
    return {"mimic3.patients": MadeTable("mimic3.patients", "00", folder, 1, 0.1)}


def build(athena, *steps, inputs=None, work=None):
    begun = []
    engine = Athena(WORKGROUP, clients=athena.clients)
    inputs = patients(athena) if inputs is None else inputs
    engine.build(steps, inputs, work or ResultStore(ROOT, athena.clients), begun.append)
    return begun


# --- the whole of it


@pytest.mark.slow
def test_the_etl_makes_with_athena_what_it_makes_with_duckdb_and_asks_nothing_twice(athena, tmp_path):
    source = synthetic(tmp_path / "mimic", 20, density=0.02, progress=False)
    one = etl(source, tmp_path / "cdm54", progress=False)
    clients = Clients(Settings(backend="aws", region=REGION, cache=tmp_path / "cache"), **athena.clients.services)
    engine = Athena(WORKGROUP, clients=clients)
    other = etl(source, ROOT, engine, clients=clients, progress=False)
    con = duckdb.connect()
    for name in fields.tables():
        view, files = athena.view(con, "omop", name), f"'{tmp_path}/cdm54/cdm/{name}/*.parquet'"
        con.execute(f"CREATE OR REPLACE TEMP TABLE want AS FROM read_parquet({files})")
        for some, more in ((view, "want"), ("want", view)):
            [(differing,)] = con.execute(f"SELECT COUNT(*) FROM (FROM {some} EXCEPT ALL FROM {more})").fetchall()
            assert differing == 0, name
    assert con.execute(f"SELECT COUNT(*) > 1000 FROM {athena.view(con, 'omop', 'measurement')}").fetchone() == (True,)
    assert_frame_equal(one.mapped, other.mapped)
    assert_frame_equal(one.quality.table, other.quality.table)
    told = {step.table for step in plan("athena", "athena", dict.fromkeys(transform.sources(), ""))}
    assert len(athena.queries) == len(told)
    again = etl(source, ROOT, engine, clients=clients, progress=False)
    assert set(again.tables["state"]) == {"unchanged"}
    assert len(athena.queries) == len(told)
    assert len(glue.names(clients, "omop_work")) == len(told | set(transform.sources()))


def reports():
    """What is told about a CDM; of its quality what is counted for a few tables, as the others differ by names."""
    few = {"person", "measurement", "drug_exposure", "death"}
    quality = {table.removeprefix("report.quality_"): sql for table, sql in check_counts.statements().items()}
    chosen = {table: sql for table, sql in quality.items() if table in few or table not in fields.tables()}
    return transform.reports() | {f"report.quality_{table}": sql for table, sql in chosen.items()}


# --- what Trino is strict about


def athena_sql():
    made = {table: transform.select(table, "athena") for table in transform.everything()}
    return made | {table: expand(sql, "athena") for table, sql in reports().items()}


def catalog():
    """The columns of all tables, by schema; those of ``stage`` in the order in which they are made."""
    of_duckdb = {hive: name for name, hive in glue.TYPES.items()}
    given = {table: glue.columns(table) for table in transform.sources()}
    given |= {f"cdm.{name}": glue.columns(f"cdm.{name}") for name in fields.tables()}
    schemas = {"mimic3": {}, "vocab": {}, "cdm": {}, "stage": {}}
    for table, typed in given.items():
        schema, _, name = table.partition(".")
        schemas[schema][name] = {column: of_duckdb[hive] for column, hive in typed.items()}
    return schemas


def test_no_statement_mixes_types_or_leaves_a_column_without_one():
    schemas = catalog()
    for table, sql in athena_sql().items():
        tree = annotated(sql, schemas)
        assert list(mixed(tree)) == [], table
        columns = {column.alias_or_name: column for column in tree.selects}
        assert not [name for name, column in columns.items() if kind(column) in ("null", "None", "UNKNOWN")], table
        if table.startswith("stage."):
            schemas["stage"][table[6:]] = {name: column.type.sql("duckdb") for name, column in columns.items()}


@pytest.mark.parametrize(
    "sql", ["SELECT p.a FROM mimic3.t AS p WHERE p.a = '1'", "SELECT COALESCE(p.a, '') AS a FROM mimic3.t AS p",
            "SELECT p.a FROM mimic3.t AS p UNION ALL SELECT p.b AS a FROM mimic3.t AS p"]
)  # fmt: skip
def test_mixed_types_would_be_found(sql):
    schema = {"mimic3": {"t": {"a": "INTEGER", "b": "VARCHAR"}}}
    assert list(mixed(annotated(sql, schema)))


@pytest.mark.slow
def test_statements_parse_as_athenas_by_trinos_own_grammar_and_are_short_enough():
    tables = dict.fromkeys((*transform.sources(), *transform.everything()), "omop_work.some")
    for table, sql in athena_sql().items():
        statement = create_table_as(sql, "omop_work.made", f"{ROOT}/made", tables)
        parse_statement(statement)
        tree = sqlglot.parse_one(statement, read="athena", error_level=sqlglot.ErrorLevel.RAISE)
        assert isinstance(tree, exp.Create), table
        assert {found.db for found in tree.find_all(exp.Table)} <= {"omop_work", ""}
        assert len(statement) < 30_000
    with pytest.raises(TrinoSyntaxError):
        parse_statement("CREATE TABLE a.b WITH (format='PARQUET') SELECT 1 AS one")


def test_a_statement_says_where_it_writes_what_it_reads_and_leaves_the_rest_as_it_was():
    sql = (
        "WITH seen AS (SELECT patients.subject_id FROM mimic3.patients) "
        "SELECT seen.subject_id FROM seen JOIN cdm.person AS p ON p.person_id = seen.subject_id "
        "WHERE DATE_FORMAT(p.birth_datetime, '%T') LIKE '0%'"
    )
    tables = {"mimic3.patients": "omop_work.mimic3_patients_1", "cdm.person": "omop_work.cdm_person_2"}
    assert create_table_as(sql, "omop_work.stage_seen_3", "s3://ours/it's/stage.seen-3", tables) == (
        "CREATE TABLE omop_work.stage_seen_3 WITH (format='PARQUET', write_compression='SNAPPY', "
        "external_location='s3://ours/it''s/stage.seen-3/') AS "
        "WITH seen AS (SELECT patients.subject_id FROM omop_work.mimic3_patients_1 AS patients) "
        "SELECT seen.subject_id FROM seen JOIN omop_work.cdm_person_2 AS p ON p.person_id = seen.subject_id "
        "WHERE DATE_FORMAT(p.birth_datetime, '%T') LIKE '0%'"
    )


def test_blanks_alone_are_trimmed_as_by_the_other_engines():
    sql = expand("SELECT TRIM(a) AS a FROM mimic3.t", "athena")
    assert sql == "SELECT REGEXP_REPLACE(a, '^ +| +$', '') AS a FROM mimic3.t"
    con = duckdb.connect()
    plain, regular = con.execute("SELECT TRIM(a), REGEXP_REPLACE(a, '^ +| +$', '', 'g') "
                                 "FROM (SELECT e'  \\t b c \\n  ' AS a)").fetchone()  # fmt: skip
    assert plain == regular == "\t b c \n"


# --- runs that were broken off, and what is in the way


def test_a_half_made_result_is_stopped_dropped_cleared_and_made_anew(athena):
    work, made = ResultStore(ROOT, athena.clients), step()
    folder = work.folder(made.table, made.key)
    athena.s3.put_object(Bucket=BUCKET, Key=f"{folder.removeprefix(f's3://{BUCKET}/')}/half", Body=b"half")
    glue.create(athena.clients, "omop_work")
    glue.point(athena.clients, "omop_work", table_name(made.table, folder), folder, {"person_id": "int"})
    old = {"State": "RUNNING"}
    for number, query in (("old", f"... '{folder}/' ..."), ("other", f"... '{ROOT}2/cdm.death-1/' ...")):
        athena.queries[number] = {"QueryExecutionId": number, "Query": query, "Status": dict(old)}
    assert build(athena, made) == ["cdm.death"]
    assert athena.queries["old"]["Status"] == {"State": "CANCELLED"}
    assert athena.queries["other"]["Status"] == old
    assert work.find(made.table, made.key).rows == 1
    assert not [file for file in storage.files(folder, clients=athena.clients) if file.endswith("half")]


def test_an_interrupt_cancels_the_query_and_the_next_run_goes_on(athena):
    work, made = ResultStore(ROOT, athena.clients), step()
    athena.interrupt = "cdm_death"
    with pytest.raises(KeyboardInterrupt):
        build(athena, made)
    assert [one["Status"]["State"] for one in athena.queries.values()] == ["CANCELLED"]
    assert work.find(made.table, made.key) is None
    build(athena, made)
    assert work.find(made.table, made.key).rows == 1


def test_a_result_without_rows_has_no_file_and_is_an_input_like_any_other(athena):
    work = ResultStore(ROOT, athena.clients)
    sql = "SELECT p.subject_id AS person_id, p.dob, 1.0 AS share, 'a' AS word FROM mimic3.patients AS p WHERE 1 = 0"
    none = step("stage.none", sql)
    after = step("cdm.death", "SELECT n.person_id FROM stage.none AS n")
    build(athena, none, after)
    assert work.rows(work.find(none.table, none.key)).empty
    assert work.find(after.table, after.key).rows == 0
    # In a later run the first is an input.
    athena.queries.clear()
    more = step("cdm.note", "SELECT n.person_id FROM stage.none AS n")
    build(athena, more, inputs={"stage.none": work.find(none.table, none.key)})
    assert len(athena.queries) == 1


def test_rows_are_counted_where_athena_does_not_tell_them(athena):
    results = athena.results
    athena.athena.meta.events.register_first(
        "before-call.athena.GetQueryResults",
        athena._answering(lambda told: {name: part for name, part in results(told).items() if name != "UpdateCount"}),
    )
    work, made = ResultStore(ROOT, athena.clients), step()
    build(athena, made)
    assert work.find(made.table, made.key).rows == 1
    assert [one["Query"].partition(" ")[0] for one in athena.queries.values()] == ["CREATE", "SELECT"]


def test_old_tables_leave_the_catalog_and_the_rest_stays(athena):
    work, old, new = ResultStore(ROOT, athena.clients), step(key="aa" * 32), step(key="bb" * 32)
    build(athena, old, new)
    Athena(WORKGROUP, clients=athena.clients).sweep({new.table: work.folder(new.table, new.key)})
    assert glue.names(athena.clients, "omop_work") == [table_name(new.table, work.folder(new.table, new.key))]
    assert work.find(old.table, old.key)


def test_publishing_leads_a_table_to_its_new_folder(athena):
    for folder in ("s3://ours/a", "s3://ours/b/"):
        glue.publish(athena.clients, "mimic", {"cdm.death": folder})
    [table] = athena.glue.get_tables(DatabaseName="mimic")["TableList"]
    assert table["StorageDescriptor"]["Location"] == "s3://ours/b/"
    assert table["StorageDescriptor"]["Columns"][2] == {"Name": "death_datetime", "Type": "timestamp"}
    assert table["Parameters"]["classification"] == "parquet"


# --- refusals


def test_a_database_name_that_would_need_quotes_is_refused(athena):
    for name in ("Omop", "1omop", 'omop"; DROP TABLE x', "omop-work"):
        with pytest.raises(InvalidRequest, match="cannot be the name of a table or database in Glue"):
            Athena(WORKGROUP, database=name, clients=athena.clients).build(
                [], {}, ResultStore(ROOT, athena.clients), print
            )


def test_a_done_table_that_left_the_catalog_says_how_to_get_it_back(athena):
    stay = MadeTable("stage.stay", "11", f"{ROOT}/stage.stay-1", 1, 0.1)
    with pytest.raises(NotFound, match=r"'stage.stay' is no longer in the Glue .* its folder 'stage.stay-"):
        build(athena, step(), inputs={"stage.stay": stay})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("COLUMN_NOT_FOUND: line 1:8: Column 'a' cannot be resolved", "Column 'a' cannot be resolved"),
        ("INVALID_CAST_ARGUMENT: Cannot cast 'Jane Roe' to bigint", "INVALID_CAST_ARGUMENT"),
        ("HIVE_BAD_DATA: For input string: \"Jane Roe\"", "HIVE_BAD_DATA"),
        ("Something about 'Jane Roe' went wrong", "Something about '...' went wrong"),
        ("Bytes scanned limit was exceeded", "limit was exceeded"),
        ("Query exhausted resources at this scale factor", "exhausted resources"),
    ],
)  # fmt: skip
def test_no_value_of_a_row_is_in_an_error_or_a_log_line(athena, caplog, said, told):
    caplog.set_level(logging.INFO)
    athena.athena.meta.events.register_first(
        "before-call.athena.GetQueryExecution",
        athena._answering(lambda _: {"QueryExecution": {"QueryExecutionId": "1", "Query": "SELECT 1",
                                     "Status": {"State": "FAILED", "StateChangeReason": said}}}),
    )  # fmt: skip
    with pytest.raises(TransformFailed, match=r"table 'cdm\.death'.*run the ETL again") as caught:
        build(athena, step())
    assert caught.value.table == "cdm.death"
    assert told in str(caught.value)
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert "Jane Roe" not in shown
    assert caught.value.__suppress_context__
    assert ResultStore(ROOT, athena.clients).find("cdm.death", step().key) is None


def test_what_aws_refuses_is_said_as_everywhere():
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "User: me is not authorized to perform:"
                          " athena:StartQueryExecution on resource: ours"}}, "StartQueryExecution")  # fmt: skip
    said = "table 'person': AWS denies athena:StartQueryExecution on ours to me"
    with pytest.raises(AccessDenied, match=said), translated_queries("table 'person'"):
        raise DatabaseError(*denied.args) from denied


def test_on_this_machine_there_is_no_athena():
    with pytest.raises(ConfigError, match=r"workgroup 'ours' exists on AWS only"):
        backends.athena(Clients(Settings(backend="local")), "ours")
