"""The two databases that queries run on: DuckDB in this process, and Amazon Athena.

backends.py decides which of them an address means, and ``genokit.omop.parameters`` prepares SQL and its parameters.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from genokit.errors import InvalidRequest, QueryError
from genokit.refusals import translated_errors, translated_queries

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyarrow import Table

T = TypeVar("T")
USD_PER_TB = 5.0  # Athena's list price of SQL queries in most regions
LEAST_BYTES = 10 * 1000**2  # for which a query is billed
BATCH = 100_000

# DuckDB's table functions that use no file, setting, secret or log; and those that read files.
_HARMLESS = re.compile(
    r"duckdb_(columns|constraints|databases|functions|indexes|keywords|schemas|tables|types|views)|generate_series|range"
    r"|repeat(_row)?|unnest|json_(each|tree)|histogram(_values)?|summary|icu_calendar_names|pg_timezone_names"
    r"|pragma_(show|table_info|version)|test_all_types"
)
_READERS = re.compile(r"read_(csv|json|ndjson|parquet|text|blob)\w*|parquet_\w+|glob|sniff_csv")
_EFFECTS = ("getenv", "nextval", "setseed", "setval", "sleep_ms", "write_log")
_QUERIES = ("select_node", "set_operation_node", "recursive_cte_node", "cte_node")
_GAP = r"(?:--[^\n]*\n|/\*.*?\*/|\s)*"
_EXPLAIN = re.compile(rf"(?is)\A{_GAP}explain\b(?:{_GAP}(?:(?:analyze|verbose)\b|\([\w\s,']*\)))*")


@dataclass(frozen=True)
class Answer:
    """The result of a query: its rows, whether there are more than were requested, and what it cost."""

    table: Table
    cut: bool
    seconds: float
    bytes: int | None
    usd: float | None = None


@dataclass(eq=False, repr=False)
class DuckDatabase:
    """A DuckDB connection that is only read.

    Parameters
    ----------
    con : DuckDBPyConnection
        The connection; its settings are changed.
    schema : str
        Where tables named without a schema are looked up.
    views : sequence of str
        Statements that create temporary views, which hide tables of ``source`` with the same names.
    source : tuple of str, optional
        The catalog and schema of the tables that the views read.
    external_access : bool
        Whether queries may also read files, as ``read_csv`` does.

    >>> import duckdb
    >>> DuckDatabase(duckdb.connect(), "main").query("select 42 as answer").table.to_pydict()
    {'answer': [42]}
    """

    dialect = "duckdb"
    free = True

    con: DuckDBPyConnection
    schema: str
    _: KW_ONLY
    views: Sequence[str] = ()
    source: tuple[str, str] | None = None
    external_access: bool = False
    _functions: dict[str, bool] = field(init=False, default_factory=dict)  # by name: whether a query must not call it
    _checked: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        # A name that is not a table must not be looked up among the variables of this program.
        self.con.execute("set python_enable_replacements = false")
        self.con.execute("set enable_profiling = 'no_output'")
        self._prepare(self.con)

    def _prepare(self, con: DuckDBPyConnection) -> None:
        where = self.source if self.views and self.source else (self.schema,)
        con.execute("use " + ".".join('"' + name.replace('"', '""') + '"' for name in where))
        for view in self.views:
            con.execute(view)

    def cursor(self) -> DuckDBPyConnection:
        """Another connection to the same database, for work that must not disturb the queries."""
        con = self.con.cursor()
        self._prepare(con)
        return con

    @property
    def searched(self) -> tuple[str, str]:
        """The catalog and the schema that the queries' tables are in."""
        [(catalog,)] = self.con.execute("select current_database()").fetchall()
        return ("temp", "main") if self.views else (catalog, self.schema)

    def query(self, sql: str, values: Mapping[str, Any] | None = None, *, most: int | None = None) -> Answer:
        """The rows of one SELECT, at most ``most``. An interrupt of the kernel ends it. Raises QueryError."""
        begun = time.perf_counter()
        with translated_duckdb(sql):
            statements = self.con.extract_statements(sql)
        if len(statements) != 1:
            raise QueryError(f"Expected one statement, got {len(statements)}.", sql=sql)
        if sql not in self._checked:
            self._check(sql)
            self._checked.add(sql)
        with translated_duckdb(sql):
            table = _interruptible(lambda: self._read(sql, values, most), self.con.interrupt)
        cut = most is not None and table.num_rows > most
        read = re.search(r'"total_bytes_read": (\d+)', self.con.get_profiling_information())
        return Answer(
            table.slice(0, most) if cut else table, cut, time.perf_counter() - begun, int(read[1]) if read else None
        )

    def _check(self, sql: str) -> None:
        """Raise QueryError if anything in the syntax tree of a statement does more than read tables."""
        with translated_duckdb(sql):
            query = _EXPLAIN.sub("", sql)
            [(tree,)] = self.con.execute("select json_serialize_sql($1::varchar)", [query]).fetchall()

        # Within JSON's texts a quote follows a backslash: none of them is taken for a key.
        def found(key: str) -> list[str]:
            return sorted({json.loads(one).lower() for one in re.findall(rf'"{key}":("(?:[^"\\]|\\.)*")', tree)})

        odd = [kind for kind in found("type") if kind.endswith("_node") and kind not in _QUERIES]
        if odd or not tree.startswith('{"error":false'):
            what = f"contains {odd[0].partition('_')[0].upper()}" if odd else "is not a SELECT"
            raise QueryError(f"query() only reads, but this statement {what}. Write a SELECT.", sql=sql)
        names = found("function_name")
        if not self._functions.keys() >= set(names):
            self._functions = self._known_functions()
        for name in names:
            if name not in self._functions and name.isidentifier():  # DuckDB might install an extension that has it
                hint = "Check its spelling; if it belongs to an extension, load that first."
                raise QueryError(f"This database has no function {name}(). {hint}", sql=sql)
            if self._functions.get(name) and not _READERS.fullmatch(name):
                raise QueryError(f"query() only reads tables, but {name}() does more. Remove it.", sql=sql)
        files = {f"{name}()" for name in names if self._functions.get(name)}
        files |= {name for name in found("table_name") if re.search(r"[./\\:*?]", name)}
        if files and not self.external_access and (files := files - {table.lower() for table, *_ in self.columns()}):
            raise QueryError(
                f"The query reads files ({min(files)}), but a Cdm reads only its own tables. Use pandas, or open the"
                " CDM with Cdm(..., external_access=True): its queries can then read any file that you can.",
                sql=sql,
            )

    def _known_functions(self) -> dict[str, bool]:
        rows = self.con.execute(
            "select lower(function_name), bool_or(function_type = 'table' or (internal and function_type in"
            " ('pragma', 'table_macro'))) from duckdb_functions() group by 1"
        ).fetchall()
        return {name: name in _EFFECTS or (table and not _HARMLESS.fullmatch(name)) for name, table in rows}

    def _read(self, sql: str, values: Mapping[str, Any] | None, most: int | None) -> Table:
        """The rows; of more than ``most``, enough to know that there are more."""
        import pyarrow as pa

        rows = self.con.sql(sql, params=dict(values) if values else None)
        if most is None:
            return rows.to_arrow_table()
        reader = rows.to_arrow_reader(BATCH)
        batches, n = [], 0
        for batch in reader:
            batches.append(batch)
            n += batch.num_rows
            if n > most:
                break
        reader.close()
        return pa.Table.from_batches(batches, schema=reader.schema)

    def script(self, sql: str, values: Mapping[str, Any], *questions: str) -> list[Table]:
        """The rows of each of the ``questions``, queries over temporary tables that the statements of ``sql`` create.

        Statements and questions get those of the values that they name. Raises QueryError.
        """
        con = self.cursor()

        def named(statement: Any) -> dict[str, Any] | None:
            return {name: values[name] for name in statement.named_parameters} or None

        def whole() -> list[Table]:
            con.execute("begin transaction read only")
            for statement in con.extract_statements(sql):
                con.execute(statement, named(statement))
            return [con.sql(one, params=named(*con.extract_statements(one))).to_arrow_table() for one in questions]

        try:
            with translated_duckdb(sql):
                return _interruptible(whole, con.interrupt)
        finally:
            con.close()

    def columns(self) -> list[tuple[str, str, str]]:
        """Table, column and type of all tables that queries find without naming a schema, in order."""
        found: list[tuple[str, str, str]] = self.con.execute(
            "select table_name, column_name, data_type from information_schema.columns where (table_catalog = ? and"
            " table_schema = ?) or (table_catalog = ? and table_schema = ? and lower(table_name) not in (select"
            " table_name from information_schema.tables where table_catalog = 'temp'))"
            " order by table_name, ordinal_position",
            [*self.searched, *((self.views and self.source) or self.searched)],
        ).fetchall()
        return found

    def __repr__(self) -> str:
        return f"<DuckDatabase {self.schema}>"


