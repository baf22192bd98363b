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
import pandas as pd
import psutil
import pytest
from athena import download

from genokit.errors import TransformFailed
from genokit.omop import synthetic, vocabulary
from genokit.omop.etl import inputs
from genokit.omop.etl.engines.duck import DuckDB
from genokit.omop.etl.engines.spark import Spark
from genokit.omop.etl.etl import etl
from genokit.omop.etl.plan import TableStep, plan
from genokit.omop.etl.report import Report
from genokit.omop.etl.result_store import MadeTable, ResultStore

pytestmark = pytest.mark.spark

# The first of Java's compilers alone: every statement runs once, and none is worth compiling well.
JAVA = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
QUICK = {"spark.driver.extraJavaOptions": JAVA, "spark.sql.shuffle.partitions": "2"}


@pytest.fixture(autouse=True, scope="module")
def home():
    homes = sorted(Path(".venv-spark").absolute().glob("lib/python3*/site-packages/pyspark"))
    with pytest.MonkeyPatch.context() as env:
        if homes and "SPARK_HOME" not in os.environ:
            env.setenv("SPARK_HOME", str(homes[-1]))
        yield


def spark(**settings):
    return Spark("local[2]", memory_gib=1, settings=QUICK | settings)


@dataclass(frozen=True)
class Both:
    """The same source carried over by DuckDB and by Spark: pairs of steps, and where the results of each lie."""

    steps: list[tuple[TableStep, TableStep]]
    works: tuple[ResultStore, ResultStore]
    reports: tuple[Report, Report]
    inputs: dict[str, MadeTable]

    def relations(
        self, steps: tuple[TableStep, TableStep], works: tuple[ResultStore, ResultStore] | None = None
    ) -> tuple[str, str]:
        found = [work.folder(step.table, step.key) for step, work in zip(steps, works or self.works, strict=True)]
        return f"read_parquet('{found[0]}/*.parquet')", f"read_parquet('{found[1]}/*.parquet')"


@pytest.fixture(scope="module")
def both(home, tmp_path_factory):
    """Synthetic persons and a vocabulary's download, through the whole ETL on both engines."""
    folder, engines = tmp_path_factory.mktemp("both"), (DuckDB(memory_gib=1, threads=2), spark())
    source, known = synthetic(folder / "mimic3", 60, density=0.03, progress=False), vocabulary(download(folder))
    targets = [folder / engine.dialect for engine in engines]
    pairs = zip(targets, engines, strict=True)
    reports = [etl(source, target, engine, known=known, progress=False) for target, engine in pairs]
    works = [ResultStore(target / ".work") for target in targets]
    keys = inputs.keys(source, known, works[1])
    plans = [plan(engine.name, engine.dialect, keys) for engine in engines]
    files = {table: works[1].find(table, key) for table, key in keys.items()}
    return Both(list(zip(*plans, strict=True)), tuple(works), tuple(reports), files)


def differing(pair: tuple[str, str]) -> list[tuple]:
    """Rows of one relation that the other lacks, from both sides; a few of them."""
    return [
        row
        for here, there in (pair, reversed(pair))
        for row in duckdb.sql(f"FROM {here} EXCEPT ALL FROM {there} LIMIT 3").fetchall()
    ]


def test_every_table_and_report_has_the_same_rows(both):
    assert len(both.steps) > 80
    assert {one.table: found for one, other in both.steps if (found := differing(both.relations((one, other))))} == {}


def test_every_table_and_report_has_the_same_types(both):
    def types(relation):
        return [row[:2] for row in duckdb.sql(f"DESCRIBE FROM {relation}").fetchall()]

    found = {one.table: [types(relation) for relation in both.relations((one, other))] for one, other in both.steps}
    assert {table: pair for table, pair in found.items() if pair[0] != pair[1]} == {}


def test_the_reports_say_the_same(both):
    ours, theirs = both.reports
    columns = ["table", "rows", "rejected"]
    pd.testing.assert_frame_equal(ours.tables[columns], theirs.tables[columns])
    pd.testing.assert_frame_equal(ours.mapped, theirs.mapped)
    pd.testing.assert_frame_equal(ours.quality.table, theirs.quality.table)


def test_nothing_lies_about_but_rows_and_what_is_known_of_them(both):
    places = [Path(both.works[1].folder(step.table, step.key)) for _, step in both.steps]
    names = {file.name for place in places for file in place.iterdir()}
    assert [name for name in names if not name.endswith(".parquet")] == ["_about.json"]


SOME = ["cdm.person", "stage.item", "stage.stay", "cdm.care_site", "cdm.visit_occurrence", "cdm.visit_detail"]
KILLED = """
import pickle, sys
steps, inputs, work, engine = pickle.load(sys.stdin.buffer)
engine.build(steps, inputs, work, lambda table: print(table, flush=True))
"""


def test_a_kernel_that_is_killed_takes_spark_along_and_the_next_goes_on(both, tmp_path):
    work, some = ResultStore(tmp_path), [step for _, step in both.steps if step.table in SOME]
    with subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernel:
        pickle.dump((some, both.inputs, work, spark()), kernel.stdin)
        kernel.stdin.close()
        assert [kernel.stdout.readline().strip().decode() for _ in range(3)] == SOME[:3]
        descended = psutil.Process(kernel.pid).children(recursive=True)
        os.kill(kernel.pid, signal.SIGKILL)
    assert psutil.wait_procs(descended, timeout=30)[1] == []
    lacking = [step for step in some if not work.find(step.table, step.key)]
    assert [step.table for step in lacking][-1] == SOME[-1]
    assert len(lacking) < len(some)
    there = both.inputs | {step.table: work.find(step.table, step.key) for step in some if step not in lacking}
    spark().build(lacking, there, work, str)
    again = [pair for pair in both.steps if pair[0].table in SOME]
    assert [one.table for one, other in again if differing(both.relations((one, other), (both.works[0], work)))] == []


def test_a_failure_names_the_table_and_the_kind_and_no_value_of_a_row(tmp_path, capfd):
    files = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    for file in files:
        duckdb.sql(f"COPY (SELECT 'Jane Roe' AS name) TO '{file}' (FORMAT parquet)")
    patients = MadeTable("mimic3.patients", "p" * 64, str(tmp_path), 2, 0.1, files=files)
    (tmp_path / "half-written.parquet").write_bytes(b"PAR1")  # is in the folder, and no file of the table
    bad = TableStep(
        "cdm.person", "k" * 64, "SELECT CAST(name AS BIGINT) AS id FROM mimic3.patients", ("mimic3.patients",)
    )
    good = TableStep("stage.name", "n" * 64, "SELECT name FROM mimic3.patients", ("mimic3.patients",))
    work = ResultStore(tmp_path / "work")
    with pytest.raises(TransformFailed, match=r"could not make the table 'cdm.person': .*CAST_INVALID_INPUT") as failed:
        spark().build([good, bad], {"mimic3.patients": patients}, work, str)
    assert failed.value.table == "cdm.person"
    assert "Jane" not in str(failed.value) + json.dumps(capfd.readouterr())
    assert work.find(good.table, good.key).rows == 2
    assert work.find(bad.table, bad.key) is None
