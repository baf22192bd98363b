"""Which rows of a file are sound, said in SQL once for CSV and Parquet, and in Python for the few that are not.

A row is unsound if a value that must be there is missing, or if one is not of its column's type. DuckDB's own casts are
kinder than that: they round 1.5 to a whole number, take nan and infinity, read 6/10/01 as a day of the year 6 and drop
an offset from UTC. Times are written as in FORMATS and lie in the years 1800 to 2220: MIMIC's are shifted to about 2100
to 2210, and births of patients over 89 by 300 years.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from genokit.errors import InvalidSource
from genokit.omop.etl.mimic3 import Column, SourceTable, quoted

WHOLE = {"INTEGER": 2**31 - 1, "SMALLINT": 2**15 - 1}
NAMES = {
    "INTEGER": "a whole number",
    "SMALLINT": "a small whole number",
    "DOUBLE": "a number",
    "TIMESTAMP": "a time",
    "VARCHAR": "a text",
}
FORMATS = tuple(
    f"%Y-%m-%d{time}" for time in (" %H:%M:%S", "", "T%H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S.%f", "T%H:%M:%S.%f")
)
FIRST, LAST = datetime.datetime(1800, 1, 1), datetime.datetime(2220, 12, 31, 23, 59, 59, 999999)
MISSING = {
    "NA": "R's", "nan": "pandas'", "NaN": "pandas'", "NaT": "pandas'", "<NA>": "pandas'", "None": "Python's",
    "NULL": "a database's", "null": "a database's", "\\N": "a database's", ".": "SAS's", "#N/A": "a spreadsheet's",
}  # fmt: skip
MOST = 10  # fewer bad rows than that are no reason to refuse a table that has good ones


def values(table: SourceTable, found: Mapping[str, str]) -> str:
    """The select list that gives a table its columns in order and type; ``found`` maps them to the types they come in.

    Where a row is unsound its row_id is NULL: one pass tells and loads.
    """
    return converted(table, found, row_id=f"case when {sound(table, found)} then {{}} end")


def converted(table: SourceTable, found: Mapping[str, str], *, row_id: str = "{}") -> str:
    """The select list that casts a table's columns from the types they come in; what is not there is NULL."""
    each = {name: _converted(column, found.get(name)) for name, column in table.columns.items()}
    each["row_id"] = row_id.format(each["row_id"])
    return ", ".join(f"{value} as {name}" for name, value in each.items())


def sound(table: SourceTable, found: Mapping[str, str]) -> str:
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
        return not_a(column, value)
    return ""


def not_a(column: Column, value: Any = None) -> str:
    said = f"column '{column.name}' is not {NAMES[column.type]} ({column.type})"
    if isinstance(value, float) and math.isnan(value):
        value = "nan"
    word = value.strip() if isinstance(value, str) else ""
    return f"{said}: {word} is {MISSING[word]} missing value" if word in MISSING else said


def refuse_most(file: str, lost: int, total: int, reasons: Iterable[str]) -> None:
    """Refuse a table that would lose most of its rows. Raises InvalidSource with the commonest reason.

    A ``total`` of 0 is one that nobody knows, as there were too many bad rows to count.
    """
    if lost * 2 > total and (lost >= MOST or lost == total):
        [(reason, _)] = Counter(reasons).most_common(1)
        share = f"{lost:,} of its {total:,}" if total else f"{lost:,} or more"
        raise InvalidSource(
            f"'{file}' was not loaded: {share} rows cannot be read. The commonest reason: {reason}. "
            "Was it changed by a spreadsheet or exported by another program? Times must be written as "
            "2150-01-31 08:00:00, without an offset; missing values must be empty, or named: "
            "Source(..., null_texts=['NA'])."
        )


def reason(table: SourceTable, found: Mapping[str, str], record: Iterable[Any]) -> str:
    """Why a row is unsound, by its values in the order of ``found``."""
    each = (wrong(table.columns[name], value) for name, value in zip(found, record, strict=True))
    return next(filter(None, each), "a value is not of its column's type")


def _converted(column: Column, kind: str | None) -> str:
    if kind is None:
        return f"cast(null as {column.type})"
    if kind == column.type:
        return column.name
    if kind == "VARCHAR" and column.whole:
        return f"try_cast(try_cast({column.name} as DOUBLE) as {column.type})"
    if kind == "VARCHAR" and column.type == "TIMESTAMP":
        # For DuckDB's strptime, epoch and infinity are times.
        formats = f"[{', '.join(map(quoted, FORMATS))}]"
        return (
            f"case when ltrim({column.name}) between '0' and ':' then try_strptime(trim({column.name}), {formats}) end"
        )
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"make_timestamp(epoch_us({column.name}))"  # a cast would depend on this machine's time zone
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
    if column.type == "DOUBLE":
        asked.append(f"coalesce(isfinite({_converted(column, kind)}), true)")
    if column.type == "TIMESTAMP":
        asked.append(f"coalesce({_converted(column, kind)} between timestamp '{FIRST}' and timestamp '{LAST}', true)")
    return asked


def _python(column: Column, value: Any) -> None:
    if column.whole:
        number = float(value)
        if number != math.trunc(number) or abs(number) > WHOLE[column.type]:
            raise ValueError
    elif column.type == "DOUBLE":
        if not math.isfinite(float(value)):
            raise ValueError
    elif column.type == "TIMESTAMP":
        moment = _moment(value.strip()) if isinstance(value, str) else value
        if not isinstance(moment, datetime.date) or not FIRST.year <= moment.year <= LAST.year:
            raise ValueError


def _moment(text: str) -> datetime.datetime:
    for form in FORMATS:
        with suppress(ValueError):
            return datetime.datetime.strptime(text, form)
    raise ValueError
