"""How fast a CDM is characterized, and in how much memory: 20 events a person, as Parquet.

    python tests/benchmarks/bench_characterize.py [persons] [python with duckcdm]

Each step in a process of its own, so that its peak memory is its own. With the Python of an environment that has
duckcdm, Achilles' own SQL runs on the same tables, for the analyses that both have.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THEIRS = """
import json, resource, sys, time, duckdb
from duckcdm import achilles
con = duckdb.connect(sys.argv[1])
con.execute("set threads = 2")
begun = time.perf_counter()
ids = json.loads(sys.argv[2])
done, failed = achilles.run_achilles(con, "cdm", "results", log=None, cdm_version="5.4", analysis_ids=ids)
took = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"duckcdm     {len(done)} analyses, {len(failed)} failed {took:7.1f} s {peak:7.0f} MiB peak")
"""

# For each table: rows a person, how many concepts, and what else its rows have.
EVENTS = {
    "visit_occurrence": (3, 6, "visit_concept_id", "visit_start_date",
                         "{date} + (h % 5)::integer as visit_end_date, 32817 as visit_type_concept_id"),
    "condition_occurrence": (4, 1000, "condition_concept_id", "condition_start_date",
                             "32817 + h % 3 as condition_type_concept_id"),
    "drug_exposure": (4, 1500, "drug_concept_id", "drug_exposure_start_date",
                      "32817 as drug_type_concept_id, (10 + h % 90)::integer as days_supply,"
                      " (h % 4)::integer as refills, (1 + h % 60)::double as quantity"),
    "measurement": (9, 300, "measurement_concept_id", "measurement_date",
                    "32817 as measurement_type_concept_id, 8840 + h % 2 as unit_concept_id, round(100 + 40 *"
                    " sin(h % 1000003), 1) as value_as_number, 70.0 as range_low, 130.0 as range_high"),
}  # fmt: skip


def generate(folder: Path, persons: int) -> None:
    """Write a made-up CDM: common concepts are much commoner than rare ones."""
    import duckdb

    con = duckdb.connect()
    con.execute(
        f"copy (select i as person_id, 8507 + 25 * (i % 2) as gender_concept_id, 1920 + (hash(i) % 90)::integer as"
        f" year_of_birth, 0 as race_concept_id, 0 as ethnicity_concept_id from range({persons}) t(i))"
        f" to '{folder}/person.parquet'"
    )
    con.execute(
        f"copy (select i as observation_period_id, i as person_id, date '2010-01-01' + (hash(i) % 1000)::integer as"
        f" observation_period_start_date, date '2014-01-01' + (hash(i, 1) % 2500)::integer as"
        f" observation_period_end_date, 0 as period_type_concept_id from range({persons}) t(i))"
        f" to '{folder}/observation_period.parquet'"
    )
    for table, (each, concepts, concept, day, more) in EVENTS.items():
        date = "date '2010-01-01' + (hash(i, 2) % 3500)::integer"
        con.execute(
            f"copy (select i as {table}_id, i // {each} as person_id, (1000000 + floor({concepts} * pow((hash(i, 3) %"
            f" 1000000) / 1e6, 3)))::integer as {concept}, {date} as {day}, {more.format(date=date)}"
            f" from (select i, hash(i) as h from range({persons * each}) t(i))) to '{folder}/{table}.parquet'"
        )


def characterize(folder: Path, persons: int) -> None:
    from genokit import Cdm

    cdm = Cdm(folder)
    cdm.database.con.execute("set threads = 2")
    found = cdm.characterize(progress=False)
    print(found.scans.to_string(index=False), flush=True)
    print(f"analyses: {len(found.analyses())}, rows: {found.results.num_rows + found.distributions.num_rows:,}")


def to_duckdb(folder: Path, persons: int) -> None:
    """The same as tables of a DuckDB file, which is what duckcdm takes."""
    from genokit import Cdm

    con = Cdm(folder).database.con
    con.execute(f"attach '{folder}/tables.duckdb' as copied; create schema copied.cdm")
    for (name,) in con.execute("select view_name from duckdb_views() where schema_name = 'cdm'").fetchall():
        con.execute(f"create table copied.cdm.{name} as from cdm.{name}")


STEPS = {"generate": generate, "characterize": characterize, "to_duckdb": to_duckdb}


def measured(step: str, folder: Path, persons: int) -> None:
    begun = time.perf_counter()
    STEPS[step](folder, persons)
    took, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{step:14} {took:7.1f} s {used.ru_utime + used.ru_stime:7.1f} s of CPU {used.ru_maxrss / 1024:7.0f} MiB peak,"
        f" load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    from genokit.omop.achilles import SCANS

    persons = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"{persons:,} persons, {persons * sum(each for each, *_ in EVENTS.values()):,} events")
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS if len(sys.argv) > 2 else list(STEPS)[:2]:
            subprocess.run([sys.executable, __file__, step, folder, str(persons)], check=True)
        if len(sys.argv) > 2:
            ids = json.dumps([one for scan in SCANS for one in scan.analyses])
            subprocess.run([sys.argv[2], "-c", THEIRS, f"{folder}/tables.duckdb", ids], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in STEPS:
        measured(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
