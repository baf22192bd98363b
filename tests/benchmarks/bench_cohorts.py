"""How fast cohorts are made and studied, and in how much memory: 20 events a person, as Parquet, on two cores.

    python tests/benchmarks/bench_cohorts.py [persons ...]

A process for each size, so that its peak of memory is its own; with several sizes, how the time grows from one to the
next, where 1 is linear. The peer is one SQL statement a study of the same tables, written by hand.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from genokit import Cdm

CONDITION, DRUG, OTHER_DRUG = 1_000_000, 1_000_000, 1_000_001
ENTRY = (
    "select e.person_id, min({day}) as day from {table} as e join observation_period as o on o.person_id = e.person_id"
    " and {day} between observation_period_start_date and observation_period_end_date where {concept} = 1000000"
    " group by 1"
)
USERS = ENTRY.format(table="drug_exposure", day="drug_exposure_start_date", concept="drug_concept_id")
CASES = ENTRY.format(table="condition_occurrence", day="condition_start_date", concept="condition_concept_id")
BY_HAND = {
    "a cohort": f"select count(*), count(day) from ({USERS})",
    "incidence": f"""
        with part as (select unnest(generate_series(date '2010-01-01', date '2021-01-01', interval 1 year)) as day),
        band as (from (values (0, 17), (18, 39), (40, 64), (65, 150)) as t(low, high)),
        cell as (
            select p.person_id, gender_concept_id as sex, part.day as part, low, c.day as event,
                greatest(observation_period_start_date, part.day, make_date(year_of_birth + low, 1, 1)) as begun,
                least(observation_period_end_date, part.day + interval 1 year - interval 1 day, c.day,
                    make_date(year_of_birth + high + 1, 1, 1) - 1) as ended
            from person as p join observation_period using (person_id) left join ({CASES}) as c using (person_id)
            cross join part cross join band
        )
        select part, low, sex, count(distinct person_id), sum(date_diff('day', begun, ended) + 1),
            count(*) filter (event = ended)
        from cell where begun <= ended group by cube (part, low, sex)""",
    "table one": f"""
        with u as ({USERS})
        select condition_concept_id, count(distinct c.person_id) from u join condition_occurrence as c
            on c.person_id = u.person_id and u.day - condition_start_date between 1 and 365
        group by 1 order by 2 desc limit 10""",
}


def studies(cdm: Cdm) -> dict[str, Callable[[], object]]:
    """What is measured, in order; each gives what it made."""
    made = {
        "everyone": cdm.cohort(name="everyone"),
        "users": cdm.cohort(drug=DRUG, first_only=True, name="users"),
        "others": cdm.cohort(drug=OTHER_DRUG, first_only=True, name="others"),
        "cases": cdm.cohort(condition=CONDITION, first_only=True, name="cases"),
    }
    everyone, users, others, cases = made.values()
    drugs = [cdm.cohort(drug=DRUG + i, end=60, name=f"drug {i}") for i in range(20)]
    return {
        "a cohort": lambda: cdm.cohort(drug=DRUG, first_only=True, prior_observation_days=30),
        "everyone": lambda: cdm.cohort(),
        "users & cases": lambda: users & cases,
        "everyone - users": lambda: everyone - users,
        "users | cases": lambda: users | cases,
        "cases within users": lambda: cases.within((0, 365), of=users),
        "incidence": lambda: cases.incidence(),
        "incidence by month": lambda: cases.incidence(every="month"),
        "  of users": lambda: cases.incidence(of=users, washout_days=30),
        "prevalence": lambda: cases.prevalence(),
        "  on first of month": lambda: cases.prevalence(every="month", point=True),
        "time to, by age": lambda: users.time_to(cases, by="age_group"),
        "pathways, 20 drugs": lambda: everyone.pathways(*drugs),
        "table one": lambda: users.table_one(others),
        "  of everyone": lambda: everyone.table_one(),
    }


def measure(folder: Path) -> None:
    """Print a line a study: its name, seconds, and the peak of memory so far."""
    cdm = Cdm(folder)
    con = cdm.database.con
    con.execute("set threads = 2")
    work = studies(cdm) | {f"by hand: {name}": partial(_fetched, con, sql) for name, sql in BY_HAND.items()}
    for name, study in work.items():
        begun = time.perf_counter()
        study()
        took = time.perf_counter() - begun
        print(name, took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, sep="\t", flush=True)


def _fetched(con: DuckDBPyConnection, sql: str) -> object:
    return con.execute(sql).fetchall()


def main(sizes: list[int]) -> None:
    from bench_characterize import generate  # beside this file, which only a script finds

    before: dict[str, float] = {}
    last = 1
    for persons in sizes:
        print(f"{persons:,} persons, {persons * 20:,} events")
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), persons)
            run = subprocess.run([sys.executable, __file__, folder], check=True, stdout=subprocess.PIPE, text=True)
        now: dict[str, float] = {}
        for name, took, peak in (line.split("\t") for line in run.stdout.splitlines()):
            now[name] = float(took)
            grown = f" grows {now[name] / before[name] / (persons / last):4.1f}" if name in before else ""
            print(f"{name:22} {now[name]:7.2f} s, at most {float(peak):5.0f} MiB so far{grown}")
        before, last = now, persons
    print(f"load {os.getloadavg()[0]:.1f}; grows 1.0 is linear")


if __name__ == "__main__":
    if sys.argv[1:2] and Path(sys.argv[1]).is_dir():
        measure(Path(sys.argv[1]))
    else:
        main([int(one) for one in sys.argv[1:]] or [100_000, 1_000_000])
