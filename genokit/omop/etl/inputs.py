"""The tables that the ETL reads, as Parquet with exact types: the source's, bad rows set aside, and the vocabulary's.

DuckDB does this for every engine, so that bad rows are treated alike whichever engine makes the CDM.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.files import sha256, write_atomic
from genokit.omop.etl import transform
from genokit.omop.etl.csvs import Bad
from genokit.omop.etl.mimic3 import SourceTable, mimic3, quoted
from genokit.omop.etl.plan import digest
from genokit.omop.etl.result_store import MadeTable, ResultStore
from genokit.omop.etl.source import Source, load_table
from genokit.omop.etl.vocabulary import Vocabulary
from genokit.omop.parquet import parts, scan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame

ORIGIN = "mimic3.source"  # one row: whether the data are synthetic
READING = 2  # to be raised when the same files are to be read differently
REJECTED, COLUMNS = "_rejected.csv", ["table", "file", "line", "reason"]


def keys(source: Source, known: Vocabulary, work: ResultStore) -> dict[str, str]:
    """The key of each table that the ETL reads: a hash of its files' content, whatever their names and folders."""
    files, sums = source.files(progress=False), _Checksums(Path(work.root) / "sums.json")
    vocabulary = digest(*(sums.of(path) for path in known.paths))
    found = {}
    for table in transform.sources():
        schema, _, name = table.partition(".")
        if schema == "vocab":
            found[table] = digest(table, vocabulary)
        elif table == ORIGIN:
            found[table] = digest(table, source.synthetic)
        else:
            content = [sums.of(path) for path in parts(files[name])] if name in files else []
            found[table] = digest(table, READING, mimic3()[name].ddl, content, source.null_texts)
    sums.save()
    return found


def stage(
    con: DuckDBPyConnection,
    source: Source,
    known: Vocabulary,
    work: ResultStore,
    keys: Mapping[str, str],
    progress: Callable[[str], object],
) -> dict[str, MadeTable]:
    """Load the tables that ``keys`` names into the work, unless they are there; returns all of them."""
    found = {table: work.find(table, key) for table, key in keys.items()}
    missing = sorted(table for table, made in found.items() if made is None)
    if any(table.startswith("vocab.") for table in missing):
        progress("vocab")
        known.load(con)
    con.execute("create schema if not exists mimic3")
    con.execute(f"create or replace table {ORIGIN} as select {int(source.synthetic)} as synthetic")
    work.scratch.mkdir(parents=True, exist_ok=True)
    files = source.files(progress=False)
    for table in missing:
        if not table.startswith("vocab."):
            progress(table)
        found[table] = work.finish(_made(con, source, files, table, keys[table], work))
    return {table: made for table, made in found.items() if made}


def rejected(inputs: Iterable[MadeTable]) -> DataFrame:
    """Every row that was set aside, as texts: its table, file, line and reason."""
    import pandas as pd

    lists = [pd.read_csv(Path(made.folder) / REJECTED, dtype=str, keep_default_na=False)
             for made in inputs if made.rejected]  # fmt: skip
    return pd.concat([pd.DataFrame(columns=COLUMNS, dtype=str), *lists], ignore_index=True)


def _made(
    con: DuckDBPyConnection, source: Source, files: Mapping[str, Path], table: str, key: str, work: ResultStore
) -> MadeTable:
    """One table as Parquet in the work: one that ``con`` has already, or one of the source's."""
    begun, folder, name = time.perf_counter(), Path(work.folder(table, key)), table.removeprefix("mimic3.")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    target, bad, in_place, held = folder / "part-00000.parquet", list[Bad](), list[str](), ""
    if name in mimic3():
        path, nulls = files.get(name), source.null_texts
        held = "" if path else "missing"
        with tempfile.TemporaryDirectory(dir=work.scratch) as scratch:
            bad = load_table(con, mimic3()[name], path, Path(scratch), null_texts=nulls, target=target)
        if path and not (bad or nulls) and _is_exact(con, mimic3()[name], parts(path)):
            in_place = [str(file.resolve()) for file in parts(path)]
    if not (in_place or target.exists()):
        con.execute(f"copy {table} to {quoted(target)} (format parquet, compression zstd)")
    [(rows,)] = con.execute(f"select count(*) from {table}").fetchall()
    if bad:
        import pandas as pd

        pd.DataFrame(bad).to_csv(folder / REJECTED, index=False)
    return MadeTable(table, key, str(folder), rows, round(time.perf_counter() - begun, 3), len(bad), held, in_place)


def _is_exact(con: DuckDBPyConnection, table: SourceTable, files: list[Path]) -> bool:
    """Whether files are Parquet with exactly the table's columns and types, so that they can be read in place."""
    if any(file.suffix != ".parquet" for file in files):
        return False
    found = [con.execute(f"describe select * from {scan([file])}").fetchall() for file in files]
    wanted = [(column.name, column.type) for column in table.columns.values()]
    return all([(name, kind) for name, kind, *_ in one] == wanted for one in found)


class _Checksums:
    """SHA-256 of files, kept by size and time of modification: an unchanged file is not read again."""

    def __init__(self, file: Path) -> None:
        self.file, self.used = file, dict[str, list[object]]()
        self.known: dict[str, list[object]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def of(self, path: Path) -> str:
        name, status = str(path.resolve()), path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self.known.get(name)
        self.used[name] = [*stamp, known[2] if known and known[:2] == stamp else sha256(path)]
        return str(self.used[name][2])

    def save(self) -> None:
        write_atomic(self.file, json.dumps(self.used), private=True)
