"""Other clients come through the door: boto3, the AWS CLI, and requests made by hand."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from embedded import Box, served, through
from wire import raw, s3_signed, sent, signed

from genokit import Settings, backends
from genokit.errors import ConfigError
from genokit.local.door import Door

QUEUE = "arn:aws:batch:local:000000000000:job-queue/highPriority"
LIST = "/v1/describejobqueues"


@pytest.fixture
def door(account: Settings) -> Iterator[Door]:
    with served(account) as door:
        yield door


@pytest.fixture
def box(account: Settings, door: Door) -> Iterator[Box]:
    """boto3 through the door."""
    with through(door) as clients:
        yield Box(account, clients)


# --- boto3


def test_a_job_lives_through_the_door_as_it_does_inside(box: Box, account: Settings) -> None:
    job_id = box.submit(box.define("sh", "-c", "echo out; echo err >&2; exit 3"), tags={"lab": "Köln"})
    assert box.wait(job_id)["container"]["exitCode"] == 3
    assert box.written(job_id) == ["out", "err"]
    inside = Box(account)
    assert box.describe(job_id) == inside.describe(job_id)
    for call, request in (
        ("describe_job_queues", {}),
        ("describe_compute_environments", {}),
        ("describe_job_definitions", {"jobDefinitionName": "task"}),
        ("list_jobs", {"jobQueue": "highPriority", "jobStatus": "FAILED"}),
    ):
        ours, theirs = getattr(inside.batch, call)(**request), getattr(box.batch, call)(**request)
        del ours["ResponseMetadata"], theirs["ResponseMetadata"]
        assert theirs == ours
        assert any(ours.values())


def test_a_job_runs_under_the_settings_of_the_process_that_serves(box: Box, account: Settings) -> None:
    job_id = box.submit(box.define("sh", "-c", 'echo "$GENOKIT_HOME"'))
    box.wait(job_id)
    assert box.written(job_id) == [str(account.home)]


def test_boto3s_paginators_turn_the_pages(box: Box) -> None:
    definition = box.define("sh", "-c", "echo 1; echo 2; echo 3")
    ids = [box.submit(definition) for _ in range(5)]
    for job_id in ids:
        box.wait(job_id)
    pages = box.batch.get_paginator("list_jobs").paginate(
        jobQueue="highPriority", jobStatus="SUCCEEDED", PaginationConfig={"PageSize": 2}
    )
    assert [[job["jobId"] for job in page["jobSummaryList"]] for page in pages] == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    pages = box.logs.get_paginator("filter_log_events").paginate(
        logGroupName="/aws/batch/job", PaginationConfig={"PageSize": 2}
    )
    assert sorted(event["message"] for page in pages for event in page["events"]) == sorted("123" * 5)


HUGE = "9" * 30


def test_errors_have_the_code_and_the_message_that_they_have_inside(box: Box, account: Settings) -> None:
    inside = Box(account)
    job = {"jobName": "one", "jobQueue": "highPriority", "jobDefinition": box.define("true")}
    stream = {"logGroupName": "/aws/batch/job", "logStreamName": "none/such"}
    written = box.wait(box.submit(job["jobDefinition"]))["container"]["logStreamName"]
    for service, call, request in (
        ("batch", "submit_job", {**job, "jobName": "bad name!!"}),
        ("batch", "submit_job", {**job, "jobQueue": "nirgendwo — nowhere"}),
        ("batch", "submit_job", {**job, "dependsOn": [{"jobId": "x", "type": "BOGUS"}]}),
        ("batch", "describe_jobs", {"jobs": ["x"] * 101}),
        ("batch", "tag_resource", {"resourceArn": "no arn/at all", "tags": {"a": "b"}}),
        ("logs", "get_log_events", stream),
        ("logs", "get_log_events", {**stream, "logGroupName": "other"}),
        ("logs", "filter_log_events", {"logGroupName": "/aws/batch/job", "limit": 10_000, "nextToken": "x"}),
        ("logs", "filter_log_events", {"logGroupName": "/aws/batch/job", "nextToken": f"0/{HUGE}"}),
        ("logs", "get_log_events", {**stream, "logStreamName": "long/" * 20 + "x" * 400}),
        ("logs", "get_log_events", {**stream, "logStreamName": written, "nextToken": f"f/{HUGE}"}),
        ("logs", "describe_log_streams", {"logGroupName": "/aws/batch/job", "nextToken": HUGE}),
        ("batch", "list_jobs", {"jobQueue": "highPriority", "nextToken": HUGE}),
        ("batch", "list_jobs", {"jobQueue": "highPriority", "filters": [
            {"name": "AFTER_CREATED_AT", "values": [HUGE]}]}),
        ("batch", "describe_job_queues", {"nextToken": HUGE}),
        ("batch", "describe_job_definitions", {"nextToken": "9" * 5_000}),
        ("batch", "terminate_job", {"jobId": "\ud800", "reason": "x"}),
        ("batch", "submit_job", {**job, "timeout": {"attemptDurationSeconds": 10**400}}),
        ("batch", "submit_job", {**job, "containerOverrides": {"environment": [{"name": "LD_PATH=", "value": "x"}]}}),
    ):  # fmt: skip
        ours = inside.refusal(getattr(getattr(inside, service), call), **request)
        assert box.refusal(getattr(getattr(box, service), call), **request) == ours
        assert all(ours)
    with pytest.raises(box.batch.exceptions.ClientException):
        box.batch.submit_job(**{**job, "jobName": "bad name!!"})


def test_tags_of_a_resource_whose_name_fills_the_path(box: Box) -> None:
    tags = {"lab": "a/b c", "größe": "1+1=2", "x y": "@", "keep": "-2F:"}
    box.batch.tag_resource(resourceArn=QUEUE, tags=tags)
    assert box.batch.list_tags_for_resource(resourceArn=QUEUE)["tags"] == tags
    box.batch.untag_resource(resourceArn=QUEUE, tagKeys=["lab", "größe", "x y"])
    assert box.batch.list_tags_for_resource(resourceArn=QUEUE)["tags"] == {"keep": "-2F:"}


def test_an_operation_that_is_not_offered_says_so_by_name(box: Box) -> None:
    for call, request, name in (
        (box.batch.list_service_jobs, {}, "ListServiceJobs"),
        (box.logs.create_log_group, {"logGroupName": "x"}, "CreateLogGroup"),
    ):
        code, message = box.refusal(call, **request)
        assert (code, name in message) == ("NotImplemented", True)


def test_many_clients_at_once_each_get_their_own_answer(box: Box) -> None:
    large = [{"type": "VCPU", "value": "999"}, {"type": "MEMORY", "value": "64"}]
    definition = box.define("true", resourceRequirements=large)
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: box.submit(definition), range(40)))
    assert len(set(ids)) == 40
    assert {job["jobId"] for job in box.batch.describe_jobs(jobs=ids)["jobs"]} == set(ids)


# --- requests made by hand


@pytest.mark.usefixtures("no_garbage")
def test_a_wrong_request_is_answered_in_words_and_not_obeyed(door: Door) -> None:
    logs = {"service": "logs", "X_Amz_Target": "Logs_20140328.GetLogEvents"}
    for path, body, more, expected in (
        ("/v1/submitjob", '{"jobName": "x"}', {}, (400, "ClientException", "jobQueue")),
        ("/v1/describejobs", '{"jobs": [], "jobz": []}', {}, (400, "ClientException", "jobz")),
        ("/v1/describejobs", '{"jobs": "all"}', {}, (400, "ClientException", "jobs")),
        ("/v1/describejobs", "{", {}, (400, "SerializationException", "JSON")),
        ("/v1/describejobs", "[" * 100_000, {}, (400, "SerializationException", "JSON")),
        ("/v1/describejobs", "[]", {}, (400, "SerializationException", "JSON")),
        ("/v1/describejobs", b"\xff", {}, (400, "SerializationException", "JSON")),
        ("/v1/describeeverything", "{}", {}, (404, "UnknownOperationException", "describeeverything")),
        ("/", "{}", {}, (404, "UnknownOperationException", "/")),
        ("/", "{}", logs, (400, "InvalidParameterException", "logStreamName")),
        ("/x", "{}", logs, (404, "UnknownOperationException", "/x")),
        ("/", "{}", {**logs, "X_Amz_Target": "Logs_20140328.Dance"}, (404, "UnknownOperationException", "Dance")),
    ):
        status, answer = sent(door, "POST", path, signed(door, path, body, **more), body)
        found = (status, answer["__type"], expected[2] if expected[2] in answer["message"] else answer["message"])
        assert found == expected
    assert sent(door, "GET", LIST, signed(door, LIST, b"", method="GET"))[0] == 404
    path, null = "/v1/listjobs", '{"jobQueue": "highPriority", "nextToken": null, "filters": null}'
    assert sent(door, "POST", path, signed(door, path, null), null)[0] == 200


def test_a_body_without_a_good_length_is_not_read(door: Door) -> None:
    good = signed(door, LIST)
    for change, status in (
        ({"Content-Length": str(2**20 + 1)}, 413),
        ({"Content-Length": "many"}, 400),
        ({"Content-Length": "-1"}, 400),
        ({"Transfer-Encoding": "chunked"}, 411),
    ):
        assert sent(door, "POST", LIST, good | change)[0] == status
    assert sent(door, "POST", LIST, good, "{}")[0] == 200


def test_an_account_that_cannot_be_used_is_told_too(door: Door, account: Settings) -> None:
    (account.home / "batch.sqlite").write_text("not a database, " * 100)
    status, answer = sent(door, "POST", LIST, signed(door, LIST), "{}")
    (account.home / "batch.sqlite").unlink()
    assert (status, answer["__type"], "genokit local clean" in answer["message"]) == (500, "ServerException", True)
    (account.home / "batch.sqlite").mkdir()
    status, answer = sent(door, "POST", LIST, signed(door, LIST), "{}")
    (account.home / "batch.sqlite").rmdir()
    assert (status, answer["__type"], "cannot be used" in answer["message"]) == (500, "ServerException", True)


def test_one_connection_takes_many_requests_also_after_a_refusal(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.server_port, timeout=10)
    statuses = []
    for headers in (signed(door, LIST), {"Content-Length": "2"}, signed(door, LIST)):
        connection.request("POST", LIST, "{}", headers)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [200, 403, 200]


# --- who may ask


def test_what_is_not_signed_with_the_account_s_key_pair_is_refused(door: Door, account: Settings) -> None:
    path = "/v1/createschedulingpolicy"
    body, other = '{"name": "mine"}', '{"name": "evil"}'
    good = signed(door, path, body)
    loose = signed(door, "/", service="logs") | {"X-Amz-Target": "Logs_20140328.DescribeLogGroups"}
    promise = {"X_Amz_Content_Sha256": hashlib.sha256(body.encode()).hexdigest()}
    unsigned = {"X_Amz_Content_Sha256": "UNSIGNED-PAYLOAD"}
    invalid, incomplete = (403, "InvalidSignatureException"), (400, "IncompleteSignatureException")
    for name, where, headers, sent_body, expected in (
        ("no signature", path, {"Content-Length": "16"}, body, (403, "MissingAuthenticationTokenException")),
        ("another scheme", path, good | {"Authorization": "Basic bWU6bWU="}, body, incomplete),
        ("no date", path, {k: v for k, v in good.items() if k != "X-Amz-Date"}, body, incomplete),
        ("a wrong secret", path, signed(door, path, body, secret="x" * 40), body, invalid),
        ("an unknown key", path, signed(door, path, body, access="GENO0"), body, (403, "UnrecognizedClientException")),
        ("an altered body", path, good, other, invalid),
        ("a body not promised", path, signed(door, path, body, **promise), other, invalid),
        ("a body left open", path, signed(door, path, body, **unsigned), body, invalid),
        ("an altered path", "/v1/deleteschedulingpolicy", good, body, invalid),
        ("an added query", f"{path}?x=1", good, body, invalid),
        ("an unsigned target", "/", loose, "{}", invalid),
        ("an old date", path, signed(door, path, body, minutes=-6), body, invalid),
        ("a date to come", path, signed(door, path, body, minutes=6), body, invalid),
        ("another service", path, signed(door, path, body, service="sqs"), body, invalid),
        ("a signature in the address", f"{path}?X-Amz-Signature={'0' * 64}", {"Content-Length": "16"}, body,
         (403, "MissingAuthenticationTokenException")),
    ):  # fmt: skip
        status, answer = sent(door, "POST", where, headers, sent_body)
        assert (name, status, answer["__type"]) == (name, *expected)
    assert backends.clients(account).batch.list_scheduling_policies()["schedulingPolicies"] == []
    assert sent(door, "POST", path, good, body)[0] == 200
    # The same again is let in, as on AWS: it is the operation that refuses it.
    assert sent(door, "POST", path, good, body)[1]["__type"] == "ClientException"


def test_boto3_with_a_wrong_secret_is_told_so(door: Door) -> None:
    with through(door, aws_secret_access_key="x" * 40) as clients:
        for call, request in ((clients.batch.describe_job_queues, {}), (clients.logs.describe_log_groups, {})):
            with pytest.raises(ClientError) as caught:
                call(**request)
            assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:{}", 200), ("LocalHost", 200), ("127.0.0.1", 200), ("evil.org:{}", 403), ("127.0.0.1.evil.org", 403),
     ("localhost@evil.org", 403), ("10.0.0.1:{}", 403), ("", 403)],
)  # fmt: skip
def test_a_foreign_host_is_refused_even_with_a_good_signature(door: Door, host: str, status: int) -> None:
    headers = signed(door, LIST, Host=host.format(door.server_port))
    assert sent(door, "POST", LIST, headers, "{}")[0] == status


def test_the_door_is_on_the_loopback_alone_and_nothing_is_told_without_a_signature(door: Door) -> None:
    assert door.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection(("127.0.0.2", door.server_port), timeout=2)
    for path in ("/", "/health", "/v1/jobs", "/v1/describejobs"):
        status, answer = sent(door, "GET", path, {})
        assert (status, answer["message"]) == (403, "Missing Authentication Token")


def test_the_key_pair_is_its_owner_s_alone_and_stays_the_same(account: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from genokit.local.signatures import key_pair; "
        "print(key_pair(Path(sys.argv[1])).access_key)"
    )
    kernels = [
        subprocess.Popen([sys.executable, "-c", code, account.home], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    shown = {kernel.communicate(timeout=240)[0] for kernel in kernels}
    assert len(shown) == 1
    file = account.home / "credentials"
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in account.home.iterdir()) == [".gitignore", "credentials"]
    with backends.door(account) as door:
        assert shown == {f"{door.key_pair.access_key}\n"}
        assert len(door.key_pair.secret_key) == 40
        assert door.key_pair.secret_key not in repr(door.key_pair)
    secret = file.read_text().split()[-1]
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        backends.door(account)
    file.chmod(0o600)
    file.write_text(f"aws_secret_access_key = {secret}")
    with pytest.raises(ConfigError, match="no key pair") as caught:
        backends.door(account)
    assert secret not in str(caught.value)


def test_a_port_that_is_taken_is_one_message(account: Settings, door: Door) -> None:
    with pytest.raises(ConfigError, match=rf"Port {door.server_port} of 127.0.0.1 .*Choose another"):
        backends.door(account, door.server_port)
    with pytest.raises(ConfigError, match="Port 99999 of"):
        backends.door(account, 99999)


# --- S3 and STS


def test_sts_says_who_asks(box: Box, door: Door) -> None:
    with through(door) as clients:
        sts = clients.client("sts")
        assert sts.get_caller_identity()["Account"] == "000000000000"
        with pytest.raises(ClientError) as caught:
            sts.get_session_token()
    assert caught.value.response["Error"]["Code"] == "InvalidAction"


def test_a_large_body_must_be_the_one_that_was_signed(door: Door, account: Settings) -> None:
    body = b"x" * (3 * 2**20)
    digest = hashlib.sha256(body).hexdigest()
    length = {"Content-Length": str(len(body))}
    good = s3_signed(door, "PUT", "/genokit/big", digest) | length
    status, answer = raw(door, "PUT", "/genokit/big", good, b"y" + body[1:])
    assert (status, b"<Code>XAmzContentSHA256Mismatch</Code>" in answer) == (400, True)
    for name, headers in (
        ("unsigned", s3_signed(door, "PUT", "/genokit/big", "UNSIGNED-PAYLOAD") | length),
        ("in chunks", s3_signed(door, "PUT", "/genokit/big", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") | length),
        ("a wrong key", good | {"Authorization": good["Authorization"].replace("GENO", "GEN0")}),
    ):
        # Refused before the body comes: the client waits to be told to go on.
        status, answer = raw(door, "PUT", "/genokit/big", headers | {"Expect": "100-continue"})
        assert (name, status) == (name, 403)
        assert b"<Error><Code>" in answer
    assert backends.clients(account).s3.list_objects_v2(Bucket="genokit")["KeyCount"] == 0
    assert not list((account.home / "s3" / ".parts").iterdir())
    assert raw(door, "PUT", "/genokit/big", good, body)[0] == 200


def test_reading_a_bucket_that_is_not_the_account_s_does_not_go_out_through_the_door(door: Door) -> None:
    with through(door) as clients, pytest.raises(ClientError) as caught:
        clients.s3.get_object(Bucket="open-data", Key="a")
    assert caught.value.response["Error"]["Code"] == "NoSuchBucket"


# --- what jobs get


def test_a_job_finds_the_door_and_its_credentials_as_ecs_gives_them(box: Box, account: Settings) -> None:
    code = (
        "import boto3, os; print(os.environ['AWS_EXECUTION_ENV']); "
        "print(boto3.client('sts').get_caller_identity()['Account']); "
        "boto3.client('s3').put_object(Bucket='genokit', Key='from/job', Body=b'made'); "
        "print(boto3.client('batch').describe_jobs(jobs=[os.environ['AWS_BATCH_JOB_ID']])['jobs'][0]['status'])"
    )
    job_id = box.submit(box.define("python", "-c", code))
    assert box.wait(job_id)["status"] == "SUCCEEDED", box.written(job_id)
    assert box.written(job_id) == ["AWS_ECS_EC2", "000000000000", "RUNNING"]
    assert backends.clients(account).s3.get_object(Bucket="genokit", Key="from/job")["Body"].read() == b"made"


def test_the_secret_is_in_no_variable_no_store_and_no_log_of_a_job(box: Box, door: Door, account: Settings) -> None:
    job_id = box.submit(box.define("env"))
    box.wait(job_id)
    said = "\n".join(box.written(job_id))
    assert f"AWS_CONTAINER_CREDENTIALS_FULL_URI={door.url}/v1/credentials" in said
    secrets = {"credentials": door.key_pair.secret_key, "door.token": door.token}
    for file in sorted(path for path in account.home.rglob("*") if path.is_file()):
        holds = [name for name, secret in secrets.items() if secret.encode() in file.read_bytes()]
        assert (file.name, holds) == (file.name, [file.name] if file.name in secrets else [])
        assert not holds or file.stat().st_mode & 0o077 == 0


def test_the_credentials_are_told_to_who_shows_the_token_alone(door: Door) -> None:
    for headers, status in (
        ({}, 403),
        ({"Authorization": "x"}, 403),
        ({"Authorization": "ü"}, 403),
        ({"Authorization": door.token[:-1]}, 403),
        ({"Authorization": door.token, "Host": "evil.org"}, 403), ({"Authorization": door.token}, 200),
    ):  # fmt: skip
        found, answer = sent(door, "GET", "/v1/credentials", headers)
        assert (headers, found, "SecretAccessKey" in answer) == (headers, status, status == 200)
    assert sent(door, "POST", "/v1/credentials", {"Authorization": door.token, "Content-Length": "0"})[0] != 200


def test_a_job_with_credentials_of_its_own_or_without_an_open_door_is_left_alone(account: Settings) -> None:
    box = Box(account)
    own = [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIAEXAMPLE"}]
    shut = box.submit(box.define("env"))
    box.wait(shut)
    with served(account) as door:
        theirs, ours = box.submit(box.define("env", environment=own)), box.submit(box.define("env"))
        for job_id in (theirs, ours):
            box.wait(job_id)
        with served(account):  # a second door leaves jobs to the first
            second = box.submit(box.define("env"))
            box.wait(second)
        for job_id, led in ((shut, False), (theirs, False), (ours, True), (second, True)):
            assert (f"AWS_ENDPOINT_URL={door.url}" in box.written(job_id)) == led


def test_the_kit_s_own_way_out_to_public_data_does_not_lead_to_the_door(
    account: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "amazonaws.com" in backends.clients(account).s3.meta.endpoint_url


# --- the command, and the AWS CLI


def aws(environment: dict[str, str], *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "awscli", *arguments, "--output", "json"],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_aws_cli_submits_describes_and_reads_a_log_with_what_the_command_prints(
    account: Settings, tmp_path: Path
) -> None:
    served = subprocess.Popen(
        [sys.executable, "-m", "genokit", "local", "serve", "--verbose"],
        env={**os.environ, **account.environ(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = ""
    while "Ctrl-C" not in said:
        line = served.stdout.readline()
        assert line, served.stderr.read()
        said += line
    # What a shell would make of the lines that are meant for it.
    lines = "\n".join(line for line in said.splitlines() if line.startswith(("export", "unset")))
    shell = subprocess.run(["sh", "-c", f"{lines}\nenv -0"], capture_output=True, text=True, check=True).stdout
    environment = dict(pair.split("=", 1) for pair in shell.split("\0") if pair)
    environment |= {"AWS_CONFIG_FILE": str(tmp_path / "none"), "PYTHONWARNINGS": "ignore"}
    container = {
        "image": "genokit",
        "command": ["echo", "Ref::word"],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}],
    }
    aws(environment, "batch", "register-job-definition", "--job-definition-name", "say", "--type", "container",
        "--container-properties", json.dumps(container))  # fmt: skip
    job_id = aws(environment, "batch", "submit-job", "--job-name", "hello", "--job-queue", "lowPriority",
                 "--job-definition", "say", "--parameters", "word=hello")["jobId"]  # fmt: skip
    inside = Box(account)
    inside.wait(job_id)
    job = aws(environment, "batch", "describe-jobs", "--jobs", job_id)["jobs"][0]
    assert job == inside.describe(job_id)
    page = aws(environment, "logs", "get-log-events", "--log-group-name", "/aws/batch/job",
               "--log-stream-name", job["container"]["logStreamName"])  # fmt: skip
    assert [event["message"] for event in page["events"]] == ["hello"]
    served.send_signal(signal.SIGINT)
    rest, log = served.communicate(timeout=240)
    assert (served.returncode, rest) == (0, "")
    asked = re.findall(r"\] (.+) HTTP/1.1 (.+)", log)
    assert asked == [
        ("POST /v1/registerjobdefinition", "- 200"),
        ("POST /v1/submitjob", "- 200"),
        ("POST /v1/describejobs", "- 200"),
        ("POST /", "Logs_20140328.GetLogEvents 200"),
    ]
    assert len(log.splitlines()) == 4
    secret = (account.home / "credentials").read_text().split()[-1]
    assert secret not in said + log


def test_the_environment_leads_past_a_proxy(account: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with backends.door(account) as door:
        assert not [line for line in door.environment("us-east-1") if "NO_PROXY" in line]
        monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
        assert door.environment("us-east-1")[-1].startswith("export NO_PROXY=")
