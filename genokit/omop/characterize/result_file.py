"""Achilles' result tables in a DuckDB file, which ATLAS reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from genokit.errors import InvalidSource
from genokit.files import restrict
from genokit.omop.characterize.achilles import sql
from genokit.omop.characterize.analyses import analyses

TABLES = ("achilles_results", "achilles_results_dist")
STRATA = tuple(f"stratum_{i}" for i in range(1, 6))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[DuckDBPyConnection]:
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
        yield con


def write(con: DuckDBPyConnection, results: pa.Table, distributions: pa.Table, ancestors: pa.Table) -> None:
    """Replace the results of all analyses, in one transaction.

    ``ancestors``, rows of concept_ancestor, give the counts of each concept with its descendants.
    """
    con.begin()
    con.execute("delete from achilles_analysis")
    con.executemany(
        "insert into achilles_analysis values (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (one.analysis_id, one.name, *one.strata, *[None] * (5 - len(one.strata)), one.is_distribution)
            for one in analyses().values()
        ],
    )
    for table, rows in zip(TABLES, (results, distributions), strict=True):
        con.execute(f"delete from {table} where analysis_id in $ids", {"ids": list(analyses())})
        con.register("fresh", rows)
        con.execute(f"insert into {table} from fresh")
    con.register("above", ancestors)
    con.execute(sql("concept_counts"))
    con.commit()
