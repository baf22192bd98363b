"""The steps of the ETL: every table with its SELECT, and a key of everything that decides its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from genokit.omop.etl import transform
from genokit.omop.etl.macros import expand
from genokit.omop.quality import check_counts


@dataclass(frozen=True)
class TableStep:
    """One table made by one SELECT in an engine's SQL. Two steps with one key make the same rows."""

    table: str  # with its schema: stage.stay, cdm.person, report.mapped
    key: str
    sql: str
    reads: tuple[str, ...]


def plan(engine: str, dialect: str, inputs: Mapping[str, str]) -> tuple[TableStep, ...]:
    """Every step, each after those whose tables it reads. ``inputs``: the key of each table of mimic3 and vocab.

    A step's key is the SHA-256 of the engine, the SQL and the keys of the tables that it reads: it changes when
    anything upstream of it changes, and only then.

    >>> from genokit.omop.etl.transform import sources
    >>> given = dict.fromkeys(sources(), "content")
    >>> changed = plan("duckdb", "duckdb", given | {"mimic3.caregivers": "other content"})
    >>> [new.table for old, new in zip(plan("duckdb", "duckdb", given), changed) if old.key != new.key][:2]
    ['cdm.provider', 'cdm.note']
    """
    keys, steps = dict(inputs), list[TableStep]()
    tables = {table: (transform.select(table, dialect), transform.reads(table)) for table in transform.everything()}
    for table, sql in transform.reports().items():
        tables[table] = expand(sql, dialect), transform.read_by(sql)
    for table, sql in check_counts.statements(until=check_counts.SHIFTED, dialect=dialect).items():
        tables[table] = sql, check_counts.reads(sql)
    for table, (sql, reads) in tables.items():
        keys[table] = digest(engine, table, sql, *(keys[one] for one in sorted(reads)))
        steps.append(TableStep(table, keys[table], sql, tuple(sorted(reads))))
    return tuple(steps)


def digest(*words: object) -> str:
    """The SHA-256 of a list of words, in hexadecimal."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()
