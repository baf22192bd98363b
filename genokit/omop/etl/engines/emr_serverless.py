"""Spark on AWS: the stack's EMR Serverless application runs the job, and a notebook follows it.

The job writes its results by itself, so it goes on when the notebook's kernel dies. The next run of the same ETL finds
it by its name, waits for its end, and asks for nothing but what is still lacking.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import backends
from genokit.errors import InvalidRequest, TransformFailed
from genokit.omop.etl.engines import spark_job
from genokit.omop.etl.engines.spark import failure, plan_of
from genokit.omop.etl.plan import digest
from genokit.omop.etl.result_store import STACK
from genokit.storage import split

if TYPE_CHECKING:
    from genokit.backends import Clients
    from genokit.omop.etl.plan import Step
    from genokit.omop.etl.result_store import Bucket, Folder

ENDED = ("SUCCESS", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Application:
    """The stack's EMR Serverless application, and the bucket's folder that a run of the ETL works in."""

    clients: Clients
    id: str
    root: str  # s3://bucket/prefix

    @property
    def name(self) -> str:
        """What every job of the same ETL is called."""
        return f"genokit-omop-{digest(self.root)[:16]}"

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        with backends.translated_errors(f"EMR Serverless application '{self.id}'"):
            answer: dict[str, Any] = getattr(self.clients.client("emr-serverless"), operation)(
                applicationId=self.id, **request
            )
        return answer

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of this ETL that the service remembers, with their ids and states."""
        found, page = [], self.call("list_job_runs")
        found += page["jobRuns"]
        while page.get("nextToken"):
            page = self.call("list_job_runs", nextToken=page["nextToken"])
            found += page["jobRuns"]
        return [one for one in found if one.get("name") == self.name]

    def submit(self, plan: str, settings: Mapping[str, str]) -> str:
        """Start a job, unless this very one was started: after the same earlier ones, a plan is asked for once."""
        token = digest(plan, sorted(one["id"] for one in self.jobs() if one["state"] in ENDED))
        program = Path(spark_job.__file__).read_bytes()
        entry = self._put(f"{digest(program.decode())[:16]}.py", program)
        options = {"spark.sql.catalogImplementation": "in-memory", **settings}
        started = self.call(
            "start_job_run",
            clientToken=token,
            name=self.name,
            executionRoleArn=self.clients.output("EmrRole", STACK),
            jobDriver={
                "sparkSubmit": {
                    "entryPoint": entry,
                    "entryPointArguments": [self._put(f"{token[:16]}.json", plan.encode())],
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
        """Look at a job until it has ended; who interrupts the waiting stops the job."""
        try:
            while True:
                told: dict[str, Any] = self.call("get_job_run", jobRunId=job)["jobRun"]
                waiting()
                if told["state"] in ENDED:
                    return told
                time.sleep(poll_s)
        except KeyboardInterrupt:
            self.call("cancel_job_run", jobRunId=job)
            raise

    def failed(self, told: Mapping[str, Any]) -> TransformFailed:
        """Why a job failed: in the job's own words where it left some, else in the service's."""
        job = told["jobRunId"]
        step = (
            f"Job {job}; logs: {self.root}/_logs/applications/{self.id}/jobs/{job}/. "
            "What is made already stays, and is not made again."
        )
        arguments = told["jobDriver"]["sparkSubmit"].get("entryPointArguments", [""])
        left = self._get(f"{arguments[0]}.failed")
        if left is None:
            return failure("", f"the job ended as {told['state']}: {told['stateDetails']}", step)
        return failure(left["table"], left["error"], step)

    def _put(self, name: str, content: bytes) -> str:
        bucket, key = split(f"{self.root}/_jobs/{name}")
        with backends.translated_errors(f"s3://{bucket}/{key}"):
            self.clients.s3.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"

    def _get(self, address: str) -> dict[str, str] | None:
        bucket, key = split(address)
        try:
            with backends.translated_errors(address):
                found: dict[str, str] = json.loads(self.clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except InvalidRequest:  # S3's word for what is not there
            return None
        return found


def run(
    clients: Clients | None,
    steps: Sequence[Step],
    inputs: Mapping[str, Sequence[str]],
    work: Folder | Bucket,
    progress: Callable[[str], object],
    *,
    settings: Mapping[str, str],
    poll_s: float | None = None,
) -> None:
    """Make each step on the stack's application, and tell of each as its turn comes.

    Raises TransformFailed, ConfigError, and what AWS refuses.
    """
    clients = clients or backends.clients()
    application = Application(clients, clients.output("EmrApplication", STACK), str(work.root))
    waiting, told = list(steps), set[str]()

    def look() -> None:
        while waiting and work.done(waiting[0].table, waiting[0].key):
            waiting.pop(0)
        if waiting and waiting[0].table not in told:
            told.add(waiting[0].table)
            progress(waiting[0].table)

    for one in application.jobs():
        if one["state"] not in ENDED:  # of a kernel that is no more, or of somebody else
            application.follow(one["id"], look, poll_s or clients.backend.poll_s)
    look()
    if not waiting:
        return
    files = {table: list(paths) for table, paths in inputs.items()}
    files |= {step.table: [work.path(step.table, step.key)] for step in steps if step not in waiting}
    job = application.submit(plan_of(waiting, files, work), settings)
    ended = application.follow(job, look, poll_s or clients.backend.poll_s)
    if waiting:
        raise application.failed(ended)
