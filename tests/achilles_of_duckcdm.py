"""What Achilles itself counts: writes achilles_gibleed.json, which test_omop_characterize.py holds the kit's counts to.

    python -m venv other && other/bin/pip install duckcdm==0.4.7 duckdb==2.0.0
    python tests/achilles_of_duckcdm.py tables gibleed.duckdb
    other/bin/python tests/achilles_of_duckcdm.py count gibleed.duckdb > tests/achilles_gibleed.json

duckcdm runs Achilles' own SQL on DuckDB. It wants an environment of its own, as it brings its own web server.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

TABLES = ("achilles_results", "achilles_results_dist")


def tables(path: str) -> None:
    """Write the sample as a DuckDB file, in the CDM's types."""
    from genokit import Cdm

    cdm = Cdm()
    con = cdm.database.con
    con.execute(f"attach '{path}' as copied; create schema copied.cdm")
    for name in cdm.tables():
        con.execute(f'create table copied.cdm."{name}" as select * from cdm."{name}"')


def count(path: str) -> None:
    import duckdb
    from duckcdm import achilles

    con = duckdb.connect(path)
    wanted = achilles.available()
    wanted += [10, 12, 112, 213, 500, *range(1300, 1305), 1306, 1320, 2100, 2102, 2104, 2106, 2120, 2191]
    failed = achilles.run_achilles(
        con, "cdm", "results", small_cell_count=None, log=None, cdm_version="5.4", analysis_ids=wanted
    )[1]
    assert not failed, failed
    rows = [row for table in TABLES for row in con.execute(f"select * from results.{table}").fetchall()]
    found = digests(row for row in rows if row[0])  # 0 says who ran it, and when
    lines = (f'"{one}": {json.dumps(found[one])}' for one in sorted(found, key=int))
    print("{\n" + ",\n".join(lines) + "\n}")


def digests(rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """For each analysis how many rows it has, and a hash of all their cells, in any order; numbers to nine digits."""
    lines: dict[str, list[str]] = {}
    for analysis_id, *cells in rows:
        # Achilles' deciles are written as 3.0 by DuckDB.
        strata = ["" if cell is None else str(cell).removesuffix(".0") for cell in cells[:5]]
        numbers = ["" if cell is None else f"{float(cell):.9g}" for cell in cells[5:]]
        lines.setdefault(str(analysis_id), []).append("|".join(strata + numbers))
    return {
        analysis_id: [len(found), hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]]
        for analysis_id, found in lines.items()
    }


if __name__ == "__main__":
    {"tables": tables, "count": count}[sys.argv[1]](sys.argv[2])
