"""The subset of SQL in which the ETL is written, so that every engine makes the same rows: checked on the syntax tree.

What is not on the lists is refused, whether or not an engine would accept it: engines differ most where nobody looks
(integer division, casts to integers, ``DISTINCT ON``, ``QUALIFY``, names of functions).

>>> problems("SELECT DATE_DIFF('day', a, b) AS days FROM mimic3.admissions")
["function DateDiff is not on the list: DATE_DIFF('DAY', a, b)"]
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp
from sqlglot.errors import ParseError

from genokit.omop.etl.macros import macros, parse

SCHEMAS = ("mimic3", "vocab", "stage", "cdm", "report")

# Every patient has hundreds to thousands of rows here: no row may depend on all others.
EVENTS = {
    "chartevents", "cptevents", "datetimeevents", "diagnoses_icd", "inputevents_cv", "inputevents_mv", "labevents",
    "microbiologyevents", "noteevents", "outputevents", "prescriptions", "procedureevents_mv", "procedures_icd",
    "condition_occurrence", "device_exposure", "drug_exposure", "measurement", "note", "observation",
    "procedure_occurrence", "specimen", "billed", "charted_procedure", "microbiology", "prescribed",
}  # fmt: skip

_FUNCTIONS = (
    exp.Coalesce, exp.Nullif, exp.Case, exp.If, exp.Cast, exp.Extract,
    exp.Upper, exp.Lower, exp.Trim, exp.Substring, exp.Replace, exp.Length,
    exp.Count, exp.Min, exp.Max, exp.Sum,
    exp.RowNumber, exp.Lag,
    exp.And, exp.Or, exp.Exists, exp.Anonymous,
)  # fmt: skip

_SYNTAX = (
    exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Union, exp.Subquery, exp.With, exp.CTE,
    exp.Table, exp.TableAlias, exp.Column, exp.Identifier, exp.Alias, exp.Paren, exp.Star, exp.Distinct,
    exp.Literal, exp.Null, exp.Boolean, exp.DataType, exp.Var, exp.Interval,
    exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between, exp.Like,
    exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.DPipe,
    exp.Window, exp.WindowSpec, exp.Order, exp.Ordered,
)  # fmt: skip

# Casts to integers round in one engine and cut in another, so only texts and whole numbers may become BIGINT. The
# parser calls VARCHAR without a length TEXT.
_TYPES = {"BIGINT": "BIGINT", "DOUBLE": "DOUBLE", "TEXT": "VARCHAR", "DATE": "DATE", "TIMESTAMPNTZ": "TIMESTAMP"}


def problems(sql: str) -> list[str]:
    """Everything in a statement that is outside the subset, in words; empty where nothing is."""
    try:
        tree = parse(sql)
    except ParseError as error:
        return [f"it cannot be parsed: {error}"]
    if not isinstance(tree, (exp.Select, exp.Union)):
        return [f"it is no SELECT, but {type(tree).__name__}"]
    return list(dict.fromkeys(_problems(tree)))


def _problems(tree: exp.Expr) -> Iterator[str]:
    names = {cte.alias for cte in tree.find_all(exp.CTE)}
    for node in tree.walk():
        if not isinstance(node, (*_FUNCTIONS, *_SYNTAX)):
            kind = "function" if isinstance(node, exp.Func) else "syntax"
            yield f"{kind} {type(node).__name__} is not on the list: {_text(node)}"
        elif isinstance(node, exp.Anonymous) and node.name.lower() not in {"concept", *macros()}:
            yield f"function {node.name} is neither known nor a macro: {_text(node)}"
        elif isinstance(node, exp.DataType) and node.this.name not in _TYPES:
            yield f"type {_text(node)} is not one of {', '.join(_TYPES.values())}"
        elif isinstance(node, exp.Cast) and node.to.this.name == "BIGINT" and _is_fraction(node.this):
            yield f"a fraction is cast to a whole number, which engines round differently: {_text(node)}"
        elif isinstance(node, exp.Star) and not isinstance(node.parent, exp.Count):
            yield f"* hides the columns: {node.parent.sql()[:80] if node.parent else _text(node)}"
        elif isinstance(node, exp.Union) and node.args.get("distinct") and not isinstance(node, exp.Except):
            yield "UNION without ALL compares all rows"
        elif isinstance(node, exp.Distinct) and node.args.get("on"):
            yield "DISTINCT ON is not portable"
        elif isinstance(node, exp.Table):
            yield from _table(node, names)
        elif isinstance(node, exp.Select):
            yield from _select(node)


def _text(node: exp.Expr) -> str:
    return node.sql(dialect="duckdb", comments=False)[:80]


def _table(table: exp.Table, names: set[str]) -> Iterator[str]:
    if not table.db and table.name not in names:
        yield f"table {table.name} has no schema"
    elif table.db and table.db not in SCHEMAS:
        yield f"schema {table.db} is none of {', '.join(SCHEMAS)}"


def _select(select: exp.Select) -> Iterator[str]:
    if select.args.get("qualify") or select.args.get("limit") or (select.args.get("order")):
        yield "QUALIFY, LIMIT and the order of the whole are not portable"
    if any(isinstance(column, exp.Window) and column.find(exp.RowNumber) for column in select.find_all(exp.Window)):
        read = sorted(_tables_of(select) & EVENTS)
        if read:
            yield f"ROW_NUMBER over {', '.join(read)}: ids come from row_id, and nothing else may count events"


def _tables_of(select: exp.Expr) -> set[str]:
    """The names of the tables that a SELECT itself reads, those of its named parts included."""
    found: set[str] = set()
    root = select.root()
    parts = {cte.alias: cte.this for cte in root.find_all(exp.CTE)}
    for table in select.find_all(exp.Table):
        if not table.db and table.name in parts and not _within(select, parts[table.name]):
            found |= _tables_of(parts[table.name])
        else:
            found.add(table.name)
    return found


def _within(inner: exp.Expr, outer: exp.Expr) -> bool:
    return inner is outer or any(node is inner for node in outer.walk())


def _is_fraction(node: exp.Expr) -> bool:
    return (isinstance(node, exp.Literal) and not node.is_string and not node.is_int) or (
        isinstance(node, exp.Cast) and node.to.this.name == "DOUBLE"
    )
