"""Characterize a CDM: run Achilles' analyses (achilles.py), and hide small counts before anything is kept or shown."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas import DataFrame

from genokit import disclosure
from genokit.bars import Bar
from genokit.databases import AthenaDatabase, DuckDatabase, translated_duckdb
from genokit.errors import NotFound
from genokit.omop.characterize import achilles, achilles_athena, result_file
from genokit.omop.characterize.achilles import SCANS
from genokit.omop.characterize.characterization import Characterization
from genokit.omop.characterize.result_file import STRATA
from genokit.omop.characterize.small_counts import only, suppressed
from genokit.omop.connection import CdmConnection

SCANNED = ["table", "seconds", "rows", "bytes", "usd"]


def characterize(
    cdm: CdmConnection, results: str | os.PathLike[str] | None, *, min_cell: int, progress: bool
) -> Characterization:
    """Count what a CDM holds, each table in few scans. See ``Cdm.characterize``."""
    columns = cdm.columns()
    if "person" not in columns:
        raise NotFound(f"{cdm!r} has no table 'person', so it is not an OMOP CDM.")
    database = cdm.database
    con = database.cursor() if isinstance(database, DuckDatabase) else None
    if con is not None:
        con.execute("set enable_progress_bar = false")
    scans = [scan for scan in SCANS if scan.reads[-1] in columns]
    made, log, everyone = [], [], None
    keeping = nullcontext() if results is None else result_file.opened(results)
    with keeping as file, Bar(scans, desc="Characterize", unit="table", disable=not progress) as bar:
        for scan in bar:
            bar.set_postfix_str(scan.name)
            begun, rows, read, usd = time.perf_counter(), None, None, None
            if isinstance(database, AthenaDatabase):
                counted, read, usd = achilles_athena.run(database, columns, scan)
            else:
                with translated_duckdb(""):
                    counted, rows = achilles.run(con, scan)
            made.append(suppressed(counted, min_cell, everyone))
            if scan.name == "person":
                everyone = next(iter(only(made[-1][0], 1)["count_value"].to_pylist()), None)
            log.append((scan.name, time.perf_counter() - begun, rows, read, usd))
        whole, distributions = (pa.concat_tables(tables[i] for tables in made) for i in (0, 1))
        concepts = _concepts(whole, distributions)
        if file is not None:
            result_file.write(file, whole, distributions, _ancestors(cdm, concepts))
    scanned = pd.DataFrame(log, columns=SCANNED)
    few = disclosure.differs_by_few(scanned["rows"].astype("float64"), everyone, min_cell=min_cell)
    scanned["rows"] = scanned["rows"].astype("Int64").mask(few)
    [title] = only(whole, 0)["stratum_1"].to_pylist()[:1] or [None]
    return Characterization(
        title=title or cdm.place or "A CDM",
        min_cell=min_cell,
        results=whole,
        distributions=distributions,
        concepts=_concept_names(cdm, concepts),
        scans=scanned.dropna(axis=1, how="all"),
    )


def _concepts(*tables: pa.Table) -> list[int]:
    """The ids that may be of concepts in the results."""
    values = {one for table in tables for name in STRATA[:2] for one in pc.unique(table[name]).to_pylist()}
    return sorted(int(one) for one in values if one and one.isdigit())


def _concept_names(cdm: CdmConnection, ids: Sequence[int]) -> dict[int, str]:
    names: dict[int, str] = {}
    for rows in _looked_up(cdm, "concept", "concept_id, concept_name", "concept_id", ids):
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
