"""Spark on AWS: the stack's EMR Serverless application runs the job, and the notebook follows it.

The job writes its results itself, so it continues when the notebook's kernel dies. The next run of the same ETL finds
it by its name, waits for its end, and submits a job for what is still missing.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import backends, storage
from genokit.errors import NotFound, TransformFailed
from genokit.omop.etl.engines import spark_job
from genokit.omop.etl.engines.spark_plan import failure, plan_of
from genokit.omop.etl.plan import TableStep, digest
from genokit.omop.etl.result_store import STACK, MadeTable, ResultStore

if TYPE_CHECKING:
    from genokit.backends import Clients

ENDED = ("SUCCESS", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Application:
    """The stack's EMR Serverless application, and the folder on S3 in which a run of the ETL works."""

    clients: Clients
    id: str
    root: str  # s3://bucket/prefix

    @property
    def name(self) -> str:
        """The name of every job of the same ETL."""
        return f"genokit-omop-{digest(self.root)[:16]}"

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        with backends.translated_errors(f"EMR Serverless application '{self.id}'"):
            answer: dict[str, Any] = getattr(self.clients.client("emr-serverless"), operation)(
                applicationId=self.id, **request
            )
        return answer

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of this ETL that the service still lists, with their ids and states."""
        client = self.clients.client("emr-serverless")
        with backends.translated_errors(f"EMR Serverless application '{self.id}'"):
            pages = list(client.get_paginator("list_job_runs").paginate(applicationId=self.id))
        return [job for page in pages for job in page["jobRuns"] if job.get("name") == self.name]

    def submit(self, plan: str, settings: Mapping[str, str]) -> str:
        """Start a job, unless the same one was started: after the same ended jobs, a plan is submitted once."""
        token = digest(plan, sorted(one["id"] for one in self.jobs() if one["state"] in ENDED))
        program = Path(spark_job.__file__).read_text(encoding="utf-8")
        entry, file = (f"{self.root}/_jobs/{name}" for name in (f"{digest(program)[:16]}.py", f"{token[:16]}.json"))
        storage.write(entry, program, clients=self.clients)
        storage.write(file, plan, clients=self.clients)
        options = {"spark.sql.catalogImplementation": "in-memory", **settings}
        started = self.call(
            "start_job_run",
            clientToken=token,
            name=self.name,
            executionRoleArn=self.clients.output("EmrRole", STACK),
            jobDriver={
                "sparkSubmit": {
                    "entryPoint": entry,
                    "entryPointArguments": [file],
                    "sparkSubmitParameters": " ".join(
                        f"--conf {shlex.quote(f'{name}={value}')}" for name, value in options.items()
                    ),
                }
            },
            configurationOverrides={
                "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": f"{self.root}/_logs/"}}
            },
            tags={"genokit:project": project} if (project := self.clients.settings.project) else {},
        )
        return str(started["jobRunId"])

    def follow(self, job: str, waiting: Callable[[], object], poll_s: float) -> dict[str, Any]:
        """Poll a job until it has ended; an interrupt cancels the job."""
        try:
            while True:
                run: dict[str, Any] = self.call("get_job_run", jobRunId=job)["jobRun"]
                waiting()
                if run["state"] in ENDED:
                    return run
                time.sleep(poll_s)
        except KeyboardInterrupt:
            self.call("cancel_job_run", jobRunId=job)
            raise

    def failed(self, run: Mapping[str, Any]) -> TransformFailed:
        """Why a job failed: in the job's own words where it left some, else in the service's."""
        job = run["jobRunId"]
        hint = f"Job {job}; logs: {self.root}/_logs/applications/{self.id}/jobs/{job}/. Finished tables are kept."
        [plan] = run["jobDriver"]["sparkSubmit"]["entryPointArguments"]
        try:
            left = json.loads(storage.read(f"{plan}.failed", clients=self.clients))
        except NotFound:
            return failure("", f"the job ended as {run['state']}: {run['stateDetails']}", hint)
        return failure(left["table"], left["error"], hint)


def run(
    clients: Clients | None,
    steps: Sequence[TableStep],
    inputs: Mapping[str, MadeTable],
    work: ResultStore,
    progress: Callable[[str], object],
    *,
    settings: Mapping[str, str],
    poll_s: float | None = None,
) -> None:
    """Make each step on the stack's application, and show each as it begins.

    Raises TransformFailed, ConfigError, and AWS's refusals.
    """
    clients = clients or backends.clients()
    poll_s = poll_s or clients.backend.poll_s
    application = Application(clients, clients.output("EmrApplication", STACK), str(work.root))
    waiting, shown, made = list(steps), set[str](), dict(inputs)

    def look() -> None:
        while waiting and (found := work.find(waiting[0].table, waiting[0].key)):
            made[waiting.pop(0).table] = found
        if waiting and waiting[0].table not in shown:
            shown.add(waiting[0].table)
            progress(waiting[0].table)

    for job in application.jobs():
        if job["state"] not in ENDED:  # of a kernel that has ended, or of another user
            application.follow(job["id"], look, poll_s)
    look()
    if waiting:
        ended = application.follow(application.submit(plan_of(waiting, made, work), settings), look, poll_s)
        if waiting:
            raise application.failed(ended)
