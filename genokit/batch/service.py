"""Batch: define what to run, submit it, find it again. The same calls here and on AWS."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from genokit import backends
from genokit.backends import Clients, translated_errors
from genokit.batch import definition as definitions
from genokit.batch import resources, submission
from genokit.batch.definition import CONTENT, JobDefinition
from genokit.batch.diagnose import preflight
from genokit.batch.diagnose.findings import Finding, Findings
from genokit.batch.job import Job
from genokit.batch.job_state import STATUSES
from genokit.batch.paging import described, pages
from genokit.batch.resources import ComputeEnvironment, JobQueue
from genokit.batch.shipping import archive, job_command
from genokit.batch.shipping import rows as tables
from genokit.config import Settings
from genokit.display import Html, card, plain
from genokit.errors import AccessDenied, InvalidRequest, NotFound, did_you_mean

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from genokit.batch.cost.costs import Costs, Estimate
    from genokit.batch.monitor.monitor import Monitor


class Batch:
    """AWS Batch, or the embedded one of this machine: whichever the settings name, the calls are the same.

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
        self._queues: list[JobQueue] = []  # as of the moment _looked, for what is asked before each submission
        self._known: dict[str, Finding] = {}
        self._looked = float("-inf")

    @property
    def clients(self) -> Clients:
        if self._clients is None:
            self._clients = backends.clients(self._settings)
        return self._clients

    # --- definitions

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
        retry: int | str | Mapping[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
    ) -> JobDefinition:
        """What to run, under a name: the revision that says just this, registered where there is none yet.

        ``Ref::word`` in ``command`` stands for a parameter, whose default ``parameters`` may hold. The image
        ``genokit`` is this Python environment. ``timeout_min`` bounds each attempt, at least one minute. ``retry`` is a
        number of attempts, "spot" (again when the host is taken back, never when the program failed), or AWS's
        retryStrategy. ``container`` adds to AWS's containerProperties, or replaces there. Raises InvalidRequest.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_RegisterJobDefinition.html
        """
        asked = definitions.request(
            name,
            command=command,
            vcpus=vcpus,
            memory_gib=memory_gib,
            gpus=gpus,
            parameters=parameters,
            environment={**self.clients.job_environment(), **definitions.members("environment", environment)},
            timeout_min=timeout_min,
            retry=retry,
            container={**self.clients.container(image, gpus=gpus), **definitions.members("container", container)},
        )
        return definitions.registered(self.clients, asked)

    def definition(self, name: str) -> JobDefinition:
        """The definition that is registered under a name (its newest revision), a name:revision or an ARN. Raises
        NotFound."""
        return definitions.found(self.clients, name)

    # --- jobs

    def submit(
        self,
        definition: JobDefinition | str,
        *,
        queue: str = "highPriority",
        name: str | None = None,
        parameters: Mapping[str, str] | None = None,
        each: Iterable[Mapping[str, object]] | pd.DataFrame | None = None,
        only: Iterable[int] | None = None,
        size: int | None = None,
        after: Job | Iterable[Job] | None = None,
        after_each: Job | None = None,
        one_by_one: bool = False,
        code: str | os.PathLike[str] | bool = False,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        vcpus: float | None = None,
        memory_gib: float | None = None,
        gpus: int | None = None,
        timeout_min: float | None = None,
        retry: int | str | Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        again: bool = False,
        check: bool = True,
    ) -> Job:
        """Submit a job of ``definition`` (its newest revision where only a name is given) to ``queue``.

        A ``name`` is an identity: where a job of this name and of the very same content is in the queue already, or
        SUCCEEDED there, that job is returned and no second one starts; ``again=True`` starts one. Here that holds
        whoever else submits; on AWS two that submit at the same moment may both start one. Without a name each call is
        a new job.

        ``parameters`` fill the ``Ref::`` words of the command. ``each``, a list of dicts or a DataFrame, makes an array
        of one child a row, whose columns fill ``Ref::`` words too; ``only=range(10)`` tries ten rows first. ``size``
        makes an array without rows, whose children tell themselves apart by AWS_BATCH_JOB_ARRAY_INDEX. ``only`` chooses
        of either; that variable and ``job.failed`` stay the numbers in the whole, so ``only=job.failed`` repairs a
        sweep, and repairs a repair.

        The job starts when those in ``after`` have SUCCEEDED; each child when its twin in ``after_each`` has;
        ``one_by_one`` runs an array's children in turn.

        ``code`` is a folder to take along, True this project's: it is unpacked where the job starts, so a change needs
        no new image. With ``code``, ``each`` or ``only`` the image must hold genokit, as ``genokit`` does. The rest
        overrides the definition's own.

        What could never run is refused before it is sent, unless ``check=False``. Raises NotFound, InvalidRequest.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html
        """
        known = definition if isinstance(definition, JobDefinition) else self.definition(definition)
        name_given, name = name is not None, known.name if name is None else name
        definitions.must_be("queue", queue, str)
        for member, flag in (("one_by_one", one_by_one), ("again", again), ("check", check)):
            definitions.must_be(member, flag, bool)
        definitions.must_be("code", code, bool, str, os.PathLike)
        rows = tables.chosen(each, size, only)
        words = None if command is None else definitions.words(name, command)
        folder = archive.project() if code is True else code
        if rows is not None or folder:
            words = job_command.wrapped(
                words or list(known.command),
                code=archive.ship(self.clients, folder) if folder else None,
                rows=None if rows is None else tables.store(self.clients, rows),
                columns=set(rows[0]) if rows else set(),
            )
        asked: dict[str, Any] = {
            "jobName": name,
            "jobQueue": queue,
            "jobDefinition": known.arn,
            "parameters": definitions.texts("parameters", parameters),
            "containerOverrides": definitions.overrides(
                words, environment=environment, vcpus=vcpus, memory_gib=memory_gib, gpus=gpus
            ),
            "propagateTags": True,
            **submission.array(rows, None if only is not None and each is None else size),
            **submission.dependencies(after, after_each, one_by_one),
            **definitions.limits(timeout_min=timeout_min, retry=retry),
        }
        mark = definitions.content(asked)
        own = {**definitions.members("tags", tags), **({CONTENT: mark} if name_given else {})}
        with self.clients.submission_lock() if name_given else nullcontext():
            if name_given and not again and (there := self._same(queue, name, mark)):
                return there
            if check:
                self._refuse_hopeless(asked, known, folder)
            with translated_errors(f"job '{name}'"):
                tagged = submission.tags(self.clients.settings.project, own)
                return Job(self.clients, self.clients.batch.submit_job(**asked, tags=tagged)["jobId"])

    def _same(self, queue: str, name: str, mark: str) -> Job | None:
        """The newest job of this name and content that has not FAILED."""
        by_name = [{"name": "JOB_NAME", "values": [name]}]
        try:
            with translated_errors(f"jobs named '{name}'"):
                listed = pages(self.clients.batch.list_jobs, "jobSummaryList", jobQueue=queue, filters=by_name)
                ids = [job["jobId"] for job in listed if job["status"] != "FAILED"]
                for detail in described(self.clients.batch, ids):
                    if detail.get("tags", {}).get(CONTENT) == mark:
                        return Job(self.clients, detail["jobId"], reused=True)
        except InvalidRequest:  # no such queue or no such name: the submission will be refused for it, and says more
            return None
        return None

    def preflight(
        self,
        definition: JobDefinition | str,
        *,
        queue: str = "highPriority",
        parameters: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        vcpus: float | None = None,
        memory_gib: float | None = None,
        gpus: int | None = None,
    ) -> Findings:
        """What would keep a job from running, looked up before it is submitted: queue, environments, room, words of the
        command, roles, image. What could not be asked is said to be unknown."""
        known = definition if isinstance(definition, JobDefinition) else self.definition(definition)
        asked = {
            "jobQueue": queue,
            "parameters": definitions.texts("parameters", parameters),
            "containerOverrides": definitions.overrides(
                None if command is None else definitions.words(known.name, command),
                environment=environment, vcpus=vcpus, memory_gib=memory_gib, gpus=gpus,
            ),
        }  # fmt: skip
        return preflight.check(self.clients, asked, known.described)

    def _refuse_hopeless(self, asked: dict[str, Any], definition: JobDefinition, folder: Any) -> None:
        """Refuse a job that cannot run, and warn about words that do not mean what they seem to. Queues and roles are
        looked up once a minute, and again before a refusal."""
        fresh = time.monotonic() - self._looked > 60
        if fresh:
            try:
                self._queues, self._known, self._looked = resources.queues(self.clients), {}, time.monotonic()
            except AccessDenied:  # who may submit and not look submits
                return None
        names = [queue.name for queue in self._queues]
        looked = preflight.check(
            self.clients, asked, definition.described, queues=self._queues, known=self._known, code=folder
        )
        found = looked.problems
        if found and not fresh:
            self._looked = float("-inf")
            return self._refuse_hopeless(asked, definition, folder)
        name, queue = asked["jobName"], asked["jobQueue"].rpartition("/")[2]
        if found and queue not in names:
            raise NotFound(f"job '{name}': there is no job queue '{queue}'. {did_you_mean(queue, names)}")
        if found:
            told = "".join(f"\n    {one.about}: {one.message}" for one in found)
            raise InvalidRequest(
                f"job '{name}' was not submitted because it cannot run:{told}\n"
                "submit(..., check=False) submits it as it is."
            )
        for one in looked:
            if one.level == "warning" and one.about in ("command", "overrides"):
                warnings.warn(f"job '{name}': {one.message}", stacklevel=3)
        return None

    def job(self, job_id: str) -> Job:
        """The job with this id, whoever submitted it. Raises NotFound."""
        return Job(self.clients, job_id).refresh()

    # --- what it costs, and how it goes

    def estimate(
        self,
        definition: JobDefinition | str,
        *,
        queue: str = "highPriority",
        minutes: float | None = None,
        size: int = 1,
        on: str | None = None,
    ) -> Estimate:
        """What ``size`` jobs of a definition will cost in ``queue``, each taking ``minutes``: a range, and what is not
        known.

        Without ``minutes`` the times of earlier jobs of the definition are taken. Here there is no charge;
        ``on="aws"`` says what the same would cost there. Raises NotFound, InvalidRequest.
        """
        from genokit.batch.cost import costs

        known = definition if isinstance(definition, JobDefinition) else self.definition(definition)
        return costs.estimate(self.clients, known, queue=queue, minutes=minutes, size=size, on=on)

    def costs(
        self,
        jobs: Iterable[Job] | None = None,
        *,
        by: str = "run",
        queue: str | None = None,
        since: datetime | None = None,
        on: str | None = None,
    ) -> Costs:
        """What jobs used and cost so far: these, or those of a queue, or all since a moment.

        ``by`` is job, name, run, project, user, queue, definition, environment, instance or any tag. Here there is no
        charge; ``on="aws"`` says what the same hours would cost there.
        """
        from genokit.batch.cost import costs

        ids = None if jobs is None else [job.id for job in jobs]
        return costs.costs(self.clients, ids, by=by, queue=queue, since=since, on=on)

    def monitor(
        self, jobs: Job | Iterable[Job] | None = None, *, queue: str | None = None, wait: bool | None = None
    ) -> Monitor:
        """Follow these jobs, or those of a queue, or all, while the kernel works: counts, timeline, room, logs, cancel.

        Where no live view can be (a terminal, a script, papermill) it is a progress bar and a picture; given ``jobs``,
        or with ``wait=True``, it returns when they have ended.
        """
        from genokit.batch.monitor import monitor

        return monitor.monitor(self.clients, queue, jobs, wait=wait)

    # --- queues and environments

    def queues(self) -> list[JobQueue]:
        """The job queues with their environments, highest priority first."""
        return resources.queues(self.clients)

    def environments(self) -> list[ComputeEnvironment]:
        """The compute environments, by name."""
        return resources.environments(self.clients)

    def jobs(self, *, queue: str | None = None, status: str | None = None) -> pd.DataFrame:
        """Jobs as a table, newest first: of one queue or all, in one status or all. Times are UTC, durations
        seconds."""
        import pandas as pd

        from genokit.frames import Frame

        if status not in (None, *STATUSES):
            raise InvalidRequest(f"There is no job status '{status}'. {did_you_mean(status or '', STATUSES)}")
        rows = []
        for one in [queue] if queue else [one.name for one in self.queues()]:
            for state in [status] if status else STATUSES:
                with translated_errors(f"jobs of queue '{one}'"):
                    found = pages(self.clients.batch.list_jobs, "jobSummaryList", jobQueue=one, jobStatus=state)
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
        table = Frame(rows, columns=list(columns)).rename(columns=columns)
        table["reason"] = table["reason"].map(plain, na_action="ignore")
        for column in ("created", "started", "stopped"):
            table[column] = pd.to_datetime(table[column].astype("Int64"), unit="ms", utc=True)
        table.insert(7, "duration_s", (table["stopped"] - table["started"]).dt.total_seconds().clip(lower=0))
        return table.sort_values("created", ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        return f"<Batch {self.clients.place}>"

    def _repr_html_(self) -> Html:
        return card(
            "AWS Batch", {"Runs": self.clients.place, "Queues": ", ".join(queue.name for queue in self.queues())}
        )
