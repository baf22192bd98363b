"""What Spark is given, here and on EMR Serverless: the plan that ``spark_job`` carries out, and its failure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from genokit.errors import TransformFailed
from genokit.omop.etl.plan import TableStep
from genokit.omop.etl.result_store import MadeTable, ResultStore


def plan_of(steps: Sequence[TableStep], inputs: Mapping[str, MadeTable], work: ResultStore) -> str:
    """The plan as JSON: the Parquet files of the tables that are needed, and the steps to make."""
    needed = {table for step in steps for table in step.reads} - {step.table for step in steps}
    made = [
        {"table": one.table, "key": one.key, "path": work.folder(one.table, one.key), "sql": one.sql} for one in steps
    ]
    return json.dumps({"inputs": {table: inputs[table].parquet for table in sorted(needed)}, "steps": made})


def failure(table: str, reason: str, hint: str) -> TransformFailed:
    """The error of a job that failed, without any value of a row."""
    what = f"Spark could not make the table '{table}'" if table else "Spark could not continue"
    return TransformFailed(f"{what}: {reason.rstrip('.')}. {hint}", table=table)
