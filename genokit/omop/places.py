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

from genokit.backends import database
from genokit.databases import Duck, confine
from genokit.errors import InvalidSource, NotFound
from genokit.omop.etl.mimic3 import identifier
from genokit.omop.fields import tables
from genokit.omop.quality.checks import There
from genokit.omop.views import attach, in_folder

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
    import duckdb

    duck = database(":memory:")
    assert isinstance(duck, Duck)
    asked = getattr(cdm, "database", None)
    try:
        if isinstance(cdm, (str, os.PathLike)):
            yield _duckdb(_opened(duck.con, Path(cdm).expanduser()), f"'{cdm}'")
        elif asked is None:
            yield _duckdb(cdm, "the connection")
        elif hasattr(asked, "con"):
            yield _duckdb(asked.con, "the connection", getattr(asked, "source", None))
        else:
            yield _database(asked)
    except duckdb.Error as error:
        raise InvalidSource(f"{cdm!r} cannot be read: {str(error).partition(chr(10))[0]}") from error
    finally:
        duck.con.close()


def _opened(con: Any, path: Path) -> Any:
    """A connection to what lies at a path, and to nothing else. Raises NotFound, InvalidSource."""
    files: list[str] = []
    if path.is_dir():
        files = [file for table in in_folder(con, path.resolve()).values() for file in table.files]
    elif path.exists():
        attach(con, path.resolve())
    else:
        raise NotFound(f"There is no '{path}'. Name a folder that the ETL made, or a .duckdb file.")
    confine(con, files)
    return con


def _duckdb(con: Any, name: str, chosen: tuple[str, str] | None = None) -> Place:
    rows = con.execute(
        "SELECT database_name, schema_name, LOWER(table_name), LOWER(column_name), data_type FROM duckdb_columns()"
        " WHERE NOT internal ORDER BY 1, 2, 3, column_index"
    ).fetchall()
    rows = [row for row in rows if chosen in (None, row[:2])]
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
