"""All statements of the ETL in one open DuckDB connection, for tests that look at rows and not at how a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from duckdb import DuckDBPyConnection
from pandas import DataFrame

from genokit.omop.etl.macros import expand
from genokit.omop.etl.transform import everything, reads, reports, select, shares, statements
from genokit.omop.etl.vocabulary import Vocabulary


@dataclass(frozen=True)
class Built:
    """One table that was made: its name, its rows, and how long it took."""

    table: str
    rows: int
    seconds: float


def run(
    con: DuckDBPyConnection,
    known: Vocabulary | None = None,
    *,
    only: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> list[Built]:
    """Make the schema ``cdm`` from ``mimic3`` in a DuckDB connection: all 39 tables; and say what was made.

    ``known`` is what codes mean (default: the kit's own lists). ``only`` names one table of the CDM: then it and what
    it is made from. The same rows give the same ids in every run. ``progress`` is told each table before it is made.
    Tables that exist are replaced. Raises NotFound.
    """
    (known or Vocabulary()).load(con)
    con.execute("CREATE SCHEMA IF NOT EXISTS stage; CREATE SCHEMA IF NOT EXISTS cdm")
    wanted = set(everything()) if only is None else _with_sources(f"cdm.{only}")
    return [_make(con, table, progress) for table in everything() if table in wanted]


def mapped(con: DuckDBPyConnection) -> DataFrame:
    """The share of rows with a standard concept, a row a domain, beside that of the original pipeline.

    Columns: domain, cdm_table (where the domain is that of a whole table), rows, mapped, share (NA without rows) and
    original: 0 where the pipeline that this one replaces wrote concept 0 throughout, NA where it made no such table.
    """
    return shares(con.execute(expand(reports()["report.mapped"], "duckdb")).df())


def _with_sources(table: str) -> set[str]:
    return {table}.union(*map(_with_sources, reads(table) & statements().keys()))


def _make(con: DuckDBPyConnection, table: str, progress: Callable[[str], object] | None) -> Built:
    if progress is not None:
        progress(table)
    start = time.perf_counter()
    con.execute(f"CREATE OR REPLACE TABLE {table} AS {select(table, 'duckdb')}")
    # To the end: DuckDB refuses other work on a connection while a result isn't read to its last row.
    [(rows,)] = con.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
    return Built(table, rows, time.perf_counter() - start)
