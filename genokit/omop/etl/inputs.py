"""What the ETL starts from, as Parquet with exact types: the source's tables, bad rows set aside, and the vocabulary.

DuckDB does this for every engine, so that a broken row is broken in the same way wherever the rest then runs.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.files import sha256, write_atomic
from genokit.omop.etl import transform
from genokit.omop.etl.mimic3 import Table, mimic3, quoted
from genokit.omop.etl.plan import digest
from genokit.omop.etl.result_store import Folder
from genokit.omop.etl.source import Source, load_table
from genokit.omop.etl.vocabulary import Vocabulary
from genokit.omop.parquet import parts, scan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame

ORIGIN = "mimic3.source"  # one row: whether the kit made these data up
READING = 2  # counts up when the same files are to be read differently
REJECTED, COLUMNS = "_rejected.csv", ["table", "file", "line", "reason"]


def keys(source: Source, known: Vocabulary, work: Folder) -> dict[str, str]:
    """The key of each table that the ETL reads: what its files hold, whatever they are called and wherever they lie."""
    files, sums = source.files(progress=False), _Sums(work.root / "sums.json")
    meaning = digest(*(sums.of(path) for path in known.paths))
    found = {}
    for table in transform.sources():
        schema, _, name = table.partition(".")
        if schema == "vocab":
            found[table] = digest(table, meaning)
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
    work: Folder,
    wanted: Mapping[str, str],
    progress: Callable[[str], object],
) -> None:
    """Bring the tables that ``wanted`` maps to their keys into the work, those that are not there yet."""
    missing = {table: key for table, key in wanted.items() if work.done(table, key) is None}
    vocab = {table: key for table, key in missing.items() if table.startswith("vocab.")}
    if vocab:
        progress("vocab")
        known.load(con)
    for table, key in vocab.items():
        begun = time.perf_counter()
        rows = _write(con, table, Path(work.path(table, key)))
        work.finish(table, key, rows, time.perf_counter() - begun)
    con.execute("create schema if not exists mimic3")
    work.scratch.mkdir(parents=True, exist_ok=True)
    files = source.files(progress=False)
    if ORIGIN in missing:
        con.execute(f"create or replace table {ORIGIN} as select {int(source.synthetic)} as synthetic")
        work.finish(ORIGIN, missing[ORIGIN], _write(con, ORIGIN, Path(work.path(ORIGIN, missing[ORIGIN]))), 0.0)
    for table in sorted(missing.keys() - vocab.keys() - {ORIGIN}):
        progress(table)
        _stage(con, mimic3()[table.removeprefix("mimic3.")], source, files, work, missing[table])


def rejected(work: Folder, wanted: Mapping[str, str]) -> DataFrame:
    """Every row that was set aside, as texts: its table, file, line and reason."""
    import pandas as pd

    lists = [Path(work.path(table, key)) / REJECTED for table, key in wanted.items()]
    found = [pd.read_csv(one, dtype=str, keep_default_na=False) for one in lists if one.exists()]
    return pd.concat([pd.DataFrame(columns=COLUMNS, dtype=str), *found], ignore_index=True)


def _stage(
    con: DuckDBPyConnection, table: Table, source: Source, files: Mapping[str, Path], work: Folder, key: str
) -> None:
    begun, name = time.perf_counter(), f"mimic3.{table.name}"
    folder = Path(work.path(name, key))
    if table.name not in files:
        con.execute(f"create or replace table {name} ({table.ddl})")
        work.finish(name, key, _write(con, name, folder), 0.0, held="missing")
        return
    with tempfile.TemporaryDirectory(dir=work.scratch) as scratch:
        bad, notes = load_table(con, table, files[table.name], Path(scratch), source.null_texts)
        [(rows,)] = con.execute(f"select count(*) from {name}").fetchall()
        staged, lying = Path(scratch) / f"{table.name}.parquet", parts(files[table.name])
        more: dict[str, object] = {"rejected": len(bad), "notes": notes}
        folder.mkdir(parents=True, exist_ok=True)
        if bad:
            _list(folder / REJECTED, (asdict(one) for one in bad))
            _write(con, name, folder)
        elif staged.exists():
            staged.rename(folder / "part-00000.parquet")
        elif not source.null_texts and _exact(con, table, lying):
            more["files"] = [str(path.resolve()) for path in lying]
        else:
            _write(con, name, folder)
        con.execute(f"drop view {name}")
    work.finish(name, key, rows, time.perf_counter() - begun, **more)


def _write(con: DuckDBPyConnection, table: str, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    target = quoted(folder / "part-00000.parquet")
    [(rows,)] = con.execute(f"copy {table} to {target} (format parquet, compression zstd)").fetchall()
    return int(rows)


def _exact(con: DuckDBPyConnection, table: Table, files: list[Path]) -> bool:
    """Whether Parquet files have just the table's columns, in its types, so that they may be read as they lie."""
    if any(file.suffix != ".parquet" for file in files):
        return False
    found = [con.execute(f"describe select * from {scan([file])}").fetchall() for file in files]
    wanted = [(column.name, column.type) for column in table.columns.values()]
    return all([(name, kind) for name, kind, *_ in one] == wanted for one in found)


def _list(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


class _Sums:
    """SHA-256 of files, kept by size and time of change: a file that did not change is not read again."""

    def __init__(self, file: Path) -> None:
        self.file, self.used = file, dict[str, list[object]]()
        self.known: dict[str, list[object]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def of(self, path: Path) -> str:
        name, status = str(path.resolve()), path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self.known.get(name)
        summed = known[2] if known and known[:2] == stamp else sha256(path)
        self.used[name] = [*stamp, summed]
        return str(summed)

    def save(self) -> None:
        write_atomic(self.file, json.dumps(self.used), private=True)
