"""Cdm on Athena: pyathena, driven for real against a small Athena (small_athena.py) over moto's S3 and Glue.

Not proven here, for want of a real one: how results come as files of S3 (here they come by GetQueryResults), Trino's
own semantics, real statistics and prices. Each statement is held to Trino's grammar.
"""

from __future__ import annotations

import datetime

import duckdb
import pytest
from moto import mock_aws
from small_athena import BUCKET, WORKGROUP, AsksAthena, put

from genokit import Cdm, Settings
from genokit.backends import Clients
from genokit.errors import AccessDenied, ConfigError, InvalidParameters, InvalidRequest, NotFound, QueryError
from genokit.omop.etl.engines.glue import TYPES
from genokit.omop.fields import fields
from genokit.omop.queries import explained


def _select(row: dict[str, str]) -> str:
    casts = (f"CAST({row.get(one.name, 'NULL')} AS {one.type}) AS {one.name}" for one in fields("person"))
    return f"SELECT {', '.join(casts)}"


@pytest.fixture
def aws(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with mock_aws():
        aws = AsksAthena(tmp_path)
        aws.glue.create_database(DatabaseInput={"Name": "omop"})
        first = {"person_id": "9007199254740993", "gender_concept_id": "8507", "year_of_birth": "1950",
                 "birth_datetime": "TIMESTAMP '1950-01-02 03:04:05'", "person_source_value": "'O''Hara'"}  # fmt: skip
        second = first | {"person_id": "7", "year_of_birth": "1990", "person_source_value": "NULL"}
        rows = " UNION ALL ".join(map(_select, (first, second)))
        put(aws, duckdb.connect(), rows, f"s3://{BUCKET}/person")
        columns = [{"Name": field.name, "Type": TYPES[field.type]} for field in fields("person")]
        about = {"Columns": columns, "Location": f"s3://{BUCKET}/person/"}
        aws.glue.create_table(DatabaseName="omop", TableInput={"Name": "person", "StorageDescriptor": about})
        yield aws


@pytest.fixture
def cdm(aws):
    return Cdm(f"athena://{WORKGROUP}/omop", clients=aws.clients)


def test_a_query_gives_the_cdm_s_types_and_what_it_cost(cdm):
    frame = cdm.query(
        "select person_id, birth_datetime, person_source_value, location_id from person where year_of_birth < $year"
        " and gender_concept_id in $sex order by 1",
        year=1980,
        sex=[8507],
    )
    assert frame["person_id"].tolist() == [9007199254740993]
    assert list(map(str, frame.dtypes)) == ["Int64", "datetime64[us]", "str", "Int64"]
    assert frame["birth_datetime"].item() == datetime.datetime(1950, 1, 2, 3, 4, 5)
    assert (cdm.last.bytes, cdm.last.usd) == (1000, pytest.approx(10e6 / 1e12 * 5))  # billed for 10 MB at least
    assert "cost" in cdm.last._repr_html_()


def test_a_value_is_written_as_a_literal_and_stays_one(cdm, aws):
    hostile = "O'Hara' or '1'='1"
    assert cdm.query("select person_id from person where person_source_value = $x", x=hostile).empty
    assert "'O''Hara'' or ''1''=''1'" in aws.statement
    assert cdm.query("select person_id from person where person_source_value = $x", x="O'Hara").shape == (1, 1)


def test_no_text_is_null_and_a_decimal_is_a_decimal(cdm):
    frame = cdm.query("select person_source_value as v, cast(1.25 as decimal(10, 2)) as d from person order by v")
    assert frame["v"].isna().tolist() == [False, True]
    assert str(frame["d"].iloc[0]) == "1.25"


def test_rows_are_capped_on_athena_in_their_order(cdm, aws):
    with pytest.warns(UserWarning, match="first 1 rows"):
        frame = cdm.query("select person_id from person order by person_id; -- all", most=1)
    assert frame["person_id"].tolist() == [7]
    assert aws.statement.endswith("limit 2")
    cdm.query("select person_id from person order by person_id limit 1", most=1)
    assert aws.statement.endswith("limit 1")


def test_tables_and_columns_come_from_the_catalog_and_cost_nothing(cdm, aws):
    assert cdm.tables() == ["person"]
    assert cdm.schema()["column"].tolist() == [field.name for field in fields("person")]
    assert "athena://" in cdm._repr_html_()
    assert "year_of_birth" in cdm["person"]._repr_html_()
    assert aws.queries == {}
    assert cdm["person"].count() == 2
    assert cdm["person"].head(1).shape == (1, 18)


def test_a_misspelt_name_suggests_a_similar_one(cdm):
    with pytest.raises(QueryError, match=r"persn.* Did you mean 'person'"):
        cdm.query("select * from persn")
    unknown = QueryError("COLUMN_NOT_FOUND: line 1:8: Column 'p.yaer_of_birth' cannot be resolved", sql="")
    assert explained(unknown, cdm.columns()).endswith("Did you mean 'year_of_birth'?")
    with pytest.raises(NotFound, match="Did you mean 'person'"):
        cdm.table("persons")


@pytest.mark.parametrize(
    "sql", ["drop table person", "create table x as select 1", "show tables", "select 1; select 2"]
)
def test_statements_that_do_not_read_never_reach_athena(cdm, aws, sql):
    with pytest.raises(QueryError):
        cdm.query(sql)
    with pytest.raises(InvalidParameters):
        cdm.query("select $x", x=object())
    assert aws.queries == {}


def test_an_interrupt_cancels_the_query_there(cdm, aws):
    aws.interrupt = "person_id"
    with pytest.raises(KeyboardInterrupt):
        cdm.query("select person_id from person")
    [query] = aws.queries.values()
    assert query["Status"] == {"State": "CANCELLED"}


def test_an_address_says_what_is_wrong_with_it():
    with pytest.raises(ConfigError, match="athena://workgroup/database"):
        Cdm("athena://omop").query("select 1")
    with pytest.raises(ConfigError, match="backend"):
        Cdm("athena://ours/omop", clients=Clients(Settings())).query("select 1")


def test_a_refusal_of_athena_keeps_its_meaning(cdm, aws):
    aws.glue.delete_database(Name="omop")
    with pytest.raises((InvalidRequest, AccessDenied), match="omop"):
        cdm.tables()