@dataclass(eq=False, repr=False)
class AthenaDatabase:
    """A workgroup and a database of Amazon Athena, through a connection of pyathena."""

    dialect = "athena"
    free = False  # whether queries cost nothing, so that a card may send one

    connection: Any
    schema: str

    def query(self, sql: str, values: Mapping[str, Any] | None = None, *, most: int | None = None) -> Answer:
        """The rows of one statement without parameters. An interrupt of the kernel cancels it on Athena.

        Athena's results do not distinguish an empty text from null: both are null here. Raises QueryError.
        """
        from pyathena.arrow.cursor import ArrowCursor

        begun = time.perf_counter()
        try:
            with translated_queries("the query"), self.connection.cursor(ArrowCursor) as cursor:
                cursor.execute(sql if most is None else _limited(sql, most + 1))
                table = _typed(cursor.as_arrow(), cursor.description or [])
                read = cursor.data_scanned_in_bytes
        except InvalidRequest as error:
            raise QueryError(str(error), sql=sql) from error
        cut = most is not None and table.num_rows > most
        cost = None if read is None else usd(read)
        return Answer(table.slice(0, most) if cut else table, cut, time.perf_counter() - begun, read, cost)

    def columns(self) -> list[tuple[str, str, str]]:
        """Table, column and type of all tables of the database, as Glue lists them; costs no query."""
        with translated_errors(f"database '{self.schema}'"):
            glue = self.connection.session.client("glue")
            pages = list(glue.get_paginator("get_tables").paginate(DatabaseName=self.schema))
        tables = sorted((table for page in pages for table in page["TableList"]), key=lambda table: str(table["Name"]))
        return [
            (table["Name"], column["Name"], column.get("Type", "").upper())
            for table in tables
            for column in [*table.get("StorageDescriptor", {}).get("Columns", []), *table.get("PartitionKeys", [])]
        ]

    def __repr__(self) -> str:
        return f"<AthenaDatabase {self.connection.work_group}/{self.schema}>"


