"""A CDM in Athena is characterized as one in DuckDB is: the same cells.

Run by DuckDB, behind a small Athena (small_athena.py). Not proven here, for want of a real one: Trino's own functions
and memory, how long it takes, real statistics and prices. Each statement is held to Trino's grammar and types.
"""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from moto import mock_aws
from small_athena import WORKGROUP, AsksAthena, cells, hold
from sqlglot import exp
from trino_kinds import annotated, mixed
from trino_query_parser import parse_statement

from genokit import Cdm
from genokit.errors import NotFound
from genokit.omop.characterize import achilles, achilles_athena
from genokit.omop.characterize.achilles import DOMAINS, SCANS
from genokit.omop.fields import fields, tables

COLUMNS = {table: {field.name: field.type for field in fields(table)} for table in tables()}


@pytest.fixture
def aws(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with mock_aws():
        yield AsksAthena(tmp_path)


def asked(columns=COLUMNS):
    return {scan.name: achilles_athena.statements(scan, columns, "main") for scan in SCANS}


def made() -> duckdb.DuckDBPyConnection:
    """A CDM of 300 made-up persons in which there is all that the analyses look at, and what is not quite right."""
    con = duckdb.connect()
    for table in tables():
        columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS[table].items())
        con.execute(f"create table {table} ({columns})")

    def fill(table: str, rows: int, **columns: str) -> None:
        """``h(n)`` is a number that looks like chance, another one for each row and n."""
        named = ", ".join(f"{value} as {column}" for column, value in columns.items())
        named = re.sub(r"\bh\((\d+)\)", rf"(hash('{table}', i, \1) % 1000003)::bigint", named)
        con.execute(f"insert into {table} by name select {named} from range({rows}) t(i)")

    def concept(n: int, most: int = 5) -> str:
        return f"nullif(h({n}) % {most}, 3) * 100"

    fill("cdm_source", 1, cdm_source_name="'Made up'")
    fill("person", 300, person_id="i", gender_concept_id="8507 + 25 * (h(1) % 2)", year_of_birth="1930 + h(2) % 90",
         race_concept_id="h(3) % 3", ethnicity_concept_id="h(4) % 2")  # fmt: skip
    # Some have several periods, which meet or overlap, and some are no persons.
    fill("observation_period", 500, observation_period_id="i", person_id="h(1) % 310",
         observation_period_start_date="date '2000-01-01' + (h(2) % 3000)::integer",
         observation_period_end_date="date '2000-01-01' + (h(2) % 3000 + h(3) % 1500)::integer")  # fmt: skip
    con.execute("insert into observation_period values (999, 1, '2001-01-01', '2003-12-31', 0)")
    fill("death", 200, person_id="h(1) % 310", death_date="date '2000-01-01' + (h(2) % 4500)::integer",
         death_type_concept_id=concept(3), cause_concept_id=concept(4))  # fmt: skip
    fill("provider", 50, provider_id="i", specialty_concept_id=concept(1))
    fill("care_site", 9, care_site_id="i", place_of_service_concept_id=concept(1))
    more = {
        "visit_occurrence": {"care_site_id": "nullif(h(9) % 11, 5)"},
        "drug_exposure": {"days_supply": "nullif(h(9) % 90, 7)", "refills": "nullif(h(10) % 4, 0)",
                          "quantity": "nullif(h(11) % 40, 3) / 4"},
        "measurement": {"value_as_number": "nullif(h(9) % 400, 3) / 7", "range_low": "nullif(10.5 + h(10) % 3, 12.5)",
                        "range_high": "nullif(30.5 + h(11) % 9, 35.5)"},
    }  # fmt: skip
    for domain in DOMAINS:
        day = "date '2000-01-01' + (h(2) % 4500)::integer"
        columns = {
            f"{domain.table}_id": "i",
            "person_id": "h(1) % 310",
            domain.concept: concept(3, 9),
            domain.date: day,
        }
        said = (domain.type, domain.unit, domain.value, domain.detail)
        columns |= {name: concept(n) for n, name in enumerate(said, 4) if name}
        if domain.end:
            columns[domain.end] = f"if(h(8) % 9 = 0, null, {day} + (h(8) % 40)::integer - 3)"
        fill(domain.table, 2000, **columns, **more.get(domain.table, {}))
    return con


