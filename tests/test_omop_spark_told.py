"""Spark without a Spark: what is told to it, and what is missing."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from genokit.errors import MissingDependency, TransformFailed
from genokit.omop.etl.engines import spark_job
from genokit.omop.etl.engines.spark import Spark
from genokit.omop.etl.engines.spark_plan import plan_of
from genokit.omop.etl.plan import TableStep
from genokit.omop.etl.result_store import MadeTable, ResultStore

PERSON = TableStep("cdm.person", "a" * 64, "SELECT 1 AS person_id FROM mimic3.patients", ("mimic3.patients",))
DEATH = TableStep("cdm.death", "b" * 64, "SELECT person_id FROM cdm.person", ("cdm.person", "mimic3.patients"))
INPUTS = {table: MadeTable(table, "c" * 64, f"s3://ours/omop/{table}-0", 1, 0.1)
          for table in ("mimic3.patients", "mimic3.labevents")}  # fmt: skip


def test_the_job_keeps_to_the_python_and_the_packages_of_where_it_runs():
    text = Path(spark_job.__file__).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "typing", "pyspark.sql"}


def test_a_plan_names_what_is_read_and_what_is_made():
    told = json.loads(plan_of([PERSON, DEATH], INPUTS, ResultStore(Path("work"))))
    assert told["inputs"] == {"mimic3.patients": ["s3://ours/omop/mimic3.patients-0/"]}
    assert [(step["table"], step["path"]) for step in told["steps"]] == [
        ("cdm.person", "work/cdm.person-aaaaaaaaaaaaaaaa"),
        ("cdm.death", "work/cdm.death-bbbbbbbbbbbbbbbb"),
    ]


def test_a_machine_without_spark_or_java_is_told_what_to_install(tmp_path, monkeypatch):
    work = ResultStore(tmp_path / "work")
    for name in ("SPARK_HOME", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="pip install 'genokit"):
        Spark().build([PERSON], INPUTS, work, str)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"There is no Spark in '.*set SPARK_HOME"):
        Spark().build([PERSON], INPUTS, work, str)
    library = tmp_path / "python" / "lib"
    library.mkdir(parents=True)
    (library / "py4j-0-src.zip").touch()
    with pytest.raises(MissingDependency, match="needs Java 17"):
        Spark().build([PERSON], INPUTS, work, str)


def test_a_spark_that_does_not_start_is_quoted(tmp_path, monkeypatch):
    """Here one whose pyspark is empty."""
    library = tmp_path / "python" / "lib"
    library.mkdir(parents=True)
    (library / "py4j-0-src.zip").touch()
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    with pytest.raises(TransformFailed, match=r"its process ended with 1: .*pyspark"):
        Spark().build([PERSON], INPUTS, ResultStore(tmp_path / "work"), str)
