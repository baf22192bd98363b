"""What must be emptied before CloudFormation can delete a stack, and what is lost with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.errors import InvalidRequest, ServiceError
from genokit.stacks import progress

LIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
SPARK_LIVE = ("SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING", "CANCELLING")
COUNTED = 10_000  # more than this is not counted to the end
PATIENCE_S = 900.0  # for a queue or an environment to change, and for jobs to end

GONE = ("ClientException", "NoSuchBucket", "RepositoryNotFoundException")  # of a queue, a bucket, a repository

Summary = dict[str, Any]  # of a resource, by ListStackResources


def resources(clients: Clients, stack: str) -> list[Summary]:
    """The resources that the stack still has."""
    what = f"resources of stack '{stack}'"
    found = _listed(clients, "cloudformation", "list_stack_resources", what, "StackResourceSummaries", StackName=stack)
    return [one for one in found if one["ResourceStatus"] != "DELETE_COMPLETE"]


def losses(clients: Clients, made: list[Summary]) -> list[str]:
    """What would be lost, in words with numbers."""
    lost = []
    for queue in _ids(made, "AWS::Batch::JobQueue"):
        lost.append(f"queue {_last(queue)}: {_count(_live(clients, queue))} jobs that wait or run")
    for bucket in _ids(made, "AWS::S3::Bucket"):
        lost.append(f"bucket {bucket}: {_count(_versions(clients, bucket))} files and old versions of files")
    lost += [f"Redshift namespace {one}: all its tables" for one in _ids(made, "AWS::RedshiftServerless::Namespace")]
    for repository in _ids(made, "AWS::ECR::Repository") if clients.backend.offers("ecr") else ():
        what = f"repository '{repository}'"
        images = _listed(clients, "ecr", "list_images", what, "imageIds", repositoryName=repository)
        lost.append(f"repository {repository}: {_count(images)} images")
    groups = _ids(made, "AWS::Logs::LogGroup")
    return lost + ([f"all lines in the log groups {', '.join(groups)}"] if groups else [])


def empty(clients: Clients, stack: str, made: list[Summary]) -> None:
    """End the jobs, disable queues and then environments, stop Spark, empty buckets, and deregister old revisions.

    Each step looks at what is there, so that it may be broken off and begun again anywhere. A repository is emptied by
    CloudFormation (EmptyOnDelete).
    """
    queues = _ids(made, "AWS::Batch::JobQueue")
    for queue in queues:
        _disable(clients, "job_queue", "jobQueue", queue)
    for queue in queues:
        _end_jobs(clients, queue)
    for environment in _ids(made, "AWS::Batch::ComputeEnvironment"):
        _disable(clients, "compute_environment", "computeEnvironment", environment)
    for application in _ids(made, "AWS::EMRServerless::Application"):
        _stop_spark(clients, application)
    for bucket in _ids(made, "AWS::S3::Bucket"):
        _empty_bucket(clients, bucket)
    for definition in _ids(made, "AWS::Batch::JobDefinition"):
        _deregister_older(clients, stack, definition)


# --- Batch


def _disable(clients: Clients, noun: str, member: str, arn: str) -> None:
    def settled() -> dict[str, Any] | None:
        found = getattr(clients.batch, f"describe_{noun}s")(**{f"{member}s": [arn]})[f"{member}s"]
        if found and found[0]["status"] in ("CREATING", "UPDATING"):
            return None
        return dict(found[0]) if found else {}

    with translated_errors(f"{noun.replace('_', ' ')} '{_last(arn)}'"):
        found = _wait(clients, settled, f"{_last(arn)} to settle")
        if found and found["state"] != "DISABLED" and found["status"] not in ("DELETING", "DELETED"):
            progress.say(f"Disabling {noun.replace('_', ' ')} {_last(arn)}")
            getattr(clients.batch, f"update_{noun}")(**{member: arn, "state": "DISABLED"})
            _wait(clients, settled, f"{_last(arn)} to be disabled")


def _end_jobs(clients: Clients, queue: str) -> None:
    """Terminate what lives in a queue, and wait until nothing does."""
    asked: set[str] = set()

    def ended() -> bool | None:
        live = list(_live(clients, queue))
        new = [job for job in live if job not in asked]
        if new:
            progress.say(f"Ending {len(new)} jobs of queue {_last(queue)}")
        for job in new:
            clients.batch.terminate_job(jobId=job, reason="The stack of its queue is being removed.")
            asked.add(job)
        return None if live else True

    with translated_errors(f"jobs of queue '{_last(queue)}'"):
        _wait(clients, ended, f"the jobs of queue {_last(queue)} to end")


def _live(clients: Clients, queue: str) -> Iterator[str]:
    """The ids of the jobs that wait or run, each once: some move on while the statuses are asked for in turn."""
    known: set[str] = set()
    for status in LIVE:
        what, request = f"jobs of queue '{_last(queue)}'", {"jobQueue": queue, "jobStatus": status}
        for job in _listed(clients, "batch", "list_jobs", what, "jobSummaryList", **request):
            if job["jobId"] not in known:
                yield job["jobId"]
            known.add(job["jobId"])


def _deregister_older(clients: Clients, stack: str, arn: str) -> None:
    """Deregister the earlier revisions that the stack made, which CloudFormation would leave behind."""
    what = f"job definition '{_last(arn).partition(':')[0]}'"
    name, members = what.split("'")[1], "jobDefinitions"
    active = _listed(
        clients, "batch", "describe_job_definitions", what, members, jobDefinitionName=name, status="ACTIVE"
    )
    with translated_errors(what):
        for one in list(active):
            if one["jobDefinitionArn"] != arn and one.get("tags", {}).get("genokit:stack") == stack:
                clients.batch.deregister_job_definition(jobDefinition=one["jobDefinitionArn"])


# --- EMR Serverless


def _stop_spark(clients: Clients, application: str) -> None:
    """Cancel an application's jobs and stop it: CloudFormation deletes none that is started."""
    if not clients.backend.offers("emr-serverless"):
        return
    emr, asked = clients.client("emr-serverless"), {"applicationId": application}
    cancelled: set[str] = set()

    def stopped() -> bool | None:
        try:
            with translated_errors(f"EMR application '{application}'"):
                if emr.get_application(**asked)["application"]["state"] in ("CREATED", "STOPPED", "TERMINATED"):
                    return True
                runs = emr.list_job_runs(**asked, states=list(SPARK_LIVE))["jobRuns"]
                for run in [one["id"] for one in runs if one["id"] not in cancelled]:
                    progress.say(f"Cancelling Spark job {run}")
                    emr.cancel_job_run(**asked, jobRunId=run)
                    cancelled.add(run)
                if not runs:
                    emr.stop_application(**asked)
        except InvalidRequest as error:
            if error.code == "ResourceNotFoundException":  # it has gone already
                return True
            raise
        return None

    _wait(clients, stopped, f"EMR application {application} to stop")


