"""What must be emptied before CloudFormation can delete a stack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.errors import InvalidRequest, ServiceError
from genokit.stacks import progress

SPARK_LIVE = ("SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING", "CANCELLING")


def resources(clients: Clients, stack: str) -> list[dict[str, Any]]:
    """The resources that the stack still has, by ListStackResources."""
    what = f"resources of stack '{stack}'"
    pages = progress.pages(clients, "cloudformation", "list_stack_resources", what, StackName=stack)
    found = [one for page in pages for one in page["StackResourceSummaries"]]
    return [one for one in found if one["ResourceStatus"] != "DELETE_COMPLETE"]


def empty(clients: Clients, made: list[dict[str, Any]]) -> None:
    """Empty buckets and stop Spark. It can be interrupted and repeated safely.

    All else CloudFormation does: it disables and deletes queues, which ends their jobs, disables environments, and
    empties a repository (EmptyOnDelete).
    """
    for one in made:
        emptied = {"AWS::S3::Bucket": _empty_bucket, "AWS::EMRServerless::Application": _stop_spark}
        if one["ResourceType"] in emptied and one.get("PhysicalResourceId"):
            try:
                emptied[one["ResourceType"]](clients, one["PhysicalResourceId"])
            except InvalidRequest as error:
                if error.code not in ("NoSuchBucket", "ResourceNotFoundException"):  # it has gone already
                    raise


def _stop_spark(clients: Clients, application: str) -> None:
    """Cancel an application's jobs and stop it: CloudFormation deletes none that is started."""
    if not clients.backend.offers("emr-serverless"):
        return
    emr, asked = clients.client("emr-serverless"), {"applicationId": application}
    with translated_errors(f"EMR application '{application}'"):
        while emr.get_application(**asked)["application"]["state"] not in ("CREATED", "STOPPED", "TERMINATED"):
            runs = emr.list_job_runs(**asked, states=list(SPARK_LIVE))["jobRuns"]
            for run in [one["id"] for one in runs if one["state"] != "CANCELLING"]:
                progress.say(f"Cancelling Spark job {run}")
                emr.cancel_job_run(**asked, jobRunId=run)
            if not runs:
                emr.stop_application(**asked)
            time.sleep(clients.backend.poll_s)


def _empty_bucket(clients: Clients, bucket: str) -> None:
    gone = 0
    while batch := list(islice(_versions(clients, bucket), 1000)):
        with translated_errors(f"bucket '{bucket}'"):
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
    for page in progress.pages(clients, "s3", "list_object_versions", f"bucket '{bucket}'", Bucket=bucket):
        for one in page.get("Versions", []) + page.get("DeleteMarkers", []):
            yield {"Key": one["Key"], "VersionId": one["VersionId"]}
