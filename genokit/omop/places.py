"""Where a CDM is kept, as its checks see it: what it really has, and how to ask it in portable SQL.

A Cdm gives every table its fields and types, whatever the file says; here nothing is added, as what lacks is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from genokit.errors import InvalidSource, NotFound
from genokit.omop.checks import There
from genokit.omop.fields import tables
from genokit.omop.macros import expand, parse
from genokit.omop.schema import quoted

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Place:
    """What a CDM has, table to field to type; ``query`` takes portable SQL over the schema cdm."""

    there: There
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
            _views(con, path)
        else:
            con.execute(f"ATTACH {quoted(path)} AS held (READ_ONLY); USE held")
        yield _duckdb(con, f"'{path}'")
    except duckdb.IOException as error:
        raise InvalidSource(f"'{path}' cannot be read: {str(error).partition(chr(10))[0]}") from error
    finally:
        con.close()


def _views(con: Any, folder: Path) -> None:
    """A view of each table that lies in a folder as Parquet."""
    folder = folder / "cdm" if (folder / "cdm").is_dir() else folder
    con.execute("CREATE SCHEMA cdm")
    for table in tables():
        inside = sorted((folder / table).glob("[!_.]*.parquet")) if (folder / table).is_dir() else []
        files = inside or [file for file in [folder / f"{table}.parquet"] if file.is_file()]
        if files:
            con.execute(f"CREATE VIEW cdm.{table} AS FROM read_parquet([{', '.join(map(quoted, files))}])")


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

    [(current,)] = con.execute("SELECT CURRENT_DATABASE()").fetchall()
    where = ("cdm",) if (catalog, schema) == (current, "cdm") else (catalog, schema)

    def query(sql: str) -> DataFrame:
        frame: DataFrame = con.execute(_spelled(sql, "duckdb", where)).df()
        return frame

    return Place(there, query)


def _database(database: Any) -> Place:
    """Whatever a Cdm asks: an answer is an Arrow table."""
    columns: There = {
        table.lower(): {column.lower(): kind for column, kind in fields.items()}
        for table, fields in database.columns().items()
    }
    return Place(columns, lambda sql: database.query(_spelled(sql, database.dialect, ()), {}).table.to_pandas())


@lru_cache(maxsize=256)
def _spelled(sql: str, dialect: str, where: tuple[str, ...]) -> str:
    """Portable SQL over the schema cdm as an engine's own, over the catalog and schema (or neither) that it is in."""
    if where == ("cdm",):
        return expand(sql, dialect)
    tree = parse(sql)
    for table in tree.find_all(exp.Table):
        if table.db == "cdm":
            parts = dict(zip(("catalog", "db"), where, strict=True)) if where else {}
            for part in ("catalog", "db"):
                table.set(part, exp.to_identifier(parts[part], quoted=True) if where else None)
    return expand(tree.sql(dialect="duckdb"), dialect)
