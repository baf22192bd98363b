"""Achilles' result tables in a DuckDB file: what ATLAS reads, and what a next run need not count again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.errors import InvalidSource
from genokit.files import restrict

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

SQL = Path(__file__).parent / "sql"
TABLES = ("achilles_results", "achilles_results_dist")
STRATA = tuple(f"stratum_{i}" for i in range(1, 6))


@contextmanager
def opened(path: str | os.PathLike[str] | None) -> Iterator[Results]:
    """The result tables in a file, made where there are none; without a file, nothing is kept. Raises InvalidSource."""
    import duckdb

    if path is None:
        yield Results(None)
        return
    new = not os.path.exists(path)
    try:
        con = duckdb.connect(str(path))
        if new and os.path.exists(path):
            restrict(Path(path))
    except duckdb.Error as error:
        raise InvalidSource(f"'{path}' cannot be opened for results: {str(error).partition(chr(10))[0]}") from error
    with con:
        con.execute((SQL / "tables.sql").read_text(encoding="utf-8"))
        yield Results(con)


class Results:
    """Result tables by scan: what was counted together, under the key of what it was counted from."""

    def __init__(self, con: DuckDBPyConnection | None) -> None:
        self._con = con

    def get(self, scan: str, key: str, analyses: Sequence[int]) -> list[pa.Table] | None:
        """Both tables' rows of a scan, if they were counted from the same."""
        if self._con is None:
            return None
        if not self._con.execute("select 1 from genokit_scans where scan = ? and key = ?", [scan, key]).fetchall():
            return None
        ids = {"ids": list(analyses)}
        queries = [f"select * from {table} where analysis_id in $ids order by all" for table in TABLES]
        return [self._con.sql(query, params=ids).to_arrow_table() for query in queries]

    def put(self, scan: str, key: str, analyses: Sequence[int], made: Iterable[pa.Table]) -> None:
        """Replace the rows of a scan, all at once."""
        if self._con is None:
            return
        ids = {"ids": list(analyses)}
        self._con.begin()
        self._con.execute("delete from genokit_scans where scan = ?", [scan])
        for table, rows in zip(TABLES, made, strict=True):
            self._con.execute(f"delete from {table} where analysis_id in $ids", ids)
            self._con.register("fresh", rows)
            self._con.execute(f"insert into {table} select * from fresh")
            self._con.unregister("fresh")
        self._con.execute("insert into genokit_scans values (?, ?)", [scan, key])
        self._con.commit()

    def concepts(self) -> list[int]:
        """The concepts that have counts."""
        ids = "select unnest([stratum_1, stratum_2]) as id from achilles_results"
        asked = f"select distinct try_cast(id as bigint) as id from ({ids}) where id is not null order by id"
        return [] if self._con is None else [one for (one,) in self._con.execute(asked).fetchall() if one]

    def count_concepts(self, above: pa.Table) -> None:
        """Sum up how often each concept is there, and with all that is below it by ``above``."""
        if self._con is not None:
            self._con.register("above", above)
            self._con.execute((SQL / "concept_counts.sql").read_text(encoding="utf-8"))
            self._con.unregister("above")

    def describe(self, rows: Sequence[tuple[int, str, tuple[str, ...], int]]) -> None:
        """Say what each analysis is: its number, its name, what its strata are, and whether it is a distribution."""
        if self._con is None:
            return
        self._con.begin()
        self._con.execute("delete from achilles_analysis")
        self._con.executemany(
            "insert into achilles_analysis values (?, ?, ?, ?, ?, ?, ?, ?)",
            [(number, name, *strata, *[None] * (5 - len(strata)), spread) for number, name, strata, spread in rows],
        )
        self._con.commit()
