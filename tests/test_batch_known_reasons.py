"""What the service's words mean: texts as AWS writes them, in the documents and in what people have reported."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from described import job

import genokit.batch
from genokit.batch.diagnose.known_reasons import failure, meaning

KNOWN = tomllib.loads((Path(genokit.batch.__file__).parent / "diagnose" / "known_reasons.toml").read_text())
TABLES = ("blocked", "invalid", "launches", "slow", "failed", "lines")


@pytest.mark.parametrize(
    ("table", "said", "means"),
    [
        (
            "blocked",
            "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for instance type "
            "[g5.xlarge]",
            "too few free instances",
        ),
        (
            "blocked",
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue cannot meet the "
            "CPU requirement of the job.",
            "maxvCpus",
        ),
        (
            "blocked",
            "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than "
            "that can be met by the CE(s) attached to the job queue.",
            "No instance",
        ),
        ("blocked", "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS – Batch service role has a permission issue.", "lacks"),
        (
            "blocked",
            "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED - Your compute environment associated with this "
            "job queue has an unsupported instance type configuration.",
            "not offered in its zones",
        ),
        ("blocked", "ACTION_REQUIRED - CE(s) associated with the job queue are invalid.", "no compute environment"),
        (
            "blocked",
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT - The job queue has no compute environment that is ENABLED.",
            "no compute environment",
        ),
        ("blocked", "UNDETERMINED - Batch job is blocked, root cause is undetermined.", None),
        ("blocked", "Essential container in task exited", None),
        ("invalid", "CLIENT_ERROR - Clusters can not be blank.", "cluster is gone, or its instances' role is wrong"),
        ("invalid", "CLIENT_ERROR - Invalid IamInstanceProfile: ecsInstanceRole", "not an instance profile"),
        ("invalid", "CLIENT_ERROR - AMI cannot be described", "machine image"),
        (
            "invalid",
            "CLIENT_ERROR - User: batch.amazonaws.com is not authorized to perform: sts:AssumeRole on resource: "
            "arn:aws:iam::123456789012:role/x (Service: AWSSecurityTokenService; Status Code: 403)",
            "cannot assume its service role",
        ),
        (
            "invalid",
            "CLIENT_ERROR - User: arn:aws:sts::1:assumed-role/x/aws-batch is not authorized to perform: "
            "ecs:DescribeClusters on resource: arn:aws:ecs:us-east-2:1:cluster/x",
            "lacks the permission",
        ),
        (
            "launches",
            "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket "
            "that the specified instance type belongs to. Launching EC2 instance failed.",
            "quota",
        ),
        (
            "launches",
            "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity",
            "few",
        ),
        (
            "launches",
            "Your requested instance type (g5.xlarge) is not supported in your requested Availability Zone.",
            "not offered in a zone",
        ),
        ("launches", "Something new", None),
        ("failed", "CannotPullContainerError: write /var/lib/docker/x: no space left on device", "disk is full"),
        (
            "failed",
            "CannotPullContainerError: toomanyrequests: You have reached your pull rate limit.",
            "further pulls",
        ),
        ("failed", "CannotPullContainerError: manifest for x:1 not found: manifest unknown", "no such image"),
        ("failed", "CannotPullContainerError: pull access denied for x, repository does not exist", "no such image"),
        ("failed", "CannotPullContainerError: no basic auth credentials", "denies the instance access"),
        ("failed", "CannotPullContainerError: dial tcp 1.2.3.4:443: i/o timeout", "cannot reach"),
        (
            "failed",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed",
            "secrets or the registry's credentials",
        ),
        (
            "failed",
            "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task.",
            "cannot assume the job's role",
        ),
        ("failed", "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s", "too slow"),
        ("failed", "CannotInspectContainerError: Could not transition to inspecting; timed out after 30s", "too slow"),
        ("failed", 'CannotStartContainerError: exec: "x": executable file not found in $PATH', "no such program"),
        ("failed", "Essential container in task exited", None),
        ("lines", "botocore.exceptions.NoRegionError: You must specify a region.", "region"),
        ("lines", "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", "GPU ran out of memory"),
        ("lines", "run.sh: line 2: $'\\r': command not found", "Windows line endings"),
        ("lines", "env: 'python\\r': No such file or directory", "Windows line endings"),
        ("failed", "InvalidParameterException: Container Overrides length must be at most 8192", "8,192 characters"),
        ("lines", "all is well", None),
    ],
)
def test_what_aws_writes_is_understood_or_left_alone(table: str, said: str, means: str | None) -> None:
    cause = meaning(table, said, "seen")
    assert (cause is None) == (means is None)
    assert means is None or means in cause.what


@pytest.mark.parametrize("table", TABLES)
def test_every_known_text_says_what_it_means_and_what_to_do(table: str) -> None:
    for known in KNOWN[table]:
        assert set(known) <= {"pattern", "what", "do", "sure"}
        re.compile(known["pattern"])
        assert known["what"].endswith((".", "$status"))
        assert known["do"].endswith(".") or "Somebody" in known["what"]
        assert known.get("sure") in (None, "likely", "possible")


@pytest.mark.parametrize(
    ("changes", "container", "means", "sure"),
    [
        (
            {"isTerminated": True, "statusReason": "wrong data"},
            {"exitCode": 137},
            "terminated the job: wrong data",
            "c",
        ),
        ({"isCancelled": True, "statusReason": "not needed"}, {}, "cancelled the job: not needed", "c"),
        ({"statusReason": "Job attempt duration exceeded timeout"}, {"exitCode": 137}, "longer than its timeout", "c"),
        ({"statusReason": "Host EC2 (instance i-0abc) terminated."}, {}, "instance was lost", "c"),
        ({"statusReason": "Dependent Job failed"}, {}, "waited for has failed", "c"),
        (
            {
                "isCancelled": True,
                "statusReason": "Canceled by JobStateTimeLimit action due to reason: "
                "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
            },
            {},
            "EC2 has too few",
            "c",
        ),
        ({}, {"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"}, "4.0 GiB", "c"),
        ({}, {"exitCode": 137}, "most often because it took more memory", "l"),
        ({}, {"exitCode": 127}, "not found", "c"),
        ({}, {"exitCode": 126}, "could not be executed", "c"),
        ({}, {"exitCode": 139}, "segmentation fault", "l"),
        ({}, {"exitCode": 2}, "itself ended with exit code 2", "c"),
        ({"statusReason": "Task failed to start"}, {"reason": "CannotPullContainerError: x"}, "not be pulled", "l"),
        ({"statusReason": "Something new"}, {}, "before its program ran: Something new", "p"),
        ({}, {}, "no reason given", "p"),
    ],
)
def test_a_failure_is_told_in_plain_words(
    changes: dict[str, Any], container: dict[str, Any], means: str, sure: str
) -> None:
    detail = job("FAILED", **changes)
    detail["container"] |= container
    cause = failure(detail)
    assert means in cause.what
    assert cause.sure.startswith(sure)
