"""Synthetic MIMIC-III: all 26 tables, of any size, with the flaws of the real data in their proportions.

No patient's data are used: numbers come from a hash of (seed, purpose, row), lists and proportions from publications
about MIMIC-III. It is for demonstrations, tests and benchmarks; nothing about patients can be learnt from it. The SQL
is in ``sql/synthetic/``.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.errors import InvalidParameters
from genokit.files import private_folder, replaced_folder, restrict, write_atomic
from genokit.omop.etl.mimic3 import mimic3, quoted
from genokit.omop.etl.source import MARK, Source

SQL = Path(__file__).parent / "sql" / "synthetic"
LISTS = {"item": "items", "lab": "labs", "drug": "drugs", "code": "codes", "cpt": "cpt"}
CHUNK_ROWS = 1_000_000
FORMATS = {
    "parquet": "format parquet, compression snappy, kv_metadata {synthetic: 'made by genokit; no person is behind it'}",
    "csv": "format csv, header, compression gzip, quote '\"', escape '\"'",
}


@dataclass(frozen=True)
class Events:
    """A table of events: of what they are, their mean number for each in MIMIC-III, and a condition."""

    of: str
    mean: float
    where: str = "true"
    dense: bool = True  # whether ``density`` applies


EVENTS = {
    "callout": Events("stay", 0.56, dense=False),
    "chartevents": Events("stay", 5375),
    "cptevents": Events("admission", 9.7),
    "datetimeevents": Events("stay", 190, "dbsource <> 'carevue'"),
    "diagnoses_icd": Events("admission", 11, dense=False),
    "drgcodes": Events("admission", 2.13, dense=False),
    "inputevents_cv": Events("stay", 463, "dbsource <> 'metavision'"),
    "inputevents_mv": Events("stay", 153, "dbsource <> 'carevue'"),
    "labevents": Events("admission", 472),
    "microbiologyevents": Events("admission", 10.7),
    "noteevents": Events("admission", 35),
    "outputevents": Events("stay", 70.7),
    "prescriptions": Events("visit", 70),
    "procedureevents_mv": Events("stay", 10.9, "dbsource <> 'carevue'"),
    "procedures_icd": Events("admission", 4.07, dense=False),
    "services": Events("admission", 1.24, dense=False),
}


def synthetic(
    folder: str | os.PathLike[str],
    persons: int = 100,
    seed: int = 7,
    *,
    density: float = 1.0,
    chartevents_per_stay: float | None = None,
    format: str = "parquet",
    threads: int | None = None,
    progress: bool = True,
) -> Source:
    """Write synthetic MIMIC-III data into a folder, and return it as a Source.

    The same arguments and the same DuckDB make the same bytes, whatever ``threads`` is. An older synthetic set in
    ``folder`` is replaced in one step at the end.

    Parameters
    ----------
    folder : str or path
        Where the files are written: a new or empty folder, or one with an older synthetic set.
    persons : int, default 100
        The number of persons, 1 to 100,000,000.
    seed : int, default 7
        Another seed makes other persons.
    density : float, default 1.0
        The number of events of each person, relative to MIMIC-III.
    chartevents_per_stay : float, optional
        The mean number of chart events of each stay in intensive care (default: 5375 times ``density``).
    format : {"parquet", "csv"}, default "parquet"
        Parquet, or CSV.gz with PhysioNet's names.
    threads : int, optional
        The number of threads (default: one for each core).
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Source
        The folder, for ``omop.etl``.

    Raises
    ------
    InvalidParameters
        Where a parameter is out of range.
    ConfirmationNeeded
        Where ``folder`` has something else in it, which would be lost.

    Examples
    --------
    >>> import tempfile
    >>> from genokit import omop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     omop.synthetic(f"{folder}/mimiciii", persons=5, density=0.01, progress=False).title
    'Synthetic MIMIC-III'
    """
    _check(persons, density, chartevents_per_stay, format)
    place = Path(folder)
    means = {name: events.mean * (density if events.dense else 1) for name, events in EVENTS.items()}
    if chartevents_per_stay is not None:
        means["chartevents"] = chartevents_per_stay
    with replaced_folder(place, private=True, marker=MARK, kind="synthetic data of this kit") as staged:
        rows = _write(staged, persons, seed, means, format, threads, progress)
        about = {"synthetic": True, "persons": persons, "seed": seed, "density": density, "rows": rows}
        write_atomic(staged / MARK, json.dumps(about, indent=1) + "\n", private=True)
    return Source(place)


def _check(persons: int, density: float, chartevents_per_stay: float | None, format: str) -> None:
    stays = chartevents_per_stay or 0
    if not (1 <= persons <= 100_000_000 and density > 0 and stays >= 0 and format in FORMATS):
        raise InvalidParameters(
            f"Synthetic data cannot be made with {persons=}, {density=}, {chartevents_per_stay=}, {format=}. Expected: "
            "persons 1 to 100,000,000, density above 0, chartevents_per_stay 0 or more, format 'parquet' or 'csv'."
        )


def _write(
    folder: Path, persons: int, seed: int, means: dict[str, float], format: str, threads: int | None, progress: bool
) -> dict[str, int]:
    """Write every table into a folder; returns the number of rows of each."""
    import duckdb

    from genokit.bars import Bar

    with duckdb.connect(":memory:", config={"threads": threads} if threads else {}) as con:

        def write(part: tuple[str, Path, str]) -> int:
            _, path, query = part
            private_folder(path.parent)
            (count,) = con.cursor().execute(f"copy ({query}) to {quoted(path)} ({FORMATS[format]})").fetchone()
            restrict(path)
            return int(count)

        _people(con, persons, seed)
        parts = [(name, *part) for name in mimic3() for part in _parts(con, folder, name, means, format)]
        # The planner underestimates an unnested range: left alone, it would hash the events, not the lists.
        con.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
        con.execute(f"set temp_directory = {quoted(folder / '.spill')}")
        at_once = con.execute("select current_setting('threads')").fetchone()[0]
        rows = dict.fromkeys(mimic3(), 0)
        with (
            ThreadPoolExecutor(at_once) as pool,
            Bar(total=len(parts), desc="synthetic MIMIC-III", unit="file", disable=not progress) as bar,
        ):
            for (table, *_), count in zip(parts, pool.map(write, parts), strict=True):
                rows[table] += count
                bar.update()
    return rows


def _people(con: Any, persons: int, seed: int) -> None:
    con.execute(f"create macro seed() as {int(seed)}")
    con.execute(f"create macro persons() as {int(persons)}")
    for table, file in LISTS.items():
        con.execute(
            f"create table {table} as from read_csv(?, header = true, all_varchar = true)", [str(SQL / f"{file}.csv")]
        )
    con.execute((SQL / "base.sql").read_text(encoding="utf-8"))


def _parts(con: Any, folder: Path, table: str, means: dict[str, float], format: str) -> list[tuple[Path, str]]:
    """The files of a table, each with its query: one, or for events in Parquet one for about a million rows."""
    query = (SQL / "tables" / f"{table}.sql").read_text(encoding="utf-8")
    spans = _plan(con, table, means[table]) if table in EVENTS else []
    if format == "csv":
        whole = _among(table, query, 0, spans[-1][1]) if spans else query
        return [(folder / f"{table.upper()}.csv.gz", _upper(whole, table))]
    if table not in EVENTS:
        return [(folder / f"{table}.parquet", query)]
    return [
        (folder / table / f"part-{i:05d}.parquet", _among(table, query, low, high))
        for i, (low, high) in enumerate(spans)
    ]


def _plan(con: Any, table: str, mean: float) -> list[tuple[int, int]]:
    """Draw the number of events of each; returns ranges that have about a million events each."""
    events = EVENTS[table]
    con.execute(f"""
        create table plan_{table} as
        select no, n, (sum(n) over (order by no) - n)::bigint as first
        from (
            select no, floor({float(mean)} * (0.4 + 1.2 * share(chance('{table} n', no)))
                + share(chance('{table} 1', no)))::int as n
            from {events.of} where {events.where}
        )
    """)
    spans = con.execute(
        f"select min(no), max(no) from plan_{table} group by first // {CHUNK_ROWS} order by 1"
    ).fetchall()
    return spans or [(0, 0)]


def _among(table: str, query: str, low: int, high: int) -> str:
    """The query with what it stands on: ``each``, the rows before anything is in them, with two draws of chance."""
    return f"""
        with each as not materialized (
            select * replace (row_id::int as row_id), chance('{table}', row_id) as a, hash(a) as b
            from (select *, first + i + 1 as row_id from (
                select e.*, n, first, unnest(range(n)) as i
                from {EVENTS[table].of} e join plan_{table} using (no) where no between {low} and {high}
            ))
        )
        {query}"""


def _upper(query: str, table: str) -> str:
    """The same rows with the names in capitals, as PhysioNet's files have them, and times to the second."""
    names = (
        f"""strftime({name}, '%Y-%m-%d %H:%M:%S') as "{name.upper()}\""""
        if column.type == "TIMESTAMP"
        else f'{name} as "{name.upper()}"'
        for name, column in mimic3()[table].columns.items()
    )
    return f"select {', '.join(names)} from ({query})"
