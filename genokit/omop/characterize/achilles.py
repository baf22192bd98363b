"""Achilles' analyses in few scans: each table is read once for its records and once for its persons.

Their numbers, strata and meaning are Achilles'; the SQL (``sql``) is not. Tables are hashed first, so that only what
changed is counted again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from genokit.errors import NotFound
from genokit.omop.characterize import person_counts

SQL = Path(__file__).parent / "sql"
BLOCK = 16_000_000  # rows of a table whose persons are counted at once, in a few 100 MB of memory

# The number of an analysis of events is that of its domain plus one of these kinds: what it counts, and its strata.
KINDS: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("persons", ("concept",)),
    1: ("records", ("concept",)),
    2: ("persons by month", ("concept", "month")),
    3: ("different concepts of a person", ()),
    4: ("persons by year, gender and decile of age", ("concept", "year", "gender_concept_id", "age_decile")),
    5: ("records by type", ("concept", "type")),
    6: ("age at the first record by gender", ("concept", "gender_concept_id")),
    7: ("records by unit", ("concept", "unit")),
    20: ("records by month", ("month",)),
    22: ("records by value", ("concept", "value")),
    23: ("records by detail", ("concept", "detail")),
    91: ("persons with so many records or more", ("concept", "records")),
}
OTHERS: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("source", ("source", "made_by")),
    1: ("persons", ()),
    2: ("persons by gender", ("gender_concept_id",)),
    3: ("persons by year of birth", ("year_of_birth",)),
    4: ("persons by race", ("race_concept_id",)),
    5: ("persons by ethnicity", ("ethnicity_concept_id",)),
    10: ("persons by year of birth and gender", ("year_of_birth", "gender_concept_id")),
    12: ("persons by race and ethnicity", ("race_concept_id", "ethnicity_concept_id")),
    101: ("persons by age when first observed", ("age",)),
    102: ("persons by gender and age when first observed", ("gender_concept_id", "age")),
    103: ("age when first observed", ()),
    104: ("age when first observed, by gender", ("gender_concept_id",)),
    105: ("days of the first observation period", ()),
    106: ("days of the first observation period, by gender", ("gender_concept_id",)),
    107: ("days of the first observation period, by decile of age", ("age_decile",)),
    108: ("persons by length of the first observation period, in 30 days", ("length",)),
    109: ("persons observed throughout a year", ("year",)),
    110: ("persons observed throughout a month", ("month",)),
    111: ("persons by month in which an observation period begins", ("month",)),
    112: ("persons by month in which an observation period ends", ("month",)),
    113: ("persons by number of observation periods", ("periods",)),
    116: ("persons observed in a year, by gender and decile of age", ("year", "gender_concept_id", "age_decile")),
    117: ("persons observed in a month", ("month",)),
    211: ("visits that end before they begin", ()),
    213: ("days of a visit", ("visit_concept_id",)),
    301: ("providers by specialty", ("specialty_concept_id",)),
    500: ("deaths: persons", ("cause_concept_id",)),
    501: ("deaths: records", ("cause_concept_id",)),
    502: ("deaths: persons by month", ("month",)),
    504: ("deaths: persons by year, gender and decile of age", ("year", "gender_concept_id", "age_decile")),
    505: ("deaths: records by type", ("death_type_concept_id",)),
    506: ("age at death, by gender", ("gender_concept_id",)),
    715: ("days of supply of a drug", ("drug_concept_id",)),
    716: ("refills of a drug", ("drug_concept_id",)),
    717: ("quantity of a drug", ("drug_concept_id",)),
    907: ("days of a drug era", ("drug_concept_id",)),
    1007: ("days of a condition era", ("condition_concept_id",)),
    1201: ("visits by place of service", ("place_of_service_concept_id",)),
    1815: ("values of a measurement by unit", ("measurement_concept_id", "unit_concept_id")),
    1816: ("low ends of a measurement's range by unit", ("measurement_concept_id", "unit_concept_id")),
    1817: ("high ends of a measurement's range by unit", ("measurement_concept_id", "unit_concept_id")),
    1818: ("measurements below, within and above their range",
           ("measurement_concept_id", "unit_concept_id", "position")),
}  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """A table of events: the columns that the analyses read, and the number that theirs begin with."""

    number: int
    table: str
    concept: str
    date: str
    kinds: tuple[int, ...]
    type: str | None = None
    end: str | None = None
    unit: str | None = None
    value: str | None = None
    detail: str | None = None
    more: tuple[str, ...] = ()  # further SQL files about the table
    also: tuple[int, ...] = ()  # and their analyses

    @property
    def word(self) -> str:
        return self.table.replace("_", " ")

    def named(self, kind: int) -> tuple[str, tuple[str, ...]]:
        """The name of one of its analyses, and its strata."""
        name, strata = KINDS[kind]
        return f"{self.word}: {name}", tuple(str(getattr(self, one, one) or one) for one in strata)


_USUAL = (0, 1, 2, 3, 4, 5, 6, 20)
_ERAS = (0, 1, 2, 3, 4, 6, 20)
DOMAINS = (
    Domain(200, "visit_occurrence", "visit_concept_id", "visit_start_date", (0, 1, 2, 3, 4, 6, 20),
           end="visit_end_date", more=("visit_occurrence",), also=(211, 213, 1201)),
    Domain(400, "condition_occurrence", "condition_concept_id", "condition_start_date", _USUAL,
           type="condition_type_concept_id"),
    Domain(600, "procedure_occurrence", "procedure_concept_id", "procedure_date", (*_USUAL, 91),
           type="procedure_type_concept_id"),
    Domain(700, "drug_exposure", "drug_concept_id", "drug_exposure_start_date", (*_USUAL, 91),
           type="drug_type_concept_id", more=("drug_exposure",), also=(715, 716, 717)),
    Domain(800, "observation", "observation_concept_id", "observation_date", (*_USUAL, 7, 22, 23, 91),
           type="observation_type_concept_id", unit="unit_concept_id", value="value_as_concept_id",
           detail="qualifier_concept_id"),
    Domain(900, "drug_era", "drug_concept_id", "drug_era_start_date", _ERAS, end="drug_era_end_date", more=("era",),
           also=(907,)),
    Domain(1000, "condition_era", "condition_concept_id", "condition_era_start_date", _ERAS,
           end="condition_era_end_date", more=("era",), also=(1007,)),
    Domain(1300, "visit_detail", "visit_detail_concept_id", "visit_detail_start_date", (0, 1, 2, 3, 4, 6, 20)),
    Domain(1800, "measurement", "measurement_concept_id", "measurement_date", (*_USUAL, 7, 22, 23, 91),
           type="measurement_type_concept_id", unit="unit_concept_id", value="value_as_concept_id",
           detail="operator_concept_id", more=("measurement",), also=(1815, 1816, 1817, 1818)),
    Domain(2100, "device_exposure", "device_concept_id", "device_exposure_start_date", (0, 1, 2, 4, 5, 6, 20, 91),
           type="device_type_concept_id"),
)  # fmt: skip

DISTRIBUTIONS = {
    *range(103, 108), 213, 506, 715, 716, 717, 907, 1007, 1815, 1816, 1817,
    *(domain.number + kind for domain in DOMAINS for kind in (3, 6)),
}  # fmt: skip


# Scans that are one SELECT for every engine; and the columns that such a SELECT can have.
PORTABLE = ("source", "person", "death", "provider")
COLUMNS = {
    **dict.fromkeys(("analysis_id", "value", "n"), "int64"),
    **dict.fromkeys(("stratum_1", "stratum_2", "stratum_3", "stratum_4"), "string"),
    **dict.fromkeys(("least", "most", "average", "deviation", "p10", "p25", "p50", "p75", "p90"), "double"),
}


@dataclass(frozen=True)
class Scan:
    """Analyses that are counted together: a name, the tables to read (the one they are about last), the analyses."""

    name: str
    reads: tuple[str, ...]
    analyses: tuple[int, ...]
    domain: Domain | None = None

    def key(self, fingerprints: dict[str, str]) -> str:
        """A hash of everything that its results follow from: SQL, this program, and the content of the tables."""
        files = ("begin", "observed", "collected", "described", "results", "distributions", *self._files())
        parts = [sql(name) for name in files] + [Path(person_counts.__file__).read_text(encoding="utf-8")]
        parts += [repr(self), *(fingerprints[table] for table in self.reads)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _files(self) -> tuple[str, ...]:
        return (self.name,) if self.domain is None else ("records", "keys", "persons_of", *self.domain.more)

    def run(self, con: DuckDBPyConnection, rows: int) -> tuple[pa.Table, pa.Table]:
        """Its rows of achilles_results and achilles_results_dist, including small counts."""
        if self.name in PORTABLE:
            return collected(self, [con.sql(sql(self.name)).to_arrow_table()])
        _begin(con, self)
        if "observation_period" in self.reads:
            con.execute(sql("observed"))
        if self.domain is None:
            con.execute(sql(self.name))
        else:
            _domain(con, self.domain, rows)
        results = con.sql(sql("results")).to_arrow_table()
        return results, con.sql(sql("distributions")).to_arrow_table()


def _begin(con: DuckDBPyConnection, scan: Scan) -> None:
    con.execute(sql("begin"))
    wanted = ", ".join(f"({one}, {one in DISTRIBUTIONS})" for one in scan.analyses)
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


def _domain(con: DuckDBPyConnection, domain: Domain, rows: int) -> None:
    """Count the records of a table of events, then its persons in blocks, and then its further analyses."""
    con.execute(_named(sql("records"), domain))
    [(concepts, nothing, first, months)] = con.execute(
        "select getvariable('concepts'), getvariable('nothing'), getvariable('first'), getvariable('months')"
    ).fetchall()
    if concepts:
        aged = con.sql("select by_decile, by_age from aged order by group_id, year").fetchnumpy()
        [group] = con.sql("select group_id from observed_person order by rowid").fetchnumpy().values()
        by = person_counts.Numbering(concepts, nothing, months, first, group, aged["by_decile"], aged["by_age"])
        tallies, blocks = by.tallies(), rows // BLOCK + 1
        for block in range(blocks):
            [keys] = con.sql(_named(sql("keys"), domain, blocks, block)).fetchnumpy().values()
            person_counts.count(keys, by, tallies)
        con.register("tally", person_counts.table(tallies))
        con.execute(_named(sql("persons_of"), domain))
        con.unregister("tally")
    for name in domain.more:
        con.execute(_named(sql(name), domain))


SCANS = (
    Scan("source", ("person", "cdm_source"), (0,)),
    Scan("person", ("person",), (1, 2, 3, 4, 5, 10, 12)),
    Scan("observation_period", ("person", "observation_period"), (*range(101, 114), 116, 117)),
    Scan("death", ("person", "observation_period", "death"), (500, 501, 502, 504, 505, 506)),
    Scan("provider", ("provider",), (301,)),
    *(
        Scan(
            domain.table,
            ("person", "observation_period", *["care_site"] * (domain.number == 200), domain.table),
            (*(domain.number + kind for kind in domain.kinds), *domain.also),
            domain,
        )
        for domain in DOMAINS
    ),
)


@cache
def named(analysis_id: int) -> tuple[str, tuple[str, ...]]:
    """The name of an analysis, and its strata. Raises NotFound.

    >>> named(404)
    ('condition occurrence: persons by year, gender and decile of age', ('condition_concept_id', 'year', \
'gender_concept_id', 'age_decile'))
    """
    for domain in DOMAINS:
        if (kind := analysis_id - domain.number) in domain.kinds:
            return domain.named(kind)
    if analysis_id not in OTHERS:
        raise NotFound(f"There is no analysis {analysis_id} here. Characterization.analyses() lists them.")
    return OTHERS[analysis_id]


def adds_up_after(analysis_id: int) -> int | None:
    """After how many strata an analysis adds up over the rest, because each person or record is in one row.

    None if it does not add up: a person with one concept or month may have others.
    """
    for domain in DOMAINS:
        if (kind := analysis_id - domain.number) in domain.kinds:
            return {1: 0, 4: 2, 5: 1, 6: 1, 7: 1, 20: 0, 22: 1, 23: 1}.get(kind)
    if analysis_id in (2, 3, 4, 5, 10, 12, 101, 102, 104, 106, 107, 108, 113, 301, 501, 502, 504, 505, 506, 1201):
        return 0
    return {116: 1, 1818: 2}.get(analysis_id)


@cache
def having(analysis_id: int) -> int | None:
    """The analysis that counts the persons with each concept, if that is the first stratum of this one."""
    for domain in DOMAINS:
        if analysis_id - domain.number in domain.kinds or analysis_id in domain.also:
            return domain.number if named(analysis_id)[1][:1] == (domain.concept,) else None
    return None


def fingerprints(
    con: DuckDBPyConnection, tables: Mapping[str, Iterable[str]], *, hashed: bool = True
) -> dict[str, tuple[str, int]]:
    """For each table a hash of its content, whatever the order of rows, and its number of rows.

    Without ``hashed`` only the rows are counted.
    """
    found = {}
    for table, columns in tables.items():
        names = ", ".join(f'"{column}"' for column in columns)
        sums_of = f"bit_xor(h), sum(h % 4294967296) from (select hash({names}) as h from {table})"
        [(rows, *sums)] = con.execute(f"select count(*), {sums_of if hashed else f'from {table}'}").fetchall()
        found[table] = (" ".join(map(str, (table, rows, *sums))), rows)
    return found


@cache
def sql(name: str) -> str:
    return (SQL / f"{name}.sql").read_text(encoding="utf-8")


def _named(statement: str, domain: Domain, blocks: int = 1, block: int = 0) -> str:
    """A statement about any table, as one about this."""
    names = {name: getattr(domain, name) for name in ("concept", "date", "type", "end", "unit", "value", "detail")}
    words = {name: f"event.{column}" if column else "null::bigint" for name, column in names.items()}
    some = "true" if blocks == 1 else f"seen.number % {blocks} = {block}"
    words |= {"table": domain.table, "number": str(domain.number), "persons": some}
    return re.sub(r"\bthe_(\w+)\b", lambda word: words[word[1]], statement)
