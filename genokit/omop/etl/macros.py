"""Macros for the few things that engines spell differently: a name in the ETL's SQL, and a text for each engine.

A macro looks like a function: ``hash_id(name)``. ``expand`` parses the portable SQL, replaces each macro by its text
and writes the whole for an engine. In a macro's text, its parameters are columns of these names.

>>> expand("SELECT event_id(row_id, 2) AS id, concept('EHR') AS kind FROM mimic3.labevents", "spark")
'SELECT CAST(row_id AS BIGINT) * 16 + 2 AS id, 32817 AS kind FROM mimic3.labevents'
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sqlglot
from sqlglot import exp

from genokit.errors import NotFound, did_you_mean

ENGINES = ("duckdb", "spark", "athena")


@dataclass(frozen=True)
class Macro:
    """Its parameters, what it returns, and its text: one for all engines, or one for each."""

    takes: tuple[str, ...]
    gives: str
    text: str | Mapping[str, str]

    def of(self, engine: str) -> str:
        """Its text for one engine."""
        return self.text if isinstance(self.text, str) else self.text[engine]


# No exponents, infinities or other words that some engines take for numbers; commas only between thousands.
_NUMBER = "'^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+|[0-9]{1,3}(,[0-9]{3})+([.][0-9]*)?)$'"
_DIGITS = "REPLACE(TRIM(words), ',', '')"

MACROS = {
    "event_id": Macro(
        ("row_id", "tag"),
        "an id that the row has in every run: the tag (0 to 15) tells sources of one table apart",
        "CAST(row_id AS BIGINT) * 16 + tag",
    ),
    "part_id": Macro(
        ("row_id", "tag", "nth"),
        "event_id where one row gives several: the first (nth 0) has event_id's, further ones lie 2^40 apart",
        "CAST(row_id AS BIGINT) * 16 + tag + CAST(nth AS BIGINT) * 1099511627776",
    ),
    "hash_id": Macro(
        ("words",),
        "the first 60 bits of a text's MD5, for what has no row_id",
        {
            "duckdb": "CAST('0x' || SUBSTRING(MD5(words), 1, 15) AS BIGINT)",
            "spark": "CAST(CONV(SUBSTRING(MD5(words), 1, 15), 16, 10) AS BIGINT)",
            "athena": "FROM_BASE(SUBSTRING(LOWER(TO_HEX(MD5(TO_UTF8(words)))), 1, 15), 16)",
        },
    ),
    "days_between": Macro(
        ("earlier", "later"),
        "midnights between two days",
        {
            "duckdb": "DATE_DIFF('day', CAST(earlier AS DATE), CAST(later AS DATE))",
            "spark": "DATEDIFF(CAST(later AS DATE), CAST(earlier AS DATE))",
            "athena": "DATE_DIFF('day', CAST(earlier AS DATE), CAST(later AS DATE))",
        },
    ),
    "clock_time": Macro(
        ("moment",),
        "hours, minutes and seconds, of 24 hours",
        {
            "duckdb": "STRFTIME(moment, '%H:%M:%S')",
            "spark": "DATE_FORMAT(moment, 'HH:mm:ss')",
            "athena": "DATE_FORMAT(moment, '%H:%i:%S')",
        },
    ),
    "number_of": Macro(
        ("words",),
        "the number that a text is, or null where it is none",
        {
            "duckdb": f"CASE WHEN REGEXP_MATCHES(TRIM(words), {_NUMBER}) THEN TRY_CAST({_DIGITS} AS DOUBLE) END",
            "spark": f"CASE WHEN TRIM(words) RLIKE {_NUMBER} THEN TRY_CAST({_DIGITS} AS DOUBLE) END",
            "athena": f"CASE WHEN REGEXP_LIKE(TRIM(words), {_NUMBER}) THEN TRY_CAST({_DIGITS} AS DOUBLE) END",
        },
    ),
    "decimal_text": Macro(
        ("number",),
        "a number as text, always with four decimals: engines write floating point numbers differently",
        {
            "duckdb": "CAST(TRY_CAST(number AS DECIMAL(18, 4)) AS VARCHAR)",
            "spark": "CAST(TRY_CAST(number AS DECIMAL(18, 4)) AS STRING)",
            "athena": "CAST(TRY_CAST(number AS DECIMAL(18, 4)) AS VARCHAR)",
        },
    ),
    "ndc_of": Macro(
        ("words",),
        "digits of an NDC: without hyphens (5-4-2, 4-4-2, 5-3-2, 5-4-1) and decimals; null where it is 0 or rounded",
        "CASE WHEN number_of(words) = 0 THEN NULL"
        " WHEN words LIKE '____-____-__' OR words LIKE '_____-____-__' THEN CAST(REPLACE(words, '-', '') AS VARCHAR)"
        " WHEN words LIKE '_____-___-__' THEN SUBSTRING(words, 1, 5) || '0' || REPLACE(SUBSTRING(words, 7), '-', '')"
        " WHEN words LIKE '_____-____-_' THEN REPLACE(SUBSTRING(words, 1, 10), '-', '') || '0' || SUBSTRING(words, 12)"
        " WHEN words LIKE '%.%'"
        " THEN SUBSTRING(decimal_text(number_of(words)), 1, LENGTH(decimal_text(number_of(words))) - 5)"
        " WHEN number_of(words) > 0 THEN CAST(REPLACE(words, ',', '') AS VARCHAR) END",
    ),
    "code_of": Macro(
        ("words",),
        "a code of ICD-9 or CPT as MIMIC writes it: without a dot (401.9), and without what made it a number (4019.0)",
        "CASE WHEN words LIKE '____%.0' THEN SUBSTRING(words, 1, LENGTH(words) - 2)"
        " ELSE CAST(REPLACE(words, '.', '') AS VARCHAR) END",
    ),
    "bound_of": Macro(
        ("words",),
        "the number of a result that is only bounded: '<0.1', '>= 60', 'LESS THAN 5', 'GREATER THAN 300'",
        "CASE WHEN UPPER(words) LIKE 'LESS THAN %' THEN number_of(SUBSTRING(words, 11))"
        " WHEN UPPER(words) LIKE 'GREATER THAN %' THEN number_of(SUBSTRING(words, 14))"
        " WHEN words LIKE '<%' OR words LIKE '>%' OR words LIKE '=%'"
        " THEN number_of(REPLACE(REPLACE(REPLACE(words, '<', ''), '>', ''), '=', '')) END",
    ),
    "operator_of": Macro(
        ("words",),
        "the concept of the sign or words that such a result begins with, or null",
        "CASE WHEN words LIKE '<=%' THEN concept('Less than or equal')"
        " WHEN words LIKE '>=%' OR words LIKE '=>%' THEN concept('Greater than or equal')"
        " WHEN words LIKE '<%' OR UPPER(words) LIKE 'LESS THAN %' THEN concept('Less than')"
        " WHEN words LIKE '>%' OR UPPER(words) LIKE 'GREATER THAN %' THEN concept('Greater than')"
        " WHEN words LIKE '=%' THEN concept('Equal') END",
    ),
    "concept": Macro(("name",), "the id of a concept that the ETL itself names: concepts/constants.csv", ""),
}


def parse(sql: str) -> exp.Expr:
    """The tree of portable SQL, macros not yet replaced. Raises sqlglot's ParseError."""
    return sqlglot.parse_one(sql, read="duckdb")


