"""Jobs as a notebook uses them; what is marked ``both`` runs over the embedded account and over boto3's own clients."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from genokit import Batch, Job, Settings
from genokit.backends import Clients
from genokit.errors import AccessDenied, ConfigError, InvalidRequest, JobFailed, JobTimeout, NotFound, ServiceError

COMMAND = ["sh", "-c", "echo one; echo two; exit 3"]
SECRET = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
STREAM = "two-lines/default/0123456789abcdef"


def boto_clients(settings: Settings) -> Clients:
    """boto3's own clients, which will get the answers that AWS's documents show, and check the requests on the way."""
    batch, logs = boto3.client("batch", **SECRET), boto3.client("logs", **SECRET)
    batches, streams = Stubber(batch), Stubber(logs)
    arn = "arn:aws:batch:us-east-1:123456789012"
    batches.add_response(
        "register_job_definition",
        {"jobDefinitionName": "two-lines", "jobDefinitionArn": f"{arn}:job-definition/two-lines:1", "revision": 1},
    )
    batches.add_response("submit_job", {"jobName": "two-lines", "jobId": "ab12", "jobArn": f"{arn}:job/ab12"})
    job: dict[str, Any] = {
        "jobName": "two-lines",
        "jobId": "ab12",
        "jobQueue": f"{arn}:job-queue/highPriority",
        "jobDefinition": f"{arn}:job-definition/two-lines:1",
        "createdAt": 1_700_000_000_000,
        "startedAt": 1_700_000_001_000,
    }
    running = {**job, "status": "RUNNING", "container": {"logStreamName": STREAM}}
    failed = {
        **job,
        "status": "FAILED",
        "statusReason": "Essential container in task exited",
        "stoppedAt": 1_700_000_003_000,
        "container": {"logStreamName": STREAM, "exitCode": 3},
    }
    for detail in (running, running, failed):
        batches.add_response("describe_jobs", {"jobs": [detail]}, {"jobs": ["ab12"]})
    asked = {"logGroupName": "/aws/batch/job", "logStreamName": STREAM}

    def events(token: str, *messages: str) -> dict[str, Any]:
        found = [{"timestamp": 1, "message": message, "ingestionTime": 2} for message in messages]
        return {"events": found, "nextForwardToken": token, "nextBackwardToken": "b/0"}

    streams.add_response("get_log_events", events("f/1", "one"), {**asked, "startFromHead": True})
    streams.add_response("get_log_events", events("f/1"), {**asked, "nextToken": "f/1"})
    streams.add_response("get_log_events", events("f/1"), {**asked, "nextToken": "f/1"})
    # An empty page is not the end of a stream; the token that comes back is.
    streams.add_response("get_log_events", events("f/2"), {**asked, "nextToken": "f/1"})
    streams.add_response("get_log_events", events("f/3", "two"), {**asked, "nextToken": "f/2"})
    streams.add_response("get_log_events", events("f/3"), {**asked, "nextToken": "f/3"})
    streams.add_response("get_log_events", events("f/3", "one", "two"), {**asked, "limit": 20})
    batches.activate()
    streams.activate()
    return Clients(settings, batch=batch, logs=logs)


both = pytest.mark.parametrize("clients_of", [Clients, boto_clients], ids=["embedded", "boto3"])


@both
def test_a_failing_job_is_followed_to_its_end_and_tells_why(
    account: Settings, clients_of: Callable[[Settings], Clients]
) -> None:
    batch = Batch(clients_of(account))
    job = batch.submit(batch.define("two-lines", command=COMMAND, memory_gib=0.1))
    out = io.StringIO()
    job.tail(out)
    said = [line for line in out.getvalue().splitlines() if not line.endswith(("SUBMITTED", "RUNNABLE", "STARTING"))]
    lines = [line for line in said if line != "[two-lines] RUNNING"]
    assert lines == ["one", "two", "[two-lines] FAILED (Essential container in task exited)"]
    with pytest.raises(JobFailed, match=r"exit code 3: Essential container in task exited(.|\n)*one\n *two") as caught:
        job.raise_for_status()
    assert (caught.value.exit_code, caught.value.last_lines, caught.value.job) == (3, ["one", "two"], job)
    assert (job.queue, job.definition, job.name) == ("highPriority", "two-lines:1", "two-lines")
    assert job.duration_s is not None


def test_another_kernel_takes_a_job_up_by_its_id(account: Settings) -> None:
    batch = Batch(settings=account)
    mine = batch.submit(batch.define("hello", command=["echo", "Ref::who"], memory_gib=0.1), parameters={"who": "you"})
    theirs = Batch(settings=account).job(mine.id)
    assert theirs.wait(30).raise_for_status().log() == "you"
    assert theirs.parameters == {"who": "you"}


def test_waiting_has_an_end_and_the_job_goes_on(account: Settings) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("sleep", command=["sleep", "1"], memory_gib=0.1))
    with pytest.raises(JobTimeout, match="goes on"):
        job.wait(0.2)
    assert job.wait(30).status == "SUCCEEDED"


def test_jobs_are_a_table_newest_first(account: Settings) -> None:
    batch = Batch(settings=account)
    assert batch.jobs().empty
    first = batch.submit(batch.define("first", command=["true"], memory_gib=0.1)).wait(30)
    second = batch.submit(batch.define("second", command=["false"], memory_gib=0.1), queue="lowPriority").wait(30)
    table = batch.jobs()
    assert list(table["job_id"]) == [second.id, first.id]
    assert list(table["status"]) == ["FAILED", "SUCCEEDED"]
    assert (table["duration_s"] >= 0).all()
    assert list(batch.jobs(queue="lowPriority")["name"]) == ["second"]
    assert list(batch.jobs(status="SUCCEEDED")["name"]) == ["first"]
    with pytest.raises(InvalidRequest, match="Did you mean 'FAILED'"):
        batch.jobs(status="FAILD")


def test_wrong_names_are_answered_with_the_nearest_right_one(account: Settings) -> None:
    batch = Batch(settings=account)
    hello = batch.define("hello", command=["true"])
    with pytest.raises(NotFound, match=r"no job queue 'highPrio'\. Did you mean 'highPriority'"):
        batch.submit(hello, queue="highPrio")
    with pytest.raises(InvalidRequest, match=r"nobody not found"):
        batch.submit("nobody")
    with pytest.raises(NotFound, match="no job 'x'"):
        batch.job("x")
    with pytest.raises(InvalidRequest, match="list of words"):
        batch.define("hello", command="echo hello")
    with pytest.raises(InvalidRequest, match="Invalid type for parameter jobName"):
        batch.submit(hello, name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("AccessDeniedException", AccessDenied),
        ("ExpiredTokenException", ConfigError),
        ("UnrecognizedClientException", ConfigError),
        ("ClientException", InvalidRequest),
        ("ServerException", ServiceError),
        ("TooManyRequestsException", ServiceError),
    ],
)
def test_what_aws_answers_becomes_one_of_our_errors(account: Settings, code: str, becomes: type[Exception]) -> None:
    client = boto3.client("batch", **SECRET)
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_jobs", code, "said AWS")
        with pytest.raises(becomes, match=r"job 'ab12'.*said AWS") as caught:
            Job(Clients(account, batch=client), "ab12").refresh()
    assert isinstance(caught.value.__cause__, ClientError)


def test_cards_escape_what_jobs_say(account: Settings) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("hostile", command=["echo", "<script>alert(1)</script>"], memory_gib=0.1)).wait(30)
    card = job._repr_html_()
    assert "<script>" not in card
    assert "&lt;script&gt;" in card
    assert "without the walls of a container" in card
    assert repr(job).startswith(f"<Job hostile {job.id[:8]} SUCCEEDED highPriority")
    assert "highPriority" in batch._repr_html_()
