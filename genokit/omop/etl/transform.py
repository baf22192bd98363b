"""From MIMIC-III to the CDM: the SQL of each table, and the order of the tables.

Each file in ``sql/mimic3`` is one SELECT that makes the table of its name. The tables that it reads, and so the order,
are found in its syntax tree. Files in ``stage`` make intermediate tables. A file names only the fields for which MIMIC
has data; the others are null, and a table of the CDM without a file is empty.

>>> order()[:3], order().index("cdm.condition_era") > order().index("cdm.condition_occurrence")
(('cdm.cdm_source', 'cdm.person', 'cdm.provider'), True)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sqlglot import exp

from genokit.omop.etl.macros import expand, parse
from genokit.omop.etl.vocabulary import TABLES
from genokit.omop.fields import Field, fields, tables

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = Path(__file__).parent / "sql" / "mimic3"


@cache
def statements() -> Mapping[str, str]:
    """The portable SQL of every table: "cdm.person" or "stage.item" to its SELECT, in order of names."""
    found = {f"cdm.{file.stem}": file for file in FOLDER.glob("*.sql")}
    found |= {f"stage.{file.stem}": file for file in (FOLDER / "stage").glob("*.sql")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


@cache
def reads(table: str) -> frozenset[str]:
    """The tables that a table is made from, each with its schema."""
    return read_by(statements().get(table) or select(table, "duckdb"))


@cache
def read_by(sql: str) -> frozenset[str]:
    """The tables that portable SQL reads, each with its schema.

    >>> sorted(read_by("WITH a AS (SELECT 1 AS x FROM cdm.person) SELECT x FROM a JOIN stage.stay AS s ON s.y = a.x"))
    ['cdm.person', 'stage.stay']
    """
    return frozenset(f"{source.db}.{source.name}" for source in parse(sql).find_all(exp.Table) if source.db)


@cache
def order() -> tuple[str, ...]:
    """Every table after those that it reads; always in the same order."""
    sorter = TopologicalSorter({table: read_by(sql) & statements().keys() for table, sql in statements().items()})
    sorter.prepare()
    made: list[str] = []
    while ready := sorted(sorter.get_ready()):
        made += ready
        sorter.done(*ready)
    return tuple(made)


@cache
def everything() -> tuple[str, ...]:
    """``order()``, then the tables of the CDM that no SQL makes: all tables of a run."""
    return (*order(), *(f"cdm.{name}" for name in tables() if f"cdm.{name}" not in statements()))


@cache
def sources() -> tuple[str, ...]:
    """The tables of mimic3 and vocab from which all tables and reports are made.

    >>> sources()[0], sources()[-1]
    ('mimic3.admissions', 'vocab.vocabulary')
    """
    read = [*map(reads, everything()), *map(read_by, reports().values())]
    return tuple(sorted(set().union(*read) - set(everything())))


@cache
def reports() -> Mapping[str, str]:
    """The portable SQL of the reports about a CDM: "report.mapped" to its SELECT."""
    found = sorted((FOLDER.parent / "report").glob("*.sql"))
    return {f"report.{file.stem}": file.read_text(encoding="utf-8") for file in found}


@cache
def select(table: str, engine: str) -> str:
    """The SELECT that makes a table on an engine; those of the CDM have all fields, in its order and types."""
    schema, _, name = table.partition(".")
    given, source = list[str](), "(SELECT 1 AS one) AS nothing WHERE one = 0"  # an empty table
    if table in statements():
        sql = expand(statements()[table], engine)
        if schema != "cdm":
            return sql
        given = [column.alias_or_name for column in cast(exp.Query, parse(statements()[table])).selects]
        source = f"({sql}) AS made"
    elif name in TABLES:  # of the vocabulary, as it was downloaded
        given, source = [column.name for column in fields(name)], f"vocab.{name}"
    return f"SELECT {_casts(fields(name), given, engine)} FROM {source}"


def shares(frame: DataFrame) -> DataFrame:
    """The counts of ``report.mapped`` with the share of rows that have a standard concept: a row for each domain.

    Columns: domain, cdm_table (where the domain is that of a whole table), rows, mapped, share (NA without rows) and
    original: 0 where the pipeline that this one replaces wrote concept 0 throughout, NA where it made no such table.
    """
    frame["mapped"] = frame["mapped"].fillna(0).astype("int64")
    frame.insert(4, "share", (frame["mapped"] / frame["rows"].where(frame["rows"] > 0)).astype("Float64"))
    frame["original"] = frame["original"].astype("Float64")
    return frame


def _casts(columns: tuple[Field, ...], given: list[str], engine: str) -> str:
    casts = [
        exp.alias_(exp.cast(exp.column(column.name) if column.name in given else exp.null(), column.type), column.name)
        for column in columns
    ]
    # The CDM calls a field of NOTE_NLP offset, which is a word of SQL's own.
    return ", ".join(cast.sql(dialect=engine, identify=cast.alias == "offset") for cast in casts)
