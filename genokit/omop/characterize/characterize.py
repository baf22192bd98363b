"""Characterize a CDM: run Achilles' analyses (achilles.py), and hide small counts before anything is kept or shown."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas import DataFrame

from genokit import disclosure
from genokit.bars import Bar
from genokit.databases import AthenaDatabase, DuckDatabase, translated_duckdb
from genokit.errors import NotFound
from genokit.omop.characterize import achilles, result_file
from genokit.omop.characterize.achilles import SCANS, Scan
from genokit.omop.characterize.achilles_athena import OnAthena
from genokit.omop.characterize.analyses import analyses
from genokit.omop.characterize.characterization import Characterization
from genokit.omop.characterize.small_counts import RULES, only, suppressed
from genokit.omop.connection import CdmConnection

SCANNED = ["table", "rows", "seconds", "counted", "bytes", "usd"]


def characterize(
    cdm: CdmConnection, results: str | os.PathLike[str] | None, *, min_cell: int, progress: bool
) -> Characterization:
    """Count what a CDM holds, each table in few scans. See ``Cdm.characterize``."""
    columns = cdm.columns()
    if "person" not in columns:
        raise NotFound(f"{cdm!r} has no table 'person', so it is not an OMOP CDM.")
    scans = [scan for scan in SCANS if scan.reads[-1] in columns]
    engine: OnAthena | _OnDuck
    if isinstance(cdm.database, AthenaDatabase):
        engine = OnAthena(cdm.database, columns, scans)
    else:
        engine = _OnDuck(cdm, scans, hashed=results is not None)
    made, log, everyone = [], [], None
    keeping = nullcontext() if results is None else result_file.opened(results)
    with keeping as file, Bar(scans, desc=f"Characterize{engine.cost}", unit="table", disable=not progress) as bar:
        for scan in bar:
            bar.set_postfix_str(scan.name)
            begun = time.perf_counter()
            key = f"{engine.key(scan)} {min_cell} {RULES}"
            tables = file.get(scan, key) if file else None
            read, usd = None, None
            fresh = tables is None
            if tables is None:
                counted, read, usd = engine.run(scan)
                tables = suppressed(counted, min_cell, everyone)
                if file:
                    file.put(scan, key, tables)
            made.append(tables)
            if scan.name == "person":
                everyone = next(iter(only(tables[0], 1)["count_value"].to_pylist()), None)
            log.append((scan.name, engine.rows(scan), time.perf_counter() - begun, fresh, read, usd))
        if file:
            file.describe(analyses().values())
            if any(fresh for *_, fresh, _, _ in log):
                file.count_concepts(_ancestors(cdm, file.concepts()))
    whole, distributions = (pa.concat_tables(tables[i] for tables in made) for i in (0, 1))
    scanned = pd.DataFrame(log, columns=SCANNED)
    few = disclosure.differs_by_few(scanned["rows"].astype("float64"), everyone, min_cell=min_cell)
    scanned["rows"] = scanned["rows"].astype("Int64").mask(few)
    [title] = only(whole, 0)["stratum_1"].to_pylist()[:1] or [None]
    return Characterization(
        title=title or cdm.place or "A CDM",
        min_cell=min_cell,
        results=whole,
        distributions=distributions,
        concepts=_concept_names(cdm, whole, distributions),
        scans=scanned.dropna(axis=1, how="all"),
    )


class _OnDuck:
    """A CDM counted in DuckDB."""

    cost = ""

    def __init__(self, cdm: CdmConnection, scans: Sequence[Scan], hashed: bool) -> None:
        assert isinstance(cdm.database, DuckDatabase)
        self.con = cdm.database.cursor()
        self.con.execute("set enable_progress_bar = false")
        columns = cdm.columns()
        read = {table: columns[table] for scan in scans for table in scan.reads}
        with translated_duckdb(""):
            self.tables = achilles.fingerprints(self.con, read, hashed=hashed)

    def rows(self, scan: Scan) -> int:
        return self.tables[scan.reads[-1]][1]

    def key(self, scan: Scan) -> str:
        return scan.key({table: self.tables[table][0] for table in scan.reads})

    def run(self, scan: Scan) -> tuple[Iterable[pa.Table], None, None]:
        with translated_duckdb(""):
            return scan.run(self.con, self.rows(scan)), None, None


def _concept_names(cdm: CdmConnection, *tables: pa.Table) -> dict[int, str]:
    """The names of the concepts in the results."""
    ids = {
        int(one)
        for table in tables
        for column in ("stratum_1", "stratum_2")
        for one in pc.unique(table[column]).to_pylist()
        if one and one.isdigit()
    }
    names: dict[int, str] = {}
    for rows in _looked_up(cdm, "concept", "concept_id, concept_name", "concept_id", sorted(ids)):
        names |= zip(rows["concept_id"].tolist(), rows["concept_name"], strict=True)
    return names


def _ancestors(cdm: CdmConnection, ids: Sequence[int]) -> pa.Table:
    """Pairs of an ancestor and one of these concepts."""
    pair = ["ancestor_concept_id", "descendant_concept_id"]
    none = pd.DataFrame(columns=pair, dtype="int64")
    rows = _looked_up(cdm, "concept_ancestor", ", ".join(pair), "descendant_concept_id", ids)
    return pa.Table.from_pandas(pd.concat([none, *rows]), preserve_index=False)


def _looked_up(cdm: CdmConnection, table: str, columns: str, by: str, ids: Sequence[int]) -> Iterator[DataFrame]:
    """The rows of a table of the vocabulary with these ids; some ids at a time, so that Athena takes the query."""
    if table in cdm.columns():
        for at in range(0, len(ids), 20_000):
            sql = f"select {columns} from {table} where {by} in $ids"
            yield cdm.lookup(sql, {"ids": ids[at : at + 20_000]})
