"""Writes docs/omop-mapping.md and its picture: what each table of the CDM is made from, and why, as its SQL says.

python tests/omop_mapping.py docs
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from sqlglot import exp

from genokit.files import write_atomic
from genokit.omop import fields
from genokit.omop.etl import transform
from genokit.omop.etl.macros import parse
from genokit.plots.paper import clear_paper

LOOKUPS = ("mimic3.d_items", "mimic3.d_labitems", "stage.item")
SQL = "../genokit/omop/etl/sql/mimic3"
GROUPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")


def markdown() -> str:
    """The mapping as a page: the tables of the CDM in its order, then what stands between."""
    made = [f"cdm.{name}" for name in fields.tables() if f"cdm.{name}" in transform.statements()]
    between = [table for table in transform.order() if table.startswith("stage.")]
    without = [name for name in fields.tables() if f"cdm.{name}" not in transform.statements()]
    known = [name for name in without if transform.reads(f"cdm.{name}")]
    lines = [
        "# MIMIC-III to the OMOP CDM 5.4, table by table",
        "",
        "Written by `python tests/omop_mapping.py docs` from the SQL. [The ETL](omop.md) says how to run it.",
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


def edges() -> dict[str, list[str]]:
    """The tables with SQL and those whose rows become theirs; what is only looked up, as a person or a concept, is left
    out."""
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


def lineage(edges: Mapping[str, Sequence[str]], *, ax: Axes | None = None) -> Axes:
    """Which table is made of which: sources on the left, what stands between in the middle, the CDM on the right.

    ``edges`` maps each table, with its schema, to those it is made of. A line has the colour of where it ends.
    """
    everything = dict.fromkeys([*(one for sources in edges.values() for one in sources), *edges])
    columns = [sorted(one for one in everything if _column(one) == number) for number in range(3)]
    columns[2] = [table for table in edges if _column(table) == 2]
    most = max(len(column) for column in columns)
    spots = {
        table: (x, (row + 0.5) * most / len(column))
        for x, column in enumerate(columns)
        for row, table in enumerate(column)
    }
    with clear_paper():
        if ax is None:
            _, ax = plt.subplots(figsize=(10, 1 + 0.3 * most), layout="constrained")
        for number, (table, sources) in enumerate(edges.items()):
            for source in sources:
                (x0, y0), (x1, y1) = spots[source], spots[table]
                if x0 == x1:  # from a table of the CDM to another: around its right side
                    right = x0 + 0.45
                    points = [(right, y0), (right + 0.12, y0), (right + 0.12, y1), (right, y1)]
                else:
                    start, end = x0 + 0.38, x1 - 0.02
                    points = [(start, y0), ((start + end) / 2, y0), ((start + end) / 2, y1), (end, y1)]
                curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
                colour = GROUPS[number % len(GROUPS)]
                ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=1, alpha=0.75))
        for table, (x, y) in spots.items():
            ax.text(x, y, table.partition(".")[2], va="center", fontsize=9, family="monospace", color="black",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        for x, title in enumerate(("MIMIC-III", "between", "OMOP CDM 5.4")):
            ax.text(x, -0.6, title, fontsize=11, weight="bold", va="center")
        ax.set_xlim(-0.05, 2.65)
        ax.set_ylim(most, -1.2)
        ax.axis("off")
        return ax


def _column(table: str) -> int:
    return ("mimic3", "stage", "cdm").index(table.partition(".")[0])


def write(folder: Path) -> None:
    """Write the page, and the picture that it shows."""
    import matplotlib as mpl

    write_atomic(folder / "omop-mapping.md", markdown())
    # Text stays text, and the same picture the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "genokit"}):
        lineage(edges())
        plt.savefig(folder / "omop-lineage.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
