"""Achilles' analyses counted on Athena: a few SELECTs for each table, whose few rows become the same results here.

Each table is read once for its records and persons, and once more for distributions of its numbers (``sql/athena``).
Athena itself keeps the rows of every query, small counts included, at the workgroup's location for results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from genokit.databases import AthenaDatabase
from genokit.omop.characterize.achilles import PORTABLE, Scan, collected, for_domain, sql
from genokit.omop.fields import Field, fields

FILES = {
    "observation_period": ("observation_period", "persons_under_observation"),
    "visit_occurrence": ("events", "visit_occurrence", "visit_places"),
    "drug_exposure": ("events", "drug_exposure"),
    "measurement": ("events", "measurement"),
}


def run(
    database: AthenaDatabase, columns: Mapping[str, Mapping[str, str]], scan: Scan
) -> tuple[tuple[pa.Table, pa.Table], int, float]:
    """A scan's rows of achilles_results and achilles_results_dist, including small counts; the bytes read, and their
    list price. An interrupt cancels the query on Athena."""
    answers = [database.query(statement) for statement in statements(scan, columns, database.schema)]
    tables = collected(scan, [answer.table for answer in answers])
    return tables, sum(answer.bytes or 0 for answer in answers), sum(answer.usd or 0 for answer in answers)


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
