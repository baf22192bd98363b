"""Where a CDM lies on this machine, and its tables under the CDM's own names and types, whatever the files say.

A DuckDB file is attached read only, Parquet is read where it lies. Over either stand views, in a DuckDB of this
process: all tables of the CDM 5.4 with all of their fields. What a place has not is empty, or null.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.backends import database
from genokit.databases import DuckDatabase, confine
from genokit.errors import InvalidSource, NotFound
from genokit.omop.etl.mimic3 import identifier, quoted
from genokit.omop.fields import Field, fields, tables
from genokit.omop.parquet import parts, scan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame

# CDM 5.4 renamed these fields of 5.3.
_BEFORE = {
    "admitted_from_concept_id": "admitting_source_concept_id",
    "admitted_from_source_value": "admitting_source_value",
    "discharged_to_concept_id": "discharge_to_concept_id",
    "discharged_to_source_value": "discharge_to_source_value",
    "parent_visit_detail_id": "visit_detail_parent_id",
}
_COLUMNS = (
    "from information_schema.columns where table_catalog = ? and table_schema = ? order by table_name, ordinal_position"
)
_CDM = re.compile(r"\bcdm\.(?=\w)")
_KINDS = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "whole"),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "time"),
}


@dataclass(frozen=True)
class Held:
    """A table as a place has it: what to read it by, its columns with their types, and its files if it has its own."""

    source: str
    columns: Mapping[str, str]
    files: tuple[str, ...] = ()


def opened(place: str | os.PathLike[str], schema: str | None = None, *, external_access: bool = False) -> DuckDatabase:
    """A DuckDB with the CDM's tables in the schema ``cdm``, confined to the place's files. Raises NotFound, ..."""
    duck = _memory()
    with _translated(f"'{place}'"):
        source, held = _located(duck.con, place, schema)
        held = held or _tables(duck.con, source)
        _check_ids(duck.con, held, f"'{place}'")
    duck.con.execute("create schema cdm; set schema = 'cdm'")
    for view in _views(held, "view cdm."):
        duck.con.execute(view)
    confine(duck.con, (file for table in held.values() for file in table.files), external_access=external_access)
    duck.source, duck.schema, duck.external_access = source, "cdm", external_access
    return duck


def over(con: DuckDBPyConnection, schema: str | None = None, *, external_access: bool = False) -> DuckDatabase:
    """The tables of an open connection as a CDM, by temporary views that only this Cdm sees. Raises NotFound, ..."""
    with _translated("The connection"):
        con = con.cursor()
        source = source_of(con, "The connection", schema)
        held = _tables(con, source)
        _check_ids(con, held, "The connection")
        mine = _views({name: held[name] for name in held.keys() & set(tables())}, "temp view ")
        return DuckDatabase(con, source[1], views=list(mine), source=source, external_access=external_access)


@dataclass(frozen=True)
class Kept:
    """A CDM as it is kept: its tables' columns and their types, and queries of them as tables of the schema ``cdm``."""

    columns: Mapping[str, Mapping[str, str]]
    dialect: str
    query: Callable[[str], DataFrame]


@contextmanager
def as_kept(cdm: str | os.PathLike[str] | Any) -> Iterator[Kept]:
    """Open a path, a DuckDB connection or a Cdm as it is: nothing is renamed, cast or added. Raises NotFound, ..."""
    given = getattr(cdm, "database", None)
    with _translated(repr(cdm)), closing(_memory().con) as con:
        if isinstance(cdm, (str, os.PathLike)):
            source, held = _located(con, cdm)
            confine(con, (file for table in held.values() for file in table.files))
            yield _of_duckdb(con, source)
        elif isinstance(given, DuckDatabase):
            yield _of_duckdb(given.con, given.source or given.searched)
        elif given is None:
            yield _of_duckdb(cdm, source_of(cdm, "The connection"))
        else:
            columns = _by_table(given.columns())
            yield Kept(columns, given.dialect, lambda sql: given.query(_CDM.sub("", sql)).table.to_pandas())


