"""What Cdm.query costs over bare DuckDB: on the sample, where all but the overhead is nothing.

    python tests/benchmarks/bench_cdm.py

Exits with 1 where the overhead is 5 ms or more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from genokit import Cdm

MOST_MS = 5.0
QUERIES = {
    "a few rows": ("select person_id from person where year_of_birth > $year", {"year": 1980}),
    "a list": ("select person_id from person where year_of_birth in $years", {"years": [1980, 1981]}),
    "a group": ("select condition_concept_id, count(*) as n from condition_occurrence group by 1", {}),
}


def best_ms(work: Callable[[], object], tries: int = 50) -> float:
    times = []
    for _ in range(tries):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times) * 1000


def main() -> int:
    cdm = Cdm()
    con = cdm.database.con
    worst = 0.0
    print(f"{'query':12} {'DuckDB':>9} {'Cdm':>9} {'more':>9}")
    for name, (sql, values) in QUERIES.items():
        bare = best_ms(lambda sql=sql, values=values: con.sql(sql, params=values or None).df())
        ours = best_ms(lambda sql=sql, values=values: cdm.query(sql, **values))
        worst = max(worst, ours - bare)
        print(f"{name:12} {bare:6.2f} ms {ours:6.2f} ms {ours - bare:6.2f} ms")
    return int(worst >= MOST_MS)


if __name__ == "__main__":
    sys.exit(main())
