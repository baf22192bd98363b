"""Jobs as a notebook uses them, over the embedded clients and over boto3's own that the embedded account feeds."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from embedded import PLACES, waits_for

from genokit import Batch, Job, Settings
from genokit.backends import Clients
from genokit.batch import LogStream
from genokit.batch.diagnose.explain import explain
from genokit.errors import AccessDenied, ConfigError, InvalidRequest, JobFailed, JobTimeout, NotFound, ServiceError

COMMAND = ["sh", "-c", "echo one; echo two; exit 3"]
SECRET = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}


@pytest.fixture(params=PLACES)
def batch(request: pytest.FixtureRequest, account: Settings) -> Batch:
    return Batch(PLACES[request.param](account))


def test_a_failing_job_is_followed_to_its_end_and_tells_why(batch: Batch) -> None:
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


def test_another_kernel_takes_a_job_up_by_its_id(batch: Batch, account: Settings) -> None:
    mine = batch.submit(batch.define("hello", command=["echo", "Ref::who"], memory_gib=0.1), parameters={"who": "you"})
    theirs = Batch(settings=account).job(mine.id)
    assert theirs.wait(30).raise_for_status().log() == "you"
    assert theirs.parameters == {"who": "you"}


def test_waiting_has_an_end_and_the_job_goes_on(batch: Batch, tmp_path: Path) -> None:
    job = batch.submit(batch.define("waits", command=waits_for(tmp_path / "go"), memory_gib=0.1))
    with pytest.raises(JobTimeout, match="goes on"):
        job.wait(0.2)
    (tmp_path / "go").touch()
    assert job.wait(30).status == "SUCCEEDED"


def test_jobs_are_a_table_newest_first(batch: Batch) -> None:
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
    with pytest.raises(NotFound, match=r"no job queue 'lowPriorty'\. Did you mean 'lowPriority'"):
        batch.jobs(queue="lowPriorty")


def test_wrong_names_are_answered_with_the_nearest_right_one(batch: Batch) -> None:
    hello = batch.define("hello", command=["true"])
    with pytest.raises(NotFound, match=r"no job queue 'highPrio'\. Did you mean 'highPriority'"):
        batch.submit(hello, queue="highPrio")
    with pytest.raises(NotFound, match=r"no active job definition 'helo'\. Did you mean 'hello'"):
        batch.submit("helo")
    with pytest.raises(NotFound, match="no job 'x'"):
        batch.job("x")
    with pytest.raises(InvalidRequest, match="list of words"):
        batch.define("hello", command="echo hello")
    with pytest.raises(InvalidRequest, match=r"jobName, value: 3, .* valid types: <class 'str'>"):
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


def test_cards_escape_what_jobs_say(batch: Batch) -> None:
    job = batch.submit(batch.define("hostile", command=["echo", "<script>alert(1)</script>"], memory_gib=0.1)).wait(30)
    card = job._repr_html_()
    assert "<script>" not in card
    assert "&lt;script&gt;" in card
    assert "here as your user, with no container or IAM isolation" in card
    assert repr(job).startswith(f"<Job hostile {job.id[:8]} SUCCEEDED highPriority")
    assert "highPriority" in batch._repr_html_()


def test_an_empty_page_is_not_the_end_of_a_stream(account: Settings) -> None:
    """As CloudWatch pages: the token that comes back is the end."""
    client = boto3.client("logs", **SECRET)
    asked = {"logGroupName": "/aws/batch/job", "logStreamName": "two/default/1"}
    pages = [
        ({"startFromHead": True}, "f/1", ["one"]),
        ({"nextToken": "f/1"}, "f/2", []),
        ({"nextToken": "f/2"}, "f/3", ["two"]),
        ({"nextToken": "f/3"}, "f/3", []),
    ]
    with Stubber(client) as stubber:
        for request, token, messages in pages:
            events = [{"timestamp": 1, "message": message, "ingestionTime": 2} for message in messages]
            answer = {"events": events, "nextForwardToken": token, "nextBackwardToken": "b/0"}
            stubber.add_response("get_log_events", answer, asked | request)
        assert list(LogStream(Clients(account, logs=client), "two/default/1").new_lines()) == ["one", "two"]
        stubber.assert_no_pending_responses()


def test_tail_prints_every_attempt_also_of_those_that_fail_quickly(batch: Batch) -> None:
    script = "echo attempt number $AWS_BATCH_JOB_ATTEMPT; exit 1"
    job = batch.submit(batch.define("quick", command=["sh", "-c", script], memory_gib=0.05, retry=5))
    out = io.StringIO()
    job.tail(out)
    lines = [line for line in out.getvalue().splitlines() if line.startswith(("attempt", "[quick] attempt"))]
    expected = ["attempt number 1"]
    for number in range(2, 6):
        expected += [f"[quick] attempt {number}", f"attempt number {number}"]
    assert lines == expected


# OSC 52 writes the reader's clipboard, OSC 0 the title; in seven bits and in eight, and not ended.
ESCAPES = "\x1b]52;c;cm0gLXJm\x07\x1b]0;owned\x1b\\\\\x9d52;c;eA==\x9c\x1b[2J\x1b[31m\x1bP1$r\x1b\\\\\x1b]52;c;\x08"


def test_what_a_job_writes_never_commands_the_terminal(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    code = f"print({ESCAPES!r} + 'seen'); raise SystemExit(3)"
    job = batch.submit(batch.define("hostile", command=["python", "-c", code], memory_gib=0.1, retry=2))
    out = io.StringIO()
    job.tail(out)
    print(job.log())
    with pytest.raises(JobFailed) as failed:
        job.raise_for_status()
    shown = [out.getvalue(), repr(job.log()), f"{job.log()}", capsys.readouterr().out, str(failed.value)]
    assert job.log()[:] == ESCAPES + "seen"  # the text itself stays as it was written
    waits = batch.submit(batch.define("waits", command=["sleep", "60"], memory_gib=0.1))
    waits.terminate(ESCAPES + "seen").wait(60)
    shown += [waits.reason, str(waits.explain()), repr(waits), str(waits.explain().causes[0])]
    shown += [batch.jobs().to_string(), repr(batch.monitor().snapshot().jobs["reason"][0])]
    for text in shown:
        assert "seen" in text or text == repr(waits)
        assert not [sign for sign in text if unicodedata.category(sign) == "Cc" and sign != "\n"], text


def test_times_are_never_negative_and_a_reason_is_said_once(account: Settings) -> None:
    detail = {
        "jobName": "one", "jobId": "1", "status": "SUCCEEDED", "createdAt": 1, "startedAt": 3_600_000,
        "stoppedAt": 6_010, "statusReason": "CannotStart: no", "container": {"reason": "CannotStart: no"},
    }  # fmt: skip
    job = Job(Clients(account), "1")
    job._detail = detail
    assert (job.duration_s, job.reason) == (0.0, "CannotStart: no")
    assert explain(Clients(account), detail).headline == "It succeeded in 0.00 s."
