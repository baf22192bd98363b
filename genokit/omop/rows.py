"""Which rows of a file are sound, said in SQL once for CSV and Parquet, and in Python for the few that are not.

A row is unsound if a value that must be there is missing, or if one is not of its column's type. DuckDB's own casts are
kinder than that: they round 1.5 to a whole number, and take nan and infinity.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any

from genokit.omop.schema import Column, Table

WHOLE = {"INTEGER": 2**31 - 1, "SMALLINT": 2**15 - 1}
NAMES = {
    "INTEGER": "a whole number",
    "SMALLINT": "a small whole number",
    "DOUBLE": "a number",
    "TIMESTAMP": "a time",
    "VARCHAR": "a text",
}


def values(table: Table, found: Mapping[str, str]) -> str:
    """The select list that gives a table its columns in order and type; ``found`` maps them to the types they come in.

    Where a row is unsound its row_id is NULL: one pass tells and loads.
    """
    return converted(table, found, row_id=f"case when {sound(table, found)} then {{}} end")


def converted(table: Table, found: Mapping[str, str], *, row_id: str = "{}") -> str:
    """The select list that casts a table's columns from the types they come in; what is not there is NULL."""
    each = {name: _converted(column, found.get(name)) for name, column in table.columns.items()}
    each["row_id"] = row_id.format(each["row_id"])
    return ", ".join(f"{value} as {name}" for name, value in each.items())


def sound(table: Table, found: Mapping[str, str]) -> str:
    """The condition that a row is sound; ``true`` where the types that it comes in leave nothing to ask."""
    asked = [condition for name, kind in found.items() for condition in _conditions(table.columns[name], kind)]
    return " and ".join(asked) or "true"


def wrong(column: Column, value: Any) -> str:
    """What is wrong with a value, in words without the value; empty if nothing is. A text is as it stands in a CSV."""
    if value is None or value == "":
        return f"column '{column.name}' is empty, but must not be" if column.required else ""
    try:
        _python(column, value)
    except (ValueError, OverflowError, TypeError):
        return not_a(column)
    return ""


def not_a(column: Column) -> str:
    return f"column '{column.name}' is not {NAMES[column.type]} ({column.type})"


def first_wrong(columns: Iterable[tuple[Column, Any]]) -> str:
    return next((said for column, value in columns if (said := wrong(column, value))), "")


def _converted(column: Column, kind: str | None) -> str:
    if kind is None:
        return f"cast(null as {column.type})"
    if kind == column.type:
        return column.name
    if kind == "VARCHAR" and column.whole:
        return f"try_cast(try_cast({column.name} as DOUBLE) as {column.type})"
    return f"try_cast({column.name} as {column.type})"


def _conditions(column: Column, kind: str) -> list[str]:
    """What must be asked of a column that comes in as one type and is to be another."""
    name, asked = column.name, []
    if column.required:
        asked.append(f"coalesce({name} <> '', false)" if kind == "VARCHAR" else f"{name} is not null")
    empty = f"{name} is null" + (f" or {name} = ''" if kind == "VARCHAR" else "")
    if kind in ("VARCHAR", "DOUBLE", "FLOAT") and column.whole:
        number = name if kind != "VARCHAR" else f"try_cast({name} as DOUBLE)"
        fits = f"{number} = trunc({number}) and abs({number}) <= {WHOLE[column.type]}"
        asked.append(f"({empty} or coalesce({fits}, false))")
    elif kind != column.type and column.type != "VARCHAR":
        asked.append(f"({empty} or {_converted(column, kind)} is not null)")
    if column.type in ("DOUBLE", "TIMESTAMP"):
        asked.append(f"coalesce(isfinite({_converted(column, kind)}), true)")
    return asked


def _python(column: Column, value: Any) -> None:
    if column.whole:
        number = float(value)
        if number != math.trunc(number) or abs(number) > WHOLE[column.type]:
            raise ValueError
    elif column.type == "DOUBLE":
        if not math.isfinite(float(value)):
            raise ValueError
    elif column.type == "TIMESTAMP" and isinstance(value, str):
        datetime.datetime.fromisoformat(value.strip())
