"""How fast synthetic MIMIC-III is made and read, and in how much memory.

    python tests/benchmarks/bench_omop.py [millions of chart events]

Each step in a process of its own, so that its peak memory is its own. "A second of CPU" says what a machine with
nothing else to do gets from each core.
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

import duckdb

from genokit.omop import Source, synthetic

PER_STAY = 5000


def generate(folder: Path, events: int) -> int:
    """Write chart events, and hardly anything else, as Parquet."""
    persons = max(1, round(events / PER_STAY / 1.32))  # stays a person
    source = synthetic(folder / "parquet", persons, density=0.001, chartevents_per_stay=PER_STAY, progress=False)
    return int(json.loads((Path(source.place) / "synthetic.json").read_text())["rows"]["chartevents"])


def to_csv(folder: Path, events: int) -> int:
    """The same rows as one CSV file; not measured, but what is read next."""
    (folder / "csv").mkdir()
    for name in ("patients", "admissions"):
        (folder / "csv" / f"{name}.parquet").write_bytes((folder / "parquet" / f"{name}.parquet").read_bytes())
    query = f"copy (from read_parquet('{folder}/parquet/chartevents/*.parquet')) to '{folder}/csv/CHARTEVENTS.csv'"
    with duckdb.connect() as con:
        return int(con.execute(f"{query} (format csv, header)").fetchall()[0][0])


def read(folder: Path, events: int) -> int:
    """Load the CSV by name and type, staged as Parquet, with 500 MB to do it in."""
    with duckdb.connect(config={"memory_limit": "500MB", "temp_directory": str(folder / "spill")}) as con:
        return Source(folder / "csv").load(con, staging=folder / "staged", progress=False).rows["chartevents"]


STEPS = {"generate": generate, "to_csv": to_csv, "read": read}


def measured(step: str, folder: Path, events: int) -> None:
    begun = time.perf_counter()
    rows = STEPS[step](folder, events)
    took, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(
        f"{step:10} {rows / 1e6:6.1f} M rows {took:7.1f} s {rows / took / 1e6:6.2f} M rows/s "
        f"{rows / cpu / 1e6:6.2f} M rows a second of CPU {used.ru_maxrss / 1024:7.0f} MiB peak",
        flush=True,
    )


def main(millions: float) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, DuckDB {duckdb.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            subprocess.run([sys.executable, __file__, step, folder, str(int(millions * 1e6))], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in STEPS:
        measured(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 5)
