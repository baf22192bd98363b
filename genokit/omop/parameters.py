"""Parameters of a query: ``$name`` in its SQL, and values that can only ever be values.

DuckDB gets them separately from the SQL. Athena gets typed literals in their place, each made here from the value's
type alone. Quotes and comments around a ``$name`` are parsed by the engine's own rules, and ambiguous SQL is refused.

>>> bind("select * from person where year_of_birth > $year", {"year": 1950}, "athena")
('select * from person where year_of_birth >  1950 ', {})
>>> bind("select 1 where 'a' in ($names)", {"names": ["a", "O'Hara"]}, "athena")[0]
"select 1 where 'a' in ( 'a', 'O''Hara' )"
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any

import pandas as pd

from genokit.errors import InvalidParameters, QueryError, did_you_mean

_TOKENS = r"""
    (?P<comment>--[^\r\n]*|/\*.*?\*/)
  | (?P<quoted>{quotes}'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)
  | (?P<torn>['"`]|/\*)
  | \$(?P<name>[A-Za-z_]\w*)
  | (?P<place>\$|\?)
  | (?P<word>\w[\w$]*)
  | (?P<other>\S)
"""
# In DuckDB, $$ and $word$ are quotes, too, and E'' has backslash escapes. Trino has neither.
_QUOTES = {"duckdb": r"[eE]'(?:[^'\\]|\\.|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|", "athena": ""}
_READS = ("select", "with", "values")  # of Athena; DuckDB itself says what a statement is
_WRITES = ("alter", "call", "copy", "create", "delete", "drop", "insert", "merge", "truncate", "unload", "update")
_PASSED_ON = ("query", "raw_query", "execute")  # as in TABLE(system.query('...')), which runs SQL in another database
_WHOLE, _DIGITS = 2**63, 38  # bits of a BIGINT, digits of a DECIMAL


def bind(sql: str, values: Mapping[str, object], dialect: str) -> tuple[str, dict[str, Any]]:
    """The SQL to run, and the values to run it with. Raises QueryError, InvalidParameters."""
    clean = {name: cleaned(name, value) for name, value in values.items()}
    wanted, parts, done, before, ended = set[str](), list[str](), 0, ["", ""], False
    for token in _tokens(dialect).finditer(sql):
        _check_token(token, sql)
        if token["comment"]:
            continue
        if ended:
            raise QueryError("These are several statements. Give one at a time.", sql=sql)
        if token[0] == ";":
            parts, done, ended = [*parts, sql[done : token.start()]], token.end(), True
            continue
        name = token["name"]
        if name:
            wanted.add(name)
            if name in clean:
                after = sql[token.end() :].lstrip()[:1]
                text = _written(name, clean[name], dialect, (before[0], before[1], after))
                parts, done = [*parts, sql[done : token.start()], text], token.end()
        before = [before[1], token[0].lower()]
    _check_names(wanted, values)
    whole = "".join([*parts, sql[done:]])
    if dialect == "duckdb":
        return whole, clean
    _check_athena(whole, sql)
    return whole, {}


def names(sql: str, dialect: str) -> set[str]:
    """The names of the parameters in a query.

    >>> names("select $a, '$b' -- $c", "duckdb")
    {'a'}
    """
    return {token["name"] for token in _tokens(dialect).finditer(sql) if token["name"]}


def cleaned(name: str, value: object) -> Any:
    """A value as one of a built-in type, or a list of these. Raises InvalidParameters.

    >>> import numpy as np
    >>> cleaned("ids", np.array([1, 2])), cleaned("year", np.int32(1950)), cleaned("x", range(2))
    ([1, 2], 1950, [0, 1])
    """
    many = _many(value)
    if many is None:
        return _scalar(name, value)
    found = [_scalar(name, one) for one in many]
    kinds = sorted({"nothing" if one is None else type(one).__name__ for one in found})
    if len(kinds) > 1 or kinds == ["nothing"]:
        raise InvalidParameters(f"The list '{name}' has {' and '.join(kinds)}. Give values of one type.")
    return sorted(found, key=repr) if isinstance(value, (set, frozenset)) else found


def literal(value: Any) -> str:
    """A built-in value as a typed literal of Trino.

    >>> literal(-5), literal(2.5), literal("it's"), literal(None), literal(datetime.date(2020, 1, 31))
    ("BIGINT '-5'", '2.5E0', "'it''s'", 'NULL', "DATE '2020-01-31'")
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int):  # the smallest integer is not the negative of another
        return str(value) if value >= 0 else f"BIGINT '{value}'"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "nan()" if math.isnan(value) else "infinity()" if value > 0 else "(-infinity())"
        text = repr(value).upper()
        text = text if "E" in text else f"{text}E0"
        return f"({text})" if text.startswith("-") else text
    if isinstance(value, Decimal):
        return f"DECIMAL '{value:f}'"
    if isinstance(value, datetime.datetime):
        places = "milliseconds" if value.microsecond % 1000 == 0 else "microseconds"
        return f"TIMESTAMP '{value.isoformat(sep=' ', timespec=places)}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    return "'" + str(value).replace("'", "''") + "'"


@cache
def _tokens(dialect: str) -> re.Pattern[str]:
    return re.compile(_TOKENS.format(quotes=_QUOTES[dialect]), re.VERBOSE | re.DOTALL)


def _written(name: str, value: Any, dialect: str, around: tuple[str, str, str]) -> str:
    """The SQL for a parameter: a list is its values after IN, an array elsewhere. Blanks keep words apart."""
    after_in = around[1] == "in"
    inside = around[:2] == ("in", "(") and around[2] == ")"
    if not isinstance(value, list):
        return f"${name}" if dialect == "duckdb" else f" {literal(value)} "
    if dialect == "duckdb":
        text = f"select unnest(${name})" if after_in or inside else f"${name}"
    else:
        text = ", ".join(map(literal, value))
        if not (after_in or inside):
            return f" ARRAY[{text}] "
        text = text or "select null where 1 = 0"  # no value, so that NOT IN takes every row
    return f" ({text}) " if after_in else f" {text} "


def _many(value: object) -> Iterable[object] | None:
    """The values of a list, set, array, column, ...; None for a single value."""
    if isinstance(value, (list, tuple, range, set, frozenset)):
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    listed = getattr(value, "tolist", None)
    if listed is None or isinstance(value, memoryview) or getattr(value, "ndim", 1) == 0:
        return None
    if kind == "M":  # NumPy would give nanoseconds as integers
        return list(pd.to_datetime(value))  # type: ignore[call-overload]
    found = listed()
    return found if isinstance(found, list) else None


def _scalar(name: str, value: Any) -> Any:
    if isinstance(value, Enum) and not isinstance(value, (str, int, float, Decimal, datetime.date)):
        value = value.value
    if type(value).__name__ == "datetime64":
        value = pd.Timestamp(value)
    elif hasattr(value, "item") and hasattr(value, "dtype"):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    try:
        return _plain(value)
    except ValueError as error:
        raise InvalidParameters(f"The parameter '{name}' {error}") from None


def _plain(value: Any) -> Any:
    """A value of exactly a built-in type, whatever text a subclass or an Enum would give. Raises ValueError.

    >>> from enum import IntEnum
    >>> _plain(IntEnum("Sex", {"female": 8532}).female)
    8532
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, int):
        if not -_WHOLE <= value < _WHOLE:
            raise ValueError("has more than 64 bits, unlike any in the CDM. Give a smaller one.")
        return int.__pos__(value)
    if isinstance(value, Decimal):
        exact = Decimal(f"{Decimal(value):f}")
        if not exact.is_finite() or len(f"{abs(exact):f}".replace(".", "")) > _DIGITS:
            raise ValueError(f"has more than {_DIGITS} digits, or is not finite. Give a float.")
        return exact
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ValueError("has a character that is not text (NUL, or half of a surrogate pair). Remove it.")
        return str.__str__(value)
    if not isinstance(value, datetime.date):
        kind = type(value).__name__
        raise ValueError(f"is of type {kind}. Give a number, text, date, time stamp, None, or a list of these.")
    day = (value.year, value.month, value.day)
    if not isinstance(value, datetime.datetime):
        return datetime.date(*day)
    if value.tzinfo is not None:
        raise ValueError("has a time zone, but the CDM's times have none. Give the local time.")
    return datetime.datetime(*day, value.hour, value.minute, value.second, value.microsecond)


def _check_token(token: re.Match[str], sql: str) -> None:
    place = f"at character {token.start() + 1}: {sql[token.start() :][:30]!r}"
    if token["torn"]:
        raise QueryError(f"A quote or comment that begins {place} does not end. Close it.", sql=sql)
    if token["comment"] and "/*" in token["comment"][2:]:
        raise QueryError(f"Comments are nested {place}; engines disagree on where they end. Remove one.", sql=sql)
    if token["place"]:
        raise QueryError(f"A parameter has no name {place}. Write $year, and pass year=1950.", sql=sql)


def _check_names(names: set[str], values: Mapping[str, object]) -> None:
    surplus = sorted(values.keys() - names)
    if surplus:
        raise InvalidParameters(f"The query has no ${surplus[0]}. {did_you_mean(surplus[0], names)}")
    missing = sorted(names - values.keys())
    if missing:
        raise InvalidParameters(
            f"The query needs values for {', '.join(f'${name}' for name in missing)}. "
            f"Pass them, as in query(sql, {missing[0]}=...); for a cell, set variables of these names."
        )


def _check_athena(whole: str, sql: str) -> None:
    """Only statements that read are accepted: for DDL, Athena has another parser, with other quotes."""
    words = [token[0].lower() for token in _tokens("athena").finditer(whole) if not token["comment"]]
    first = next((word for word in words if word != "("), "")
    if first not in _READS:
        raise QueryError(f"A query of Athena begins with SELECT, WITH or VALUES, not with '{first}'.", sql=sql)
    for before, word, after in zip(words, words[1:], words[2:], strict=False):
        writes = before == "(" and word in _WRITES and re.match(r"[\w\"(]", after)
        if writes or (before == "." and word.strip('"') in _PASSED_ON and after == "("):
            raise QueryError(
                f"query() only reads, but this statement contains {word.upper()}. Write a SELECT.", sql=sql
            )
