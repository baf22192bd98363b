"""The mapping in words: what each table of the CDM is made of, and why so; taken from the SQL that makes it.

python -m genokit.omop.etl.mapping > docs/omop-mapping.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from sqlglot import exp

from genokit.files import write_atomic
from genokit.omop import fields
from genokit.omop.etl import transform
from genokit.omop.etl.macros import parse

LOOKUPS = ("mimic3.d_items", "mimic3.d_labitems", "stage.item")
SQL = "../genokit/omop/etl/sql/mimic3"


def markdown() -> str:
    """The mapping as a page: the tables of the CDM in its order, then what stands between."""
    made = [f"cdm.{name}" for name in fields.tables() if f"cdm.{name}" in transform.statements()]
    between = [table for table in transform.order() if table.startswith("stage.")]
    without = [name for name in fields.tables() if f"cdm.{name}" not in transform.statements()]
    known = [name for name in without if transform.reads(f"cdm.{name}")]
    lines = [
        "# MIMIC-III to the OMOP CDM 5.4, table by table",
        "",
        "Written by `python -m genokit.omop.etl.mapping docs` from the SQL. [The ETL](omop.md) says how to run it.",
        "",
        "![Which table is made of which](omop-lineage.svg)",
        "",
        "## Tables of the CDM",
        "",
        *(line for table in made for line in _section(table)),
        "## What stands between",
        "",
        "Tables of the schema `stage` are made once and read by several of the above.",
        "",
        *(line for table in between for line in _section(table)),
        "## The rest",
        "",
        f"From the vocabulary as it is: {', '.join(known)}.",
        "",
        f"MIMIC-III says nothing for these, and they are empty: {', '.join(sorted(set(without) - set(known)))}.",
        "",
    ]
    return "\n".join(lines)


def lineage() -> dict[str, list[str]]:
    """The tables with SQL and those whose rows become theirs, for ``plots.etl.lineage``; what is only looked up, as a
    person or a concept, is left out."""
    found = {}
    for table in (*(f"cdm.{name}" for name in fields.tables()), *transform.order()):
        if table in transform.statements() and table not in found:
            reads = transform.reads(table)
            rows = [one for one in reads if one.startswith(("mimic3.", "stage.")) and one not in LOOKUPS]
            found[table] = sorted(rows or [one for one in reads if one.startswith("cdm.")])
    return {table: sources for table, sources in found.items() if sources}


def reasons(table: str) -> str:
    """What the SQL of a table says of itself before it begins."""
    lines = transform.statements()[table].splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:count])


def _section(table: str) -> Iterator[str]:
    schema, _, name = table.partition(".")
    title, _, words = reasons(table).partition(": ")
    if schema == "stage" or title != name.upper():
        words = reasons(table)
    file = f"{SQL}/{'stage/' if schema == 'stage' else ''}{name}.sql"
    yield from (
        f"### {name}",
        "",
        *_prose(words[:1].upper() + words[1:]),
        "",
        f"Made of {', '.join(_named(table))} by [{name}.sql]({file}).",
        "",
    )
    if schema == "cdm":
        given = [column.alias_or_name for column in _query(table).selects]
        yield from (f"Filled: {', '.join(given)}.", "")


def _prose(words: str) -> Iterator[str]:
    """Lists of a comment, which are indented, as lists."""
    for line in words.splitlines():
        yield f"- {line.strip()}" if line.startswith("  ") else line


def _named(table: str) -> list[str]:
    return [f"`{one.removeprefix('cdm.')}`" for one in sorted(transform.reads(table))]


def _query(table: str) -> exp.Query:
    tree = parse(transform.statements()[table])
    assert isinstance(tree, exp.Query)
    return tree


def write(folder: Path) -> None:
    """Write the page, and the picture that it shows."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from genokit.plots import etl

    write_atomic(folder / "omop-mapping.md", markdown())
    # Text stays text, and the same picture the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "genokit"}):
        etl.lineage(lineage())
        plt.savefig(folder / "omop-lineage.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
