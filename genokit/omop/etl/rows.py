"""Which rows of a file are sound: conditions in SQL, for CSV and Parquet alike.

A row is unsound if a required value is missing, or if a value is not of its column's type. DuckDB's own casts are more
lenient: they round 1.5 to a whole number, accept nan and infinity, read 6/10/01 as a day of the year 6 and drop an
offset from UTC. Times are written as in FORMATS and lie in the years 1800 to 2220: MIMIC's are shifted to about 2100 to
2210, and births of patients over 89 by 300 years.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from genokit.errors import InvalidSource
from genokit.omop.etl.mimic3 import Column, SourceTable, quoted

WHOLE = {"INTEGER": 2**31 - 1, "SMALLINT": 2**15 - 1}
NAMES = {"INTEGER": "a whole number", "SMALLINT": "a small whole number", "DOUBLE": "a number", "TIMESTAMP": "a time",
         "VARCHAR": "a text"}  # fmt: skip
FORMATS = tuple(
    f"%Y-%m-%d{time}" for time in (" %H:%M:%S", "", "T%H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S.%f", "T%H:%M:%S.%f")
)
FIRST, LAST = "1800-01-01 00:00:00", "2220-12-31 23:59:59.999999"
MISSING = {
    "NA": "R's", "nan": "pandas'", "NaN": "pandas'", "NaT": "pandas'", "<NA>": "pandas'", "None": "Python's",
    "NULL": "a database's", "null": "a database's", "\\N": "a database's", ".": "SAS's", "#N/A": "a spreadsheet's",
}  # fmt: skip
MOST = 10  # fewer bad rows never refuse a table that has good ones


def values(table: SourceTable, found: Mapping[str, str]) -> str:
    """The select list that gives a table its columns in order and type; ``found`` has their names and types in a file.

    Where a row is unsound its row_id is NULL: one pass loads and checks.
    """
    return converted(table, found, row_id=f"case when {sound(table, found)} then {{}} end")


def converted(table: SourceTable, found: Mapping[str, str], *, row_id: str = "{}") -> str:
    """The select list that casts a table's columns from the types in a file; missing columns are NULL."""
    each = {name: _converted(column, found.get(name)) for name, column in table.columns.items()}
    each["row_id"] = row_id.format(each["row_id"])
    return ", ".join(f"{value} as {name}" for name, value in each.items())


def sound(table: SourceTable, found: Mapping[str, str]) -> str:
    """The condition that a row is sound; ``true`` where the types in the file leave nothing to check."""
    return " and ".join(_conditions(table, found).values()) or "true"


def first_wrong(table: SourceTable, found: Mapping[str, str]) -> str:
    """The select list of an unsound row's first wrong column: its name, and its value as text; for ``reason``."""
    wrong = _conditions(table, found).items()
    names = " ".join(f"when not ({condition}) then {quoted(name)}" for name, condition in wrong)
    texts = " ".join(f"when not ({condition}) then cast({name} as VARCHAR)" for name, condition in wrong)
    return f"case {names} end, case {texts} end"


def reason(column: Column, text: str | None) -> str:
    """What is wrong with a value, without the value."""
    if not text:
        return f"column '{column.name}' is empty, but must not be"
    said, word = f"column '{column.name}' is not {NAMES[column.type]} ({column.type})", text.strip()
    return f"{said}: {word} is {MISSING[word]} missing value" if word in MISSING else said


def check_columns(file: str, table: SourceTable, names: Iterable[str]) -> None:
    """Refuse a file that lacks columns which its table needs. Raises InvalidSource."""
    lost = sorted({name for name, column in table.columns.items() if column.required} - set(names))
    if lost:
        raise InvalidSource(
            f"'{file}' has no column {', '.join(map(repr, lost))}, which the table '{table.name}' of MIMIC-III needs. "
            "The first line of a CSV file must be the names of its columns, separated by commas."
        )


def refuse_most(file: str, lost: int, total: int, reasons: Iterable[str]) -> None:
    """Refuse a table that would lose most of its rows. Raises InvalidSource with the commonest reason.

    A ``total`` of 0 is an unknown one: there were too many bad rows to count.
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


def _conditions(table: SourceTable, found: Mapping[str, str]) -> dict[str, str]:
    """The condition that each column's value is sound, for those that need one."""
    each = {name: " and ".join(_checks(table.columns[name], kind)) for name, kind in found.items()}
    return {name: condition for name, condition in each.items() if condition}


def _checks(column: Column, kind: str) -> list[str]:
    """The conditions of a column that comes in as one type and is to become another."""
    name, checks = column.name, []
    if column.required:
        checks.append(f"coalesce({name} <> '', false)" if kind == "VARCHAR" else f"{name} is not null")
    empty = f"{name} is null" + (f" or {name} = ''" if kind == "VARCHAR" else "")
    if kind in ("VARCHAR", "DOUBLE", "FLOAT") and column.whole:
        number = name if kind != "VARCHAR" else f"try_cast({name} as DOUBLE)"
        fits = f"{number} = trunc({number}) and abs({number}) <= {WHOLE[column.type]}"
        checks.append(f"({empty} or coalesce({fits}, false))")
    elif kind != column.type and column.type != "VARCHAR":
        checks.append(f"({empty} or {_converted(column, kind)} is not null)")
    if column.type == "DOUBLE":
        checks.append(f"coalesce(isfinite({_converted(column, kind)}), true)")
    if column.type == "TIMESTAMP":
        checks.append(f"coalesce({_converted(column, kind)} between timestamp '{FIRST}' and timestamp '{LAST}', true)")
    return checks
