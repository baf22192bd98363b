"""A CDM in Athena is characterized as one in DuckDB is: the same cells, and nothing counted twice.

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
from small_athena import AsksAthena

from genokit.omop import achilles_athena
from genokit.omop.achilles import DOMAINS, SCANS
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


def cells(rows: pa.Table) -> list[tuple[str, ...]]:
    """A result's rows in one order, its numbers to nine digits; no row says nothing."""

    def text(value: object) -> str:
        return "" if value is None or value != value else f"{value:.9g}" if isinstance(value, float) else str(value)

    found = (tuple(map(text, row.values())) for row in rows.to_pylist() if row["count_value"])
    return sorted(found)


def on_duckdb(con: duckdb.DuckDBPyConnection, statement: str) -> pa.Table:
    return con.sql(sqlglot.transpile(statement, read="athena", write="duckdb")[0]).to_arrow_table()


def test_every_analysis_of_a_cdm_with_all_in_it_has_the_cells_that_duckdb_counts():
    con = made()
    for scan in SCANS:
        rows = [on_duckdb(con, statement) for statement in asked()[scan.name]]
        found = achilles_athena.collected(scan, rows)
        for table, want in zip(found, scan.run(con.cursor(), 0), strict=True):
            assert table.schema.names == want.schema.names
            assert cells(table) == cells(want), scan.name
        there = {one for table in found for one in table["analysis_id"].to_pylist()}
        assert there == set(scan.analyses), scan.name
