"""The two databases that queries run on: DuckDB in this process, and Amazon Athena; each with one ``query``.

Which of them an address means is decided in backends.py. SQL comes here ready: parameters are made in
``genokit.omop.parameters``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from genokit.errors import InvalidRequest, QueryError
from genokit.refusals import translated_errors, translated_queries

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyarrow import Table

T = TypeVar("T")
USD_PER_TB = 5.0  # Athena's list price of SQL queries in most regions; a query is billed for at least 10 MB
LEAST_BYTES = 10 * 1000**2
BATCH = 100_000


@dataclass(frozen=True)
class Answer:
    """What a query gave: its rows, whether they were cut at the most that was asked for, and what it cost."""

    table: Table
    cut: bool
    seconds: float
    bytes: int | None
    usd: float | None = None


class Duck:
    """A DuckDB connection, to read by; tables without a schema are sought in ``schema``.

    >>> import duckdb
    >>> Duck(duckdb.connect(), "main").query("select 42 as answer").table.to_pydict()
    {'answer': [42]}
    """

    dialect = "duckdb"
    free = True

    def __init__(self, con: DuckDBPyConnection, schema: str) -> None:
        self.con = con
        self.schema = schema
        # A name that is no table must not be taken for a variable of this program.
        con.execute("set python_enable_replacements = false")
        con.execute("set enable_profiling = 'no_output'")
        con.execute("set schema = '" + schema.replace("'", "''") + "'")

    def query(self, sql: str, values: Mapping[str, Any] | None = None, *, most: int | None = None) -> Answer:
        """The rows of one statement that reads. An interrupt of the kernel ends it. Raises QueryError."""
        begun = time.perf_counter()
        with _told(sql):
            statements = self.con.extract_statements(sql)
        if len(statements) != 1:
            said = "no statement" if not statements else "several statements. Give one at a time"
            raise QueryError(f"This is {said}.", sql=sql)
        kind = statements[0].type.name
        if kind not in ("SELECT", "EXPLAIN"):
            raise QueryError(f"query() only reads, but this is a statement of kind {kind}. Begin with SELECT.", sql=sql)

        with _told(sql):
            table = _interruptible(lambda: self._read(sql, values, most), self.con.interrupt)
        cut = most is not None and table.num_rows > most
        read = re.search(r'"total_bytes_read": (\d+)', self.con.get_profiling_information())
        return Answer(
            table.slice(0, most) if cut else table, cut, time.perf_counter() - begun, int(read[1]) if read else None
        )

    def _read(self, sql: str, values: Mapping[str, Any] | None, most: int | None) -> Table:
        """The rows, read no further than needed to know that there are more."""
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
        """The rows of each question, asked after statements that may write temporary tables only; these are gone then.

        A statement, or a question, gets those of the values that it names. Raises QueryError.
        """
        con = self.con.cursor()

        def named(statement: Any) -> dict[str, Any] | None:
            return {name: values[name] for name in statement.named_parameters} or None

        def whole() -> list[Table]:
            con.execute("begin transaction read only")
            for statement in con.extract_statements(sql):
                con.execute(statement, named(statement))
            return [con.sql(one, params=named(*con.extract_statements(one))).to_arrow_table() for one in questions]

        try:
            with _told(sql):
                return _interruptible(whole, con.interrupt)
        finally:
            con.close()

    def columns(self) -> list[tuple[str, str, str]]:
        """Table, column and type of all that the schema holds, in order."""
        found: list[tuple[str, str, str]] = self.con.execute(
            "select table_name, column_name, data_type from information_schema.columns where table_catalog ="
            " current_database() and table_schema = ? order by table_name, ordinal_position",
            [self.schema],
        ).fetchall()
        return found

    def __repr__(self) -> str:
        return f"<Duck {self.schema}>"


class Athena:
    """A workgroup and a database of Amazon Athena, through a connection of pyathena."""

    dialect = "athena"
    free = False  # whether a question costs nothing, so that a card may ask one

    def __init__(self, connection: Any, schema: str) -> None:
        self.connection = connection
        self.schema = schema

    def query(self, sql: str, values: Mapping[str, Any] | None = None, *, most: int | None = None) -> Answer:
        """The rows of one statement, values written out already. An interrupt of the kernel cancels it on Athena.

        Athena's results do not tell an empty text from none: both are null here. Raises QueryError.
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
        """Table, column and type of all that the database holds, as Glue lists them; costs no query."""
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
        return f"<Athena {self.connection.work_group}/{self.schema}>"


def usd(read: int) -> float:
    """What Athena's list price makes of a query that reads so many bytes.

    >>> usd(10**12), usd(1)
    (5.0, 5e-05)
    """
    return max(read, LEAST_BYTES) / 1000**4 * USD_PER_TB


def _limited(sql: str, most: int) -> str:
    """A query that gives no more rows; within another one Trino would forget its order.

    >>> _limited("select 1 from person order by 1 -- all", 5)
    'select 1 from person order by 1 -- all\\nlimit 5'
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, read="athena")
    except SqlglotError:
        return sql  # Athena will say what is wrong, or knows better
    if not isinstance(tree, sqlglot.exp.Query) or any(tree.args.get(part) for part in ("limit", "offset")):
        return sql
    return f"{sql}\nlimit {most}"


def _interruptible(work: Callable[[], T], interrupt: Callable[[], object]) -> T:
    """What ``work`` gives; the interrupt of a kernel ends it, too, while it is not in Python."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # one that comes before the query has begun is forgotten
                interrupt()
                wait([future], 0.05)
            raise


@contextmanager
def _told(sql: str) -> Iterator[None]:
    """DuckDB's errors as the kit's, with its words and the line it points at."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        # Its words are all there is to know: below them only DuckDB's own frames would follow.
        raise QueryError(f"The query was refused. {error}", sql=sql) from None


def _typed(table: Table, description: list[Any]) -> Table:
    """Decimals as decimals, and no empty text: what pyathena leaves as Athena's CSV has it."""
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