@cache
def expand(sql: str, engine: str) -> str:
    """Portable SQL as one engine's own: macros replaced, types and functions in its spelling. Raises NotFound."""
    tree = parse(sql)
    _replace(tree, engine)
    if engine == "athena":
        for trim in reversed(list(tree.find_all(exp.Trim))):
            # Its own TRIM removes tabs and newlines, too, which the other engines keep.
            without = (exp.Literal.string("^ +| +$"), exp.Literal.string(""))
            trim.replace(exp.Anonymous(this="REGEXP_REPLACE", expressions=[trim.this, *without]))
    return tree.sql(dialect=engine, comments=False)


@cache
def constants() -> Mapping[str, int]:
    """The concepts that the SQL itself names: name to id."""
    with (Path(__file__).parent / "concepts" / "constants.csv").open(encoding="utf-8", newline="") as file:
        return {row["code"]: int(row["concept_id"]) for row in csv.DictReader(file)}


def _replace(tree: exp.Expr, engine: str) -> None:
    # The innermost first, so that a macro's arguments are expanded already.
    for call in reversed(list(tree.find_all(exp.Anonymous))):
        name = call.name.lower()
        if name in MACROS:
            text = _text(MACROS[name], name, call.expressions, engine)
            call.replace(_inside(call.parent, text))


def _text(macro: Macro, name: str, given: list[exp.Expr], engine: str) -> exp.Expr:
    if len(given) != len(macro.takes):
        raise NotFound(f"The macro {name} takes {', '.join(macro.takes)}, but got {len(given)}.")
    if name == "concept":
        if given[0].name not in constants():
            hint = did_you_mean(given[0].name, constants())
            raise NotFound(f"concepts/constants.csv has no concept '{given[0].name}'. {hint}")
        return exp.Literal.number(constants()[given[0].name])
    values = dict(zip(macro.takes, given, strict=True))
    root = exp.Paren(this=sqlglot.parse_one(macro.of(engine), read=engine))
    _replace(root, engine)
    for column in list(root.find_all(exp.Column)):
        if column.name in values:
            column.replace(_inside(column.parent, values[column.name].copy()))
    inner: exp.Expr = root.this
    return inner


def _inside(parent: exp.Expr | None, text: exp.Expr) -> exp.Expr:
    """In parentheses where the parent's operator would bind more tightly."""
    return exp.Paren(this=text) if isinstance(parent, exp.Binary) and isinstance(text, exp.Binary) else text