# --- S3, ECR


def _empty_bucket(clients: Clients, bucket: str) -> None:
    gone = 0
    with translated_errors(f"bucket '{bucket}'"):
        while batch := list(islice(_versions(clients, bucket), 1000)):
            answer = clients.s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
            for error in answer.get("Errors", []):
                raise ServiceError(
                    f"bucket '{bucket}': '{error.get('Key')}' cannot be deleted: {error.get('Message')} "
                    "Call teardown again when that is settled.",
                    code=error.get("Code", ""),
                )
            gone += len(batch)
    if gone:
        progress.say(f"Emptied bucket {bucket}: {gone} files and old versions")


def _versions(clients: Clients, bucket: str) -> Iterator[dict[str, str]]:
    """Every version and every delete marker, as DeleteObjects takes them."""
    members = ("Versions", "DeleteMarkers")
    for one in _listed(clients, "s3", "list_object_versions", f"bucket '{bucket}'", *members, Bucket=bucket):
        yield {"Key": one["Key"], "VersionId": one["VersionId"]}


# --- shared


def _ids(made: list[Summary], kind: str) -> list[str]:
    return [one["PhysicalResourceId"] for one in made if one["ResourceType"] == kind and one.get("PhysicalResourceId")]


def _last(arn: str) -> str:
    return arn.rpartition("/")[2]


def _listed(
    clients: Clients, service: str, operation: str, what: str, *members: str, **request: object
) -> Iterator[Any]:
    """What a list has on all its pages; nothing where that of which it is a list has gone already."""
    try:
        for page in progress.pages(clients, service, operation, what, **request):
            for member in members:
                yield from page.get(member, [])
    except InvalidRequest as error:
        if error.code not in GONE:
            raise


def _count(found: Iterator[Any]) -> str:
    number = sum(1 for _ in islice(found, COUNTED + 1))
    return f"more than {COUNTED:,}" if number > COUNTED else f"{number:,}"


def _wait(clients: Clients, look: Callable[[], Any], what: str) -> Any:
    """What ``look`` finds, as soon as that is more than None. Raises ServiceError when it takes too long."""
    deadline, pause_s = time.monotonic() + PATIENCE_S, clients.backend.poll_s / 8
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise ServiceError(
                f"Waited {PATIENCE_S / 60:.0f} minutes for {what}. Call teardown again: it goes on from here.",
                code="Timeout",
            )
        time.sleep(pause_s)
        pause_s = min(clients.backend.poll_s, pause_s * 1.3)
    return found
