"""Environments, queues and jobs as AWS describes them, and boto3's own clients that answer with what they are given."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.stub import Stubber

SECRET = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
ARN = "arn:aws:batch:us-east-1:123456789012"


def environment(name: str, kind: str = "EC2", **changes: Any) -> dict[str, Any]:
    """A managed environment as AWS describes it; ``changes`` to it and to what it computes with."""
    compute = {"type": kind, "maxvCpus": 256, "minvCpus": 0, "desiredvCpus": 0, "instanceTypes": ["optimal"],
               "subnets": ["subnet-1"], "ec2Configuration": [{"imageType": "ECS_AL2023"}]}  # fmt: skip
    told = {
        "computeEnvironmentName": name,
        "computeEnvironmentArn": f"{ARN}:compute-environment/{name}",
        "ecsClusterArn": f"arn:aws:ecs:us-east-1:123456789012:cluster/AWSBatch-{name}-1f2e",
        "type": "MANAGED",
        "state": "ENABLED",
        "status": "VALID",
        "statusReason": "ComputeEnvironment Healthy",
        "computeResources": compute | {key: changes.pop(key) for key in list(changes) if key in compute},
    }
    return told | changes


def queue(name: str, *places: str, priority: int = 1, **changes: Any) -> dict[str, Any]:
    """A job queue as AWS describes it."""
    order = [{"order": i, "computeEnvironment": f"{ARN}:compute-environment/{one}"} for i, one in enumerate(places, 1)]
    return {
        "jobQueueName": name,
        "jobQueueArn": f"{ARN}:job-queue/{name}",
        "state": "ENABLED",
        "status": "VALID",
        "statusReason": "JobQueue Healthy",
        "priority": priority,
        "computeEnvironmentOrder": order,
    } | changes


def job(status: str, **changes: Any) -> dict[str, Any]:
    """A job as AWS describes it; ``changes`` to it."""
    room = [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "4096"}]
    return {
        "jobName": "align",
        "jobId": "ab12",
        "jobArn": f"{ARN}:job/ab12",
        "jobQueue": f"{ARN}:job-queue/highPriority",
        "jobDefinition": f"{ARN}:job-definition/align:1",
        "status": status,
        "createdAt": 1_700_000_000_000,
        "startedAt": 0,
        "platformCapabilities": ["EC2"],
        "container": {"resourceRequirements": room},
    } | changes


def stubbed(service: str, *answers: tuple[str, dict[str, Any] | str]) -> Any:
    """A client of boto3 that gives these answers to these operations in turn; a text is the code of an error."""
    client = boto3.client(service, **SECRET)
    stubber = Stubber(client)
    for operation, answer in answers:
        if isinstance(answer, str):
            stubber.add_client_error(operation, answer, "said AWS")
        else:
            stubber.add_response(operation, answer)
    stubber.activate()
    return client
