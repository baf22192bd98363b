"""The same SQL over the same chart events on DuckDB and on Spark, side by side: rows a second, and memory at its peak.

    python tests/benchmarks/bench_omop_engines.py [millions of chart events ...]     (2 and 20)

Each engine is a process of its own, measured with all it starts. What counts is cdm.measurement, which every chart
event goes through; what it is made from is small here, and shown as "all". Without Java or Spark, DuckDB runs alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import psutil

from genokit.errors import MissingDependency
from genokit.omop import Source, Vocabulary, synthetic
from genokit.omop.etl import inputs
from genokit.omop.etl.engines.duck import DuckDB
from genokit.omop.etl.engines.spark import Spark, environment
from genokit.omop.etl.plan import TableStep, plan
from genokit.omop.etl.result_store import ResultStore

MEASURED = "cdm.measurement"
PER_STAY = 5000
FULL = 397.8  # million rows of MIMIC-III's 26 tables


def engine(name: str) -> DuckDB | Spark:
    homes = sorted(Path(".venv-spark").absolute().glob("lib/python3*/site-packages/pyspark"))
    if homes:
        os.environ.setdefault("SPARK_HOME", str(homes[-1]))
    return DuckDB(memory_gib=0.7, threads=2) if name == "DuckDB" else Spark("local[2]", memory_gib=2)


def prepare(folder: Path, millions: float) -> int:
    """Chart events, and hardly anything else, brought into the work as the ETL does it; not measured."""
    persons = max(1, round(millions * 1e6 / PER_STAY / 1.32))  # stays a person
    source = synthetic(folder / "mimic3", persons, density=0.001, chartevents_per_stay=PER_STAY, progress=False)
    work = ResultStore(folder / "inputs")
    with duckdb.connect(config={"memory_limit": "700MB", "temp_directory": str(folder / "spill")}) as con:
        con.execute("SET enable_progress_bar = false")
        inputs.stage(con, source, Vocabulary(), work, inputs.keys(source, Vocabulary(), work), str)
    return int(json.loads((folder / "mimic3" / "synthetic.json").read_text())["rows"]["chartevents"])


def needed(steps: tuple[TableStep, ...]) -> list[TableStep]:
    """What MEASURED is made from, and itself."""
    wanted = {MEASURED}
    for step in reversed(steps):
        if step.table in wanted:
            wanted |= set(step.reads)
    return [step for step in steps if step.table in wanted]


def build(folder: Path, name: str) -> None:
    one, there = engine(name), ResultStore(folder / "inputs")
    keys = inputs.keys(Source(folder / "mimic3"), Vocabulary(), there)
    steps = needed(plan(one.name, one.dialect, keys))
    one.build(steps, {table: there.find(table, key) for table, key in keys.items()}, ResultStore(folder / name), str)


def peak(process: psutil.Process, stop: threading.Event, found: list[int]) -> None:
    """The most memory that a process and all it started held at once, in bytes."""
    while not stop.wait(0.2):
        try:
            found[0] = max(found[0], sum(one.memory_info().rss for one in (process, *process.children(recursive=True))))
        except psutil.NoSuchProcess:  # between the list and the look
            continue


def measure(folder: Path, name: str, rows: int) -> dict[str, float]:
    held, stop = [0], threading.Event()
    begun = time.perf_counter()
    child = multiprocessing.get_context("spawn").Process(target=build, args=(folder, name))
    child.start()
    watch = threading.Thread(target=peak, args=(psutil.Process(child.pid), stop, held))
    watch.start()
    child.join()
    stop.set()
    watch.join()
    if child.exitcode:
        sys.exit(f"{name} ended with {child.exitcode}")
    [about] = (json.loads(file.read_text()) for file in (folder / name).glob(f"{MEASURED}-*/_about.json"))
    found = {
        "rows": about["rows"],
        "seconds": about["seconds"],
        "all": time.perf_counter() - begun,
        "MiB": held[0] / 2**20,
    }
    print(
        f"{rows / 1e6:6.1f} M  {name:7} {found['rows'] / 1e6:8.2f} M rows out {found['seconds']:8.1f} s "
        f"{rows / found['seconds'] / 1e6:7.2f} M rows/s {found['MiB']:8.0f} MiB peak {found['all']:8.1f} s all",
        flush=True,
    )
    return found


def compare(millions: float) -> float:
    """Seconds that DuckDB takes for a million chart events."""
    with tempfile.TemporaryDirectory() as folder:
        rows = prepare(Path(folder), millions)
        ours = measure(Path(folder), "DuckDB", rows)
        if has_spark():
            theirs = measure(Path(folder), "Spark", rows)
            assert ours["rows"] == theirs["rows"]
            print(
                f"{'':10}DuckDB is {theirs['seconds'] / ours['seconds']:.1f} x as fast, in "
                f"{ours['MiB'] / theirs['MiB']:.2f} of the memory",
                flush=True,
            )
        return ours["seconds"] / rows * 1e6


def has_spark() -> bool:
    try:
        engine("Spark")
        environment()
    except MissingDependency as error:
        print(f"{'':10}{error}")
        return False
    return True


def main(sizes: list[float]) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, DuckDB {duckdb.__version__}", flush=True)
    each = {size: compare(size) for size in sizes}
    small, large = min(sizes), max(sizes)
    print(f"a million rows at {large:g} M takes {each[large] / each[small]:.2f} x what it takes at {small:g} M")
    whole = each[large] * FULL / 60
    print(f"all {FULL} M rows of MIMIC-III, were they chart events: {whole:.0f} min, by what {large:g} M took; not run")


if __name__ == "__main__":
    main([float(size) for size in sys.argv[1:]] or [2, 20])
