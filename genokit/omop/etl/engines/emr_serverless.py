"""Spark on AWS: the stack's EMR Serverless application runs the job, and the notebook follows it.

The job writes its results itself, so it continues when the notebook's kernel dies. The next run of the same ETL finds
it by its name, waits for its end, and submits a job for what is still missing.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import backends, storage
from genokit.omop.etl.engines import spark_job
from genokit.omop.etl.engines.spark_plan import Waiting, failure, plan_of
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

    @property
    def client(self) -> Any:
        return self.clients.client("emr-serverless")

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of this ETL that the service still lists, with their ids and states."""
        pages = self.client.get_paginator("list_job_runs").paginate(applicationId=self.id)
        return [job for page in pages for job in page["jobRuns"] if job.get("name") == self.name]

    def submit(self, plan: str, settings: Mapping[str, str]) -> str:
        """Start a job, unless the same one was started: after the same ended jobs, a plan is submitted once."""
        token = digest(plan, sorted(one["id"] for one in self.jobs() if one["state"] in ENDED))
        program = Path(spark_job.__file__).read_text(encoding="utf-8")
        entry, file = (f"{self.root}/_jobs/{name}" for name in (f"{digest(program)[:16]}.py", f"{token[:16]}.json"))
        storage.write(entry, program, clients=self.clients)
        storage.write(file, plan, clients=self.clients)
        options = {"spark.sql.catalogImplementation": "in-memory", **settings}
        started = self.client.start_job_run(
            applicationId=self.id,
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

    def follow(self, job: str, waiting: Waiting) -> dict[str, Any]:
        """Poll a job until it has ended; an interrupt cancels the job."""
        try:
            while True:
                run: dict[str, Any] = self.client.get_job_run(applicationId=self.id, jobRunId=job)["jobRun"]
                waiting.look()
                if run["state"] in ENDED:
                    return run
                time.sleep(self.clients.backend.poll_s)
        except KeyboardInterrupt:
            self.client.cancel_job_run(applicationId=self.id, jobRunId=job)
            raise


def run(
    clients: Clients | None,
    steps: Sequence[TableStep],
    inputs: Mapping[str, MadeTable],
    work: ResultStore,
    progress: Callable[[str], object],
    *,
    settings: Mapping[str, str],
) -> None:
    """Make each step on the stack's application, and show each as it begins.

    Raises TransformFailed, ConfigError, and AWS's refusals.
    """
    clients = clients or backends.clients()
    application = Application(clients, clients.output("EmrApplication", STACK), str(work.root))
    waiting = Waiting(list(steps), work, progress)
    with backends.translated_errors(f"EMR Serverless application '{application.id}'"):
        for job in application.jobs():
            if job["state"] not in ENDED:  # of a kernel that has ended, or of another user
                application.follow(job["id"], waiting)
        waiting.look()
        if not waiting.steps:
            return
        plan = plan_of(waiting.steps, {**inputs, **waiting.made}, work)
        ended = application.follow(application.submit(plan, settings), waiting)
    if waiting.steps:
        job, [file] = ended["jobRunId"], ended["jobDriver"]["sparkSubmit"]["entryPointArguments"]
        reason = f"the job ended as {ended['state']}: {ended['stateDetails']}"
        logs = f"{application.root}/_logs/applications/{application.id}/jobs/{job}/"
        raise failure(file, reason, f"Job {job}; logs: {logs}.", clients)
