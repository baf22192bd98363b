"""Macros of the ETL's SQL, which looks alike on every engine: ``sql/macros.sql`` has them, and says what each gives.

A macro looks like a function: ``hash_id(name)``. ``expand`` parses the portable SQL, replaces each macro by its text
and writes the whole for an engine. ``concept(name)`` is the id of a concept that the SQL itself names, from
``concepts/constants.csv``.

>>> expand("SELECT event_id(row_id, 2) AS id, concept('EHR') AS kind FROM mimic3.labevents", "spark")
'SELECT CAST(row_id AS BIGINT) * 16 + 2 AS id, 32817 AS kind FROM mimic3.labevents'
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import sqlglot
from sqlglot import exp


@cache
def macros() -> Mapping[str, tuple[list[str], exp.Expr]]:
    """The parameters and the text of each macro; in the text, parameters are columns of these names."""
    text = (Path(__file__).parent / "sql" / "macros.sql").read_text(encoding="utf-8")
    trees = [tree for tree in sqlglot.parse(text, read="duckdb") if tree]
    return {tree.this.this.name: ([one.name for one in tree.this.expressions], tree.expression) for tree in trees}


def parse(sql: str) -> exp.Expr:
    """The tree of portable SQL, macros not yet replaced. Raises sqlglot's ParseError."""
    return sqlglot.parse_one(sql, read="duckdb")


@cache
def expand(sql: str, engine: str) -> str:
    """Portable SQL as one engine's own: macros replaced, types and functions in its spelling."""
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
        if name == "concept":
            call.replace(exp.Literal.number(constants()[call.expressions[0].name]))
        elif name in macros():
            own = f"{name}_{engine}"
            call.replace(_inside(call.parent, _text(own if own in macros() else name, call.expressions, engine)))


def _text(name: str, given: list[exp.Expr], engine: str) -> exp.Expr:
    takes, text = macros()[name]
    values = dict(zip(takes, given, strict=True))
    root = exp.Paren(this=text.copy())
    _replace(root, engine)
    for column in list(root.find_all(exp.Column)):
        if column.name in values:
            column.replace(_inside(column.parent, values[column.name].copy()))
    inner: exp.Expr = root.this
    return inner


def _inside(parent: exp.Expr | None, text: exp.Expr) -> exp.Expr:
    """In parentheses where the parent's operator would bind more tightly."""
    return exp.Paren(this=text) if isinstance(parent, exp.Binary) and isinstance(text, exp.Binary) else text
