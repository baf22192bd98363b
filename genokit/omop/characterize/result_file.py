"""Achilles' result tables in a DuckDB file: ATLAS reads them, and the next run counts only what changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from genokit.errors import InvalidSource
from genokit.files import restrict
from genokit.omop.characterize.achilles import Scan, sql
from genokit.omop.characterize.analyses import Analysis

TABLES = ("achilles_results", "achilles_results_dist")
STRATA = tuple(f"stratum_{i}" for i in range(1, 6))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[ResultFile]:
    """Open the result tables in a file; a missing file is created. Raises InvalidSource."""
    new = not os.path.exists(path)
    try:
        con = duckdb.connect(str(path))
        if new and os.path.exists(path):
            restrict(Path(path))
    except duckdb.Error as error:
        raise InvalidSource(f"'{path}' cannot be opened for results: {str(error).partition(chr(10))[0]}") from error
    with con:
        con.execute(sql("tables"))
        yield ResultFile(con)


class ResultFile:
    """Result tables by scan; a scan's rows are kept under a key of everything that they follow from."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self._con = con

    def get(self, scan: Scan, key: str) -> list[pa.Table] | None:
        """Both tables' rows of a scan, if they are kept under this key."""
        if not self._con.execute("select 1 from genokit_scans where scan = ? and key = ?", [scan.name, key]).fetchall():
            return None
        ids = {"ids": scan.analyses}
        queries = [f"select * from {table} where analysis_id in $ids order by all" for table in TABLES]
        return [self._con.sql(query, params=ids).to_arrow_table() for query in queries]

    def put(self, scan: Scan, key: str, tables: Iterable[pa.Table]) -> None:
        """Replace the rows of a scan, atomically."""
        ids = {"ids": scan.analyses}
        self._con.begin()
        self._con.execute("delete from genokit_scans where scan = ?", [scan.name])
        for table, rows in zip(TABLES, tables, strict=True):
            self._con.execute(f"delete from {table} where analysis_id in $ids", ids)
            self._con.register("fresh", rows)
            self._con.execute(f"insert into {table} select * from fresh")
            self._con.unregister("fresh")
        self._con.execute("insert into genokit_scans values (?, ?)", [scan.name, key])
        self._con.commit()

    def concepts(self) -> list[int]:
        """The concepts that have counts."""
        ids = "select unnest([stratum_1, stratum_2]) as id from achilles_results"
        query = f"select distinct try_cast(id as bigint) as id from ({ids}) where id is not null order by id"
        return [concept for (concept,) in self._con.execute(query).fetchall() if concept]

    def count_concepts(self, ancestors: pa.Table) -> None:
        """Count the records of each concept, alone and with its descendants; ``ancestors`` is of concept_ancestor."""
        self._con.register("above", ancestors)
        self._con.execute(sql("concept_counts"))
        self._con.unregister("above")

    def describe(self, analyses: Iterable[Analysis]) -> None:
        """Write the table of analyses."""
        self._con.begin()
        self._con.execute("delete from achilles_analysis")
        self._con.executemany(
            "insert into achilles_analysis values (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (one.analysis_id, one.name, *one.strata, *[None] * (5 - len(one.strata)), one.is_distribution)
                for one in analyses
            ],
        )
        self._con.commit()