def confine(con: DuckDBPyConnection, files: Iterable[str] = (), *, external_access: bool = False) -> None:
    """Deny a connection the disk, except for ``files``, and the network, and lock its settings.

    With ``external_access`` it can read files and load installed extensions.
    """
    con.execute("set allowed_configs = ['schema', 'search_path', 'threads', 'memory_limit', 'enable_progress_bar']")
    if external_access:
        con.execute("set autoload_known_extensions = true")
    else:
        con.execute("set allowed_paths = $files", {"files": list(files)})
        con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")


def usd(read: int) -> float:
    """The list price of an Athena query that reads so many bytes.

    >>> usd(10**12), usd(1)
    (5.0, 5e-05)
    """
    return max(read, LEAST_BYTES) / 1000**4 * USD_PER_TB


def _limited(sql: str, most: int) -> str:
    """The query with a limit; as a subquery of a limited one it would lose its order in Trino.

    >>> _limited("select 1 from person order by 1 -- all", 5)
    'select 1 from person order by 1 -- all\\nlimit 5'
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, read="athena")
    except SqlglotError:
        return sql  # Athena will report what is wrong, if it is
    if not isinstance(tree, sqlglot.exp.Query) or any(tree.args.get(part) for part in ("limit", "offset")):
        return sql
    return f"{sql}\nlimit {most}"


def _interruptible(work: Callable[[], T], interrupt: Callable[[], object]) -> T:
    """The result of ``work``, which the interrupt of a kernel ends even while it is not in Python."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # DuckDB forgets an interrupt that comes before the query has begun
                interrupt()
                wait([future], 0.05)
            raise


@contextmanager
def translated_duckdb(sql: str) -> Iterator[None]:
    """Turn DuckDB's errors into the kit's, with DuckDB's message and the line it points at."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        # The message says it all: the cause would only add DuckDB's own frames.
        raise QueryError(f"The query was refused. {error}", sql=sql) from None


def _typed(table: Table, description: list[Any]) -> Table:
    """Decimals as decimals, and null instead of empty text: pyathena leaves both as in Athena's CSV."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, (_, kind, _, _, precision, scale, *_) in enumerate(description):
        column = table.column(i)
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
            if kind == "decimal":
                column = column.cast(pa.decimal128(precision, scale))
            table = table.set_column(i, table.field(i).name, column)
    return table
