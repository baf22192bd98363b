"""Batch: define what to run, submit it, find it again. The same calls here and on AWS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genokit import backends
from genokit.backends import Clients, translated_errors
from genokit.batch import definition as definitions
from genokit.batch.definition import JobDefinition
from genokit.batch.job import Job
from genokit.config import Settings
from genokit.display import Html, card
from genokit.errors import InvalidRequest, NotFound, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")


class Batch:
    """AWS Batch, or the embedded one where the settings say so.

    >>> batch = Batch()
    >>> hello = batch.define("hello", command=["echo", "hello", "Ref::who"], memory_gib=0.1)
    >>> job = batch.submit(hello, parameters={"who": "world"})
    >>> print(job.wait().log())
    hello world
    >>> job.status, job.exit_code
    ('SUCCEEDED', 0)

    https://docs.aws.amazon.com/batch/latest/APIReference/
    """

    def __init__(self, clients: Clients | None = None, settings: Settings | None = None) -> None:
        self._clients = clients
        self._settings = settings

    @property
    def clients(self) -> Clients:
        if self._clients is None:
            self._clients = backends.clients(self._settings)
        return self._clients

    def define(
        self,
        name: str,
        *,
        command: Sequence[str],
        image: str = "genokit",
        vcpus: float = 1,
        memory_gib: float = 2,
        gpus: int = 0,
        parameters: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_min: float | None = None,
    ) -> JobDefinition:
        """Register what to run, as a new revision of ``name``.

        ``Ref::word`` in ``command`` stands for a parameter, whose default ``parameters`` may hold. The image
        ``genokit`` is this Python environment. ``timeout_min`` bounds each attempt, at least one minute. Raises
        InvalidRequest.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_RegisterJobDefinition.html
        """
        if isinstance(command, str):
            raise InvalidRequest(
                f"job definition '{name}': command must be a list of words, not the text {command!r}. "
                f"Write {command.split()!r}, or ['sh', '-c', ...] where a shell is meant."
            )
        request = definitions.request(
            name,
            image=image,
            command=command,
            vcpus=vcpus,
            memory_gib=memory_gib,
            gpus=gpus,
            parameters=parameters or {},
            environment=environment or {},
            timeout_min=timeout_min,
        )
        with translated_errors(f"job definition '{name}'"):
            answer = self.clients.batch.register_job_definition(**request)
        return JobDefinition(
            name=name,
            revision=answer["revision"],
            arn=answer["jobDefinitionArn"],
            image=image,
            command=tuple(command),
            vcpus=vcpus,
            memory_gib=memory_gib,
            gpus=gpus,
        )

    def submit(
        self,
        definition: JobDefinition | str,
        *,
        queue: str = "highPriority",
        name: str | None = None,
        parameters: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> Job:
        """Submit a job of ``definition`` (its newest revision where only a name is given) to ``queue``.

        ``parameters`` fill the ``Ref::`` words of the command; ``environment`` and ``command`` override the
        definition's own. Raises NotFound for an unknown queue and InvalidRequest for anything else that Batch refuses.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html
        """
        reference = definition if isinstance(definition, str) else definition.arn
        overrides: dict[str, Any] = {}
        if environment:
            overrides["environment"] = definitions.pairs(environment)
        if command:
            overrides["command"] = list(command)
        name = name or reference.rpartition("/")[2].partition(":")[0]
        try:
            with translated_errors(f"job '{name}'"):
                answer = self.clients.batch.submit_job(
                    jobName=name,
                    jobQueue=queue,
                    jobDefinition=reference,
                    parameters=dict(parameters or {}),
                    containerOverrides=overrides,
                )
        except InvalidRequest as error:
            queues = self.queues()
            if queue.rpartition("/")[2] in queues:
                raise
            raise NotFound(f"job '{name}': there is no job queue '{queue}'. {did_you_mean(queue, queues)}") from error
        return Job(self.clients, answer["jobId"])

    def job(self, job_id: str) -> Job:
        """The job with this id, whoever submitted it. Raises NotFound."""
        return Job(self.clients, job_id).refresh()

    def queues(self) -> list[str]:
        """The names of the job queues, highest priority first."""
        with translated_errors("job queues"):
            found = list(_pages(self.clients.batch.describe_job_queues, "jobQueues"))
        return [queue["jobQueueName"] for queue in sorted(found, key=lambda queue: -queue["priority"])]

    def jobs(self, *, queue: str | None = None, status: str | None = None) -> pd.DataFrame:
        """Jobs as a table, newest first: of one queue or all, in one status or all. Times are UTC, durations
        seconds."""
        import pandas as pd

        if status not in (None, *STATUSES):
            raise InvalidRequest(f"There is no job status '{status}'. {did_you_mean(status or '', STATUSES)}")
        rows = []
        for one in [queue] if queue else self.queues():
            for state in [status] if status else STATUSES:
                with translated_errors(f"jobs of queue '{one}'"):
                    found = _pages(self.clients.batch.list_jobs, "jobSummaryList", jobQueue=one, jobStatus=state)
                    rows += [{"queue": one, **job} for job in found]
        columns = {
            "jobId": "job_id",
            "jobName": "name",
            "queue": "queue",
            "status": "status",
            "createdAt": "created",
            "startedAt": "started",
            "stoppedAt": "stopped",
            "statusReason": "reason",
        }
        table = pd.DataFrame(rows, columns=list(columns)).rename(columns=columns)
        for column in ("created", "started", "stopped"):
            table[column] = pd.to_datetime(table[column].astype("Int64"), unit="ms", utc=True)
        table.insert(7, "duration_s", (table["stopped"] - table["started"]).dt.total_seconds())
        return table.sort_values("created", ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        return f"<Batch {self.clients.place}>"

    def _repr_html_(self) -> Html:
        return card("AWS Batch", {"Runs": self.clients.place, "Queues": ", ".join(self.queues())})


def _pages(call: Any, member: str, **request: Any) -> Iterator[dict[str, Any]]:
    """Everything that a paged call lists."""
    while True:
        page = call(**request)
        yield from page[member]
        if not page.get("nextToken"):
            return
        request = {**request, "nextToken": page["nextToken"]}
