"""Achilles' analyses counted on Athena: a few SELECTs for each table, whose few rows become the same results here.

Each table is read once for its records and persons, and once more for distributions of its numbers (``sql/athena``).
Athena itself keeps the rows of every query, small counts included, at the workgroup's location for results.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa

from genokit.databases import AthenaDatabase, usd
from genokit.errors import AccessDenied
from genokit.omop.characterize.achilles import PORTABLE, Scan, collected, for_domain, sql
from genokit.omop.fields import Field, fields
from genokit.refusals import translated_errors
from genokit.storage import split

FILES = {
    "observation_period": ("observation_period", "persons_under_observation"),
    "visit_occurrence": ("events", "visit_occurrence", "visit_places"),
    "drug_exposure": ("events", "drug_exposure"),
    "measurement": ("events", "measurement"),
}


class OnAthena:
    """A CDM counted on Athena, with one statement or a few for each scan."""

    def __init__(
        self, database: AthenaDatabase, columns: Mapping[str, Mapping[str, str]], scans: Iterable[Scan]
    ) -> None:
        self.database = database
        self.statements = {scan.name: statements(scan, columns, database.schema) for scan in scans}
        self.states = states(
            database, {"concept", "concept_ancestor", *(table for scan in scans for table in scan.reads)}
        )
        self.cost = self._cost(scans)

    def _cost(self, scans: Iterable[Scan]) -> str:
        """The most that it can cost, if the sizes of all tables are known; each statement reads parts of a few."""
        read = [list(scan.reads) for scan in scans for _ in self.statements[scan.name]] + [
            ["concept"],
            ["concept_ancestor"],
        ]
        sizes = [[self.states[table].bytes for table in tables] for tables in read]
        if any(None in size for size in sizes):
            return ""
        most = sum(usd(sum(size or 0 for size in tables)) for tables in sizes)
        return f", at most ${most:.4f}"

    def rows(self, scan: Scan) -> None:
        """The row count is unavailable without a scan."""

    def key(self, scan: Scan) -> str:
        """A hash of everything that its results follow from: the SQL, and the content of the tables."""
        more = [sql(name) for name in ("begin", "results", "distributions", "collected", "described")]
        return _hash(*more, *self.statements[scan.name], *(self.states[table].key for table in scan.reads))

    def run(self, scan: Scan) -> tuple[Iterable[pa.Table], int, float]:
        """Its rows of achilles_results and achilles_results_dist, including small counts; the bytes read, and their
        list price. An interrupt cancels the query on Athena."""
        answers = [self.database.query(statement) for statement in self.statements[scan.name]]
        tables = collected(scan, [answer.table for answer in answers])
        return tables, sum(answer.bytes or 0 for answer in answers), sum(answer.usd or 0 for answer in answers)


@dataclass(frozen=True)
class State:
    """What is known of a table without a query: a hash of its content, and the size of its files."""

    key: str
    bytes: int | None


def states(database: AthenaDatabase, tables: Iterable[str]) -> dict[str, State]:
    """The state of each table by the list of its files; if that may not be read, by its entry in Glue.

    A view always counts as changed.
    """
    glue = database.connection.session.client("glue")
    wanted, found = set(tables), dict[str, State]()
    with translated_errors(f"database '{database.schema}'"):
        for page in glue.get_paginator("get_tables").paginate(DatabaseName=database.schema):
            for table in page["TableList"]:
                if table["Name"].lower() in wanted:
                    found[table["Name"].lower()] = _state(database, table, _folders(glue, table))
    return {name: found.get(name, State("none", 0)) for name in wanted}


def _folders(glue: Any, table: Mapping[str, Any]) -> list[str]:
    """The folders of a table's files: its own, and those of partitions that lie elsewhere."""
    folders = [str(table.get("StorageDescriptor", {}).get("Location") or "")]
    if table.get("PartitionKeys"):
        pages = glue.get_paginator("get_partitions").paginate(
            DatabaseName=table["DatabaseName"], TableName=table["Name"]
        )
        places = [one["StorageDescriptor"]["Location"] for page in pages for one in page["Partitions"]]
        folders += [place for place in places if not place.startswith(folders[0])]
    return folders


def _state(database: AthenaDatabase, table: Mapping[str, Any], folders: list[str]) -> State:
    if not folders[0]:
        return State(uuid4().hex, None)
    said = [str(table.get(name)) for name in ("StorageDescriptor", "UpdateTime", "VersionId", "Parameters")]
    if not all(folder.startswith("s3://") for folder in folders):
        return State(_hash(*said), None)
    try:
        files = sorted(file for folder in folders for file in _files(database, folder))
    except AccessDenied:
        return State(_hash(*said), None)
    return State(_hash(said[0], *map(str, files)), sum(size for _, _, size in files))


def _files(database: AthenaDatabase, folder: str) -> Iterator[tuple[str, str, int]]:
    """The name, tag and size of each file in a folder of S3."""
    bucket, prefix = split(folder.rstrip("/"))
    with translated_errors(f"folder '{folder}'"):
        pages = database.connection.session.client("s3").get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            yield from ((one["Key"], one["ETag"], one["Size"]) for one in page.get("Contents", []))


def statements(scan: Scan, columns: Mapping[str, Mapping[str, str]], schema: str) -> list[str]:
    """The statements of a scan, over tables with these columns in a database of Glue."""
    names = FILES.get(scan.name, (scan.name,) if scan.domain is None else ("events",))
    return [_statement(name, scan, columns, schema) for name in names]


def _statement(name: str, scan: Scan, columns: Mapping[str, Mapping[str, str]], schema: str) -> str:
    """A file's SQL over tables with all the CDM's columns, whichever the database lacks."""
    text = sql(name if name in PORTABLE else f"athena/{name}").replace("the_summary", sql("athena/summary"))
    text = re.sub(r"^ *--.*\n", "", text, flags=re.M)
    if domain := scan.domain:
        days = f"date_diff('day', event.{domain.date}, event.{domain.end})"
        text = for_domain(text, domain, days=days if domain.more == "era" else "cast(null as bigint)")
    read = [table for table in scan.reads if re.search(rf"\b(from|join) {table}\b", text)]
    tables = ",\n".join(_table(table, columns.get(table), text, schema) for table in read)
    return f"with {tables},\n{text[5:]}" if text.startswith("with ") else f"with {tables}\n{text}"


def _table(table: str, there: Mapping[str, str] | None, text: str, schema: str) -> str:
    """A table under its name, with those of its fields that a statement uses, in the CDM's types."""
    used = [field for field in fields(table) if re.search(rf"\b{field.name}\b", text)]
    named = ", ".join(_column(field, (there or {}).get(field.name)) for field in used)
    source = f'"{schema}"."{table}"' if there else "(values 0) as nothing (at_all) where at_all = 1"
    return f"{table} as (select {named} from {source})"


def _column(field: Field, kind: str | None) -> str:
    if kind is None:
        return f"cast(null as {field.type.lower()}) as {field.name}"
    whole, text = "(TINY|SMALL|BIG)?INT(EGER)?", r"(STRING|(VAR)?CHAR(\(\d+\))?)"
    same = {"INTEGER": whole, "BIGINT": whole, "VARCHAR": text}.get(field.type, field.type)
    return field.name if re.fullmatch(same, kind) else f"cast({field.name} as {field.type.lower()}) as {field.name}"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
