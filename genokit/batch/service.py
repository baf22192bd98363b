"""Batch: define what to run, submit it, find it again. The same calls here and on AWS."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from genokit import backends
from genokit.backends import Clients, translated_errors
from genokit.batch import definition as definitions
from genokit.batch import job_tables, resources, submission
from genokit.batch.definition import CONTENT, JobDefinition
from genokit.batch.diagnose import preflight
from genokit.batch.diagnose.findings import Findings
from genokit.batch.job import Job
from genokit.batch.resources import ComputeEnvironment, JobQueue
from genokit.batch.shipping import archive, job_command
from genokit.batch.shipping import rows as tables
from genokit.config import Settings
from genokit.display import Html, card

if TYPE_CHECKING:
    import pandas as pd

    from genokit.batch.cost.costs import Costs
    from genokit.batch.cost.estimate import Estimate
    from genokit.batch.monitor.monitor import Monitor


class Batch:
    """AWS Batch, or the embedded one of this machine, as the settings say. The calls are the same.

    Parameters
    ----------
    clients
        The clients to use. Default: those of the settings.
    settings
        Where jobs run, and as whom. Default: keyword arguments, GENOKIT_* variables and genokit.toml.

    Examples
    --------
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
        self._given, self._settings = clients, settings

    @cached_property
    def clients(self) -> Clients:
        return self._given or backends.clients(self._settings)

    @cached_property
    def _checks(self) -> preflight.Checks:
        return preflight.Checks(self.clients)

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
        nodes: int = 1,
        parameters: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_min: float | None = None,
        retry: int | str | Mapping[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
    ) -> JobDefinition:
        """Define what to run, under a name. A new revision is registered only if none has the same content.

        Parameters
        ----------
        name
            The definition's name.
        command
            The command as a list of words. A word ``Ref::x`` is replaced by the parameter ``x``.
        image
            The container image. Default ``genokit``: this Python environment here; on AWS the stack's image, by the
            digest that was published last. ``genokit:gpu-torch`` names another image of the kit.
        vcpus, memory_gib, gpus
            What each job gets, or each node of one. Default: 1 vCPU, 2 GiB of memory, no GPU.
        nodes
            The nodes of a multi-node parallel job, 1 to 1,000, which run the command together and find one another by
            AWS_BATCH_JOB_NODE_INDEX, AWS_BATCH_JOB_NUM_NODES and, but on the main node 0,
            AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS. The job ends with its main node, whose log and exit code are
            the job's; ``batch.job(job.id + "#1")`` is node 1. On AWS each node is an instance of its own, never a Spot
            instance. Default: 1, a job without nodes.
        parameters
            Default values of the command's ``Ref::`` words. Default: none.
        environment
            Environment variables. Default: none but those by which genokit finds its account.
        timeout_min
            The longest time that an attempt may take, in minutes, at least 1. Default: no limit.
        retry
            The number of attempts, 1 to 10; ``"spot"``: up to 5, repeated only where the host is reclaimed, not for
            several nodes; ``"interrupted"``: up to 10, repeated where the host is reclaimed or SIGTERM ended the
            program (exit code 143); or AWS's retryStrategy. Default: one attempt. All nodes start again if the main one
            fails.
        container
            Further containerProperties in AWS's words, which take precedence. Default: none.

        Raises
        ------
        InvalidRequest
            A value is of the wrong kind, or the service refuses the request.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_RegisterJobDefinition.html
        """
        definitions.must_be("image", image, str)
        own_environment = {**self.clients.job_environment(), **definitions.members("environment", environment)}
        request = {
            "jobDefinitionName": name,
            "parameters": definitions.texts("parameters", parameters),
            "propagateTags": True,
            **definitions.properties(
                definitions.whole("nodes", nodes),
                {
                    "command": definitions.words(name, command),
                    "resourceRequirements": definitions.resources(vcpus, memory_gib, gpus),
                    "environment": definitions.pairs(own_environment),
                    **self.clients.container(image, gpus=gpus),
                    **definitions.members("container", container),
                },
                retry,
            ),
            **definitions.limits(timeout_min, retry),
        }
        return definitions.registered(self.clients, request)

    def definition(self, name: str) -> JobDefinition:
        """A definition that is registered.

        Parameters
        ----------
        name
            Its name (the newest active revision), ``name:revision``, or its ARN.

        Raises
        ------
        NotFound
            There is no such active definition.
        """
        return definitions.find(self.clients, name)

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
        code: str | os.PathLike[str] | None = None,
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
        """Submit a job, or an array of jobs.

        Parameters
        ----------
        definition
            What to run: a definition, or the name of one (its newest revision). One of several nodes makes no array.
        queue
            The job queue. Default ``"highPriority"``.
        name
            An identity: if a job with this name and the same content is in the queue or has SUCCEEDED there, it is
            returned and no other starts. Of two kernels that submit at once, one starts the job here; on AWS both may.
            Default: the definition's name, and a new job on every call.
        parameters
            Values of the command's ``Ref::`` words. Default: those of the definition.
        each
            The rows of an array, a list of dicts or a DataFrame, 1 to 10,000: one child a row, whose columns fill
            ``Ref::`` words too. Default: no rows.
        only
            The numbers of the rows of ``each``, or of the children of ``size``, to run, from 0: ``range(10)`` tries ten
            first, ``job.failed`` repairs a sweep. AWS_BATCH_JOB_ARRAY_INDEX stays the number in the whole. Default:
            all.
        size
            The number of children of an array without rows, which tell themselves apart by AWS_BATCH_JOB_ARRAY_INDEX, 2
            to 10,000. Default: no array.
        after
            A job or jobs that must have SUCCEEDED before this one starts. Default: none.
        after_each
            An array of the same size: each child starts when its counterpart there has SUCCEEDED. Default: none.
        code
            A folder to ship: it is unpacked where the job starts, so a change of code needs no new image. With
            ``code``, ``each`` or ``only`` the image must contain genokit. Default: none.
        command, environment, vcpus, memory_gib, gpus, timeout_min, retry
            Override the definition's own; units as in ``define``. Default: the definition's.
        tags
            Further tags of the job, by which ``costs`` can group. Default: none but run, user and project.
        again
            Whether to start a new job although one with this ``name`` and content exists. Default False.
        check
            Whether to refuse a job that can never run before it is sent: see ``preflight``. Default True.

        Raises
        ------
        NotFound
            There is no such definition or queue.
        InvalidRequest
            A value is of the wrong kind, the job can never run, or the service refuses the request.
        InvalidProject
            The folder of ``code`` cannot be shipped.

        https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html
        """
        known = self._known(definition)
        definitions.must_be("queue", queue, str)
        words = None if command is None else definitions.words(known.name, command)
        rows = tables.chosen(each, size, only)
        if rows is not None or code:
            words = job_command.wrapped(
                known.command if words is None else words,
                code=archive.ship(self.clients, code) if code else None,
                rows=None if rows is None else tables.store(self.clients, rows),
                columns=set(rows[0]) if rows else set(),
            )
        overrides = {
            "command": words,
            "environment": definitions.pairs(environment),
            "resourceRequirements": definitions.resources(vcpus, memory_gib, gpus),
        }
        request: dict[str, Any] = {
            "jobName": known.name if name is None else name,
            "jobQueue": queue,
            "jobDefinition": known.arn,
            "parameters": definitions.texts("parameters", parameters),
            "propagateTags": True,
            **submission.overrides(known, {member: value for member, value in overrides.items() if value}, retry),
            **submission.array(known, rows, None if only is not None and each is None else size),
            **submission.dependencies(after, after_each),
            **definitions.limits(timeout_min, retry),
        }
        mark = definitions.content(request)
        own = {**definitions.members("tags", tags), **({} if name is None else {CONTENT: mark})}
        with nullcontext() if name is None else self.clients.submission_lock():
            if name is not None and not again and (existing := submission.existing(self.clients, queue, name, mark)):
                return Job(self.clients, existing, reused=True)
            if check:
                self._checks.refuse_hopeless(request, known.described)
            with translated_errors(f"job '{request['jobName']}'"):
                tagged = submission.tags(self.clients.settings.project, own)
                return Job(self.clients, self.clients.batch.submit_job(**request, tags=tagged)["jobId"])

    def _known(self, definition: JobDefinition | str) -> JobDefinition:
        return definition if isinstance(definition, JobDefinition) else self.definition(definition)

    def preflight(
        self,
        definition: JobDefinition | str,
        *,
        queue: str = "highPriority",
        parameters: Mapping[str, str] | None = None,
    ) -> Findings:
        """Find what would keep a job from running, without submitting it.

        Looked up are queue, compute environments, sizes, the command's words, roles and image.

        Parameters
        ----------
        definition, queue, parameters
            As in ``submit``, which makes the same checks.

        Returns
        -------
        Findings
            A list that shows itself as a table; ``.problems`` are sure to keep the job from running.

        Raises
        ------
        NotFound
            There is no such definition.
        AccessDenied
            The queues may not be read.
        """
        known = self._known(definition)
        request = {"jobQueue": queue, "parameters": definitions.texts("parameters", parameters)}
        return preflight.check(self.clients, request, known.described)

    def job(self, job_id: str) -> Job:
        """A job by its id, whoever submitted it.

        Parameters
        ----------
        job_id
            The id; of a child of an array ``<id of the array>:<index>``.

        Raises
        ------
        NotFound
            The account has no such job.
        """
        return Job(self.clients, job_id).refresh()

    def jobs(self, *, queue: str | None = None, status: str | None = None) -> pd.DataFrame:
        """Jobs as a table, newest first.

        Parameters
        ----------
        queue
            The jobs of this queue. Default: of all queues.
        status
            The jobs in this status, such as ``"RUNNING"``. Default: in every status.

        Returns
        -------
        pandas.DataFrame
            job_id, name, queue, status, created, started, stopped (UTC), duration_s (seconds), reason.

        Raises
        ------
        InvalidRequest
            There is no such status.
        NotFound
            There is no such queue.
        """
        return job_tables.jobs(self.clients, queue, status)

    # --- what it costs, and how it goes

    def estimate(
        self,
        definition: JobDefinition | str,
        *,
        minutes: float,
        queue: str = "highPriority",
        size: int = 1,
        on: str | None = None,
    ) -> Estimate:
        """Estimate what jobs will cost: a range for each environment, what it is based on, and what is unknown.

        Parameters
        ----------
        definition, queue
            As in ``submit``.
        minutes
            How long each job takes; ``batch.jobs()`` tells how long earlier ones took.
        size
            The number of jobs. Default 1.
        on
            ``"aws"`` prices jobs that would run here as on AWS. Default: where jobs run now; here there is no charge.

        Raises
        ------
        NotFound
            There is no such definition or queue.
        InvalidRequest
            ``size`` or ``minutes`` is not positive, or ``on`` is unknown.
        """
        from genokit.batch.cost.estimate import estimate

        return estimate(self.clients, self._known(definition), minutes=minutes, queue=queue, size=size, on=on)

    def costs(self, jobs: Iterable[Job] | None = None, *, by: str = "run", on: str | None = None) -> Costs:
        """Sum up what jobs have used and cost so far, all their attempts included.

        Parameters
        ----------
        jobs
            These jobs. Default: all jobs that the service still knows.
        by
            job, name, run, project, user, queue, definition, or any tag. Default ``"run"``.
        on
            ``"aws"`` prices the hours of jobs that ran here as on AWS. Default: where jobs run now.

        Raises
        ------
        InvalidRequest
            No job has a tag ``by``, or ``on`` is unknown.
        """
        from genokit.batch.cost.costs import costs

        return costs(self.clients, None if jobs is None else [job.id for job in jobs], by=by, on=on)

    def monitor(
        self, jobs: Job | Iterable[Job] | None = None, *, queue: str | None = None, wait: bool | None = None
    ) -> Monitor:
        """Follow jobs while the kernel works; in a terminal, a script or papermill by a progress bar and a still.

        Parameters
        ----------
        jobs
            A job or jobs. Default: all of the last day, and those that have not ended.
        queue
            Without ``jobs``: those of this queue. Default: of all queues.
        wait
            Whether to return only when all jobs have ended. Default: where there can be no live view, for ``jobs``.
        """
        from genokit.batch.monitor import monitor

        return monitor.monitor(self.clients, queue, jobs, wait=wait)

    # --- queues and environments

    def queues(self) -> list[JobQueue]:
        """The job queues with their compute environments, highest priority first."""
        return resources.queues(self.clients)

    def environments(self) -> list[ComputeEnvironment]:
        """The compute environments, by name."""
        return resources.environments(self.clients)

    def __repr__(self) -> str:
        return f"<Batch {self.clients.place}>"

    def _repr_html_(self) -> Html:
        queues = ", ".join(queue.name for queue in self.queues())
        return card("AWS Batch", {"Runs": self.clients.place, "Queues": queues})
