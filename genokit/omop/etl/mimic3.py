"""The schema of MIMIC-III: 26 tables by name and type. Nothing about a source is guessed; it is checked against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Column:
    """A column of a source table: its name, its type as DuckDB spells it, and whether a value must be there."""

    name: str
    type: str
    required: bool

    @property
    def whole(self) -> bool:
        return self.type in ("INTEGER", "SMALLINT")


@dataclass(frozen=True)
class SourceTable:
    """A source table; ``rows``: as many as in MIMIC-III 1.4; ``required``: a source must have it."""

    name: str
    columns: Mapping[str, Column]
    rows: int
    required: bool

    @property
    def ddl(self) -> str:
        """Its columns as a CREATE TABLE takes them.

        >>> mimic3()["caregivers"].ddl
        'row_id INTEGER, cgid INTEGER, label VARCHAR, description VARCHAR'
        """
        return ", ".join(f"{column.name} {column.type}" for column in self.columns.values())


@cache
def mimic3() -> Mapping[str, SourceTable]:
    """The tables of MIMIC-III 1.4, by name in small letters."""
    content = json.loads(Path(__file__).with_name("mimic3.json").read_text(encoding="utf-8"))
    return {
        name: SourceTable(
            name,
            {
                column: Column(column, words.removesuffix(" NOT NULL"), words.endswith(" NOT NULL"))
                for column, words in table["columns"].items()
            },
            table["rows"],
            table["required"],
        )
        for name, table in content.items()
    }


def quoted(text: object) -> str:
    """A text as a literal of SQL.

    >>> quoted("Mary's.csv")
    "'Mary''s.csv'"
    """
    return "'" + str(text).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name of a table or column as an identifier of SQL.

    >>> identifier('my "own" table')
    '"my ""own"" table"'
    """
    return '"' + name.replace('"', '""') + '"'
