"""Source: a site's copy of MIMIC-III, CSV or Parquet, loaded by name and type; bad rows are set aside and listed."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.backends import clients
from genokit.errors import GenokitError, InvalidSource, NotFound
from genokit.omop.etl import csvs, remote, rows
from genokit.omop.etl.csvs import Bad
from genokit.omop.etl.mimic3 import SourceTable, mimic3, quoted
from genokit.omop.parquet import is_part, parts, scan

if TYPE_CHECKING:
    from genokit.backends import Clients

MARK = "synthetic.json"  # beside synthetic data
BY_NAME = "union_by_name = true"


@dataclass(frozen=True)
class Source:
    """A folder with the tables of MIMIC-III, on this machine or on S3. Making a Source reads nothing.

    A table is a file, as PATIENTS.csv, patients.csv.gz or patients.parquet, or a folder of Parquet files, as
    patients/part-0.parquet. Files on S3 are fetched into the cache when they are needed.

    Parameters
    ----------
    place : str or path
        The folder, or ``s3://bucket/folder``.
    clients : Clients, optional
        The clients of S3 (default: those of the settings).
    null_texts : iterable of str, default ()
        Texts that stand for a missing value in these files, as "NA" in R's, beside the empty one.

    Examples
    --------
    >>> from genokit.omop import Source
    >>> Source("physionet/mimiciii")
    <Source 'physionet/mimiciii'>
    """

    place: str
    clients: Clients | None = field(default=None, repr=False, compare=False)
    null_texts: tuple[str, ...] = ()

    def __init__(
        self, place: str | os.PathLike[str], *, clients: Clients | None = None, null_texts: Iterable[str] = ()
    ) -> None:
        object.__setattr__(self, "place", os.fspath(place))
        object.__setattr__(self, "clients", clients)
        object.__setattr__(self, "null_texts", (null_texts,) if isinstance(null_texts, str) else tuple(null_texts))

    def tables(self) -> dict[str, str]:
        """How each of the 26 tables is held: csv, csv.gz, parquet, or missing. Raises NotFound, InvalidSource."""
        names = self._names()
        return {name: _form(names[name]) if name in names else "missing" for name in mimic3()}

    def files(self, *, progress: bool = True) -> dict[str, Path]:
        """The file, or folder of Parquet files, of each table that is there; those on S3 are fetched into the cache.

        Raises NotFound, InvalidSource, and S3's refusals as AccessDenied, ServiceError and so on.
        """
        names = self._names()
        if self._in_s3:
            wanted = {name: self._listed[name] for name in names.values()}
            local = remote.fetched(self._s3, self.place, wanted, progress=progress)
            return {table: local[name] for table, name in names.items()}
        return {table: Path(self.place, name) for table, name in names.items()}

    def _names(self) -> dict[str, str]:
        """The name of each table's file or folder; nothing is fetched."""
        found: dict[str, str] = {}
        for name, folder in self._entries():
            table = _table(name, folder)
            if table in found:
                raise InvalidSource(
                    f"Two files in '{self.place}' are the table '{table}': '{found[table]}' and '{name}'. "
                    "Keep one of them."
                )
            if table:
                found[table] = name
        lost = [name for name, table in mimic3().items() if table.required and name not in found]
        if lost:
            raise InvalidSource(
                f"'{self.place}' has {len(found)} of MIMIC-III's 26 tables, but not {' and '.join(lost)}, which every "
                "source needs. Fetch them, or name the folder that has them."
            )
        return found

    def _entries(self) -> list[tuple[str, bool]]:
        """Every file, and every folder of Parquet files, sorted by name, each with whether it is a folder."""
        if self._in_s3:
            return [(name, name not in objects) for name, objects in self._listed.items()]
        if "://" in self.place:
            raise InvalidSource(
                f"'{self.place}' is neither a folder of this machine nor one on S3, s3://bucket/folder."
            )
        if not os.path.isdir(self.place):  # False, too, for what could be no name at all
            raise NotFound(
                f"There is no folder '{self.place}'. Name the one with MIMIC-III's tables, as PATIENTS.csv.gz."
            )
        return [
            (one.name, one.is_dir())
            for one in sorted(Path(self.place).iterdir())
            if one.is_file() or (_table(one.name, True) and parts(one))
        ]

    @property
    def _in_s3(self) -> bool:
        return self.place.startswith("s3://")

    @property
    def _s3(self) -> Clients:
        return self.clients or clients()

    @cached_property
    def _listed(self) -> remote.Listing:
        # Listed once: files that change later are refused when they are fetched.
        listed = remote.listed(self._s3, self.place)
        kept = {
            name: {path: one for path, one in objects.items() if path == name or is_part(Path(path))}
            for name, objects in sorted(listed.items())
        }
        return {name: objects for name, objects in kept.items() if objects}

    @property
    def synthetic(self) -> bool:
        """Whether the data are synthetic: the kit marked the folder, and each Parquet file."""
        held, patients = dict(self._entries()), "patients.parquet"
        if MARK in held or patients not in held:
            return MARK in held
        if self._in_s3:
            wanted = {patients: self._listed[patients]}
            return _marked(remote.fetched(self._s3, self.place, wanted, progress=False)[patients])
        return _marked(Path(self.place, patients))

    @property
    def title(self) -> str:
        return "Synthetic MIMIC-III" if self.synthetic else "MIMIC-III"

    def load(self, con: Any, *, progress: bool = True) -> list[Bad]:
        """Make the 26 tables, with MIMIC-III's columns and types, in the schema ``mimic3`` of a DuckDB connection.

        Parquet is read in place; CSV is copied into the connection's database. A missing optional table is there and
        empty. Returns the bad rows, which are left out; a Parquet file's line is the number of the row. Raises
        NotFound, InvalidSource.
        """
        from genokit.bars import Bar

        files, bad = self.files(progress=progress), list[Bad]()
        con.execute("drop schema if exists mimic3 cascade; create schema mimic3")
        con.execute(f"create table mimic3.source as select {int(self.synthetic)} as synthetic")
        with tempfile.TemporaryDirectory() as scratch:
            for name, table in Bar(mimic3().items(), desc=self.title, unit="table", disable=not progress):
                bad += load_table(con, table, files.get(name), Path(scratch), null_texts=self.null_texts)
        return bad

    def __repr__(self) -> str:
        return f"<Source {self.place!r}>"

    def _repr_html_(self) -> str:
        from genokit.display import card, table

        try:
            held = self.tables()
        except GenokitError as error:
            return card("MIMIC-III", {"place": self.place, "problem": str(error)}, status="problem")
        missing = [name for name, form in held.items() if form == "missing"]
        about = {"place": self.place, "tables": f"{26 - len(missing)} of 26", "missing": ", ".join(missing) or "none"}
        rows = [{"table": name, "held as": form} for name, form in held.items()]
        return card(self.title, about, fold={"Tables": table(rows)})


