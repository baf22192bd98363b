"""What DuckDB makes, a real Spark makes too: every statement, the same rows of the same types. `make test-spark` gives
Spark an environment of its own; SPARK_HOME names another Spark."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil
import pytest
from athena import download

from genokit.errors import TransformFailed
from genokit.omop import synthetic, transform, vocabulary
from genokit.omop.plan import Step, plan
from genokit.omop.spark import Spark
from genokit.omop.work import Folder

pytestmark = pytest.mark.spark

# The first of Java's compilers alone: every statement runs once, and none is worth compiling well.
JAVA = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
QUICK = {"spark.driver.extraJavaOptions": JAVA, "spark.sql.shuffle.partitions": "2"}


def spark(**settings):
    homes = sorted(Path(".venv-spark").absolute().glob("lib/python3*/site-packages/pyspark"))
    home = os.environ.get("SPARK_HOME") or (homes[-1] if homes else None)
    return Spark("local[2]", memory_gib=1, settings=QUICK | settings, home=home)


@dataclass(frozen=True)
class Both:
    con: duckdb.DuckDBPyConnection
    work: Folder
    steps: tuple[Step, ...]
    inputs: dict[str, list[str]]
    begun: list[str]

    def made(self, step: Step) -> str:
        return f"read_parquet('{self.work.path(step.table, step.key)}/*.parquet')"

    def differences(self, step: Step) -> list[tuple]:
        """Rows of one that the other lacks, from both sides; a few of them."""
        sides = ((step.table, self.made(step)), (self.made(step), step.table))
        return [
            row
            for here, there in sides
            for row in self.con.execute(f"FROM {here} EXCEPT ALL FROM {there} LIMIT 3").fetchall()
        ]


def write(con, table: str, folder: Path) -> list[str]:
    """A table as Parquet: most in one file, some in several, some beside a file that is none of them."""
    folder.mkdir()
    if table not in ("mimic3.labevents", "mimic3.chartevents"):
        con.execute(f"COPY {table} TO '{folder}/rows.parquet' (FORMAT parquet)")
        return [f"{folder}/rows.parquet"]
    for part in (0, 1):
        con.execute(f"COPY (FROM {table} WHERE row_id % 2 = {part}) TO '{folder}/part-{part}.parquet' (FORMAT parquet)")
    if table == "mimic3.chartevents":
        (folder / "half-written.parquet").write_bytes(b"PAR1")
    return [f"{folder}/part-{part}.parquet" for part in (0, 1)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Synthetic persons with a vocabulary download, made a CDM by DuckDB in a connection and by Spark in a folder."""
    folder = tmp_path_factory.mktemp("both")
    con = duckdb.connect(config={"threads": 2})
    synthetic(folder / "mimic3", 60, density=0.03, progress=False).load(con, progress=False)
    vocabulary(download(folder)).load(con)
    inputs = {table: write(con, table, folder / table) for table in transform.sources()}
    con.execute("CREATE SCHEMA stage; CREATE SCHEMA cdm; CREATE SCHEMA report")
    for step in plan("duckdb", "duckdb", dict.fromkeys(inputs, "content")):
        con.execute(f"CREATE TABLE {step.table} AS {step.sql}")
    steps, work, begun = plan("spark", "spark", dict.fromkeys(inputs, "content")), Folder(folder / "work"), list[str]()
    spark().build(steps, inputs, work, begun.append)
    return Both(con, work, steps, inputs, begun)


def test_every_table_and_report_has_the_same_rows(both):
    assert len(both.steps) > 45
    assert {step.table: found for step in both.steps if (found := both.differences(step))} == {}


def test_every_table_and_report_has_the_same_types(both):
    def types(relation):
        return [row[:2] for row in both.con.execute(f"DESCRIBE FROM {relation}").fetchall()]

    made = {step.table: (types(step.table), types(both.made(step))) for step in both.steps}
    assert {table: pair for table, pair in made.items() if pair[0] != pair[1]} == {}


def test_each_table_is_told_of_and_says_how_many_rows_it_has(both):
    assert both.begun == [step.table for step in both.steps]
    counted = {step.table: both.con.execute(f"SELECT COUNT(*) FROM {step.table}").fetchone()[0] for step in both.steps}
    assert {step.table: both.work.done(step.table, step.key)["rows"] for step in both.steps} == counted
    assert counted["cdm.measurement"] > 1000


def test_nothing_lies_about_but_rows_and_what_is_known_of_them(both):
    names = {file.name for file in both.work.root.rglob("*") if file.is_file()}
    assert [name for name in names if not name.endswith(".parquet")] == ["_about.json"]


SOME = ["cdm.person", "stage.item", "stage.stay", "cdm.care_site", "cdm.visit_occurrence", "cdm.visit_detail"]
KILLED = """
import pickle, sys
steps, inputs, work, engine = pickle.load(sys.stdin.buffer)
engine.build(steps, inputs, work, lambda table: print(table, flush=True))
"""


def test_a_kernel_that_is_killed_takes_spark_along_and_the_next_goes_on(both, tmp_path):
    work, some = Folder(tmp_path), [step for step in both.steps if step.table in SOME]
    with subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernel:
        pickle.dump((some, both.inputs, work, spark()), kernel.stdin)
        kernel.stdin.close()
        assert [kernel.stdout.readline().strip().decode() for _ in range(3)] == SOME[:3]
        descended = psutil.Process(kernel.pid).children(recursive=True)
        os.kill(kernel.pid, signal.SIGKILL)
    assert psutil.wait_procs(descended, timeout=30)[1] == []
    lacking = [step for step in some if not work.done(step.table, step.key)]
    assert [step.table for step in lacking][-1] == SOME[-1]
    assert len(lacking) < len(some)
    there = both.inputs | {step.table: [work.path(step.table, step.key)] for step in some if step not in lacking}
    spark().build(lacking, there, work, str)
    done = Both(both.con, work, both.steps, there, [])
    assert [step.table for step in some if done.differences(step)] == []


def test_a_failure_names_the_table_and_the_kind_and_no_value_of_a_row(tmp_path, capfd):
    rows = tmp_path / "patients.parquet"
    duckdb.sql(f"COPY (SELECT 'Jane Roe' AS name) TO '{rows}' (FORMAT parquet)")
    bad = Step("cdm.person", "k" * 64, "SELECT CAST(name AS BIGINT) AS id FROM mimic3.patients", ("mimic3.patients",))
    good = Step("stage.name", "n" * 64, "SELECT name FROM mimic3.patients", ("mimic3.patients",))
    work = Folder(tmp_path / "work")
    with pytest.raises(TransformFailed, match=r"could not make the table 'cdm.person': .*CAST_INVALID_INPUT") as failed:
        spark().build([good, bad], {"mimic3.patients": [str(rows)]}, work, str)
    assert failed.value.table == "cdm.person"
    assert "Jane" not in str(failed.value) + json.dumps(capfd.readouterr())
    assert work.done(good.table, good.key)["rows"] == 1
    assert work.done(bad.table, bad.key) is None
