"""How fast a CDM is characterized, in how much memory, and beside duckcdm, which runs Achilles' own SQL on DuckDB.

    python tests/benchmarks/bench_characterize.py [persons]

20 events a person; a tenth of the persons first, then all. The kit reads Parquet, then a DuckDB file with the same
tables; duckcdm reads that file, for the same analyses. A process for each, so that its peak of memory is its own.
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
    con.execute("set enable_progress_bar = false")
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


def to_duckdb(folder: Path) -> None:
    """The same as tables of a DuckDB file."""
    from genokit import Cdm

    con = Cdm(folder, external_access=True).database.con
    con.execute("set enable_progress_bar = false")
    con.execute(f"attach '{folder}/tables.duckdb' as copied; create schema copied.cdm")
    for (name,) in con.execute("select view_name from duckdb_views() where schema_name = 'cdm'").fetchall():
        con.execute(f"create table copied.cdm.{name} as from cdm.{name}")


def kit(place: Path) -> int:
    from genokit import Cdm

    cdm = Cdm(place)
    cdm.database.con.execute("set threads = 2")
    return len(cdm.characterize(progress=False).analyses())


def duckcdm(file: Path) -> int:
    import duckdb
    from duckcdm import achilles

    from genokit.omop.characterize.achilles import SCANS

    con = duckdb.connect(str(file))
    con.execute("set threads = 2; set enable_progress_bar = false")
    ids = [one for scan in SCANS for one in scan.analyses]
    done, failed = achilles.run_achilles(con, "cdm", "results", log=None, cdm_version="5.4", analysis_ids=ids)
    assert not failed, failed
    return len(done)


# What is measured, and of what.
STEPS = {
    "genokit, Parquet": (kit, "."),
    "genokit, tables": (kit, "tables.duckdb"),
    "duckcdm, tables": (duckcdm, "tables.duckdb"),
}


def measure(step: str, folder: Path) -> None:
    count, place = STEPS[step]
    begun = time.perf_counter()
    analyses = count(folder / place)
    took, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([analyses, took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, os.getloadavg()[0]]))


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    took: dict[tuple[int, str], float] = {}
    print(f"{'persons':>10} {'':16} {'analyses':>8} {'seconds':>8} {'of CPU':>8} {'MiB peak':>9} {'load':>5}")
    for persons in (most // 10, most):
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), persons)
            to_duckdb(Path(folder))
            for step in STEPS:
                command = [sys.executable, __file__, step, folder]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                analyses, seconds, cpu, peak, load = json.loads(said.splitlines()[-1])
                took[persons, step] = seconds
                row = f"{analyses:8} {seconds:8.1f} {cpu:8.1f} {peak:9.0f} {load:5.1f}"
                print(f"{persons:10,} {step:16} {row}", flush=True)
    for step in STEPS:
        ratio = took[most, "duckcdm, tables"] / took[most, step]
        print(f"{step:16} {ratio:5.1f} x as fast as duckcdm; ", end="")
        print(f"ten times the persons take {took[most, step] / took[most // 10, step]:.1f} x the time")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in STEPS:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
