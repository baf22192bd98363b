"""Source: MIMIC-III as a site has it, CSV or Parquet, loaded by name and type; bad rows are set aside and listed."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from genokit.errors import InvalidSource, NotFound
from genokit.omop import csvs, rows
from genokit.omop.csvs import Bad
from genokit.omop.schema import Column, Table, mimic3, quoted

MARK = "synthetic.json"  # lies beside data that the kit made up
SUFFIXES = {".csv": "csv", ".csv.gz": "csv.gz", ".parquet": "parquet"}
SHOWN = 200


@dataclass(frozen=True)
class Source:
    """A folder with the tables of MIMIC-III: PATIENTS.csv, patients.csv.gz, patients.parquet, or patients/*.parquet.

    >>> from genokit.omop import Source
    >>> Source("physionet/mimiciii")
    <Source 'physionet/mimiciii'>
    """

    place: str

    def __init__(self, place: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "place", os.fspath(place))

    def tables(self) -> dict[str, str]:
        """How each of the 26 tables is held: csv, csv.gz, parquet, or missing. Raises NotFound, InvalidSource."""
        files = self.files()
        return {name: _form(files[name]) if name in files else "missing" for name in mimic3()}

    def files(self) -> dict[str, Path]:
        """The file, or folder of Parquet files, of each table that is there. Raises NotFound, InvalidSource."""
        if "://" in self.place:
            raise InvalidSource(
                f"'{self.place}' is not a folder of this machine, and only such can be read so far. Bring the data "
                "here first, as by: aws s3 sync s3://bucket/mimiciii mimiciii."
            )
        folder = Path(self.place)
        if not os.path.isdir(folder):  # False, too, for what could be no name at all
            raise NotFound(
                f"There is no folder '{folder}'. Name the one that holds MIMIC-III's tables, as PATIENTS.csv.gz."
            )
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            name = _table(path)
            if name in found:
                raise InvalidSource(
                    f"Two files in '{folder}' are the table '{name}': '{found[name].name}' and '{path.name}'. "
                    "Keep one of them."
                )
            if name:
                found[name] = path
        lost = [name for name, table in mimic3().items() if table.required and name not in found]
        if lost:
            inside = [one.name for one in folder.iterdir() if one.is_dir() and any(map(_table, one.iterdir()))]
            step = (
                f"They may be in '{folder / inside[0]}'." if inside else "Fetch them from where the others came from."
            )
            raise InvalidSource(
                f"'{folder}' has {len(found)} of MIMIC-III's 26 tables, but not {' and '.join(lost)}, without which "
                f"nothing goes. {step}"
            )
        return found

    @property
    def synthetic(self) -> bool:
        """Whether nobody is behind these data: the kit made them up, and marked the folder and each Parquet file."""
        mark, patients = (os.path.join(self.place, name) for name in (MARK, "patients.parquet"))
        return os.path.isfile(mark) or (os.path.isfile(patients) and _marked(patients))

    @property
    def title(self) -> str:
        return "Synthetic MIMIC-III" if self.synthetic else "MIMIC-III"

    def load(self, con: Any, *, staging: str | os.PathLike[str] | None = None, progress: bool = True) -> Loaded:
        """Make the 26 tables, by MIMIC-III's columns and types, in the schema ``mimic3`` of an open DuckDB connection.

        Parquet is read where it lies; CSV is copied into the connection's database, or as Parquet into ``staging``.
        A missing optional table is there and empty. ``mimic3.rejected`` lists bad rows by table_name, file, line
        and reason; a Parquet file's line is the number of the row. Raises NotFound, InvalidSource.
        """
        from tqdm.auto import tqdm

        begun, files = time.perf_counter(), self.files()
        con.execute("drop schema if exists mimic3 cascade; create schema mimic3")
        con.execute("create table mimic3.rejected (table_name VARCHAR, file VARCHAR, line BIGINT, reason VARCHAR)")
        counts, bad, notes = dict[str, int](), list[Bad](), list[str]()
        for name, table in tqdm(mimic3().items(), desc=self.title, unit="table", disable=not progress):
            if name not in files:
                con.execute(f"create table mimic3.{name} ({table.ddl})")
                counts[name] = 0
                continue
            found, note = _load(con, table, files[name], Path(staging) if staging else None)
            notes += note
            bad += found
            if found:
                _list(con, found)
            counts[name] = con.execute(f"select count(*) from mimic3.{name}").fetchone()[0]
        missing = tuple(name for name in mimic3() if name not in files)
        return Loaded(self, counts, dict(Counter(one.table for one in bad)), missing, tuple(notes), tuple(bad[:SHOWN]),
                      time.perf_counter() - begun)  # fmt: skip

    def __repr__(self) -> str:
        return f"<Source {self.place!r}>"

    def _repr_html_(self) -> str:
        from genokit.display import card, table

        try:
            held = self.tables()
        except (InvalidSource, NotFound) as error:
            return card("MIMIC-III", {"place": self.place, "problem": str(error)}, status="problem")
        forms = Counter(held.values())
        about = {"place": self.place, "tables": f"{26 - forms['missing']} of 26", "missing": _missing(held) or "none"}
        if self.synthetic:
            about["made of"] = "chance, by this kit; no person is behind it, and nothing may be learnt from it"
        return card(
            self.title, about, fold={"Tables": table([{"table": name, "held as": form} for name, form in held.items()])}
        )


@dataclass(frozen=True)
class Loaded:
    """What came in: rows and rejected rows of each table, tables that were missing, and the first of the bad rows."""

    source: Source
    rows: Mapping[str, int]
    rejected: Mapping[str, int]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    bad: tuple[Bad, ...] = field(repr=False)
    seconds: float

    def __repr__(self) -> str:
        return (
            f"<Loaded {self.source.title}: {sum(self.rows.values()):,} rows, {sum(self.rejected.values()):,} rejected>"
        )

    def _repr_html_(self) -> str:
        from genokit import display

        total, lost = sum(self.rows.values()), sum(self.rejected.values())
        about: dict[str, object] = {
            "rows": f"{total:,}",
            "rejected": f"{lost:,}, listed in mimic3.rejected" if lost else "none",
            "missing tables": ", ".join(self.missing) or "none",
            "time": display.seconds(self.seconds),
        }
        if self.notes:
            about["noted"] = "; ".join(self.notes)
        each = [
            {
                "table": name,
                "rows": rows,
                "rejected": self.rejected.get(name, 0),
                "in all of MIMIC-III": mimic3()[name].rows,
            }
            for name, rows in self.rows.items()
        ]
        fold: dict[str, object] = {"Tables": display.table(each)}
        if self.bad:
            fold["Rejected rows"] = display.table(
                [{"file": one.file, "line": one.line, "reason": one.reason} for one in self.bad]
            )
        return display.card(f"{self.source.title}, loaded", about, status="warning" if lost else "ok", fold=fold)


def _table(path: Path) -> str:
    """The table that a file or folder is by its name, or nothing."""
    match = re.fullmatch(r"([a-z_]+?)(\.csv|\.csv\.gz|\.parquet)?", path.name.lower())
    if not match or match[1] not in mimic3():
        return ""
    if path.is_dir():
        return match[1] if match[2] in (None, ".parquet") and _parts(path) else ""
    return match[1] if match[2] else ""


def _marked(file: str) -> bool:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return b"synthetic" in (parquet.read_metadata(file).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return False


def _parts(path: Path) -> list[Path]:
    """The Parquet files of a table, without what Spark and editors leave beside them."""
    if not path.is_dir():
        return [path]
    inside = (one.relative_to(path) for one in path.rglob("*") if one.suffix.lower() == ".parquet" and one.is_file())
    return sorted(path / one for one in inside if not any(part.startswith(("_", ".")) for part in one.parts))


def _form(path: Path) -> str:
    name = path.name.lower()
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), "parquet")


def _list(con: Any, bad: list[Bad]) -> None:
    import pyarrow as pa

    columns = {name: [getattr(one, name) for one in bad] for name in ("table", "file", "line", "reason")}
    con.register("genokit_bad", pa.table(columns))
    con.execute("insert into mimic3.rejected select * from genokit_bad")
    con.unregister("genokit_bad")


def _missing(held: Mapping[str, str]) -> str:
    return ", ".join(name for name, form in held.items() if form == "missing")


def _load(con: Any, table: Table, path: Path, staging: Path | None) -> tuple[list[Bad], list[str]]:
    if _form(path) == "parquet":
        return _load_parquet(con, table, path)
    notes = _notes(path.name, csvs.header(path, table).missing, csvs.header(path, table).unknown)
    if staging is None:
        made = f"mimic3.{table.name}"
        with tempfile.TemporaryDirectory() as scratch:
            bad = csvs.load(con, table, path, f"create or replace table {made} as {{query}}", made, Path(scratch))
        con.execute(f"delete from {made} where row_id is null")
        return bad, notes
    staging.mkdir(parents=True, exist_ok=True)
    target = quoted(staging / f"{table.name}.parquet")
    bad = csvs.load(
        con,
        table,
        path,
        f"copy ({{query}}) to {target} (format parquet, compression zstd)",
        f"read_parquet({target})",
        staging,
    )
    con.execute(f"create view mimic3.{table.name} as select * from read_parquet({target}) where row_id is not null")
    return bad, notes


def _load_parquet(con: Any, table: Table, path: Path) -> tuple[list[Bad], list[str]]:
    import duckdb

    files = f"[{', '.join(quoted(one) for one in _parts(path))}]"
    try:
        found = con.execute(f"describe select * from read_parquet({files}, union_by_name = true)").fetchall()
    except duckdb.Error as error:
        raise InvalidSource(f"'{path.name}' cannot be read as Parquet. Fetch or write it again.") from error
    kinds = {name.lower(): kind for name, kind, *_ in found}
    lost = [name for name, column in table.columns.items() if column.required and name not in kinds]
    if lost:
        raise InvalidSource(
            f"'{path.name}' has no column '{lost[0]}', which the table '{table.name}' of MIMIC-III needs."
        )
    known = {name: kinds[name] for name in table.columns if name in kinds}
    condition = rows.sound(table, known)
    bad = list(_bad_rows(con, table, known, files, condition)) if condition != "true" else []
    keep = f" where {condition}" if bad else ""
    query = f"select {rows.converted(table, known)} from read_parquet({files}, union_by_name = true){keep}"
    con.execute(f"create view mimic3.{table.name} as {query}")
    missing = tuple(name for name in table.columns if name not in kinds)
    return bad, _notes(path.name, missing, tuple(name for name in kinds if name not in table.columns))


def _bad_rows(con: Any, table: Table, known: Mapping[str, str], files: str, condition: str) -> list[Bad]:
    columns: list[Column] = [table.columns[name] for name in known]
    found = con.execute(f"""
        select filename, file_row_number + 1, {", ".join(known)}
        from read_parquet({files}, union_by_name = true, filename = true, file_row_number = true)
        where not ({condition})
        order by 1, 2
    """)
    bad = []
    for file, line, *record in iter(partial(found.fetchone), None):
        reason = rows.first_wrong(zip(columns, record, strict=True)) or "a value is not of its column's type"
        bad.append(Bad(table.name, Path(file).name, line, reason))
    return bad


def _notes(file: str, missing: tuple[str, ...], unknown: tuple[str, ...]) -> list[str]:
    notes = [f"{file} has no {', '.join(missing)}: left empty"] if missing else []
    return notes + ([f"{file} has columns that MIMIC-III has not: {', '.join(unknown[:5])}"] if unknown else [])
