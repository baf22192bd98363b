"""What Trino is strict about in a statement, and DuckDB is not: it casts nothing by itself."""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify


def kind(node):
    """What Trino compares and unites without being told to cast: numbers, texts, or days and moments."""
    for types, word in (
        (exp.DataType.NUMERIC_TYPES, "number"),
        (exp.DataType.TEXT_TYPES, "text"),
        (exp.DataType.TEMPORAL_TYPES, "time"),
    ):
        if node.type is not None and node.type.is_type(*types):
            return word
    return "null" if isinstance(node.unalias(), exp.Null) else str(node.type)


def mixed(tree):
    """What mixes kinds in a statement: DuckDB would cast, Trino refuses."""
    for node in tree.walk():
        if isinstance(node, (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)):
            parts = [node.left, node.right]
        elif isinstance(node, exp.In):
            parts = [node.this, *node.expressions]
        elif isinstance(node, exp.Between):
            parts = [node.this, node.args["low"], node.args["high"]]
        elif isinstance(node, exp.Coalesce):
            parts = [node.this, *node.expressions]
        elif isinstance(node, exp.Case):
            parts = [*(one.args["true"] for one in node.args["ifs"]), *filter(None, [node.args.get("default")])]
        else:
            parts = []
        if len({kind(part) for part in parts} - {"null"}) > 1:
            yield node.sql("athena")
        if isinstance(node, exp.Union):
            for one, other in zip(node.left.selects, node.right.selects, strict=True):
                if len({kind(one), kind(other)} - {"null"}) > 1:
                    yield f"{one.sql('athena')} | {other.sql('athena')}"


def annotated(sql, schemas):
    """The tree of a statement with the type of everything in it."""
    tree = sqlglot.parse_one(sql, read="athena")
    for node in reversed(list(tree.find_all(exp.RegexpReplace))):
        node.replace(exp.Trim(this=node.this))  # whose type sqlglot knows
    for node in list(tree.find_all(exp.Grouping)):
        node.replace(exp.Literal.number(1))
    tree = qualify(tree, schema=schemas, dialect="athena")
    return annotate_types(tree, schema=schemas, dialect="athena")
