"""What Spark is given, here and on EMR Serverless: a plan that ``spark_job`` carries out; and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from genokit import storage
from genokit.backends import Clients
from genokit.errors import NotFound, TransformFailed
from genokit.omop.etl.plan import TableStep
from genokit.omop.etl.result_store import MadeTable, ResultStore


def plan_of(steps: Sequence[TableStep], inputs: Mapping[str, MadeTable], work: ResultStore) -> str:
    """The plan as JSON: the Parquet files of the tables that are needed, and the steps to make."""
    needed = {table for step in steps for table in step.reads} - {step.table for step in steps}
    made = [
        {"table": one.table, "key": one.key, "path": work.folder(one.table, one.key), "sql": one.sql} for one in steps
    ]
    return json.dumps({"inputs": {table: inputs[table].parquet for table in sorted(needed)}, "steps": made})


@dataclass
class Waiting:
    """The steps that are not finished, in order; the first is under way."""

    steps: list[TableStep]
    work: ResultStore
    progress: Callable[[str], object]
    made: dict[str, MadeTable] = field(default_factory=dict)
    shown: str = ""

    def look(self) -> None:
        """Look what was finished since, and show what has begun."""
        while self.steps and (found := self.work.find(self.steps[0].table, self.steps[0].key)):
            self.made[self.steps.pop(0).table] = found
        if self.steps and self.shown != self.steps[0].table:
            self.shown = self.steps[0].table
            self.progress(self.shown)


def failure(plan: str, otherwise: str, hint: str, clients: Clients | None = None) -> TransformFailed:
    """Make the error for a failed job, without patient values. ``otherwise`` is used if the job left no reason."""
    try:
        left = json.loads(storage.read(f"{plan}.failed", clients=clients))
    except NotFound:
        left = {"table": "", "error": otherwise}
    what = f"Spark could not make the table '{left['table']}'" if left["table"] else "Spark could not continue"
    return TransformFailed(
        f"{what}: {left['error'].rstrip('.')}. Finished tables are kept. {hint}", table=left["table"]
    )
