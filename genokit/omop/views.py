"""Where a CDM lies on this machine, and its tables under the CDM's own names and types, whatever the files say.

A DuckDB file is attached read only, Parquet is read where it lies. Over either stand views, in a DuckDB of this
process: all tables of the CDM 5.4 with all of their fields. What a place has not is empty, or null.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.backends import database
from genokit.databases import Duck
from genokit.errors import InvalidSource, NotFound
from genokit.omop.fields import Field, fields, tables
from genokit.omop.parquet import parts, scan
from genokit.omop.schema import identifier, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# CDM 5.4 renamed these fields of 5.3.
_BEFORE = {
    "admitted_from_concept_id": "admitting_source_concept_id",
    "admitted_from_source_value": "admitting_source_value",
    "discharged_to_concept_id": "discharge_to_concept_id",
    "discharged_to_source_value": "discharge_to_source_value",
    "parent_visit_detail_id": "visit_detail_parent_id",
}
_KINDS = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "whole"),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "time"),
}


@dataclass(frozen=True)
class Held:
    """A table as a place has it: what to read it by, and its columns with their types."""

    source: str
    columns: Mapping[str, str]


def opened(place: str | os.PathLike[str], schema: str | None = None) -> tuple[Duck, dict[str, Held]]:
    """A DuckDB with the CDM's tables in the schema ``cdm``, and which of them the place has. Raises NotFound, ..."""
    there = os.path.expanduser(place)
    duck = database(":memory:")
    assert isinstance(duck, Duck)
    if os.path.isdir(there):  # False, too, for what could be no name at all
        held = in_folder(duck.con, Path(os.path.realpath(there)))
    elif os.path.isfile(there):
        held = _in_file(duck.con, Path(os.path.realpath(there)), schema)
    else:
        hint = "Name a DuckDB file, a folder of Parquet, or athena://workgroup/database."
        if "://" in str(place):
            hint = "A CDM in a bucket is asked through Athena: athena://workgroup/database; else copy it here."
        raise NotFound(f"There is no '{place}' on this machine. {hint}")
    if "person" not in held:
        names = ", ".join(sorted(held)[:10]) or "nothing"
        raise NotFound(f"'{place}' has no table 'person', so it is no CDM. It has: {names}.")
    duck.con.execute("create schema cdm; set schema = 'cdm'")
    for name, table in held.items():
        duck.con.execute(f"create view cdm.{identifier(name)} as {_select(name, table)}")
    for name in tables():
        if name not in held:
            nulls = ", ".join(f'cast(null as {field.type}) as "{field.name}"' for field in fields(name))
            duck.con.execute(f"create view cdm.{name} as select {nulls} where false")
    duck.schema = "cdm"
    return duck, held


def schema_of(con: DuckDBPyConnection, catalog: str, wanted: str | None, place: str) -> str:
    """The schema of a database that has the table ``person``. Raises NotFound, InvalidSource."""
    rows = con.execute(
        "select table_schema from information_schema.tables where table_catalog = ? and lower(table_name) = 'person'"
        " order by 1",
        [catalog],
    ).fetchall()
    found = [schema for (schema,) in rows]
    if wanted is not None:
        if wanted not in found:
            raise NotFound(
                f"{place} has no table 'person' in the schema '{wanted}', but in: {', '.join(found) or 'none'}."
            )
        return wanted
    usual = [schema for schema in ("cdm", "main") if schema in found]
    if not found:
        raise NotFound(f"{place} has no table 'person', so it is no CDM.")
    if not usual and len(found) > 1:
        raise InvalidSource(
            f"{place} has a table 'person' in several schemas: {', '.join(found)}. Name one: "
            f"Cdm(..., schema='{found[0]}')."
        )
    return (usual or found)[0]


def _in_file(con: DuckDBPyConnection, path: Path, schema: str | None) -> dict[str, Held]:
    import duckdb

    try:
        con.execute(f"attach {quoted(path)} as held (read_only)")
    except duckdb.Error as error:
        raise InvalidSource(
            f"'{path}' cannot be opened as a DuckDB file to read: {str(error).splitlines()[0]} If a program or this "
            "notebook has it open to write, close it there, or give that connection: Cdm(database=con)."
        ) from error
    chosen = schema_of(con, "held", schema, f"'{path}'")
    rows = con.execute(
        "select table_name, column_name, data_type from information_schema.columns where table_catalog = 'held' and"
        " table_schema = ? order by table_name, ordinal_position",
        [chosen],
    ).fetchall()
    held: dict[str, Held] = {}
    for name in dict.fromkeys(name for name, *_ in rows):
        columns = {column: kind for table, column, kind in rows if table == name}
        table = Held(f"held.{identifier(chosen)}.{identifier(name)}", columns)
        if not _is_header(con, table):
            held[name.lower()] = table
    return held


def in_folder(con: DuckDBPyConnection, folder: Path) -> dict[str, Held]:
    """The tables that lie in a folder as Parquet: a file each, or a folder of files."""
    if (folder / "cdm").is_dir():
        folder = Path(os.path.realpath(folder / "cdm"))  # an ETL may put another version in its place
    held: dict[str, Held] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower().removesuffix(".parquet")
        if path.name.startswith((".", "_")) or not (path.is_dir() or path.name.lower().endswith(".parquet")):
            continue
        files = parts(path)
        if files:
            source = scan(files, "union_by_name = true")
            found = _parquet_columns(con, source, path)
            held[name] = Held(source, found)
    return held


def _parquet_columns(con: DuckDBPyConnection, source: str, path: Path) -> dict[str, str]:
    import duckdb

    try:
        return {name: kind for name, kind, *_ in con.execute(f"describe select * from {source}").fetchall()}
    except duckdb.Error as error:
        raise InvalidSource(f"'{path}' cannot be read as Parquet. Fetch or write it again.") from error


def _is_header(con: DuckDBPyConnection, table: Held) -> bool:
    """Whether a table is empty but for one row, which holds the names of its columns as text, as Eunomia's are."""
    if set(table.columns.values()) != {"VARCHAR"}:
        return False
    rows: list[tuple[str | None, ...]] = con.execute(f"select * from {table.source} limit 2").fetchall()
    unnamed = all(re.fullmatch(r"column\d+", name) for name in table.columns)
    return len(rows) == 1 and (
        [str(value).upper() for value in rows[0]] == [name.upper() for name in table.columns]
        or (unnamed and all(re.fullmatch("[A-Z][A-Z0-9_]*", value or "") for value in rows[0]))
    )


def _select(name: str, table: Held) -> str:
    """A table's fields in the CDM's names, order and types, then what else it has."""
    there = {column.lower(): column for column in table.columns}
    wanted = fields(name) if name in tables() else ()
    parts = [_part(field, there, table) for field in wanted]
    used = {field.name for field in wanted} | {_BEFORE[field.name] for field in wanted if field.name in _BEFORE}
    parts += [f"{identifier(column)} as {identifier(low)}" for low, column in there.items() if low not in used]
    return f"select {', '.join(parts)} from {table.source}"


def _part(field: Field, there: Mapping[str, str], table: Held) -> str:
    column = there.get(field.name) or there.get(_BEFORE.get(field.name, ""))
    if column is None:
        return f'cast(null as {field.type}) as "{field.name}"'
    kind = table.columns[column]
    # A wider or narrower number of the same kind stays as it is: with a cast, files could not be skipped by it.
    same = _KINDS.get(kind, kind) == _KINDS.get(field.type, field.type)
    value = identifier(column) if same else f"cast({identifier(column)} as {field.type})"
    return f'{value} as "{field.name}"'