def _table(name: str, folder: bool) -> str:
    """The table that a file or folder is by its name, or nothing."""
    match = re.fullmatch(r"([a-z_]+?)(\.csv|\.csv\.gz|\.parquet)?", name.lower())
    if not match or match[1] not in mimic3() or (match[2] not in (None, ".parquet") if folder else not match[2]):
        return ""
    return match[1]


def _marked(file: str | Path) -> bool:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return b"synthetic" in (parquet.read_metadata(file).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return False


def _form(name: str) -> str:
    return next((form for form in ("csv", "csv.gz") if name.lower().endswith(f".{form}")), "parquet")


def load_table(
    con: Any,
    table: SourceTable,
    path: Path | None,
    scratch: Path,
    *,
    null_texts: tuple[str, ...] = (),
    target: Path | None = None,
) -> list[Bad]:
    """Make one table from its file or folder, if there is one; returns its bad rows, which are left out.

    Rows of a CSV file go into the connection's database, or as Parquet into the file ``target``.
    """
    name = f"mimic3.{table.name}"
    if path is None:
        con.execute(f"create or replace view {name} as select {rows.converted(table, {})} where false")
        return []
    if _form(path.name) == "parquet":
        return _load_parquet(con, table, path, null_texts)
    if target is None:
        return csvs.load(con, table, path, f"create or replace table {name} as {{query}}", name, scratch, null_texts)
    into, made = f"copy ({{query}}) to {quoted(target)} (format parquet, compression zstd)", scan([target])
    bad = csvs.load(con, table, path, into, made, scratch, null_texts)
    con.execute(f"create or replace view {name} as select * from {made}")
    return bad


def _load_parquet(con: Any, table: SourceTable, path: Path, null_texts: tuple[str, ...]) -> list[Bad]:
    import duckdb

    files = parts(path)
    try:
        found = con.execute(f"describe select * from {scan(files, BY_NAME)}").fetchall()
    except duckdb.Error as error:
        raise InvalidSource(f"'{path.name}' cannot be read as Parquet. Fetch or write it again.") from error
    kinds = {name.lower(): kind for name, kind, *_ in found}
    rows.check_columns(path.name, table, kinds)
    known = {name: kinds[name] for name in table.columns if name in kinds}
    condition = rows.sound(table, known)
    texts = [name for name, kind in known.items() if kind == "VARCHAR"] if null_texts else []
    empty = ", ".join(f"case when {name} not in ({', '.join(map(quoted, null_texts))}) then {name} end as {name}"
                      for name in texts)  # fmt: skip
    chosen = f"* replace ({empty})" if empty else "*"
    bad = _bad_rows(con, table, known, files, chosen, condition) if condition != "true" else []
    keep = f" where {condition}" if bad else ""
    query = f"select {rows.converted(table, known)} from (select {chosen} from {scan(files, BY_NAME)}){keep}"
    con.execute(f"create or replace view mimic3.{table.name} as {query}")
    return bad


def _bad_rows(
    con: Any, table: SourceTable, known: Mapping[str, str], files: list[Path], chosen: str, condition: str
) -> list[Bad]:
    found = con.execute(f"""
        select filename, file_row_number + 1, {rows.first_wrong(table, known)}
        from (select {chosen} from {scan(files, f"{BY_NAME}, filename = true, file_row_number = true")})
        where not ({condition})
        order by 1, 2
    """)
    bad = [
        Bad(table.name, Path(file).name, line, rows.reason(table.columns[name], text))
        for file, line, name, text in iter(partial(found.fetchone), None)
    ]
    if bad:
        [(total,)] = con.execute(f"select count(*) from {scan(files)}").fetchall()
        rows.refuse_most(files[0].name, len(bad), total, (one.reason for one in bad))
    return bad