def on_duckdb(con: duckdb.DuckDBPyConnection, statement: str) -> pa.Table:
    return con.sql(sqlglot.transpile(statement, read="athena", write="duckdb")[0]).to_arrow_table()


def few(aws: AsksAthena, *names: str) -> Cdm:
    """A CDM in Athena that has no other tables than these."""
    hold(aws, made(), names)
    return Cdm(f"athena://{WORKGROUP}/omop", clients=aws.clients)


def test_every_analysis_of_a_cdm_with_all_in_it_has_the_cells_that_duckdb_counts():
    con = made()
    for scan in SCANS:
        rows = [on_duckdb(con, statement) for statement in asked()[scan.name]]
        found = achilles_athena.collected(scan, rows)
        for table, want in zip(found, achilles.run(con.cursor(), scan)[0], strict=True):
            assert table.schema.names == want.schema.names
            assert cells(table) == cells(want), scan.name
        there = {one for table in found for one in table["analysis_id"].to_pylist()}
        assert there == set(scan.analyses), scan.name


# --- what Trino is strict about


def test_no_statement_mixes_types_and_sets_are_of_columns():
    schema = {"main": {table: dict(columns) for table, columns in COLUMNS.items()}}
    for name, statements in asked().items():
        for statement in statements:
            tree = annotated(statement, schema)
            assert list(mixed(tree)) == [], name
            for sets in sqlglot.parse_one(statement, read="athena").find_all(exp.GroupingSets):
                grouped = [one for part in sets.expressions for one in (part.expressions or [part.this or part])]
                assert all(isinstance(one, (exp.Column, exp.Tuple)) for one in grouped), name
            assert len(statement) < 6_000


@pytest.mark.slow
def test_every_statement_parses_by_trinos_own_grammar():
    for statements in asked().values():
        for statement in statements:
            parse_statement(statement)


def test_what_a_database_lacks_is_empty_and_other_types_are_cast(aws):
    lacking = {table: dict(columns) for table, columns in COLUMNS.items() if table != "care_site"}
    del lacking["measurement"]["range_low"]
    lacking["measurement"] |= {"measurement_date": "TIMESTAMP", "value_as_number": "DECIMAL(10,2)"}
    con = made()
    con.execute("delete from care_site; alter table measurement drop range_low")
    con.execute("alter table measurement alter measurement_date type timestamp")
    there = {"visit_occurrence": set(), "measurement": {1815}}
    for name, rare in (("visit_occurrence", {1201}), ("measurement", {1816, 1817, 1818})):
        [scan] = [scan for scan in SCANS if scan.name == name]
        rows = [on_duckdb(con, statement) for statement in asked(lacking)[name]]
        found = {one for table in achilles_athena.collected(scan, rows) for one in table["analysis_id"].to_pylist()}
        assert found == set(scan.analyses) - rare
        assert there[name] <= found
    hold(aws, con, ["provider"])
    with pytest.raises(NotFound, match="no table 'person'"):
        Cdm(f"athena://{WORKGROUP}/omop", clients=aws.clients).characterize()


# --- what it costs


def test_the_card_shows_what_it_cost(aws):
    found = few(aws, "person", "provider").characterize(progress=False)
    assert found.scans[["table", "bytes", "usd"]].to_numpy().tolist() == [
        ["person", 1000, 0.00005], ["provider", 1000, 0.00005],
    ]  # fmt: skip
    assert "about $0.0001, at Athena" in found._repr_html_()


def test_an_interrupt_cancels_the_query_and_writes_nothing(aws, tmp_path):
    cdm = few(aws, "person", "provider")
    aws.interrupt = "specialty_concept_id"
    with pytest.raises(KeyboardInterrupt):
        cdm.characterize(tmp_path / "results.duckdb", progress=False)
    assert [one["Status"]["State"] for one in aws.queries.values()] == ["SUCCEEDED", "CANCELLED"]
    with duckdb.connect(str(tmp_path / "results.duckdb")) as results:
        assert results.execute("select count(*) from achilles_results").fetchall() == [(0,)]
