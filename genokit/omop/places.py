"""Where a CDM is kept, as its checks see it: what it really has, and how to ask it.

A Cdm gives every table its fields and types, whatever the file says; here nothing is added, as what lacks is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.errors import InvalidSource, NotFound
from genokit.omop.checks import There
from genokit.omop.fields import tables
from genokit.omop.schema import identifier, quoted
from genokit.omop.views import in_folder

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Place:
    """What a CDM has, table to field to type; ``query`` takes SQL of the dialect, over the schema cdm."""

    there: There
    dialect: str
    query: Callable[[str], DataFrame]


@contextmanager
def place(cdm: str | os.PathLike[str] | Any) -> Iterator[Place]:
    """Open a CDM for reading, for as long as the block lasts. Raises NotFound, InvalidSource."""
    if not isinstance(cdm, (str, os.PathLike)):
        database = getattr(cdm, "database", None)
        if hasattr(database, "dialect") and not hasattr(database, "con"):
            yield _database(database)
        else:
            yield _duckdb(cdm if database is None else database.con, "the connection")
        return
    import duckdb

    path = Path(cdm).expanduser()
    if not path.exists():
        raise NotFound(f"There is no '{path}'. Name a folder that the ETL made, or a .duckdb file.")
    con = duckdb.connect()
    try:
        if path.is_dir():
            con.execute("CREATE SCHEMA cdm")
            for table, held in in_folder(con, path).items():
                con.execute(f"CREATE VIEW cdm.{identifier(table)} AS FROM {held.source}")
        else:
            con.execute(f"ATTACH {quoted(path)} AS held (READ_ONLY); USE held")
        yield _duckdb(con, f"'{path}'")
    except duckdb.IOException as error:
        raise InvalidSource(f"'{path}' cannot be read: {str(error).partition(chr(10))[0]}") from error
    finally:
        con.close()


def _duckdb(con: Any, name: str) -> Place:
    rows = con.execute(
        "SELECT database_name, schema_name, LOWER(table_name), LOWER(column_name), data_type FROM duckdb_columns()"
        " WHERE NOT internal ORDER BY 1, 2, 3, column_index"
    ).fetchall()
    schemas = {(catalog, schema) for catalog, schema, table, *_ in rows if table in tables()}
    if not schemas:
        raise InvalidSource(f"{name} has none of the tables of the OMOP CDM, such as person.")
    held = {one: {table for *where, table, _, _ in rows if tuple(where) == one} & set(tables()) for one in schemas}
    # The schema called cdm, else the one with most of the CDM's tables.
    catalog, schema = max(sorted(schemas), key=lambda one: (one[1] == "cdm", len(held[one])))
    there: dict[str, dict[str, str]] = {}
    for *where, table, column, kind in rows:
        if where == [catalog, schema]:
            there.setdefault(table, {})[column] = kind

    where = ".".join(map(identifier, (catalog, schema)))

    def query(sql: str) -> DataFrame:
        frame: DataFrame = con.execute(_over(f"{where}.", sql)).df()
        return frame

    return Place(there, "duckdb", query)


def _database(database: Any) -> Place:
    """What a Cdm asks that is not DuckDB: its tables have no schema, and an answer is an Arrow table."""
    there: dict[str, dict[str, str]] = {}
    for table, column, kind in database.columns():
        there.setdefault(table.lower(), {})[column.lower()] = kind
    return Place(there, database.dialect, lambda sql: database.query(_over("", sql)).table.to_pandas())


def _over(schema: str, sql: str) -> str:
    """SQL over the schema cdm as SQL over the one that a CDM is in."""
    return re.sub(r"\bcdm\.(?=\w)", lambda _: schema, sql)
