"""What the ETL has to do: every table as one step, known by a key of all that decides what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from genokit.omop.etl import transform
from genokit.omop.etl.macros import expand
from genokit.omop.quality import check_counts
from genokit.omop.quality.check_counts import SHIFTED


@dataclass(frozen=True)
class Step:
    """One table made by one SELECT in an engine's own SQL. Two steps of one key have the same rows."""

    table: str  # with its schema: stage.stay, cdm.person, report.mapped
    key: str
    sql: str
    reads: tuple[str, ...]


def plan(engine: str, dialect: str, inputs: Mapping[str, str]) -> tuple[Step, ...]:
    """Every step, each after those it reads. ``inputs``: the key of each table of mimic3 and vocab.

    A step's key is the SHA-256 over the engine, its SQL and the keys of what it reads: so it changes with everything
    that stands before it, and with nothing else.

    >>> from genokit.omop.etl.transform import sources
    >>> given = dict.fromkeys(sources(), "content")
    >>> changed = plan("duckdb", "duckdb", given | {"mimic3.caregivers": "other content"})
    >>> [new.table for old, new in zip(plan("duckdb", "duckdb", given), changed) if old.key != new.key][:2]
    ['cdm.provider', 'cdm.note']
    """
    keys, steps = dict(inputs), list[Step]()
    made = {table: (transform.select(table, dialect), transform.reads(table)) for table in transform.everything()}
    told = {table: (expand(sql, dialect), transform.read_by(sql)) for table, sql in transform.reports().items()}
    asked = {
        table: (sql, check_counts.reads(sql))
        for table, sql in check_counts.statements(until=SHIFTED, dialect=dialect).items()
    }
    for table, (sql, reads) in (made | told | asked).items():
        key = digest(engine, table, sql, *(keys[one] for one in sorted(reads)))
        steps.append(Step(table, key, sql, tuple(sorted(reads))))
        keys[table] = key
    return tuple(steps)


def digest(*words: object) -> str:
    """The SHA-256 of a list of words, in hexadecimal."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()
