"""A query that was run, and what the error of one that failed is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from genokit import display
from genokit.databases import Answer
from genokit.errors import QueryError, did_you_mean

# What Athena says of an unknown name; DuckDB suggests similar ones itself.
_UNKNOWN = re.compile(r"\b(Table|Column) '(?:[^'.]+\.)*([^'.]+)' (?:does not exist|cannot be resolved)")


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
    """A database's error; if it is Athena's about an unknown name, with the most similar of all tables or columns."""
    match = _UNKNOWN.search(str(error))
    if match is None:
        return str(error)
    known = columns if match[1] == "Table" else {column for table in columns.values() for column in table}
    return f"{error} {did_you_mean(match[2], known)}"
