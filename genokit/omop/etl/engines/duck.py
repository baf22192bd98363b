"""The ETL in DuckDB: on one machine, within a given memory, and with the same bytes in every run.

A table is written in parts: one for each branch of a UNION ALL, and for each million row_ids of an event table. Parts
are sorted, because joins in DuckDB (2.0) do not keep the order of rows, and small, because sorting a whole table would
spill to disk. A part is written under a temporary name and named by its SQL, so that a run that was killed continues
after the last complete part, and reuses only parts that are still the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp

from genokit.errors import TransformFailed
from genokit.omop.etl.mimic3 import mimic3, quoted
from genokit.omop.etl.plan import TableStep, digest
from genokit.omop.etl.result_store import MadeTable, ResultStore
from genokit.omop.fields import fields
from genokit.omop.parquet import scan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

WIDTH = 1_000_000  # row_ids of a table of the source in one part
_WHOLE = (exp.Group, exp.Distinct, exp.Window, exp.AggFunc)  # need all rows at once


@dataclass(frozen=True)
class DuckDB:
    """The engine for one machine: it spills to disk beyond ``memory_gib`` (default: half of the machine's memory), and
    uses ``threads`` (default: all cores)."""

    memory_gib: float | None = None
    threads: int | None = None

    dialect = "duckdb"

    @property
    def name(self) -> str:
        import duckdb

        return f"duckdb {duckdb.__version__}"

    def connect(self, scratch: Path) -> DuckDBPyConnection:
        """A connection limited to the memory, which spills into the folder ``scratch``."""
        import duckdb
        import psutil  # type: ignore[import-untyped]

        memory = self.memory_gib or psutil.virtual_memory().total / 2**31
        con = duckdb.connect()
        con.execute(f"set memory_limit = '{round(memory * 1024)}MiB'; set temp_directory = {quoted(scratch)}")
        if self.threads:
            con.execute(f"set threads = {self.threads}")
        con.execute("set enable_progress_bar = false")  # the run has its own
        return con

    def build(
        self,
        steps: Sequence[TableStep],
        inputs: Mapping[str, MadeTable],
        work: ResultStore,
        progress: Callable[[str], object],
    ) -> None:
        """Make each step, in their order. Raises TransformFailed."""
        with self.connect(work.scratch) as con:
            for made in inputs.values():
                _show(con, made.table, made.parquet)
            for step in steps:
                progress(step.table)
                begun, folder = time.perf_counter(), Path(work.folder(step.table, step.key))
                folder.mkdir(parents=True, exist_ok=True)
                parts = {f"part-{i:05}-{digest(sql)[:8]}.parquet": sql for i, sql in enumerate(_parts(con, step))}
                for left in folder.iterdir():
                    if left.name not in parts:
                        left.unlink()
                for name, sql in parts.items():
                    _write(con, step.table, sql, folder / name)
                _show(con, step.table, sorted(str(file) for file in folder.glob("*.parquet")))
                [(rows,)] = con.execute(f"select count(*) from {step.table}").fetchall()
                work.finish(MadeTable(step.table, step.key, str(folder), rows, round(time.perf_counter() - begun, 3)))


def _write(con: DuckDBPyConnection, table: str, sql: str, file: Path) -> None:
    import duckdb

    if file.exists():
        return
    unfinished = file.with_suffix(".unfinished")
    ordered = f"select * from ({sql}) as part order by {_order(table)}"
    try:
        con.execute(f"copy ({ordered}) to {quoted(unfinished)} (format parquet, compression zstd)")
    except duckdb.Error as error:
        # DuckDB's message may repeat a patient's value.
        [(limit,)] = con.execute("select current_setting('memory_limit')").fetchall()
        raise TransformFailed(
            f"'{table}' could not be made by DuckDB ({type(error).__name__}). Finished tables are kept, and the target "
            f"is unchanged; the next run continues from here. If more memory than {limit} is needed, allow it with "
            "engine=DuckDB(memory_gib=...), or use fewer threads, with DuckDB(threads=1). If the disk is full, free "
            "some. Else report this with the SQL: transform.select(table, 'duckdb').",
            table=table,
        ) from None
    unfinished.rename(file)


def _show(con: DuckDBPyConnection, table: str, files: list[str]) -> None:
    con.execute(f"create schema if not exists {table.partition('.')[0]}")
    con.execute(f"create or replace view {table} as select * from {scan(files)}")


def _order(table: str) -> str:
    schema, _, name = table.partition(".")
    own = [field.name for field in fields(name) if field.key] if schema == "cdm" else []
    return ", ".join(own) or "all"


def _parts(con: DuckDBPyConnection, step: TableStep) -> Iterator[str]:
    if "UNION ALL" not in step.sql and not any(table.startswith("mimic3.") for table in step.reads):
        yield step.sql
        return
    for tree in _apart(step.sql):
        yield from (part.sql(dialect="duckdb", identify=True) for part in _ranges(con, tree))


@cache
def _apart(sql: str) -> tuple[exp.Expr, ...]:
    return tuple(branches(sqlglot.parse_one(sql, read="duckdb")))


def branches(tree: exp.Expr) -> list[exp.Expr]:
    """The SELECTs whose rows together are a query's: its UNION ALLs split, unless something needs all rows at once.

    >>> sql = "WITH a AS (SELECT 1 AS x UNION ALL SELECT 2 AS x) SELECT x + 1 AS y FROM a UNION ALL SELECT 9 AS y"
    >>> for one in branches(sqlglot.parse_one(sql)):
    ...     print(one.sql())
    WITH a AS (SELECT 1 AS x) SELECT x + 1 AS y FROM a
    WITH a AS (SELECT 2 AS x) SELECT x + 1 AS y FROM a
    SELECT 9 AS y
    """
    tree = _without_unused(tree.copy())
    if isinstance(tree, exp.Union):
        return [one for side in (tree.left, tree.right) for one in branches(_with(side, tree))]
    inner = _union_inside(tree)
    if inner is None:
        return [tree]
    found = list[exp.Expr]()
    for branch in branches(inner):
        inner.replace(branch)
        inner = branch
        found += branches(tree)
    return found


def _union_inside(tree: exp.Expr) -> exp.Expr | None:
    """A UNION that one SELECT alone reads, as a CTE or in parentheses."""
    if tree.find(*_WHOLE):
        return None
    source = tree.args["from_"].this if tree.args.get("from_") else None
    if isinstance(source, exp.Subquery):
        return source.this if isinstance(source.this, exp.Union) else None
    for cte in tree.args["with_"].expressions if tree.args.get("with_") else ():
        uses = [table for table in tree.find_all(exp.Table) if not table.db and table.name == cte.alias]
        if isinstance(cte.this, exp.Union) and len(uses) == 1 and isinstance(uses[0].parent, exp.From):
            return cte.this
    return None


def _with(side: exp.Expr, whole: exp.Expr) -> exp.Expr:
    side = side.copy()
    if whole.args.get("with_"):
        side.set("with_", whole.args["with_"].copy())
    return side


def _without_unused(tree: exp.Expr) -> exp.Expr:
    named = tree.args.get("with_")
    for cte in reversed(named.expressions if named else []):
        if not any(not table.db and table.name == cte.alias for table in tree.find_all(exp.Table)):
            cte.pop()
    if named and not named.expressions:
        tree.set("with_", None)
    return tree


def _ranges(con: DuckDBPyConnection, tree: exp.Expr) -> Iterator[exp.Expr]:
    """A SELECT from one large table of the source, split by ranges of its row_ids; any other unchanged."""
    large = []
    for table in [] if tree.find(*_WHOLE) else tree.find_all(exp.Table):
        if table.db == "mimic3" and table.name in mimic3() and isinstance(table.parent, exp.From):
            [(first, last)] = con.execute(f"select min(row_id), max(row_id) from mimic3.{table.name}").fetchall()
            large += [(table.name, first, last)] if first is not None and last - first >= WIDTH else []
    if len(large) != 1:
        yield tree
        return
    [(name, first, last)] = large
    for start in range(first, last + 1, WIDTH):
        part = tree.copy()
        [table] = [one for one in part.find_all(exp.Table) if one.db == "mimic3" and one.name == name]
        condition = f"row_id between {start} and {start + WIDTH - 1}"
        some = sqlglot.parse_one(f"select * from mimic3.{name} where {condition}", read="duckdb")
        table.replace(exp.Subquery(this=some, alias=exp.TableAlias(this=exp.to_identifier(table.alias_or_name))))
        yield part
