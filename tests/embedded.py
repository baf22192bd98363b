"""An embedded account with the words that its tests are written in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from genokit import Settings, backends
from genokit.local.door import Door
from genokit.local.engine import processes, runners

SMALL = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]


@contextmanager
def served(settings: Settings) -> Iterator[Door]:
    """The account's door, announced to jobs and open as long as the block lasts."""
    with backends.door(settings) as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.01,))
        thread.start()
        try:
            while thread.is_alive() and not processes.locked_text(door.home / runners.DOOR):
                time.sleep(0.005)
            yield door
        finally:
            door.shutdown()
            thread.join()


@contextmanager
def through(door: Door, **changes: str) -> Iterator[backends.Clients]:
    """boto3's own clients, led to the door, with its key pair or ``changes`` to what they are told."""
    told = {
        "region_name": "eu-central-1",
        "endpoint_url": door.url,
        "aws_access_key_id": door.key_pair.access_key,
        "aws_secret_access_key": door.key_pair.secret_key,
        **changes,
    }
    with ExitStack() as stack:
        yield backends.Clients(
            Settings(),
            **{
                name: stack.enter_context(closing(boto3.client(name, **told)))
                for name in ("batch", "logs", "s3", "sts")
            },
        )


def _fed(service: str, embedded: Any) -> Any:
    """A client of boto3's own that is fed by botocore's Stubber with what the embedded service answers.

    So requests and answers pass through all of boto3, its checks of both included, and no wire.
    """
    client = boto3.client(service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    stubber = Stubber(client)

    def feed(params: dict[str, Any], model: Any, **_: Any) -> None:
        operation = xform_name(model.name)
        try:
            answer = getattr(embedded, operation)(**params)
        except ClientError as error:
            stubber.add_client_error(operation, **_as_stubbed(error), expected_params=params)
        else:
            stubber.add_response(operation, _as_modelled(answer), params)

    client.meta.events.register("provide-client-params", feed)
    stubber.activate()
    return client


def _as_stubbed(error: ClientError) -> dict[str, Any]:
    told, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return {"service_error_code": told["Code"], "service_message": told["Message"], "http_status_code": status}


def _as_modelled(answer: dict[str, Any]) -> dict[str, Any]:
    body = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
    if "jobs" in body:  # the model calls startedAt required, yet AWS leaves it out of a job that has not started
        body["jobs"] = [{"startedAt": 0, **job} for job in body["jobs"]]
    return body


def fed(settings: Settings) -> backends.Clients:
    """Clients of boto3's own, fed by the embedded account."""
    given = {service: _fed(service, backends.clients(settings).client(service)) for service in backends.EMBEDDED}
    return backends.Clients(settings, **given)


PLACES = {"embedded": backends.clients, "stubbed": fed}


class Box:
    """Clients of an account in boto3's shape, and what tests do with them again and again.

    The embedded ones unless others are given: ``with served(settings) as door, through(door) as clients: ...``
    """

    def __init__(self, settings: Settings, clients: backends.Clients | None = None) -> None:
        clients = clients or backends.clients(settings)
        self.batch, self.logs = clients.batch, clients.logs
        self.account = backends.account(settings)

    def define(self, *command: str, name: str = "task", **properties: Any) -> str:
        container = {"image": "genokit", "command": list(command), "resourceRequirements": SMALL, **properties}
        answer = self.batch.register_job_definition(
            jobDefinitionName=name, type="container", containerProperties=container
        )
        return str(answer["jobDefinitionArn"])

    def submit(self, definition: str, queue: str = "highPriority", **request: Any) -> str:
        answer = self.batch.submit_job(jobName="one", jobQueue=queue, jobDefinition=definition, **request)
        return str(answer["jobId"])

    def describe(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.batch.describe_jobs(jobs=[job_id])["jobs"][0]
        return job

    def wait(self, job_id: str, *statuses: str, within_s: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while (job := self.describe(job_id))["status"] not in (statuses or ("SUCCEEDED", "FAILED")):
            assert time.monotonic() < deadline, f"still {job['status']}: {job}"
            time.sleep(0.01)
        return job

    def written(self, job_id: str) -> list[str]:
        """The lines of a job's newest attempt."""
        stream = self.describe(job_id)["container"]["logStreamName"]
        page = self.logs.get_log_events(logGroupName="/aws/batch/job", logStreamName=stream, startFromHead=True)
        return [event["message"] for event in page["events"]]

    def refusal(self, call: Any, **request: Any) -> tuple[str, str]:
        """The code and the message of the error that a request is answered with."""
        with pytest.raises(ClientError) as caught:
            call(**request)
        return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def waits_for(file: Path) -> list[str]:
    """The command of a job that ends when a test makes the file, and not before, however slow the machine is."""
    return ["sh", "-c", f"until [ -e '{file}' ]; do sleep 0.05; done"]


def wait_until(true: Callable[[], Any], within_s: float = 120) -> None:
    """Look until it is true."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
