"""CDMs of a few rows, written for one test."""

from __future__ import annotations

from pathlib import Path

import duckdb

from genokit import Cdm
from genokit.omop.fields import fields, tables


def small_cdm(folder: Path, **tables: str) -> Cdm:
    """A CDM in a folder: a SELECT for each of its tables, which may query those before it."""
    con = duckdb.connect()
    for table, select in tables.items():
        con.execute(f"create table {table} as {select}")
        con.execute(f"copy {table} to '{folder}/{table}.parquet'")
    return Cdm(folder)


def empty_cdm() -> duckdb.DuckDBPyConnection:
    """All tables of the CDM in memory, without rows."""
    con = duckdb.connect()
    for table in tables():
        columns = ", ".join(f'"{field.name}" {field.type}' for field in fields(table))
        con.execute(f"create table {table} ({columns})")
    return con
