"""Achilles' analyses in few scans: each table is read once for its records and once for its persons.

Their numbers, strata and meaning are Achilles'; the SQL (``sql``) is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from genokit.omop.characterize import person_counts
from genokit.omop.characterize.analyses import analyses, find

SQL = Path(__file__).parent / "sql"
BLOCK = 16_000_000  # rows of a table whose persons are counted at once, in a few 100 MB of memory


@dataclass(frozen=True)
class Domain:
    """A table of events: the number that its analyses begin with, and the columns that they read."""

    number: int
    table: str
    concept: str
    date: str
    type: str | None = None
    end: str | None = None
    unit: str | None = None
    value: str | None = None
    detail: str | None = None
    more: str | None = None  # a further SQL file about the table

    @property
    def word(self) -> str:
        return self.table.replace("_", " ")


DOMAINS = (
    Domain(200, "visit_occurrence", "visit_concept_id", "visit_start_date", end="visit_end_date",
           more="visit_occurrence"),
    Domain(400, "condition_occurrence", "condition_concept_id", "condition_start_date", "condition_type_concept_id"),
    Domain(600, "procedure_occurrence", "procedure_concept_id", "procedure_date", "procedure_type_concept_id"),
    Domain(700, "drug_exposure", "drug_concept_id", "drug_exposure_start_date", "drug_type_concept_id",
           more="drug_exposure"),
    Domain(800, "observation", "observation_concept_id", "observation_date", "observation_type_concept_id",
           unit="unit_concept_id", value="value_as_concept_id", detail="qualifier_concept_id"),
    Domain(900, "drug_era", "drug_concept_id", "drug_era_start_date", end="drug_era_end_date", more="era"),
    Domain(1000, "condition_era", "condition_concept_id", "condition_era_start_date", end="condition_era_end_date",
           more="era"),
    Domain(1300, "visit_detail", "visit_detail_concept_id", "visit_detail_start_date"),
    Domain(1800, "measurement", "measurement_concept_id", "measurement_date", "measurement_type_concept_id",
           unit="unit_concept_id", value="value_as_concept_id", detail="operator_concept_id", more="measurement"),
    Domain(2100, "device_exposure", "device_concept_id", "device_exposure_start_date", "device_type_concept_id"),
)  # fmt: skip

# Scans that are one SELECT for every engine; and the columns that such a SELECT can have.
PORTABLE = ("source", "person", "death", "provider")
COLUMNS = {
    **dict.fromkeys(("analysis_id", "value", "n"), "int64"),
    **dict.fromkeys(("stratum_1", "stratum_2", "stratum_3", "stratum_4"), "string"),
    **dict.fromkeys(("least", "most", "average", "deviation", "p10", "p25", "p50", "p75", "p90"), "double"),
}


@dataclass(frozen=True)
class Scan:
    """Analyses that are counted together: a name, and the tables to read, the one that they are about last."""

    name: str
    reads: tuple[str, ...]
    domain: Domain | None = None

    @property
    def analyses(self) -> list[int]:
        return [number for number, one in analyses().items() if one.scan == self.name]


def run(con: DuckDBPyConnection, scan: Scan) -> tuple[tuple[pa.Table, pa.Table], int]:
    """A scan's rows of achilles_results and achilles_results_dist, including small counts, and the rows read."""
    [(rows,)] = con.execute(f"select count(*) from {scan.reads[-1]}").fetchall()
    if scan.name in PORTABLE:
        return collected(scan, [con.sql(sql(scan.name)).to_arrow_table()]), rows
    _begin(con, scan)
    if "observation_period" in scan.reads:
        con.execute(sql("observed"))
    if scan.domain is None:
        con.execute(sql(scan.name))
    else:
        _domain(con, scan.domain, rows // BLOCK + 1)
    results = con.sql(sql("results")).to_arrow_table()
    return (results, con.sql(sql("distributions")).to_arrow_table()), rows


def _begin(con: DuckDBPyConnection, scan: Scan) -> None:
    con.execute(sql("begin"))
    wanted = ", ".join(f"({one}, {find(one).is_distribution})" for one in scan.analyses)
    con.execute(f"insert into asked values {wanted}")


def collected(scan: Scan, answers: Iterable[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """What portable SQL has counted, as rows of achilles_results and achilles_results_dist."""
    described = []
    with duckdb.connect() as con:
        _begin(con, scan)
        for answer in answers:
            con.register("the_rows", _whole(answer))
            con.execute(sql("collected"))
            described.append(con.sql(sql("described")).to_arrow_table())
        results, spread = (con.sql(sql(name)).to_arrow_table() for name in ("results", "distributions"))
    return results, pa.concat_tables([spread, *described])


def _whole(table: pa.Table) -> pa.Table:
    """A result with all possible columns."""
    nulls, names = table.num_rows, table.column_names
    return pa.table(
        {name: table[name].cast(kind) if name in names else pa.nulls(nulls, kind) for name, kind in COLUMNS.items()}
    )


def _domain(con: DuckDBPyConnection, domain: Domain, blocks: int) -> None:
    """Count the records of a table of events, then its persons in blocks, and then its further analyses."""
    con.execute(for_domain(sql("records"), domain))
    [(concepts, nothing, first, months)] = con.execute(
        "select getvariable('concepts'), getvariable('nothing'), getvariable('first'), getvariable('months')"
    ).fetchall()
    if concepts:
        aged = con.sql("select by_decile, by_age from aged order by group_id, year").fetchnumpy()
        [group] = con.sql("select group_id from observed_person order by rowid").fetchnumpy().values()
        by = person_counts.Numbering(concepts, nothing, months, first, group, aged["by_decile"], aged["by_age"])
        tallies = by.tallies()
        for block in range(blocks):
            some = "true" if blocks == 1 else f"seen.number % {blocks} = {block}"
            [keys] = con.sql(for_domain(sql("keys"), domain, persons=some)).fetchnumpy().values()
            person_counts.count(keys, by, tallies)
        con.register("tally", person_counts.table(tallies))
        con.execute(for_domain(sql("persons_of"), domain))
        con.unregister("tally")
    if domain.more:
        con.execute(for_domain(sql(domain.more), domain))


SCANS = (
    Scan("source", ("person", "cdm_source")),
    Scan("person", ("person",)),
    Scan("observation_period", ("person", "observation_period")),
    Scan("death", ("person", "observation_period", "death")),
    Scan("provider", ("provider",)),
    Scan("visit_occurrence", ("person", "observation_period", "care_site", "visit_occurrence"), DOMAINS[0]),
    *(Scan(one.table, ("person", "observation_period", one.table), one) for one in DOMAINS[1:]),
)


@cache
def having_of(analysis_id: int) -> int | None:
    """The analysis that counts the persons with each concept, if that is the first stratum of this one."""
    analysis = find(analysis_id)
    return next(
        (one.number for one in DOMAINS if (one.table, one.concept) == (analysis.scan, *analysis.strata[:1])), None
    )


@cache
def sql(name: str) -> str:
    return (SQL / f"{name}.sql").read_text(encoding="utf-8")


def for_domain(statement: str, domain: Domain, **words: str) -> str:
    """A statement about any table of events, as one about this table; ``words`` has further names in it."""
    for name in ("concept", "date", "type", "end", "unit", "value", "detail"):
        column = getattr(domain, name)
        words[name] = f"event.{column}" if column else "cast(null as bigint)"
    words |= {"table": domain.table, "number": str(domain.number)}
    return re.sub(r"\bthe_(\w+)\b", lambda word: words[word[1]], statement)