@contextmanager
def _translated(place: str) -> Iterator[None]:
    """Turn DuckDB's errors into InvalidSource."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise InvalidSource(
            f"{place} cannot be read as a CDM: {str(error).splitlines()[0]} Name a DuckDB file or a folder of Parquet "
            "files; unpack an archive first. If this notebook has it open to write, use that: Cdm(database=con)."
        ) from error


def _of_duckdb(con: DuckDBPyConnection, source: tuple[str, str]) -> Kept:
    columns = con.execute(f"select table_name, column_name, data_type {_COLUMNS}", source).fetchall()
    prefix = ".".join(map(identifier, source)) + "."
    return Kept(_by_table(columns), "duckdb", lambda sql: con.execute(_CDM.sub(lambda _: prefix, sql)).df())


def _by_table(columns: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in columns:
        found.setdefault(table.lower(), {})[column.lower()] = kind
    return found


def _memory() -> DuckDatabase:
    duck = database(":memory:")
    assert isinstance(duck, DuckDatabase)
    return duck


def _located(
    con: DuckDBPyConnection, place: str | os.PathLike[str], schema: str | None = None
) -> tuple[tuple[str, str], dict[str, Held]]:
    """The catalog and schema that a place on this machine has in a connection, and its tables where it is a folder."""
    here = os.path.expanduser(place)
    if os.path.isdir(here):  # False, too, for what could be no name at all
        held = _in_folder(con, Path(os.path.realpath(here)))
        if not held.keys() & set(tables()):
            names = ", ".join(sorted(os.listdir(here))[:10]) or "nothing"
            raise NotFound(
                f"'{place}' has no table 'person' in Parquet, so it is not an OMOP CDM. It holds: {names}. Name a "
                "DuckDB file, or a folder with person.parquet or with a folder of Parquet files named person."
            )
        return ("memory", "held"), held
    if os.path.isfile(here):
        con.execute(f"attach {quoted(os.path.realpath(here))} as held (read_only)")
        return source_of(con, f"'{place}'", schema), {}
    hint = "Name a DuckDB file, a folder of Parquet, or athena://workgroup/database."
    if "://" in str(place):
        hint = "A CDM in a bucket is asked through Athena: athena://workgroup/database; else copy it here."
    raise NotFound(f"There is no '{place}' on this machine. {hint}")


def source_of(con: DuckDBPyConnection, place: str, schema: str | None = None) -> tuple[str, str]:
    """The catalog and the schema of a CDM: that named, or else the only one with the table ``person``.

    Of several schemas with a person, ``cdm`` is taken before ``main``; of several catalogs, the current one. Where
    there is no person at all, any table of the CDM stands for it. Raises NotFound, InvalidSource.
    """
    rows = con.execute("select table_catalog, table_schema, lower(table_name) from information_schema.tables")
    known = [((catalog, name), table) for catalog, name, table in rows.fetchall() if table in tables()]
    found = {where for where, table in known if table == "person"} or {where for where, _ in known}
    catalogs = {catalog for catalog, _ in found}
    [(current,)] = con.execute("select current_database()").fetchall()
    catalog = catalogs.pop() if len(catalogs) == 1 else str(current)
    schemas = sorted(name for one, name in found if one == catalog)
    if schema is not None and schema not in schemas:
        raise NotFound(
            f"{place} has no table 'person' in the schema '{schema}', but in: {', '.join(schemas) or 'none'}."
        )
    if not schemas:
        raise NotFound(f"{place} has no table 'person', so it is not an OMOP CDM.")
    usual = [name for name in (schema or "cdm", "main") if name in schemas]
    if not usual and len(schemas) > 1:
        raise InvalidSource(
            f"{place} has a table 'person' in several schemas: {', '.join(schemas)}. Name one: "
            f"Cdm(..., schema='{schemas[0]}')."
        )
    return catalog, (usual or schemas)[0]


def _tables(con: DuckDBPyConnection, where: tuple[str, str]) -> dict[str, Held]:
    """The tables in a schema of a catalog, without those that have no row but a header."""
    rows = con.execute(f"select table_name, column_name, data_type {_COLUMNS}", where).fetchall()
    held: dict[str, Held] = {}
    for name in dict.fromkeys(name for name, *_ in rows):
        columns = {column: kind for table, column, kind in rows if table == name}
        table = Held(".".join(map(identifier, (*where, name))), columns)
        if not _is_header(con, table):
            held[name.lower()] = table
    return held


def _check_ids(con: DuckDBPyConnection, held: Mapping[str, Held], place: str) -> None:
    """Raise NotFound where there is no table of persons, InvalidSource where they are not numbered."""
    if "person" not in held:
        raise NotFound(f"{place} has no table 'person', so it is not an OMOP CDM.")
    person = held["person"]
    for column, kind in person.columns.items():
        if column.lower() == "person_id" and _KINDS.get(kind) != "whole":
            text = f"cast({identifier(column)} as varchar)"
            odd = f"not regexp_full_match({text}, '-?\\d+(\\.0+)?') or try_cast({text} as bigint) is null"
            if con.execute(f"select 1 from {person.source} where {text} is not null and ({odd}) limit 1").fetchall():
                raise InvalidSource(
                    f"{place} has values in person.person_id ({kind}) that are not whole numbers, but ids of the CDM "
                    "are. Give each person a number, and put it into the person_id of every table."
                )


def _views(held: Mapping[str, Held], view: str) -> Iterator[str]:
    """The statements that make a view of each table of the CDM, and of what else there is."""
    for name, table in {**dict.fromkeys(tables(), Held("(select 1) where false", {})), **held}.items():
        yield f"create {view}{identifier(name)} as {_select(name, table)}"


def _in_folder(con: DuckDBPyConnection, folder: Path) -> dict[str, Held]:
    """The tables that lie in a folder as Parquet, a file or a folder of files each, as views in the schema ``held``."""
    if (folder / "cdm").is_dir():
        folder = Path(os.path.realpath(folder / "cdm"))  # an ETL may put another version in its place
    con.execute("create schema held")
    held: dict[str, Held] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower().removesuffix(".parquet")
        if path.name.startswith((".", "_")) or not (path.is_dir() or path.name.lower().endswith(".parquet")):
            continue
        files = parts(path)
        if files and name in held:
            raise InvalidSource(f"'{folder}' has the table {name} twice, also as {path.name}. Remove one of them.")
        if files:
            source = scan(files, "union_by_name = true")
            columns = con.execute(f"describe select * from {source}").fetchall()
            con.execute(f"create view held.{identifier(name)} as from {source}")
            view = f"memory.held.{identifier(name)}"
            held[name] = Held(view, {column: kind for column, kind, *_ in columns}, tuple(map(str, files)))
    for path in sorted(folder.iterdir()):
        name, _, kind = path.name.lower().partition(".")
        if name in tables() and name not in held and kind.startswith(("csv", "tsv")):
            raise InvalidSource(
                f"'{folder}' has the table {name} as {path.name}, but a Cdm reads Parquet. Convert each such file, in "
                f"DuckDB by: copy (from '{path.name}') to '{name}.parquet'."
            )
    return held


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
    value = identifier(column)
    if not same:  # DuckDB 2.0 loses rows to "cast(x as ...) is null" over files of older versions, unless x is asked
        value = f"case when {value} is not null then cast({value} as {field.type}) end"
    return f'{value} as "{field.name}"'
