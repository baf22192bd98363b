"""A CDM of a few rows, written for one test."""

from __future__ import annotations

from pathlib import Path

import duckdb

from genokit import Cdm


def small_cdm(folder: Path, **tables: str) -> Cdm:
    """A CDM in a folder: a SELECT for each of its tables, which may ask those before it."""
    con = duckdb.connect()
    for table, select in tables.items():
        con.execute(f"create table {table} as {select}")
        con.execute(f"copy {table} to '{folder}/{table}.parquet'")
    return Cdm(folder)
