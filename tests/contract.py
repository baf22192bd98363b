"""The places that the contract of AWS Batch is held against, and the words its tests are written in.

``embedded``: the embedded clients. ``door``: boto3's own clients, through the embedded account's door. ``aws`` (asked
for by ``-m aws``): a real account, with boto3's usual credentials. It needs two variables: CONTRACT_QUEUE, the name of
an ENABLED queue without a fair-share policy, and CONTRACT_SERVICE_ROLE, the ARN of a role for UNMANAGED environments.
What the tests make there bears a name that begins with ``genokit-contract-``, and is removed at the end. Nobody has run
that half yet: it is written from the documents.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from embedded import SMALL, served, through

from genokit import Settings, backends

ORDER = ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"]
GROUP = "/aws/batch/job"


@dataclass
class Place:
    """An account, wherever it is: its clients, a queue to submit to, and what tests do again and again."""

    name: str
    batch: Any
    logs: Any
    queue: str
    image: str
    patience_s: float  # for one job
    poll_s: float
    made: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        return self.name != "aws"

    def fresh(self, kind: str = "x") -> str:
        """A name that nobody has."""
        return f"genokit-contract-{kind}-{secrets.token_hex(4)}"

    # --- jobs

    def container(self, *command: str, **properties: Any) -> dict[str, Any]:
        return {"image": self.image, "command": list(command), "resourceRequirements": SMALL, **properties}

    def define(self, *command: str, container: dict[str, Any] | None = None, **request: Any) -> str:
        """The ARN of a new definition, which is deregistered at the end."""
        name = request.pop("jobDefinitionName", None) or self.fresh("job")
        answer = self.batch.register_job_definition(
            jobDefinitionName=name,
            type="container",
            containerProperties=self.container(*command, **(container or {})),
            **request,
        )
        self.made.append(("definition", answer["jobDefinitionArn"]))
        return str(answer["jobDefinitionArn"])

    def submit(self, definition: str, *, jobName: str = "contract", **request: Any) -> str:
        queue = request.pop("jobQueue", self.queue)
        answer = self.batch.submit_job(jobName=jobName, jobQueue=queue, jobDefinition=definition, **request)
        self.made.append(("job", answer["jobId"]))
        return str(answer["jobId"])

    def run(self, *command: str, **request: Any) -> dict[str, Any]:
        """A job of one command, ended."""
        return self.wait(self.submit(self.define(*command), **request))

    def describe(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.batch.describe_jobs(jobs=[job_id])["jobs"][0]
        return job

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.patience_s
        while (job := self.describe(job_id))["status"] not in (statuses or ("SUCCEEDED", "FAILED")):
            assert time.monotonic() < deadline, f"still {job['status']}: {job}"
            time.sleep(self.poll_s)
        return job

    def written(self, job: dict[str, Any]) -> list[str]:
        """The lines of a job that has ended; AWS delivers the last of them late."""
        deadline = time.monotonic() + (0 if self.ours else 30)
        stream = {"logGroupName": GROUP, "logStreamName": job["container"]["logStreamName"], "startFromHead": True}
        while True:
            try:
                events = self.logs.get_log_events(**stream)["events"]
            except ClientError:
                events = []
            if events or time.monotonic() >= deadline:
                return [event["message"] for event in events]
            time.sleep(self.poll_s)

    # --- queues, environments, policies

    def environment(self, name: str | None = None, **request: Any) -> str:
        """The name of a new UNMANAGED environment: it needs no network, and no instance of it is ever started."""
        name = name or self.fresh("ce")
        role = {} if self.ours else {"serviceRole": os.environ["CONTRACT_SERVICE_ROLE"]}
        self.batch.create_compute_environment(computeEnvironmentName=name, type="UNMANAGED", **role, **request)
        self.made.append(("environment", name))
        self.valid("compute_environments", "computeEnvironments", name)
        return name

    def make_queue(self, *environments: str, name: str | None = None, **request: Any) -> str:
        name = name or self.fresh("queue")
        order = [{"order": place, "computeEnvironment": one} for place, one in enumerate(environments, start=1)]
        self.batch.create_job_queue(jobQueueName=name, computeEnvironmentOrder=order, **{"priority": 1, **request})
        self.made.append(("queue", name))
        self.valid("job_queues", "jobQueues", name)
        return name

    def policy(self, **request: Any) -> str:
        arn = str(self.batch.create_scheduling_policy(**{"name": self.fresh("policy"), **request})["arn"])
        self.made.append(("policy", arn))
        return arn

    def valid(self, what: str, member: str, name: str) -> dict[str, Any]:
        """A queue or an environment when AWS has done with it: VALID, or gone."""
        deadline = time.monotonic() + self.patience_s
        while True:
            found = getattr(self.batch, f"describe_{what}")(**{member: [name]})[member]
            if not found or found[0]["status"] in ("VALID", "DELETED", "INVALID"):
                return dict(found[0]) if found and found[0]["status"] != "DELETED" else {}
            assert time.monotonic() < deadline, f"still {found[0]['status']}: {name}"
            time.sleep(self.poll_s)

    # --- errors

    def refused(self, operation: str, names: str, **request: Any) -> None:
        """AWS answers ClientException; here the message also names the member at fault."""
        with pytest.raises(ClientError) as caught:
            getattr(self.batch, operation)(**request)
        error = caught.value.response["Error"]
        assert error["Code"] == "ClientException", error
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        if self.ours:
            assert names in error["Message"]

    def tidy(self) -> None:
        """Remove what was made, the newest first, as AWS asks: nothing that is in use."""
        for kind, name in reversed(self.made):
            if kind == "job":
                self.batch.terminate_job(jobId=name, reason="the contract's tests are over")
            elif kind == "definition":
                self.batch.deregister_job_definition(jobDefinition=name)
            elif kind == "policy":
                self.batch.delete_scheduling_policy(arn=name)
            else:
                self.remove(kind, name)

    def remove(self, kind: str, name: str) -> None:
        """Disable and delete a queue or an environment, if it is there."""
        what, member, key = {
            "queue": ("job_queue", "jobQueues", "jobQueue"),
            "environment": ("compute_environment", "computeEnvironments", "computeEnvironment"),
        }[kind]
        if not self.valid(f"{what}s", member, name):
            return
        getattr(self.batch, f"update_{what}")(**{key: name, "state": "DISABLED"})
        self.valid(f"{what}s", member, name)
        getattr(self.batch, f"delete_{what}")(**{key: name})
        self.valid(f"{what}s", member, name)


@contextmanager
def embedded(home: Path) -> Iterator[Place]:
    settings = Settings(home=home)
    clients = backends.clients(settings)
    yield Place("embedded", clients.batch, clients.logs, "highPriority", "genokit", patience_s=120, poll_s=0.01)
    backends.account(settings).stop()


@contextmanager
def door(home: Path) -> Iterator[Place]:
    settings = Settings(home=home)
    with served(settings) as opened, through(opened) as clients:
        yield Place("door", clients.batch, clients.logs, "highPriority", "genokit", patience_s=120, poll_s=0.01)
    backends.account(settings).stop()


@contextmanager
def aws(home: Path) -> Iterator[Place]:
    clients = backends.clients(Settings.load(backend="aws"))
    image = "public.ecr.aws/docker/library/busybox:stable"
    place = Place("aws", clients.batch, clients.logs, os.environ["CONTRACT_QUEUE"], image, 1800, 5)
    try:
        yield place
    finally:
        place.tidy()


PLACES = {"embedded": embedded, "door": door, "aws": aws}
EVERYWHERE = [pytest.param(name, marks=[pytest.mark.aws] if name == "aws" else []) for name in PLACES]
