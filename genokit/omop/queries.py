"""A query that was run, and what the error of one that failed is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from genokit import display
from genokit.databases import Answer
from genokit.errors import QueryError, did_you_mean

# What DuckDB and Trino say of an unknown name, which is the group; and whether it is that of a column.
_UNKNOWN = (
    (r"Table with name (\S+) does not exist", False),
    (r"Table '(?:[^'.]+\.)*([^'.]+)' does not exist", False),
    (r'Referenced column "([^"]+)" (?:was )?not found', True),
    (r'does not have a column named "([^"]+)"', True),
    (r"Column '(?:[^'.]+\.)*([^'.]+)' cannot be resolved", True),
)


@dataclass(frozen=True)
class Query:
    """One query that was run: its SQL, the names of its parameters, and what it took."""

    sql: str
    parameters: tuple[str, ...]
    rows: int
    cut: bool
    seconds: float
    bytes: int | None
    usd: float | None

    @classmethod
    def of(cls, sql: str, parameters: Mapping[str, object], answer: Answer) -> Query:
        """The query that got an answer."""
        return cls(sql, tuple(parameters), answer.table.num_rows, answer.cut, answer.seconds, answer.bytes, answer.usd)

    def __repr__(self) -> str:
        cost = "" if self.usd is None else f", ${self.usd:.4f}"
        return f"<Query {self.rows:,} rows, {self.seconds:.2f} s{cost}>"

    def _repr_html_(self) -> str:
        about: dict[str, object] = {
            "rows": f"the first {self.rows:,} of more" if self.cut else f"{self.rows:,}",
            "time": display.seconds(self.seconds),
            "read": display.size(self.bytes) if self.bytes else None,
        }
        if self.usd is not None:
            about["cost"] = f"about ${self.usd:.4f}, at Athena's list price"
        if self.parameters:
            about["parameters"] = ", ".join(self.parameters)
        return display.card("Query", about, status="warning" if self.cut else "ok", fold={"SQL": display.log(self.sql)})


def explained(error: QueryError, columns: Mapping[str, Mapping[str, str]]) -> str:
    """A database's error; if it is about an unknown name, with the most similar of the tables and their columns."""
    said = str(error)
    for pattern, is_column in _UNKNOWN:
        if not (match := re.search(pattern, said)):
            continue
        name = match[1]
        if is_column:
            used = [table for table in columns if re.search(rf"\b{table}\b", error.sql.lower())]
            known = {column for table in used or columns for column in columns[table]}
            where = f"in {', '.join(used)}" if used else "in any table"
            first = f"There is no column '{name}' {where}. {did_you_mean(name, known)}"
        else:
            first = f"There is no table '{name}'. {did_you_mean(name, columns)}"
        _, line, rest = said.partition("\nLINE ")
        return f"{first}\n{line}{rest}" if line else first
    return said
